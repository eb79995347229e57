"""Rows of a file as people bring them: conversations with a response and the ratings that there are, or with two responses, one preferred.

| fields | what they are |
|---|---|
| `prompt`, `response` | a text, with earlier turns as in nvidia/HelpSteer2's files, or a list of messages; the response, or a list that holds it |
| `messages` | a list of messages that ends with the response, or, beside `response`, before it |
| the attributes | a number from 0 to 4, whole or a mean; absent, empty or null: not rated |
| `chosen`, `rejected` | two responses to `prompt`, or two whole conversations that differ in the last message; `strength`, if any, above 0 |
| `rated_by`, `simulated`, `desk` | who rated, as this project's own tables say it |

In CSV a list is JSON. Other fields are left out.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from pipeline.forms.helpsteer import messages_of
from pipeline.forms.ratings import FieldError
from pipeline.records import FileError, Unreadable, ending_of, json_list, records, unstorable
from pipeline.reward_model.sources import PREFERRED_ROWS, RATED_ROWS, context_id
from pipeline.vocabulary import ATTRIBUTES, RatedBy

Messages = list[dict[str, str]]
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".csv.gz", ".parquet", ".json", ".json.gz")
ROLES = ("system", "user", "assistant")
LEAST_OF_PEOPLE: tuple[RatedBy, ...] = ("simulated annotators", "language models", "people")
"""Where rows say different things of who rated, the first of these is said of all."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file, in the schemas RATED_ROWS (null: not rated) and PREFERRED_ROWS; who rated, if the file says so."""

    rated: pa.Table
    preferred: pa.Table
    rated_by: RatedBy | None


def read(path: Path) -> Rows:
    """All rows of a file, in order. Raises FileError with the first row that can't be used, and how many there are."""
    rated, preferred, said = list[dict[str, Any]](), list[dict[str, Any]](), set[str]()
    faults, positions = list[str](), Counter[str]()
    for line, record in _records(path):
        try:
            row = _row(record)
        except FieldError as error:
            faults.append(f"{path}:{line}: {error}" if line else f"{path}: {error}")
            continue
        if by := _rated_by(record):
            said.add(by)
        if "chosen" in row:
            preferred.append(row)
        else:
            positions[row["prompt_id"]] += 1
            position = positions[row["prompt_id"]]
            rated.append(row | {"position": position, "response_id": f"{row['prompt_id'][:24]}-{position}"})
    if faults:
        raise FileError(f"{faults[0]}. Rows that can't be used: {len(faults)}")
    if not rated and not preferred:
        raise FileError(f"{path}: holds no row")
    by = next((who for who in LEAST_OF_PEOPLE if who in said), None)
    return Rows(
        pa.Table.from_pylist(rated, schema=RATED_ROWS), pa.Table.from_pylist(preferred, schema=PREFERRED_ROWS), by
    )


def _records(path: Path) -> Iterator[tuple[int | None, Any]]:
    whole = ending_of(path, ENDINGS) in (".json", ".json.gz")
    return json_list(path) if whole else records(path)


def _row(record: Any) -> dict[str, Any]:
    if isinstance(record, Unreadable):
        raise FieldError("", record.reason)
    if not isinstance(record, Mapping):
        raise FieldError("", f"the row is a {type(record).__name__}, not a record")
    if record.get("chosen") is not None or record.get("rejected") is not None:
        return _preference(record)
    messages, response = _answered(record)
    row: dict[str, Any] = {"prompt_id": context_id(messages), "messages": messages, "response": response}
    return row | {a: _level(record.get(a), a) for a in ATTRIBUTES}


def _answered(record: Mapping[str, Any]) -> tuple[Messages, str]:
    """The conversation and the response of a record."""
    before = "messages" if record.get("messages") is not None else "prompt"
    given = _of_cell(record.get(before))
    if given is None:
        raise FieldError("prompt", "is missing, and so is messages: a row has one of them")
    messages = messages_of(_text(given, before)) if isinstance(given, str) else _messages(given, before)
    if record.get("response") is not None:
        return _asked(messages, before), _response(record["response"], "response")
    if messages[-1]["role"] != "assistant":
        raise FieldError("response", f"is missing, and {before} does not end with the assistant's message")
    return _asked(messages[:-1], before), messages[-1]["content"]


def _preference(record: Mapping[str, Any]) -> dict[str, Any]:
    sides = {name: _of_cell(record.get(name)) for name in ("chosen", "rejected")}
    for name, side in sides.items():
        if side is None:
            raise FieldError(name, "is missing")
    if record.get("prompt") is not None:
        given = _of_cell(record["prompt"])
        messages = messages_of(_text(given, "prompt")) if isinstance(given, str) else _messages(given, "prompt")
        chosen, rejected = (_response(side, name) for name, side in sides.items())
    else:
        whole = {name: _messages(side, name) for name, side in sides.items()}
        messages = whole["chosen"][:-1]
        if whole["rejected"][:-1] != messages:
            raise FieldError("rejected", "differs from chosen before the last message")
        chosen, rejected = (_response(side[-1:], name) for name, side in whole.items())
    strength = record.get("strength")
    value = 1.0 if strength in (None, "") else _number(strength, "strength")
    if value <= 0:
        raise FieldError("strength", f"is {value:g}, not above 0")
    messages = _asked(messages, "prompt" if record.get("prompt") is not None else "chosen")
    return {"prompt_id": context_id(messages), "messages": messages, "chosen": chosen, "rejected": rejected,
            "strength": value}  # fmt: skip


def _of_cell(value: Any) -> Any:
    """A value; of a text that is a JSON list of messages, as in CSV, the list."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        with suppress(ValueError):
            found = json.loads(value)
            if all(isinstance(message, dict) and "role" in message for message in found):
                return found
    return value


def _messages(given: Any, name: str) -> Messages:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise FieldError(name, f"is a {type(given).__name__}, neither a text nor a list of messages")
    found = []
    for message in given:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise FieldError(name, f"has a message whose role is {str(role)[:40]!r}, none of {', '.join(ROLES)}")
        found.append({"role": role, "content": _text(message.get("content"), name)})
    return found


def _asked(messages: Messages, name: str) -> Messages:
    if not messages or messages[-1]["role"] != "user":
        raise FieldError(name, "has no user's message before the response")
    return messages


def _response(given: Any, name: str) -> str:
    given = _of_cell(given)
    if isinstance(given, str):
        return _text(given, name)
    messages = _messages(given, name)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise FieldError(name, "is a list, but not of the assistant's one message")
    return messages[0]["content"]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise FieldError(name, "is missing" if value is None else f"is a {type(value).__name__}, not a text")
    if fault := unstorable(value):
        raise FieldError(name, fault)
    return value


def _level(value: Any, name: str) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, list) or str(value).startswith("["):
        raise FieldError(
            name, "is a list of ratings; make labels of them first: python -m pipeline.annotations consensus IN OUT"
        )
    level = _number(value, name)
    if math.isnan(level):
        return None
    if not 0 <= level <= 4:
        raise FieldError(name, f"is {level:g}, not a number from 0 to 4")
    return level


def _number(value: Any, name: str) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise FieldError(name, f"is {str(value)[:40]!r}, not a number") from None


def _rated_by(record: Mapping[str, Any]) -> RatedBy | None:
    said = record.get("rated_by")
    if said in get_args(RatedBy):
        return said
    if record.get("desk") == "simulated" or str(record.get("simulated")).lower() in ("true", "1"):
        return "simulated annotators"
    return "language models" if record.get("desk") == "models" else None
