"""Rows of a file as people bring them: conversations with a response and the ratings that there are, or with two responses, one preferred.

| fields | what they are |
|---|---|
| `prompt`, `response` | a text, with earlier turns as in nvidia/HelpSteer2's files, or a list of messages; the response, or a list that holds it |
| `messages` | a list of messages that ends with the response, or, beside `response`, before it |
| the attributes | a number from 0 to 4, whole or a mean; absent, empty or null: not rated |
| `chosen`, `rejected` | two responses to `prompt`, or two whole conversations; `strength`, if any, above 0 |
| `rated_by`, `simulated`, `desk` | who rated, as this project's own tables say it |

In CSV a list is JSON. Other fields are left out.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from pipeline.forms import helpsteer
from pipeline.forms.conversations import Messages, asked, messages_of, of_cell, response_of, text_of, two_responses
from pipeline.forms.ratings import FieldError
from pipeline.records import FileError, Unreadable, any_records, ending_of
from pipeline.reward_model.sources import PREFERRED_ROWS, RATED_ROWS, context_id
from pipeline.vocabulary import ATTRIBUTES, RatedBy

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".csv.gz", ".parquet", ".json", ".json.gz")
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
    ending_of(path, ENDINGS)
    for line, record in any_records(path):
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
    given = of_cell(record.get(before))
    if given is None:
        raise FieldError("prompt", "is missing, and so is messages: a row has one of them")
    messages = helpsteer.messages_of(text_of(given, before)) if isinstance(given, str) else messages_of(given, before)
    if record.get("response") is not None:
        return asked(messages, before), response_of(record["response"], "response")[1]
    if messages[-1]["role"] != "assistant":
        raise FieldError("response", f"is missing, and {before} does not end with the assistant's message")
    return asked(messages[:-1], before), messages[-1]["content"]


def _preference(record: Mapping[str, Any]) -> dict[str, Any]:
    given, prompt = of_cell(record.get("prompt")), None
    if given is not None:
        prompt = (
            helpsteer.messages_of(text_of(given, "prompt")) if isinstance(given, str) else messages_of(given, "prompt")
        )
    messages, chosen, rejected = two_responses(record, prompt)
    strength = record.get("strength")
    value = 1.0 if strength in (None, "") else _number(strength, "strength")
    if value <= 0:
        raise FieldError("strength", f"is {value:g}, not above 0")
    return {"prompt_id": context_id(messages), "messages": messages, "chosen": chosen, "rejected": rejected,
            "strength": value}  # fmt: skip


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
