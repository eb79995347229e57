"""A delivery's draw from the pool: its share of multi-turn prompts, levels of complexity by weight, even over topics.

Every decision rests on whole numbers, hashes and single IEEE operations (no logarithm, no sum of fractions), so that it is the same on every
machine.
"""

import heapq
from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.prompts.schema import PROMPTS, SHORTFALL
from pipeline.settings import Sample
from pipeline.texts.near_duplicates import near_to

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
LEVELS = 5


def draw(
    pool: pa.Table, sample: Sample, seed: int, delivery: str, taken: Collection[str], kept: Collection[str] = ()
) -> tuple[pa.Table, dict[str, int]]:
    """Draw a delivery in the schema PROMPTS, sorted by prompt_id, and its figures.

    pool: schema COMPLEXITY. taken: prompt_ids that other deliveries keep from this one; they are left out, as are levels of weight 0.
    kept: prompt_ids that this delivery had before, by the same sample and seed: those still free stay, and only the rest is drawn.
    Raises ValueError where more are kept than the sample has. In this order:

    - The delivery is full where supply allows, and its multi-turn share exact to rounding, else filled from the other kind.
    - Multi-turn prompts of each number of turns stand as in the free pool, to rounding.
    - Levels of complexity stand as near to their weights as any draw with these numbers of turns could have them.
    - Topics are as even as any draw with these numbers by turns and level could have them: within one where supply allows.
    - A topic's prompts of a level and number of turns come in the order of a hash of seed, delivery and prompt_id.

    The draw depends on seed, delivery, the free pool and what is kept; not on the pool's order. The figures say what was asked for, and
    what there was.
    """
    weights = np.array(sample.complexity_weights, dtype=np.float64)
    whole = free(pool, sample, taken)
    by_id = pc.sort_indices(
        whole["prompt_id"]
    )  # of the ids alone: the texts together may be more than 2 GiB, which can't be taken from
    pool = whole.select(["prompt_id", "n_turns", "topic", "complexity"]).take(by_id)
    levels = np.asarray(pool["complexity"], dtype=np.int64) - 1
    lengths, kinds = np.unique(np.asarray(pool["n_turns"], dtype=np.int64), return_inverse=True)
    names, topics = np.unique(np.asarray(pool["topic"]), return_inverse=True)
    order = uniforms(pool["prompt_id"].to_pylist(), f"{seed}/{delivery}/prompts")[:, 0]
    tie = uniforms([str(name) for name in names], f"{seed}/{delivery}/topics")[:, 0]
    stays = np.asarray(pc.is_in(pool["prompt_id"], pa.array(list(kept), pa.string())), dtype=bool)
    if stays.sum() > sample.prompts:
        raise ValueError(f"{stays.sum()} prompts are to be kept, but the sample has only {sample.prompts}")

    cells = len(lengths) * LEVELS
    supply_of_cells = _counts((levels, kinds), (LEVELS, len(lengths)), ~stays)
    kinds_wanted = _kinds(lengths, kinds, stays, sample, len(pool))
    level_given = np.bincount(levels[stays], minlength=LEVELS)
    of_cell = evenly(supply_of_cells, kinds_wanted, level_given, weights, np.arange(LEVELS, dtype=np.float64))
    cell = levels * len(lengths) + kinds
    supply = _counts((topics, cell), (len(names), cells), ~stays)
    topic_given = np.bincount(topics[stays], minlength=len(names))
    of_topic = evenly(supply, of_cell.ravel(), topic_given, np.ones(len(names)), tie)

    rows = np.flatnonzero(~stays)
    rows = rows[np.lexsort((order[rows], cell[rows], topics[rows]))]
    group = topics[rows] * cells + cell[rows]
    begins = np.searchsorted(group, group, side="left")
    drawn = rows[np.arange(len(rows)) - begins < of_topic.ravel()[group]]
    among = np.zeros(len(pool), dtype=bool)
    among[np.asarray(by_id)[np.concatenate([drawn, np.flatnonzero(stays)])]] = True
    table = whole.filter(pa.array(among)).select(PROMPTS.names).sort_by("prompt_id")
    multi = lengths[kinds] > 1
    n_multi = int(kinds_wanted[lengths > 1].sum() + (stays & multi).sum())
    gave = of_topic.sum(axis=1) + topic_given
    short = len(table) // max(len(names), 1) - gave
    return table.cast(PROMPTS), {
        "asked for": sample.prompts,
        "drawn": len(table),
        "kept of an earlier draw": int(stays.sum()),
        "free in the pool": len(pool),
        "multi-turn asked for": multi_turn_prompts(sample.prompts, sample),
        "multi-turn drawn": n_multi,
        "multi-turn free in the pool": int(multi.sum()),
        "topics in the pool": len(names),
        "topics drawn": int((gave > 0).sum()),
        "topics that gave less than their share": int((short > 0).sum()),
        "prompts that they lack": int(short[short > 0].sum()),
    }


