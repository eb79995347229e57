"""Desk `models`: a panel of language models."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations import panel
from resources.desks.desk import AnnotationDesk, Ask


class ModelPanel(AnnotationDesk):
    """Has a panel of language models rate, as `pipeline.annotations.panel` draws them."""

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
