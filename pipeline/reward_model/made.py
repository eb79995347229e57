"""What training a recipe made, before it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Made:
    """What training made: how to write the model, its curve and steps, and figures."""

    save: Callable[[Path], None]
    curve: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    baseline: dict[str, float]
    figures: dict[str, Any]
