"""Fields of a benchmark's record. Each function raises ValueError with the field's name and what is wrong."""

from collections.abc import Mapping
from typing import Any

from pipeline.records import unstorable

ROLES = ("system", "user", "assistant")


def value(record: Mapping[str, Any], name: str) -> Any:
    """What a field holds."""
    if name not in record:
        raise ValueError(f"field {name} is missing")
    return record[name]


def text(record: Mapping[str, Any], name: str) -> str:
    """A text that isn't blank."""
    return _text(value(record, name), name, blank=False)


def response(record: Mapping[str, Any], name: str) -> str:
    """A text, which may be empty: that is an answer too."""
    return _text(value(record, name), name, blank=True)


def responses(record: Mapping[str, Any], name: str) -> list[str]:
    """A list of at least one text, any of which may be empty."""
    given = value(record, name)
    if not isinstance(given, list) or not given:
        raise ValueError(f"field {name} is not a list of responses, or is empty")
    return [_text(one, name, blank=True) for one in given]


def identity(record: Mapping[str, Any], name: str, line: int | None) -> str:
    """The record's id as text; without one its line."""
    given = record.get(name)
    return str(line if given is None else given)


def prompt(record: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """A prompt as messages: a text is one turn of the user; a list of messages must end with the user's."""
    given = value(record, name)
    if isinstance(given, str):
        return [{"role": "user", "content": text(record, name)}]
    good = isinstance(given, list) and all(
        isinstance(m, Mapping) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in given
    )
    if not good or not given or given[-1]["role"] != "user":
        raise ValueError(f"field {name} is neither a text nor a list of messages that ends with the user's")
    return [{"role": m["role"], "content": _text(m["content"], name, blank=True)} for m in given]


def item(
    subset: str, item_id: str, messages: list[dict[str, str]], good: list[str], others: list[str]
) -> dict[str, Any]:
    """A row of ITEMS without its benchmark: the good responses first."""
    row = {"subset": subset, "item_id": item_id, "messages": messages, "responses": [*good, *others]}
    return row | {"good": [True] * len(good) + [False] * len(others)}


def _text(given: Any, name: str, blank: bool) -> str:
    if not isinstance(given, str):
        raise ValueError(f"field {name} is a {type(given).__name__}, not a text")
    if not blank and not given.strip():
        raise ValueError(f"field {name} is blank")
    if fault := unstorable(given):
        raise ValueError(f"field {name} {fault}")
    return given
