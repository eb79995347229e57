"""Conversations that are kept as trees: the one path through each that is read, or all of them."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any


def to_current(record: Mapping[str, Any]) -> list[Any]:
    """Messages of a conversation in ChatGPT's export, from its root to `current_node`; without one, to the last reply of the last reply.

    mapping: nodes by id, with `message`, `parent` and `children`. What the page hides (a user's standing instructions, say) is left out.
    """
    nodes, at = record["mapping"], record.get("current_node")
    if not isinstance(at, str) or at not in nodes:
        at = _last(nodes)
    said, passed = [], set[str]()
    while isinstance(at, str) and at not in passed and isinstance(node := nodes.get(at), Mapping):
        passed.add(at)
        said.append(node.get("message"))
        at = node.get("parent")
    return [message for message in reversed(said) if isinstance(message, Mapping) and not _hidden(message)]


def _last(nodes: Mapping[str, Any]) -> str | None:
    """Id of the node that the last child of each, from the root on, leads to."""
    at = next((name for name, node in nodes.items() if isinstance(node, Mapping) and node.get("parent") is None), None)
    for _ in nodes:
        node = nodes.get(at) if at else None
        children = node.get("children") if isinstance(node, Mapping) else None
        if not isinstance(children, list) or not children or not isinstance(children[-1], str):
            break
        at = children[-1]
    return at


def _hidden(message: Mapping[str, Any]) -> bool:
    about, content = message.get("metadata"), message.get("content")
    hidden = isinstance(about, Mapping) and about.get("is_visually_hidden_from_conversation") is True
    return hidden or (isinstance(content, Mapping) and content.get("content_type") == "user_editable_context")


def first_replies(root: Mapping[str, Any]) -> list[Any]:
    """Messages from the root of a tree (OASST: each has its `replies`) on: of several replies that of the least `rank`, else the first."""
    path: list[Any] = []
    at: Any = root
    while isinstance(at, Mapping):
        path.append(at)
        at = min(_replies(at), key=_rank, default=None)
    return path


def paths(root: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Every path from the root of a tree (OASST) to a message without replies, those through replies of the least `rank` first.

    Replies that reviewers refused (`review_result` false) are left out, with all below them.
    """
    path, waiting = list[Any](), [(0, root)]
    while waiting:
        depth, at = waiting.pop()
        path[depth:] = [at]
        among = sorted((r for r in _replies(at) if r.get("review_result") is not False), key=_rank)
        waiting += [(depth + 1, reply) for reply in reversed(among)]
        if not among:
            yield list(path)


def _replies(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The replies to a message that were not deleted."""
    replies = message.get("replies")
    among = replies if isinstance(replies, list) else []
    return [reply for reply in among if isinstance(reply, Mapping) and reply.get("deleted") is not True]


def _rank(reply: Mapping[str, Any]) -> Any:
    rank = reply.get("rank")
    return rank if isinstance(rank, int | float | Decimal) else float("inf")
