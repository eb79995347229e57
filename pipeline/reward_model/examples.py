"""What a training is given, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Targets = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """What is trained on, or picks the checkpoint.

    encoded: conversations as token ids; units: rows of `encoded` that a loss needs at once, shape (units, 1) for rated responses,
    (units, 2), the chosen first, for preferences; targets: labels (units, outputs; NaN: not rated), or strengths (units, 1);
    pairs: rows of `encoded`, the better response first, shape (pairs, 2), by which order is judged.
    """

    encoded: Sequence[Sequence[int]]
    units: npt.NDArray[np.int64]
    targets: Targets
    pairs: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each conversation."""
        return np.array([len(row) for row in self.encoded], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Tokens that an epoch sees."""
        return int(self.lengths[self.units].sum())


@dataclass(frozen=True)
class Trained:
    """A training: its curve (a row an evaluation), its log (a row a step), the trained weights of the chosen checkpoint, seconds of this run."""

    curve: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    best: Path
    seconds: float
