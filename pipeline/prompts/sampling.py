"""A delivery's draw from the pool: even over topics, leaning to the complex, with its share of multi-turn prompts."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.prompts.schema import PROMPTS
from pipeline.settings import Sample


def draw(
    pool: pa.Table, sample: Sample, seed: int, delivery: str, taken: Collection[str]
) -> tuple[pa.Table, dict[str, int]]:
    """Draw a delivery in the schema PROMPTS, sorted by prompt_id, and its figures.

    pool: schema COMPLEXITY. taken: prompt_ids of other deliveries, which are left out, as are levels of weight 0. The multi-turn share is
    exact to rounding where supply allows, else filled from the other kind; the figures say what was asked for and what there was. Multi-turn
    prompts are drawn first; in each draw the topic that has given least gives next, so that topic counts differ by at most one where supply
    allows. A topic's prompts come in the order of weighted sampling without replacement (Efraimidis and Spirakis 2006, algorithm A-ES):
    weight of the complexity level over the level's count in the pool, so that a rare level stands as often as a frequent one.

    The draw depends on seed, delivery and pool, not on the pool's order; nor on `taken`, as long as no prompt of the draw is in it: a
    delivery that is drawn again after later ones is the same.
    """
    weight_of = np.array(sample.complexity_weights)
    pool = pool.sort_by("prompt_id")
    levels = np.asarray(pool["complexity"], dtype=np.int64)
    weights = (weight_of / np.maximum(np.bincount(levels, minlength=6)[1:], 1))[levels - 1]
    free = ~pc.is_in(pool["prompt_id"], pa.array(list(taken), pa.string())).to_numpy() & (weights > 0)
    pool, weights = pool.filter(pa.array(free)), weights[free]
    multi = np.asarray(pool["n_turns"]) > 1
    wanted = min(sample.prompts, len(pool))
    n_single = min(wanted - min(_multi_turn(wanted, sample), int(multi.sum())), int((~multi).sum()))
    n_multi = wanted - n_single

    keys = uniforms(pool["prompt_id"].to_pylist(), f"{seed}/{delivery}/draw", 2)
    order, tie = -np.log1p(-keys[:, 0]) / weights, keys[:, 1]
    topics = np.unique(np.asarray(pool["topic"]), return_inverse=True)[1]
    given = np.zeros(topics.max(initial=0) + 1, dtype=np.int64)
    first = _round_robin(np.flatnonzero(multi), topics, order, tie, n_multi, given)
    given = np.bincount(topics[first], minlength=len(given))
    second = _round_robin(np.flatnonzero(~multi), topics, order, tie, n_single, given)
    rows = np.sort(np.concatenate([first, second]))
    drawn = pool.take(pa.array(rows)).select(PROMPTS.names).cast(PROMPTS)
    return drawn, {
        "asked for": sample.prompts,
        "drawn": len(drawn),
        "free in the pool": len(pool),
        "multi-turn asked for": _multi_turn(sample.prompts, sample),
        "multi-turn drawn": n_multi,
        "multi-turn free in the pool": int(multi.sum()),
        "topics in the pool": len(np.unique(topics)),
        "topics drawn": len(np.unique(topics[rows])),
    }


def _multi_turn(prompts: int, sample: Sample) -> int:
    return round(prompts * sample.multi_turn_share)


def _round_robin(
    rows: npt.NDArray[np.int64],
    topics: npt.NDArray[np.int64],
    order: npt.NDArray[np.float64],
    tie: npt.NDArray[np.float64],
    n: int,
    used: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The first n rows when the topic that has given least gives next, by `order` within it; `used`: what each topic has given before."""
    rows = rows[np.lexsort((tie[rows], order[rows], topics[rows]))]
    mine = topics[rows]
    starts = np.flatnonzero(np.r_[True, mine[1:] != mine[:-1]]) if len(rows) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(rows)])
    rank = np.arange(len(rows)) - np.repeat(starts, sizes) + used[mine]
    first: npt.NDArray[np.int64] = rows[np.lexsort((tie[rows], rank))[:n]]
    return first
