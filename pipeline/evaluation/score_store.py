"""What is scored is kept: an append-only set of scores, each under a hash of all that it depends on."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from upath import UPath

from pipeline.evaluation.scorers.scorer import Scored
from pipeline.parts import Parts

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


def score_store(folder: UPath) -> Parts:
    """The scores that are kept in a folder."""
    return Parts(folder, KEPT, "key")


def keep(store: Parts, keys: Sequence[str], scored: Scored, seconds: float) -> None:
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
        store.append(table)
