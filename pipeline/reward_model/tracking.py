"""Curves of a training, for a tracker. Imported only by workers."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class TensorBoard:
    """Writes every number that training logs as an event file in a folder, for `tensorboard --logdir`. A context manager."""

    def __init__(self, folder: Path, stage: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer, self._stage = SummaryWriter(str(folder)), stage

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, figures: Mapping[str, Any], step: int) -> None:
        """Add a step's figures: `loss` under the stage's name, and so on."""
        for name, value in figures.items():
            if isinstance(value, int | float) and name != "epoch":
                self._writer.add_scalar(f"{self._stage}/{name}", value, step)
