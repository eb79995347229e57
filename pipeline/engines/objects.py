"""The JSON object in a model's answer. A server may ignore the form that was asked for: the object stands in a fence, or between sentences."""

import json
import re
from collections.abc import Collection
from typing import Any

from pipeline.engines.content import parted

_WHOLE = re.compile(r"\s*([0-9]{1,3})(?:\.0+)?\s*")


def whole_numbers_in(text: str, names: Collection[str]) -> dict[str, int] | None:
    """The whole numbers that a model gave to names, each in small letters: exactly these, in one JSON object somewhere in its answer.

    What the model thought before doesn't count. `4`, `4.0` and `"4"` are the same, and so are `Score` and `score`. None where a name is
    missing, strange or there twice, a value is no whole number from 0 on, or two objects differ.
    """
    found = [_numbers(pairs, names) for pairs in _objects(parted(text).response or "", names)]
    return found[0] if found and all(numbers == found[0] for numbers in found) else None


def _objects(text: str, names: Collection[str]) -> list[list[tuple[str, Any]]]:
    """Keys and values of the JSON objects in a text that have one of the names; also of those within other ones."""
    decoder, found, at = json.JSONDecoder(object_pairs_hook=list), list[list[tuple[str, Any]]](), text.find("{")
    while at >= 0:
        try:
            pairs, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            pairs, end = [], at + 1
        if any(_name(key) in names for key, _ in pairs):
            found.append(pairs)
        else:
            end = at + 1
        at = text.find("{", end)
    return found


def _numbers(pairs: list[tuple[str, Any]], names: Collection[str]) -> dict[str, int] | None:
    numbers = {_name(key): number for key, value in pairs if (number := _whole(value)) is not None}
    return numbers if len(pairs) == len(names) and numbers.keys() == set(names) else None


def _name(key: str) -> str:
    return key.strip().lower()


def _whole(value: Any) -> int | None:
    found = _WHOLE.fullmatch(
        value if isinstance(value, str) else json.dumps(value) if type(value) in (int, float) else ""
    )
    return int(found[1]) if found else None
