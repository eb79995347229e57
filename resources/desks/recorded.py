"""Desk `helpsteer2`: ratings that exist already."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations import published
from pipeline.settings import PROJECT
from resources.desks.desk import AnnotationDesk, Ask


class RecordedRatings(AnnotationDesk):
    """Takes ratings that exist already, with the responses that they rate; see `pipeline.annotations.published`."""

    hub: str
    revision: str | None
    folder: str | None
    licence: str
    limit: int | None

    def recorded(self) -> published.Recorded:
        """All that is recorded."""
        folder = PROJECT / Path(self.folder).expanduser() if self.folder else None
        return published.load(self.hub, self.revision, folder, self.licence, self.limit)

    def wanted(self, tasks: pa.Table, annotators: int) -> pa.Table:
        """As many as there are, of each response: who was asked first is not recorded."""
        return published.wanted(tasks, self.recorded().annotations)

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Nobody is asked."""
        return f"nobody: ratings of {self.folder or self.hub} are taken"

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        """The recorded ratings of the tasks."""
        found = self.recorded()
        mine = pc.is_in(found.annotations["response_id"], wanted["response_id"].combine_chunks())
        return found.annotations.filter(mine), found.quarantine
