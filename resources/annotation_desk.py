"""Annotation desks: where tasks go and ratings come from."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations import files, panel, published, simulated
from pipeline.annotations import tasks as asking
from pipeline.annotations.schema import QUARANTINE
from pipeline.settings import PROJECT, FilesDesk, HelpSteer2Desk, ModelsDesk, Profile, SimulatedDesk

Ask = Callable[[str, pa.Table], pa.Table]
"""Has the language models of a checkpoint (its name) answer QUESTIONS; MODEL_RATINGS. Each call starts an engine, where one is needed."""


class AnnotationDesk(dg.ConfigurableResource):
    """Publishes tasks, and collects the ratings that were asked for. `round_` 1 is for the first annotators, 2 where those disagree."""

    def wanted(self, tasks: pa.Table, annotators: int) -> pa.Table:
        """The first ratings that this desk is asked for: `annotators` for each response of the tasks; schema WANTED."""
        return asking.wanted_at_first(tasks, annotators)

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Give tasks (schema TASKS) to annotators, for the ratings WANTED; where they went, in words."""
        raise NotImplementedError

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        """Their ratings (schema ANNOTATIONS) and what could not be used (schema QUARANTINE).

        Raises `NotFinishedError` while ratings are missing.
        """
        raise NotImplementedError

    def owed(self, wanted: pa.Table, quarantine: pa.Table) -> pa.Table:
        """The ratings of WANTED that must be there before they are published, given what could not be used: all of them."""
        return wanted


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

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
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

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
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

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        """The recorded ratings of the tasks."""
        found = self.recorded()
        mine = pc.is_in(found.annotations["response_id"], wanted["response_id"].combine_chunks())
        return found.annotations.filter(mine), found.quarantine


class ModelPanel(AnnotationDesk):
    """The panel of language models of `pipeline.annotations.panel`."""

    panel: dict[str, str]  # member -> checkpoint
    seed: int

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Nothing is given to people."""
        return f"{len(self.panel)} language models"

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        """Ask those who are drawn, one checkpoint after the other."""
        asked = panel.questions(tasks, wanted, list(self.panel), self.seed)
        rated = []
        for checkpoint in dict.fromkeys(self.panel.values()):
            members = [panel.annotator_id(name) for name, its in self.panel.items() if its == checkpoint]
            mine = asked.filter(pc.is_in(asked["annotator_id"], pa.array(members)))
            if len(mine):
                rated.append(ask(checkpoint, mine))
        return panel.collected(pa.concat_tables(rated), round_)

    def owed(self, wanted: pa.Table, quarantine: pa.Table) -> pa.Table:
        """What is in quarantine is not asked for again."""
        return panel.owed(wanted, quarantine)


def desk_of(profile: Profile) -> AnnotationDesk:
    """The desk that a profile names."""
    match profile.annotations.desk:
        case SimulatedDesk() as desk:
            return SimulatedAnnotators(**desk.model_dump(exclude={"kind"}), seed=profile.seed)
        case FilesDesk(folder=folder):
            return DropFolder(folder=folder)
        case HelpSteer2Desk() as desk:
            return RecordedRatings(**desk.model_dump(exclude={"kind"}))
        case ModelsDesk(panel=members):
            return ModelPanel(panel={name: m.checkpoint for name, m in members.items()}, seed=profile.seed)
