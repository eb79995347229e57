"""A training that is cut off after a step, as a test does it."""

from typing import Any

import pytest


class CutOffError(Exception):
    """What cuts a training off."""


class Tracker:
    """Keeps the names of figures, and cuts a training off after a step."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.names = after, set[str]()

    def add(self, figures: dict[str, float], step: int) -> None:
        """Take a step's figures."""
        self.names |= set(figures)
        if step == self.after:
            raise CutOffError


def assert_same(curve: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Two curves have the same figures, the seconds aside."""
    for one, two in zip(curve, other, strict=True):
        assert two | {"seconds": 0} == pytest.approx(one | {"seconds": 0}, abs=1e-5)
