"""Desk `simulated`: a seeded panel of simulated annotators."""

import pyarrow as pa

from pipeline.annotations import simulated
from pipeline.forms.rows import QUARANTINE
from pipeline.settings import SimulatedDesk
from resources.desks.desk import AnnotationDesk, Ask


class SimulatedAnnotators(AnnotationDesk):
    """Has a seeded panel of simulated annotators rate; see `pipeline.annotations.simulated`."""

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
