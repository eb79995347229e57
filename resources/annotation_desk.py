"""Annotation desks: where tasks go and ratings come from."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations import files, published, simulated
from pipeline.annotations import tasks as asking
from pipeline.annotations.schema import QUARANTINE
from pipeline.settings import PROJECT, FilesDesk, HelpSteer2Desk, Profile, SimulatedDesk


class AnnotationDesk(dg.ConfigurableResource):
    """Publishes tasks, and collects the ratings that were asked for. `round_` 1 is for the first annotators, 2 where those disagree."""

    def wanted(self, tasks: pa.Table, annotators: int) -> pa.Table:
        """The first ratings that this desk is asked for: `annotators` for each response of the tasks; schema WANTED."""
        return asking.wanted_at_first(tasks, annotators)

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


class RecordedRatings(AnnotationDesk):
    """Ratings that exist already, with the responses that they rate: see `pipeline.annotations.published`."""

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

    def collect(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The recorded ratings of the tasks."""
        found = self.recorded()
        mine = pc.is_in(found.annotations["response_id"], wanted["response_id"].combine_chunks())
        return found.annotations.filter(mine), found.quarantine


def desk_of(profile: Profile) -> AnnotationDesk:
    """The desk that a profile names."""
    match profile.annotations.desk:
        case SimulatedDesk() as desk:
            return SimulatedAnnotators(**desk.model_dump(exclude={"kind"}), seed=profile.seed)
        case FilesDesk(folder=folder):
            return DropFolder(folder=folder)
        case HelpSteer2Desk() as desk:
            return RecordedRatings(**desk.model_dump(exclude={"kind"}))
