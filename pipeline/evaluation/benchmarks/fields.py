"""Fields of a benchmark's record. Each raises ValueError with the field and what is wrong with it."""

from collections.abc import Mapping
from typing import Any

ROLES = ("system", "user", "assistant")


def present(record: Mapping[str, Any], *names: str) -> None:
    """Nothing where all fields are there and not null."""
    for name in names:
        if record.get(name) is None:
            raise ValueError(f"field {name} is missing" if name not in record else f"field {name} is null")


def text(record: Mapping[str, Any], name: str) -> str:
    """A text that isn't blank."""
    present(record, name)
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {name} is not a text, or blank")
    return value


def identity(record: Mapping[str, Any], name: str, line: int | None) -> str:
    """The record's id as text; without one its line."""
    value = record.get(name)
    return str(line if value is None else value)


def prompt(record: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """A prompt as messages: a text is one turn of the user; a list of messages must end with the user's."""
    present(record, name)
    value = record[name]
    if isinstance(value, str):
        return [{"role": "user", "content": text(record, name)}]
    turns = messages(value)
    if turns is None or turns[-1]["role"] != "user":
        raise ValueError(f"field {name} is neither a text nor a list of messages that ends with the user's")
    return turns


def messages(value: Any) -> list[dict[str, str]] | None:
    """A list of messages with role and content alone; None where it is none, or has nothing in it."""
    good = isinstance(value, list) and all(
        isinstance(m, Mapping) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in value
    )
    return [{"role": m["role"], "content": m["content"]} for m in value] if good and value else None


def responses(record: Mapping[str, Any], name: str, count: int | None = None) -> list[str]:
    """A list of texts, none of them blank; `count` of them where given, else at least one."""
    present(record, name)
    value = record[name]
    if not isinstance(value, list) or not value or any(not isinstance(v, str) or not v.strip() for v in value):
        raise ValueError(f"field {name} is not a list of texts, or one is blank")
    if count is not None and len(value) != count:
        raise ValueError(f"field {name} has {len(value)} responses, not {count}")
    return list(value)


def item(
    subset: str, item_id: str, messages: list[dict[str, str]], good: list[str], others: list[str]
) -> dict[str, Any]:
    """A row of ITEMS without its benchmark: the good responses first."""
    row = {"subset": subset, "item_id": item_id, "messages": messages, "responses": [*good, *others]}
    return row | {"good": [True] * len(good) + [False] * len(others)}
