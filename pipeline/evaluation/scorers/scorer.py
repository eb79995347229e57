"""What a scorer is: the interface, and what it is given and gives."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.vocabulary import OUTPUTS

LEFT_OUT = "-"
"""Name of a model's output that is not kept."""


class Conversation(NamedTuple):
    """Messages, of which the last is the user's, and the response that is scored."""

    messages: Sequence[dict[str, str]]
    response: str

    def content(self) -> bytes:
        """All of it as bytes: equal for equal conversations, different for different ones."""
        turns = [[m["role"], m["content"]] for m in self.messages]
        return json.dumps([turns, self.response], ensure_ascii=False).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Scored:
    """Conversations that were scored together: `rows`, their places in what was asked for, and a value for each in the others.

    outputs: shape (rows, outputs), NaN where the scorer would not take one; tokens: that the model read; cut: whether the conversation
    was too long and lost its beginning.
    """

    rows: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]


class Scorer(Protocol):
    """Something that scores.

    name: for people; version: of its weights; outputs: names, of OUTPUTS; identity: all that a score depends on beside the conversation, as
    JSON takes it.
    """

    name: str
    version: str
    outputs: tuple[str, ...]
    identity: dict[str, Any]

    @property
    def device(self) -> str | None:
        """What it runs on; None where it needs nothing."""
        ...

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        """Score each conversation once, in any order; what is done comes at once."""
        ...


def kept_outputs(names: Sequence[str], given: Sequence[str] | None, model: str) -> tuple[tuple[str, ...], list[int]]:
    """Names of the outputs that are kept, and their places among the model's, whose own names are `names`.

    given: names to use instead. A single output that has no known name is the reward. Raises ValueError for names that mean nothing here.
    """
    if given and len(given) != len(names):
        raise ValueError(
            f"{model}: has {len(names)} outputs ({', '.join(names)}), but {len(given)} names were given ({', '.join(given)}); name each of them"
        )
    if not given and len(names) == 1 and names[0] not in OUTPUTS:
        given = ("reward",)
    named = list(given or names)
    places = [n for n, name in enumerate(named) if name != LEFT_OUT]
    kept = tuple(named[n] for n in places)
    if unknown := [name for name in kept if name not in OUTPUTS]:
        raise ValueError(
            f"{model}: its outputs {', '.join(unknown)} are none of those known here ({', '.join(OUTPUTS)}). If they mean these, name all outputs in "
            "their order with --outputs (`-` leaves one out)"
        )
    if not kept or len(set(kept)) < len(kept):
        raise ValueError(
            f"{model}: of the outputs {', '.join(named)} at least one must be kept, and each name may appear only once"
        )
    return kept, places
