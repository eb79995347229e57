"""What an annotation desk is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import dagster as dg
import pyarrow as pa

from pipeline.annotations import tasks as asking

Ask = Callable[[str, pa.Table], pa.Table]
"""Has the language models of a checkpoint (its name) answer QUESTIONS; MODEL_RATINGS. Each call starts an engine, where one is needed."""


class AnnotationDesk(dg.ConfigurableResource["AnnotationDesk"], ABC):
    """Publishes tasks, and collects the ratings that were asked for. `round_` 1 is for the first annotators, 2 where those disagree.

    A row's `desk` is the kind of the desk's section in the profile, and `simulated` is true where that says so: other rows are not published.
    """

    def wanted(self, tasks: pa.Table, annotators: int) -> pa.Table:
        """The first ratings that this desk is asked for: `annotators` for each response of the tasks; schema WANTED."""
        return asking.wanted_at_first(tasks, annotators)

    @abstractmethod
    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        """Give tasks (schema TASKS) to annotators, for the ratings WANTED; where they went, in words."""

    @abstractmethod
    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        """Their ratings (schema ANNOTATIONS) and what could not be used (schema QUARANTINE).

        Raises `NotFinishedError` while ratings are missing.
        """

    def owed(self, wanted: pa.Table, quarantine: pa.Table) -> pa.Table:
        """The ratings of WANTED that must be there before they are published, given what could not be used: all of them."""
        return wanted
