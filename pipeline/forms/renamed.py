"""Fields of a team's file under the names that a form has for them, by a mapping that the team gives."""

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.records import FileError


def renamed(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A record with its fields under the form's names. columns: the form's name of a field, and its name in the file.

    A name in the file may lead into a field: `output.text` is the text in output, unless a field is called so. Where the file has no such
    field, the record has none either. A field that has the form's name, but that another is mapped to, is left out.
    """
    found = {ours: _inside(record, theirs) for ours, theirs in columns.items()}
    taken = {*columns, *columns.values()}
    return {name: value for name, value in record.items() if name not in taken} | {
        ours: value for ours, value in found.items() if value is not None
    }


def _inside(record: Mapping[str, Any], name: str) -> Any:
    value: Any = record
    if name in record:
        return record[name]
    for step in name.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def parsed_columns(said: Collection[str], known: Collection[str]) -> dict[str, str]:
    """A mapping from its `FIELD=COLUMN` parts, as a command has them. known: the form's fields. Raises FileError for any other."""
    mapping = dict(part.partition("=")[::2] for part in said)
    for ours, theirs in mapping.items():
        if not theirs:
            raise FileError(f"--columns {ours}: is not FIELD=COLUMN, a field of the form and what the file calls it")
        if ours not in known:
            raise FileError(
                f"--columns {ours}={theirs}: the form has no field {ours}; it has {', '.join(sorted(known))}"
            )
    return mapping
