"""What people write into the fields of a rating beside the ratings: who, whether the response is safe, flags, how long it took, when.

Each function gives the value of what stands in a file, from a cell of text or from JSON, and raises ValueError with what is wrong with it.
"""

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

NO_VALUE = frozenset({"", "nan", "na", "n/a", "none", "null", "-"})
"""Words for nothing, as spreadsheets and pandas leave them in fields that may be empty; in any case."""
_YES = frozenset({"true", "yes", "y", "t", "1", "safe", "pass", "ok"})
_NO = frozenset({"false", "no", "n", "f", "0", "unsafe", "fail", "not safe"})
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2}(?:[.,]\d+)?)")
_SECONDS = re.compile(r"([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?)\s*(?:s|sec|secs|seconds?)?", re.I)
_DATE = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(.*)")
ROUNDED = r"^\s*\d[.,]\d+[Ee]\+\d{2}\s*$"
"""An id that a spreadsheet took for a number and rounded: 1.23457E+17. Several ids may have become one."""
_EPOCH = re.compile(r"\d{9,10}(\.\d+)?|\d{12,13}")


def identity_of(value: Any) -> str:
    """An id without the white space around it; a whole number is the text of it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("is not a text")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("is a number with a fraction, not a text")
        value = int(value)
    if re.match(ROUNDED, str(value)):
        raise ValueError(
            "is a number that a spreadsheet has rounded, by which several ids may be one; make the column text where it comes from"
        )
    return str(value).strip()


def safe_of(value: Any) -> bool:
    """Whether a response is safe: true, yes, safe, pass, 1, or false, no, unsafe, fail, 0, in any case, as texts or as JSON has them."""
    if isinstance(value, bool):
        return value
    word = " ".join(str(value).split()).lower().removesuffix(".0")
    if not isinstance(value, str | int | float) or word not in _YES | _NO:
        raise ValueError("is none of true, yes, safe, pass, 1 and false, no, unsafe, fail, 0")
    return word in _YES


def flags_of(value: Any) -> list[str]:
    """Flags: a list, a list in JSON, or a text of flags between `|`, `;` or `,`, of which blank ones are none."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return [flag.strip() for flag in re.split(r"[|;,]", value) if flag.strip()]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is no list in JSON, and no flags between |") from None
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list of flags, nor flags between |")
    return list(value)


def seconds_of(value: Any) -> float:
    """A time in seconds, from 31.2, "31,2", "31 s", "0:31" or "1:02:03"; not negative."""
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = clock.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    if isinstance(value, str) and (said := _SECONDS.fullmatch(value.strip())):
        value = float(said[1].replace(",", "."))
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ValueError("is no time in seconds")
    if value < 0:
        raise ValueError("is negative, and no time can be")
    return float(value)


def moment_of(value: Any, day_first: Callable[[], bool | None]) -> datetime:
    """A moment: in ISO 8601, in seconds or milliseconds since 1970, or a date such as 13/06/2024; without a time zone, in UTC.

    day_first: whether 05/06/2024 is the 5th of June, settled for a file as a whole; None where it isn't known, which refuses such a date.
    Between dots the day comes first.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("is no time")
    text = str(value).strip()
    if _EPOCH.fullmatch(text):
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if number >= 1e11 else number, UTC)
    if date := _DATE.fullmatch(text):
        one, mark, other, year, rest = date.groups()
        first = True if mark == "." else day_first()
        if first is None:
            raise ValueError(
                f"may be read two ways ({one}{mark}{other}): the file's dates don't say together whether days or months come first; "
                "write 2024-06-05"
            )
        day, month = (one, other) if first else (other, one)
        text = f"{year}-{int(month):02}-{int(day):02}{rest}"
    try:
        stamp = datetime.fromisoformat(text.replace(" Z", "Z"))
    except ValueError:
        raise ValueError("is no time in ISO 8601, no date, and no seconds since 1970") from None
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)


def days_come_first(values: Iterable[Any]) -> bool | None:
    """Whether days come first in a file's dates (13/06/2024) or months (06/13/2024); None where none says so, or some say one and some the other."""
    said = set[bool]()
    for value in values:
        date = _DATE.fullmatch(value.strip()) if isinstance(value, str) else None
        if date and date[2] != ".":
            one, other = int(date[1]), int(date[3])
            said |= {True} if one > 12 else {False} if other > 12 else set()
    return said.pop() if len(said) == 1 else None
