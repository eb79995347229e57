"""A delivery's draw from the pool: its share of multi-turn prompts, levels of complexity by weight, even over topics."""

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

    pool: schema COMPLEXITY. taken: prompt_ids of other deliveries, which are left out, as are levels of weight 0. In this order:

    - The delivery is full where supply allows, and its multi-turn share exact to rounding, else filled from the other kind.
    - Levels of complexity stand by their weights (`level_counts`), over both kinds together.
    - Within a kind and level, the rarest level first, the topic that has given least gives next: topics are as even as the levels let them.
    - A topic's prompts come in the order of a hash of seed, delivery and prompt_id.

    The draw depends on seed, delivery and pool, not on the pool's order; nor on `taken`, as long as no prompt of the draw is in it: a
    delivery that is drawn again after later ones is the same. The figures say what was asked for, and what there was.
    """
    weights = np.array(sample.complexity_weights, dtype=np.float64)
    in_pool = np.bincount(np.asarray(pool["complexity"], dtype=np.int64), minlength=6)[1:]
    rarest_first = np.argsort(in_pool, kind="stable")
    free = pc.and_(
        pc.invert(pc.is_in(pool["prompt_id"], pa.array(list(taken), pa.string()))),
        pc.is_in(pool["complexity"], pa.array(np.flatnonzero(weights) + 1, pa.int8())),
    )
    pool = pool.filter(free).sort_by("prompt_id")
    levels = np.asarray(pool["complexity"], dtype=np.int64) - 1
    names, topics = np.unique(np.asarray(pool["topic"]), return_inverse=True)
    order = uniforms(pool["prompt_id"].to_pylist(), f"{seed}/{delivery}/prompts")[:, 0]
    tie = uniforms([str(name) for name in names], f"{seed}/{delivery}/topics")[:, 0]

    multi = np.asarray(pool["n_turns"]) > 1
    wanted = min(sample.prompts, len(pool))
    n_single = min(wanted - min(multi_turn_prompts(wanted, sample), int(multi.sum())), int((~multi).sum()))
    n_multi = wanted - n_single
    of_level, of_topic = np.zeros(5, dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    drawn = [np.zeros(0, dtype=np.int64)]
    for n, kind in ((n_multi, multi), (n_single, ~multi)):
        counts = level_counts(n, weights, np.bincount(levels[kind], minlength=5), of_level)
        for level in rarest_first:
            rows = np.flatnonzero(kind & (levels == level))
            drawn.append(_even_over_topics(rows, int(counts[level]), topics, order, tie, of_topic))
            of_topic += np.bincount(topics[drawn[-1]], minlength=len(names))
        of_level += counts
    table = pool.take(pa.array(np.sort(np.concatenate(drawn)))).select(PROMPTS.names).cast(PROMPTS)
    return table, {
        "asked for": sample.prompts,
        "drawn": len(table),
        "free in the pool": len(pool),
        "multi-turn asked for": multi_turn_prompts(sample.prompts, sample),
        "multi-turn drawn": n_multi,
        "multi-turn free in the pool": int(multi.sum()),
        "topics in the pool": len(names),
        "topics drawn": int((of_topic > 0).sum()),
    }


def multi_turn_prompts(prompts: int, sample: Sample) -> int:
    """How many of a number of prompts are multi-turn by the sample's share."""
    return round(prompts * sample.multi_turn_share)


def level_counts(
    n: int, weights: npt.NDArray[np.float64], supply: npt.NDArray[np.int64], before: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many of n prompts each level gives (shape of weights): by weight over what it gave `before` and now, as far as `supply` goes.

    The divisor method of Webster and Sainte-Lague: one at a time to the level with the least (count + 1/2) / weight. It keeps to the shares
    where supply allows, and what one level lacks goes to the others by their weights.
    """
    claims = [
        (given + np.arange(has) + 0.5) / weight
        for given, has, weight in zip(before, supply, weights, strict=True)
        if has
    ]
    level = np.repeat(np.arange(len(weights)), supply)
    first = np.argsort(np.concatenate([np.zeros(0), *claims]), kind="stable")[:n]
    return np.bincount(level[first], minlength=len(weights))


def _even_over_topics(
    rows: npt.NDArray[np.int64],
    n: int,
    topics: npt.NDArray[np.int64],
    order: npt.NDArray[np.float64],
    tie: npt.NDArray[np.float64],
    given: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The first n rows when the topic that has given least gives next, each in `order`; `given` counts what it gave before, `tie` ranks topics."""
    rows = rows[np.lexsort((order[rows], topics[rows]))]
    topic, begins, sizes = np.unique(topics[rows], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(begins - given[topic], sizes)
    first: npt.NDArray[np.int64] = rows[np.lexsort((tie[topics[rows]], rank))[:n]]
    return first
