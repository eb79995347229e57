"""Files of published training data, from the hub or a folder, and their records."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.forms.ratings import FieldError
from pipeline.hub import HubError, fetch
from pipeline.records import FileError, Unreadable, records, unstorable
from pipeline.reward_model.sources.tables import Source
from pipeline.settings import PROJECT, HelpSteer2Data, HelpSteerData, HHData, OasstData


def folder_of(data: HelpSteer2Data | HelpSteerData | OasstData | HHData, patterns: list[str]) -> Path:
    """The folder that has a published data set's files: a local one, or the hub's, with those files that match."""
    if data.folder:
        folder = PROJECT / Path(data.folder).expanduser()
        if not folder.is_dir():
            raise FileError(f"{folder}: there is no such folder, though training data of kind {data.kind} names it")
        return folder
    try:
        return fetch(data.hub, data.revision, patterns, "dataset")
    except HubError as error:
        raise FileError(
            f"{error}. Without network, give training data of kind {data.kind} a `folder` that has {', '.join(patterns)}"
        ) from error


def there(path: Path) -> Path:
    """A path. Raises FileError where it is no file."""
    if not path.is_file():
        raise FileError(f"{path}: there is no such file, and nothing to train on without it")
    return path


def filled_text(record: Mapping[str, Any], name: str) -> str:
    """A field's text. Raises FieldError where it is missing, no text, or blank."""
    value = record.get(name)
    if not isinstance(value, str):
        raise FieldError(name, "is missing" if value is None else f"is a {type(value).__name__}, not a text")
    if fault := unstorable(value):
        raise FieldError(name, fault)
    if not value.strip():
        raise FieldError(name, "is blank")
    return value


def usable(path: Path, source: Source) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
    """A file's records with their lines, counted; what is no record is set aside."""
    quarantine = source.quarantine
    for line, record in records(path):
        source.read += 1
        if isinstance(record, Unreadable):
            quarantine.add(path.name, line, None, record.reason, record.text)
        elif not isinstance(record, Mapping):
            quarantine.add(path.name, line, None, f"not a record but a {type(record).__name__}", record)
        else:
            yield line, record
