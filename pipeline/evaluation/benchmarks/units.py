"""Goodness of responses to outcomes of units, for all forms of benchmark.

Goodness is one flat array: the responses of all items, in order. A score that isn't finite is NaN from here on: every comparison with it
is lost.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.schema import OUTCOMES

Floats = npt.NDArray[np.float64]


def starts(items: pa.Table) -> npt.NDArray[np.int64]:
    """Place of each item's first response in the flat array."""
    lengths = np.asarray(pc.list_value_length(items["responses"]), dtype=np.int64)
    return np.cumsum(lengths) - lengths


def extremes(items: pa.Table, goodness: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Goodness of each item's worst and best good response, and of its best other one: three arrays (items,)."""
    values = finite(items, goodness)
    if not len(items):
        return (np.empty(0),) * 3
    good = np.asarray(pc.list_flatten(items["good"]))
    at = starts(items)
    worst = np.minimum.reduceat(np.where(good, values, np.inf), at)
    best = np.maximum.reduceat(np.where(good, values, -np.inf), at)
    other = np.maximum.reduceat(np.where(good, -np.inf, values), at)
    return worst, best, other


def finite(items: pa.Table, goodness: npt.ArrayLike) -> Floats:
    """Goodness with NaN for what isn't finite. Raises ValueError where there is not one score a response."""
    values = np.asarray(goodness, dtype=np.float64)
    expected = pc.sum(pc.list_value_length(items["responses"])).as_py() or 0
    if values.shape != (expected,):
        raise ValueError(f"goodness has shape {values.shape}, but the items have {expected} responses")
    return np.where(np.isfinite(values), values, np.nan)


def outcomes(
    items: pa.Table, value: npt.ArrayLike, margin: npt.ArrayLike, measure: str = "accuracy", unit: Any = None
) -> pa.Table:
    """Rows of OUTCOMES: value and margin of each item (or of each of `unit`, then `items` has their benchmark and subset)."""
    columns = {
        "benchmark": items["benchmark"],
        "subset": items["subset"],
        "unit": items["item_id"] if unit is None else unit,
        "measure": pa.array([measure] * len(items), pa.string()),
        "value": np.asarray(value, dtype=np.float64),
        "margin": np.asarray(margin, dtype=np.float64),
    }
    return pa.table(columns, schema=OUTCOMES)
