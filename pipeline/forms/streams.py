"""Streams of annotations cut so that every prompt is whole."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 1 << 18
"""Rows that `in_whole_prompts` takes at a time."""


def in_whole_prompts(batches: Iterable[pa.RecordBatch | pa.Table], rows: int = BLOCK) -> Iterator[pa.Table]:
    """A stream of annotations as tables of about `rows` rows in which every prompt is whole, in the stream's order.

    A prompt's rows must stand together, as they do in the pipeline's own tables. Raises ValueError at the end of the stream where a
    prompt came back after others; what was made of the stream until then is not right.
    """
    seen: list[npt.NDArray[np.uint64]] = []
    pending: list[pa.Table] = []
    for batch in batches:
        pending.append(pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch)
        if sum(map(len, pending)) >= rows:
            table = pa.concat_tables(pending)
            ids = table["prompt_id"]
            others = np.flatnonzero(np.asarray(pc.not_equal(ids, ids[-1])))
            end = int(others[-1]) + 1 if len(others) else 0
            pending = [table.slice(end)]
            if end:
                yield _noted(table.slice(0, end), seen)
    if pending and sum(map(len, pending)):
        yield _noted(pa.concat_tables(pending), seen)
    prompts = np.concatenate([np.zeros(0, dtype=np.uint64), *seen])
    prompts.sort()
    again = np.count_nonzero(prompts[1:] == prompts[:-1])
    if again:
        raise ValueError(f"the rows of {again} prompts don't stand together; sort the annotations by prompt_id")


def _noted(table: pa.Table, seen: list[npt.NDArray[np.uint64]]) -> pa.Table:
    """The table; notes a 64-bit hash of each of its prompts."""
    prompts = pc.unique(table["prompt_id"].combine_chunks())
    seen.append(pd.util.hash_array(prompts.to_numpy(zero_copy_only=False), categorize=False))
    return table
