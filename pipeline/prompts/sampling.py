"""A delivery's draw from the pool: even over topics, leaning to the complex, with its share of multi-turn prompts."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.prompts.schema import PROMPTS
from pipeline.settings import Sample


def draw(
    pool: pa.Table, sample: Sample, seed: int, delivery: str, taken: Collection[str]
) -> tuple[pa.Table, dict[str, Any]]:
    """Draw a delivery in the schema PROMPTS, sorted by prompt_id, and its figures.

    pool: schema COMPLEXITY. taken: prompt_ids of other deliveries, which are left out. The multi-turn share is exact to rounding where
    supply allows, else filled from the other kind, and the shortfall stated. Within each kind every topic in turn gives its next prompt,
    so that topic counts differ by at most one where supply allows. A topic's prompts come in the order of weighted sampling without
    replacement (Efraimidis and Spirakis 2006): weight of the complexity level over the level's count in the pool. The draw depends on
    seed, delivery and prompts, not on their order.
    """
    free = pool.filter(pc.invert(pc.is_in(pool["prompt_id"], pa.array(list(taken), pa.string())))).sort_by("prompt_id")
    multi = np.asarray(pc.greater(free["n_turns"], 1), dtype=bool)
    wanted = min(sample.prompts, len(free))
    n_multi = min(round(wanted * sample.multi_turn_share), int(multi.sum()))
    n_single = min(wanted - n_multi, int((~multi).sum()))
    n_multi = min(wanted - n_single, int(multi.sum()))

    keys = uniforms(free["prompt_id"].to_pylist(), f"{seed}/{delivery}/draw", 2) if len(free) else np.zeros((0, 2))
    levels = np.asarray(free["complexity"], dtype=np.int64)
    per_level = np.bincount(levels, minlength=6)[1:]
    weights = (np.array(sample.complexity_weights) / np.maximum(per_level, 1))[levels - 1]
    with np.errstate(divide="ignore"):
        order = np.where(weights > 0, -np.log(1 - keys[:, 0]) / np.where(weights > 0, weights, 1), np.inf)
    topics = np.unique(np.asarray(free["topic"]), return_inverse=True)[1]
    first = _round_robin(
        np.flatnonzero(multi), topics, order, keys[:, 1], n_multi, np.zeros(topics.max(initial=0) + 1, dtype=np.int64)
    )
    used = np.bincount(topics[first], minlength=topics.max(initial=0) + 1)
    second = _round_robin(np.flatnonzero(~multi), topics, order, keys[:, 1], n_single, used)
    drawn = free.take(pa.array(np.sort(np.concatenate([first, second])))).select(PROMPTS.names).cast(PROMPTS)
    figures = {
        "asked for": sample.prompts,
        "drawn": len(drawn),
        "free in the pool": len(free),
        "multi-turn asked for": round(sample.prompts * sample.multi_turn_share),
        "multi-turn drawn": n_multi,
        "topics": len(pc.unique(drawn["topic"])),
    }
    return drawn, figures


def _round_robin(
    rows: npt.NDArray[np.int64],
    topics: npt.NDArray[np.int64],
    order: npt.NDArray[np.float64],
    tie: npt.NDArray[np.float64],
    n: int,
    used: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The first n rows when the topic with the fewest so far gives next; `used` counts what each topic has given before."""
    rows = rows[np.lexsort((tie[rows], order[rows], topics[rows]))]
    mine = topics[rows]
    starts = np.flatnonzero(np.r_[True, mine[1:] != mine[:-1]]) if len(rows) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(rows)])
    rank = np.arange(len(rows)) - np.repeat(starts, sizes) + used[mine]
    first: npt.NDArray[np.int64] = rows[np.lexsort((tie[rows], rank))[:n]]
    return first
