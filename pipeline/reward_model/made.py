"""What training a recipe made, before it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Refitted:
    """What is known of weights that were fitted again, on the development rows too, once these had judged the choice."""

    predictions: Floats
    """Of the development conversations by the weights that never saw them: shape (conversations, outputs)."""
    loss: float
    """Development loss of the weights that are written."""


@dataclass(frozen=True)
class Made:
    """What training made: how to write the model, its curve and steps, and figures."""

    save: Callable[[Path], None]
    curve: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    baseline: dict[str, float]
    figures: dict[str, Any]
    refitted: Refitted | None = None
