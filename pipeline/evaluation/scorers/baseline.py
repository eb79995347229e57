"""Scorers without a model: the length of a response, and chance."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.scorers.scorer import Conversation, Scored
from pipeline.evaluation.scorers.specs import BaselineSpec


class Baseline:
    """Scores that any model should beat: a response's length in characters, or a number from 0 to 1 drawn by its conversation's hash."""

    device = None
    outputs: tuple[str, ...] = ("reward",)

    def __init__(self, spec: BaselineSpec) -> None:
        self.name: str = spec.kind
        self._seed = spec.seed
        self.version = f"seed {spec.seed}" if spec.kind == "random" else "1"
        self.identity: dict[str, Any] = {"baseline": spec.kind} | ({"seed": spec.seed} if spec.kind == "random" else {})

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        """See `Scorer.score`."""
        value = (lambda c: float(len(c.response))) if self.name == "longest" else self._drawn
        found = np.array([[value(c)] for c in conversations], dtype=np.float64).reshape(-1, 1)
        n = len(conversations)
        yield Scored(np.arange(n), found, np.zeros(n, np.int64), np.zeros(n, dtype=bool))

    def _drawn(self, conversation: Conversation) -> float:
        digest = hashlib.sha256(f"{self._seed}\0".encode() + conversation.content()).digest()
        return int.from_bytes(digest[:8]) / 2**64