def free(pool: pa.Table, sample: Sample, taken: Collection[str]) -> pa.Table:
    """The pool's prompts that can be drawn: not taken, and of a level with a weight."""
    weighted = pa.array(np.flatnonzero(sample.complexity_weights) + 1, pa.int8())
    untaken = pc.invert(pc.is_in(pool["prompt_id"], pa.array(list(taken), pa.string())))
    return pool.filter(pc.and_(untaken, pc.is_in(pool["complexity"], weighted)))


def taken(pool: pa.Table, others: Iterable[pa.Table], similarity: float | None) -> set[str]:
    """prompt_ids of other deliveries' prompts, and of the pool's that are near-duplicates of one of them.

    others: tables with prompt_id and turns, a delivery each. similarity: see `pipeline.texts.near_duplicates`; None: equal prompts alone.
    The pool's prompts are not near to each other, so that only what has left the pool since it was delivered is compared.
    """
    ids, gone = set[str](), [pa.array([], pa.string())]
    for other in others:
        ids |= set(other["prompt_id"].to_pylist())
        left = other.filter(pc.invert(pc.is_in(other["prompt_id"], pool["prompt_id"].combine_chunks())))
        gone.append(pc.binary_join(left["turns"], "\n").combine_chunks())
    theirs = pa.concat_arrays(gone)
    if similarity is not None and len(theirs):
        near = near_to(pc.binary_join(pool["turns"], "\n"), theirs, similarity)
        ids |= set(pool["prompt_id"].filter(pa.array(near)).to_pylist())
    return ids


def shortfall(drawn: pa.Table, free_pool: pa.Table) -> pa.Table:
    """Topics that gave less than their even share of a draw, rounded down; in the schema SHORTFALL, the shortest first.

    A topic is short for want of prompts, or because its prompts are not of the levels and numbers of turns that were wanted.
    """
    gave = {row["values"]: row["counts"] for row in pc.value_counts(drawn["topic"]).to_pylist()}
    topics = free_pool.group_by(["topic", "topic_name"]).aggregate([([], "count_all")]).to_pylist()
    share = len(drawn) // max(len(topics), 1)
    rows = [
        {
            "topic": t["topic"],
            "topic_name": t["topic_name"],
            "share": share,
            "gave": gave.get(t["topic"], 0),
            "free": t["count_all"],
            "for_want_of": "prompts" if t["count_all"] < share else "levels and turns that were wanted",
        }
        for t in topics
        if gave.get(t["topic"], 0) < share
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda r: (r["gave"], r["topic"])), schema=SHORTFALL)


def multi_turn_prompts(prompts: int, sample: Sample) -> int:
    """How many of a number of prompts are multi-turn by the sample's share."""
    return round(prompts * sample.multi_turn_share)


def by_weight(n: int, weights: Floats, supply: Ints, before: Ints) -> Ints:
    """How many of n each of several gives (shape of weights): by weight over what it gave `before` and now, as far as `supply` goes.

    The divisor method of Webster and Sainte-Lague: one at a time to the one with the least (count + 1/2) / weight. It keeps to the shares
    where supply allows, and what one lacks goes to the others by their weights.
    """
    claims = [
        (given + np.arange(has) + 0.5) / weight
        for given, has, weight in zip(before, supply, weights, strict=True)
        if has
    ]
    giver = np.repeat(np.arange(len(weights)), supply)
    first = np.argsort(np.concatenate([np.zeros(0), *claims]), kind="stable")[:n]
    return np.bincount(giver[first], minlength=len(weights))


