"""Annotation desks: where tasks go and ratings come from."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from pipeline.annotations import files, simulated
from pipeline.annotations.schema import QUARANTINE
from pipeline.settings import PROJECT, FilesDesk, Profile, SimulatedDesk


class AnnotationDesk(dg.ConfigurableResource):
    """Publishes tasks, and collects the ratings that were asked for. `round_` 1 is for the first annotators, 2 where those disagree."""

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Give tasks (schema TASKS) to annotators, for the ratings WANTED; where they went, in words."""
        raise NotImplementedError

    def collect(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Their ratings (schema ANNOTATIONS) and what could not be used (schema QUARANTINE).

        Raises `NotFinishedError` while ratings are missing.
        """
        raise NotImplementedError


class SimulatedAnnotators(AnnotationDesk):
    """The seeded panel of `pipeline.annotations.simulated`."""

    annotators: int
    careless_share: float
    noise: float
    bias: float
    seed: int

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Nothing leaves the process."""
        return f"{self.annotators} simulated annotators"

    def collect(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Rate at once."""
        panel = SimulatedDesk(
            kind="simulated",
            annotators=self.annotators,
            careless_share=self.careless_share,
            noise=self.noise,
            bias=self.bias,
        )
        return simulated.rate(tasks, wanted, round_, panel, self.seed), QUARANTINE.empty_table()


class DropFolder(AnnotationDesk):
    """Tasks as files in `<folder>/<delivery>/round_<n>/`, ratings from its folder `ratings`."""

    folder: str

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Write the tasks' file."""
        return str(files.write_tasks(tasks, wanted, self._place(delivery, round_)))

    def collect(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Read the ratings' files."""
        return files.read_ratings(wanted, round_, self._place(delivery, round_))

    def _place(self, delivery: str, round_: int) -> Path:
        return PROJECT / Path(self.folder).expanduser() / delivery / f"round_{round_}"


def desk_of(profile: Profile) -> AnnotationDesk:
    """The desk that a profile names."""
    match profile.annotations.desk:
        case SimulatedDesk() as desk:
            return SimulatedAnnotators(**desk.model_dump(exclude={"kind"}), seed=profile.seed)
        case FilesDesk(folder=folder):
            return DropFolder(folder=folder)
