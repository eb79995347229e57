"""Conversations that are in pieces over records: single messages put together, and later pieces of what was cut told from beginnings."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.prompts.shapes import Found, UnusableError, ends_answered

Placed = tuple[str, int, Any]
"""File, number in it, and content of a record."""

LARGEST = 10_000
"""Messages of a tree that are put together; those beyond are replies without what they answer to."""
_NUMBERED = re.compile(r"(.+)_(\d{1,6})", re.DOTALL)


class Pieces:
    """Tells later pieces of conversations that were cut, in the order in which a source has its records.

    ShareGPT's files have such: their ids end in the number of turns that come before, X_0 and then X_14 where X_0 has 14 turns. So a record
    is a later piece where it follows one of the same X right away, its number is that one's with its turns added, and that one ended with
    an answer. Ids that count records (q_1, q_2, ...) don't look so. Pieces that begin with an answer are no beginning anyway.
    """

    def __init__(self) -> None:
        self._expected: str | None = None

    def later(self, record: Any, found: Found) -> bool:
        """Whether a record is a later piece of the one before it."""
        identity = record.get("id") if isinstance(record, Mapping) else None
        numbered = _NUMBERED.fullmatch(identity) if isinstance(identity, str) else None
        if not numbered:
            self._expected = None
            return False
        later = identity == self._expected
        going_on = ends_answered(found)
        self._expected = f"{numbered[1]}_{int(numbered[2]) + len(found.turns)}" if going_on else None
        return later


def put_together(records: Iterable[Placed]) -> Iterator[Placed]:
    """The records; of those that are single messages, as OASST's rows are, each tree as one record, {"prompt": root with its `replies`}.

    A message has `message_id`, `parent_id` and `role`. The record's place is that of its root. The rows of a tree stand one after another,
    a message before its replies; a row whose parent isn't among them is no conversation's beginning.
    """
    tree: Placed | None = None
    nodes: dict[str, dict[str, Any]] = {}
    for file, number, record in records:
        alone = not isinstance(record, Mapping) or not {"message_id", "parent_id", "role"} <= record.keys()
        parent = None if alone else record["parent_id"] or None
        if tree and parent is None:
            yield tree
            tree, nodes = None, {}
        if alone:
            yield file, number, record
            continue
        message = {**record, "replies": list[Any]()}
        if parent is None:
            tree = (file, number, {"prompt": message})
        elif str(parent) in nodes and len(nodes) < LARGEST:
            nodes[str(parent)]["replies"].append(message)
        else:
            why = "the message replies to one that does not stand before it in the same tree"
            yield file, number, UnusableError("starts_mid_conversation", why)
            continue
        nodes[str(record["message_id"])] = message
    if tree:
        yield tree
