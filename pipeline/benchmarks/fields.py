"""Fields of a benchmark's record. Each function raises FieldError, with the field's name and what is wrong."""

from collections.abc import Mapping
from typing import Any

from pipeline.forms.conversations import asked, messages_of, of_cell, text_of, two_responses
from pipeline.forms.ratings import FieldError


def value(record: Mapping[str, Any], name: str) -> Any:
    """What a field holds."""
    if name not in record:
        raise FieldError(name, "is missing")
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
        raise FieldError(name, "is not a list of responses, or is empty")
    return [_text(one, name, blank=True) for one in given]


def identity(record: Mapping[str, Any], name: str, line: int | None) -> str:
    """The record's id as text; without one its line."""
    given = record.get(name)
    return str(line if given is None else given)


def prompt(record: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """A prompt as messages: a text is one turn of the user; a list of messages must end with the user's."""
    given = of_cell(value(record, name))
    if isinstance(given, str):
        return [{"role": "user", "content": text(record, name)}]
    return asked(messages_of(given, name), name)


def two(record: Mapping[str, Any], blank: bool) -> tuple[list[dict[str, str]], str, str]:
    """The prompt as messages, the chosen and the rejected response: see `two_responses`. blank: whether a response may be blank."""
    messages, *found = two_responses(record, None if record.get("prompt") is None else prompt(record, "prompt"))
    for name, response in zip(("chosen", "rejected"), found, strict=True):
        if not blank and not response.strip():
            raise FieldError(name, "is blank")
    return messages, found[0], found[1]


def conversation(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of a record of any kind: the first field of prompt, messages, conversation and chosen that is there; a text is the user's."""
    name = next(
        (name for name in ("prompt", "messages", "conversation", "chosen") if record.get(name) is not None), "prompt"
    )
    return (
        prompt(record, name)
        if isinstance(of_cell(value(record, name)), str)
        else messages_of(of_cell(record[name]), name)
    )


def item(
    subset: str,
    item_id: str,
    messages: list[dict[str, str]],
    good: list[str],
    others: list[str],
    problem: str | None = None,
) -> dict[str, Any]:
    """A row of ITEMS without its benchmark and cluster: the good responses first. problem: what it is about, if other items are too."""
    row = {"subset": subset, "item_id": item_id, "messages": messages, "responses": [*good, *others]}
    return row | {"good": [True] * len(good) + [False] * len(others), "problem": problem}


def _text(given: Any, name: str, blank: bool) -> str:
    found = text_of(given, name)
    if not blank and not found.strip():
        raise FieldError(name, "is blank")
    return found
