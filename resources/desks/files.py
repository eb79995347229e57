"""Desk `files`: tasks go out as a file, ratings come back in a folder."""

from pathlib import Path

import pyarrow as pa

from pipeline.annotations import files
from pipeline.forms.ratings import Habits
from pipeline.settings import PROJECT
from resources.desks.desk import AnnotationDesk, Ask


class DropFolder(AnnotationDesk):
    """Writes tasks as files into `<folder>/<delivery>/round_<n>/`, and reads ratings from the folder `ratings` in it."""

    folder: str
    columns: dict[str, str]
    scale: dict[str, dict[str, int]]

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Write the tasks' file."""
        return str(files.write_tasks(tasks, wanted, self._place(delivery, round_)))

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        """Read the ratings' files."""
        return files.read_ratings(wanted, round_, self._place(delivery, round_), Habits(self.columns, self.scale))

    def _place(self, delivery: str, round_: int) -> Path:
        return PROJECT / Path(self.folder).expanduser() / delivery / f"round_{round_}"
