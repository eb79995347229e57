"""A file as the commands take it: read as a profile's `training_data` of the kind `file` is, but refused where a row can't be used.

Its forms: `pipeline.reward_model.sources.files`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.forms.ratings import Quarantine
from pipeline.records import FileError
from pipeline.reward_model.sources import Source, files
from pipeline.reward_model.sources.tables import LabelKind
from pipeline.vocabulary import RatedBy

ENDINGS = files.ENDINGS


@dataclass(frozen=True)
class Rows:
    """Rows of a file as a source, and who rated, if the file says so."""

    source: Source
    rated_by: RatedBy | None

    @property
    def rated(self) -> pa.Table:
        """Rated responses in the schema RATED_ROWS; null: not rated."""
        return self.source.rated

    @property
    def preferred(self) -> pa.Table:
        """Pairs in the schema PREFERRED_ROWS."""
        return self.source.preferred


def read(path: Path, columns: Mapping[str, str] | None = None, every_split: bool = False) -> Rows:
    """All rated responses and pairs of a file, in order, with ratings as they are. columns: other names of fields in the file.

    Raises FileError with the first row that can't be used, and how many there are. every_split: also rows of validation and test splits.
    """
    source, first = _source(path)
    reader = files.Reader(source, columns or {}, every_split=every_split)
    reader.read(path)
    source.rated, source.preferred = reader.rated.table(), reader.preferred.table()
    return _checked(path, Rows(source, reader.rated_by), first)


def to_train(path: Path, labels: LabelKind, columns: Mapping[str, str] | None = None) -> Rows:
    """A file as what a recipe with such labels trains on: see `files.fill`. Raises FileError as `read` does."""
    source, first = _source(path)
    by = files.fill(source, path, None, labels, None, columns or {})
    return _checked(path, Rows(source, by), first)


def _source(path: Path) -> tuple[Source, list[dict[str, Any]]]:
    """A source, and where the first row that can't be used will stand."""
    first = list[dict[str, Any]]()
    aside = Quarantine(sink=lambda entry: None if first else first.append(entry), faults_alone=True)
    return Source(path.name, "", quarantine=aside), first


def _checked(path: Path, rows: Rows, first: list[dict[str, Any]]) -> Rows:
    if first:
        place = f"{path}:{first[0]['line']}" if first[0]["line"] else f"{path}"
        faults = rows.source.quarantine.counts.total()
        raise FileError(f"{place}: {first[0]['reason']}. Rows that can't be used: {faults}")
    if not len(rows.rated) and not len(rows.preferred):
        left_out = ", ".join(f"{what}: {n}" for what, n in rows.source.counts.items() if n)
        raise FileError(f"{path}: holds no row" + (f" that can be used ({left_out})" if left_out else ""))
    return rows
