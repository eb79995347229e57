"""Append-only sets of rows, each under a key: a folder of Parquet parts, each whole or absent. Several processes may add to one at once."""

import uuid
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.store import read_table, write_table


class PartError(RuntimeError):
    """A part that can't be read; the message says which, and what to do."""


class Parts:
    """Rows of a schema in a folder's files `KIND-*.parquet`; `key` is the column by which a row is one.

    renewed: makes the rows of an old part into rows of now: with columns that came later, without what counts no more.
    """

    def __init__(
        self,
        folder: UPath,
        schema: pa.Schema,
        key: str,
        kind: str = "part",
        renewed: Callable[[pa.Table], pa.Table] | None = None,
    ) -> None:
        self.folder, self.schema, self._renewed = folder, schema, renewed
        self._key, self._kind, self._keys = key, kind, pa.schema([schema.field(key)])
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, rows: pa.Table) -> None:
        """Add rows as one part. Raises OSError where it can't be written: then none of them is there."""
        write_table(rows, self.folder / f"{self._kind}-{uuid.uuid4().hex}.parquet")

    def keys(self) -> pa.Array:
        """All keys, each once. Raises PartError."""
        return pc.unique(self._tables(self._paths(), self._keys)[self._key])

    def rows(self) -> pa.Table:
        """All rows, also several of one key. Raises PartError."""
        return self._tables(self._paths(), self.schema)

    def read(self) -> pa.Table:
        """One row of each key. Raises PartError."""
        rows = self.rows()
        first = self._first(rows)
        return rows if first.all() else rows.filter(pa.array(first))

    def compact(self, most: int = 64) -> None:
        """Put the rows of more than so many parts into one, part by part; they go when it is whole."""
        old = self._paths()
        if len(old) > most:
            kept = self._first(self._tables(old, self._keys))
            self.append(pa.RecordBatchReader.from_batches(self.schema, self._batches(old, kept)))
            for path in old:
                path.unlink()

    def _first(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Of every row, whether it is the first with its key."""
        codes = rows[self._key].combine_chunks().dictionary_encode().indices.to_numpy()
        first = np.zeros(len(codes), dtype=bool)
        first[np.unique(codes, return_index=True)[1]] = True
        return first

    def _batches(self, paths: Sequence[UPath], kept: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
        """The rows of parts that are kept: one flag for each, in their order."""
        at = 0
        for path in paths:
            table = self._part(path, self.schema)
            yield from table.filter(pa.array(kept[at : at + len(table)])).to_batches()
            at += len(table)

    def _paths(self) -> list[UPath]:
        return sorted(self.folder.glob(f"{self._kind}-*.parquet"), key=str)

    def _tables(self, paths: Sequence[UPath], schema: pa.Schema) -> pa.Table:
        return pa.concat_tables([schema.empty_table(), *(self._part(path, schema) for path in paths)])

    def _part(self, path: UPath, schema: pa.Schema) -> pa.Table:
        try:
            rows = self._renewed(read_table(path)) if self._renewed else read_table(path, schema.names)
            return rows.select(schema.names).cast(schema)
        except (pa.ArrowException, KeyError) as error:
            raise PartError(
                f"{path}: can't be read ({error}). Remove the file: only what it held is done again"
            ) from None
