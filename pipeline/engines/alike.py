"""A fault of all requests, told from faults of single ones: refusals for the same reason, of conversations that follow one another."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise

from pipeline.engines.requests import Answer, Request

ALIKE = 32
"""Conversations after one another that are refused alike: the fault is not theirs."""
_WITH_DIGITS = re.compile(r"[\w-]*[0-9][\w-]*")


class Alike:
    """Counts conversations that follow one another in a run and are refused for the same reason.

    In the order of the requests, since an engine may tell what it refuses before anything else. The requests of one conversation count as
    one; those that were refused for the same reason in an earlier run don't count: they are asked again at every run, and are alone in that.
    """

    def __init__(self, requests: Sequence[Request], earlier: Mapping[str, str]) -> None:
        self._requests, self._earlier = requests, earlier
        self._reasons = dict[int, str]()

    @cached_property
    def _places(self) -> dict[str, int]:
        """The number of each request's conversation."""
        changes = (b.messages != a.messages for a, b in pairwise(self._requests))
        return dict(zip((r.key for r in self._requests), accumulate(changes, initial=0), strict=True))

    def answered(self, answer: Answer) -> None:
        """A conversation is not at fault."""
        if self._reasons:
            self._reasons.pop(self._places[answer.request_key], None)

    def refused(self, answer: Answer) -> int:
        """How many conversations around an answer's, itself among them, are refused as it is."""
        reason, place = reason_of(answer.detail), self._places[answer.request_key]
        if self._earlier.get(answer.request_key) == reason:
            return 0
        self._reasons[place] = reason
        first = last = place
        while self._reasons.get(first - 1) == reason:
            first -= 1
        while self._reasons.get(last + 1) == reason:
            last += 1
        return last + 1 - first


def reason_of(detail: str | None) -> str:
    """A reason without what differs from request to request: of what follows the first colon, words with a digit in them."""
    kind, _, rest = (detail or "").partition(":")
    return kind + _WITH_DIGITS.sub("#", rest)[:160]
