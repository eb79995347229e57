"""Conversations that are in pieces over records: single messages put together, and later pieces of what was cut told from beginnings."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.prompts.shapes import Found, UnusableError, ends_answered

Placed = tuple[str, int, Any]
"""File, number in it, and content of a record."""

LARGEST = 10_000
"""Messages of a tree that are put together; those beyond are replies without what they answer to."""
_NUMBER = re.compile(r"[0-9]{1,6}")


class Pieces:
    """Tells later pieces of conversations that were cut, in the order in which a source has its records.

    ShareGPT's files have such: their ids end in the number of turns that come before, X_0 and then X_14 where X_0 has 14 turns. So a record
    is a later piece where it follows one of the same X right away, its number is that one's with its turns added, and that one ended with
    an answer. Ids that count records (q_1, q_2, ...) don't look so. Pieces that begin with an answer are no beginning anyway.
    """

    def __init__(self) -> None:
        self._before: tuple[str, str, Found] | None = None

    def later(self, record: Any, found: Found) -> bool:
        """Whether a record is a later piece of the one before it."""
        before, identity = self._before, record.get("id") if isinstance(record, Mapping) else None
        stem, _, number = identity.rpartition("_") if isinstance(identity, str) else ("", "", "")
        self._before = (stem, number, found) if stem and _NUMBER.fullmatch(number) else None
        if not before or not self._before or before[0] != stem:
            return False
        return int(number) == int(before[1]) + len(before[2].turns) and ends_answered(before[2])


def put_together(records: Iterable[Placed]) -> Iterator[Placed]:
    """The records; of those that are single messages, as OASST's rows are, each tree as one record, {"prompt": root with its `replies`}.

    A message has `message_id`, `parent_id` and `role`. The record's place is that of its root. The rows of a tree stand one after another,
    a message before its replies; a row whose parent isn't among them is no conversation's beginning.
    """
    tree: Placed | None = None
    nodes: dict[str, dict[str, Any]] = {}
    for file, number, record in records:
        message_of_tree = (
            isinstance(record, Mapping) and "parent_id" in record and "message_id" in record and "role" in record
        )
        parent = (record["parent_id"] or None) if message_of_tree else None
        if tree and parent is None:
            yield tree
            tree, nodes = None, {}
        if not message_of_tree:
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
