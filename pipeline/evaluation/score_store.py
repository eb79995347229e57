"""What is scored is kept: an append-only set of scores, each under a hash of all that it depends on."""

import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.evaluation.scorers.scorer import Scored
from pipeline.store import read_table, write_table

KEEP_SECONDS = 5.0
"""So long a score may wait before it is written down."""

KEPT = pa.schema(
    [
        ("key", pa.string()),
        ("outputs", pa.list_(pa.float64())),
        ("tokens", pa.int64()),
        ("cut", pa.bool_()),  # the conversation was too long, and lost its beginning
        ("seconds", pa.float64()),  # its share of the time that its batch took
    ]
)


class ScoreStoreError(RuntimeError):
    """Kept scores that can't be read; the message says which, and what to do."""


class ScoreStore:
    """An append-only set of scores: a folder of Parquet parts, each whole or absent. Several processes may add to it at once."""

    def __init__(self, folder: UPath) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, keys: Sequence[str], scored: Scored, seconds: float) -> None:
        """Add scores as one part, `keys` in their order; one that is not finite is not kept. Raises OSError where it can't be written."""
        finite = np.isfinite(scored.outputs).all(axis=1)
        table = pa.table(
            {
                "key": np.array(keys, dtype=object)[finite],
                "outputs": list(scored.outputs[finite]),
                "tokens": scored.tokens[finite],
                "cut": scored.cut[finite],
                "seconds": np.full(int(finite.sum()), seconds / max(len(keys), 1)),
            },
            schema=KEPT,
        )
        if len(table):
            write_table(table, self.folder / f"part-{uuid.uuid4().hex}.parquet")

    def read(self) -> pa.Table:
        """All that is kept, one row a key, in the schema KEPT. Raises ScoreStoreError for a part that is broken."""
        tables = [KEPT.empty_table()]
        for path in self._parts():
            try:
                tables.append(read_table(path, KEPT.names).cast(KEPT))
            except (pa.ArrowException, KeyError) as error:
                raise ScoreStoreError(
                    f"{path}: can't be read ({error}). Remove it: what it held is scored again, and nothing else"
                ) from None
        table = pa.concat_tables(tables)
        if pc.count_distinct(table["key"]).as_py() == len(table):
            return table
        first = table.append_column("row", pa.array(np.arange(len(table)))).group_by("key").aggregate([("row", "min")])
        return table.take(first["row_min"])

    def compact(self, parts: int = 64) -> None:
        """Put more than so many parts into one; they go when it is whole."""
        old = self._parts()
        if len(old) > parts:
            write_table(self.read(), self.folder / f"part-{uuid.uuid4().hex}.parquet")
            for path in old:
                path.unlink()

    def _parts(self) -> list[UPath]:
        return sorted(self.folder.glob("part-*.parquet"), key=str)