def evenly(supply: Ints, room: Ints, before: Ints, weights: Floats, tie: Floats) -> Ints:
    """Fill cells so that the givers' totals are as near to their weights as can be: how many each gives to each, shape (givers, cells).

    supply: what each giver has for each cell, shape (givers, cells). room: how many each cell takes, at most its supply. before, weights,
    tie: of each giver, what it gave earlier, its weight, its rank among equals.

    One at a time, the giver with the least (count + 1/2) / weight gives next, if need be by letting others give to another cell than they did;
    one that can't give any more never will. The totals that cells can take from givers form a polymatroid, and on one this greedy is optimal
    for every sum of convex functions of the totals (Federgruen and Groenevelt 1986): no other filling is more even.
    """
    given, left = np.zeros_like(supply), room.copy()
    can, did = supply > 0, np.zeros(supply.shape, dtype=bool)
    count = [int(n) for n in before]
    queue = [((count[g] + 0.5) / weights[g], tie[g], g) for g in range(len(supply)) if can[g].any()]
    heapq.heapify(queue)
    missing = int(left.sum())
    while missing and queue:
        _, _, giver = heapq.heappop(queue)
        moves = _way(giver, can, did, left)
        if moves is None:
            continue
        for who, cell, change in moves:
            given[who, cell] += change
            can[who, cell], did[who, cell] = supply[who, cell] > given[who, cell], given[who, cell] > 0
        left[moves[0][1]] -= 1
        missing -= 1
        count[giver] += 1
        heapq.heappush(queue, ((count[giver] + 0.5) / weights[giver], tie[giver], giver))
    return given


def _way(
    giver: int, can: npt.NDArray[np.bool_], did: npt.NDArray[np.bool_], left: Ints
) -> list[tuple[int, int, int]] | None:
    """How one more of a giver finds room: (giver, cell, +1 or -1), the first in the cell with room; None where there is no way.

    Straight to the cell with most room; else by the shortest chain of givers who give to another cell what they gave to this one.
    """
    straight = np.where(can[giver], left, 0)
    if straight.any():
        return [(giver, int(straight.argmax()), 1)]
    reached = can[giver].copy()
    frontier = np.flatnonzero(reached).tolist()
    came: dict[int, tuple[int, int]] = {}  # cell: (who can give to it instead, the cell that it gave to)
    while frontier:
        found: list[int] = []
        for cell in frontier:
            others = np.flatnonzero(did[:, cell])
            instead = can[others] & ~reached
            hit = instead.any(axis=0)
            for other in np.flatnonzero(hit).tolist():
                came[other] = int(others[instead[:, other].argmax()]), cell
                found.append(other)
            reached |= hit
        ends = [cell for cell in found if left[cell] > 0]
        if ends:
            cell, moves = max(ends, key=lambda c: (left[c], -c)), []
            while cell in came:
                who, before = came[cell]
                moves += [(who, cell, 1), (who, before, -1)]
                cell = before
            return [*moves, (giver, cell, 1)]
        frontier = found
    return None


def _kinds(lengths: Ints, kinds: Ints, stays: npt.NDArray[np.bool_], sample: Sample, supply: int) -> Ints:
    """How many prompts of each number of turns (shape of lengths) are to be drawn, beside those that stay."""
    in_pool, staying = (np.bincount(k, minlength=len(lengths)) for k in (kinds, kinds[stays]))
    has, multi = in_pool - staying, lengths > 1
    wanted = min(sample.prompts, supply)
    rest = wanted - int(stays.sum())
    lacking = min(max(multi_turn_prompts(wanted, sample) - int(staying[multi].sum()), 0), rest)
    n_single = min(rest - min(lacking, int(has[multi].sum())), int(has[~multi].sum()))
    counts = np.zeros(len(lengths), dtype=np.int64)
    counts[~multi] = n_single  # of one length, or of none where there is no single-turn prompt
    counts[multi] = by_weight(rest - n_single, in_pool[multi].astype(np.float64), has[multi], staying[multi])
    return counts


def _counts(index: tuple[Ints, Ints], shape: tuple[int, int], among: npt.NDArray[np.bool_]) -> Ints:
    """How many of some rows stand at each pair of indices."""
    flat = index[0][among] * shape[1] + index[1][among]
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
