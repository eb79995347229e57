from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.prompts.filters import prompt_id
from pipeline.prompts.sampling import draw
from pipeline.prompts.schema import COMPLEXITY, PROMPTS
from pipeline.settings import Sample


def pool_of(kinds: list[tuple[int, int, int]]) -> pa.Table:
    """A pool with one prompt a (user turns, topic, complexity)."""
    rows = []
    for n, (n_turns, topic, level) in enumerate(kinds):
        turns = [f"turn {k} of prompt {n}" for k in range(n_turns)]
        row = {"prompt_id": prompt_id(turns), "conversation_id": str(n), "turns": turns, "n_turns": n_turns}
        row |= {"n_characters": 20, "language": "en", "language_probability": 0.9, "source": "ours", "licence": "MIT"}
        rows.append({**row, "topic": topic, "topic_name": f"topic {topic}", "complexity": level})
    return pa.Table.from_pylist(rows, schema=COMPLEXITY)


def ids(table: pa.Table) -> list[str]:
    found: list[str] = table["prompt_id"].to_pylist()
    return found


def multi(table: pa.Table) -> int:
    return sum(n > 1 for n in table["n_turns"].to_pylist())


def big_pool(n: int = 6000, topics: int = 20, seed: int = 1) -> pa.Table:
    draws = np.random.default_rng(seed)
    turns = np.where(draws.random(n) < 0.4, draws.integers(2, 5, n), 1)
    levels = draws.choice([1, 2, 3, 4, 5], n, p=[0.4, 0.33, 0.13, 0.07, 0.07])
    where = draws.choice(topics, n, p=np.arange(1, topics + 1) / np.arange(1, topics + 1).sum())
    return pool_of(list(zip(turns.tolist(), where.tolist(), levels.tolist(), strict=True)))


POOL = big_pool()
kinds = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(1, 5)), max_size=60)
samples = st.builds(Sample, prompts=st.integers(2, 40), multi_turn_share=st.floats(0, 1))


@settings(max_examples=150, deadline=None)
@given(kinds, samples, st.integers(0, 99), st.data())
def test_a_draw_is_full_and_has_its_multi_turn_share_as_far_as_supply_allows(
    kinds: list[tuple[int, int, int]], sample: Sample, seed: int, data: st.DataObject
) -> None:
    pool = pool_of(kinds)
    taken = set(data.draw(st.lists(st.sampled_from(ids(pool)), unique=True))) if kinds else set()
    table, figures = draw(pool, sample, seed, "d1", taken)
    free = pool.filter(pa.array([i not in taken for i in ids(pool)], pa.bool_()))
    wanted = min(sample.prompts, len(free))
    multis, singles = multi(free), len(free) - multi(free)
    assert table.schema == PROMPTS
    assert len(set(ids(table))) == len(table) == wanted == figures["drawn"]
    assert set(ids(table)) <= set(ids(free))
    assert ids(table) == sorted(ids(table))
    # the number of multi-turn prompts nearest to the share, among those that leave the delivery full
    possible = [k for k in range(wanted + 1) if k <= multis and wanted - k <= singles]
    assert multi(table) == min(possible, key=lambda k: abs(k - round(wanted * sample.multi_turn_share)))
    assert figures["free in the pool"] == len(free)
    assert figures["asked for"] == sample.prompts


@settings(max_examples=100, deadline=None)
@given(kinds, st.integers(2, 40), st.integers(0, 99))
def test_topics_give_as_evenly_as_supply_allows(kinds: list[tuple[int, int, int]], n: int, seed: int) -> None:
    pool = pool_of([(1, topic, level) for _, topic, level in kinds])
    table, _ = draw(pool, Sample(prompts=n, multi_turn_share=0), seed, "d1", ())
    supply, given_ = Counter(pool["topic"].to_pylist()), Counter(table["topic"].to_pylist())
    most = max(given_.values(), default=0)
    assert all(given_[topic] >= min(supply[topic], most - 1) for topic in supply)


def test_topics_of_both_kinds_together_differ_by_at_most_one() -> None:
    table, _ = draw(POOL, Sample(prompts=210), 3, "d1", ())
    assert sorted(set(Counter(table["topic"].to_pylist()).values())) == [10, 11]


@settings(max_examples=60, deadline=None)
@given(kinds, samples, st.randoms())
def test_the_order_of_the_pool_is_no_matter(kinds: list[tuple[int, int, int]], sample: Sample, shuffle: object) -> None:
    pool = pool_of(kinds)
    order = list(range(len(pool)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    assert draw(pool.take(pa.array(order, pa.int64())), sample, 7, "d1", ()) == draw(pool, sample, 7, "d1", ())


@settings(max_examples=100, deadline=None)
@given(kinds, samples, st.integers(0, 99))
def test_a_delivery_drawn_again_after_a_later_one_is_the_same(
    kinds: list[tuple[int, int, int]], sample: Sample, seed: int
) -> None:
    pool = pool_of(kinds)
    first, _ = draw(pool, sample, seed, "d1", ())
    later, _ = draw(pool, sample, seed, "d2", ids(first))
    assert not set(ids(first)) & set(ids(later))
    assert draw(pool, sample, seed, "d1", ids(later))[0] == first


def test_seed_and_delivery_each_make_another_draw() -> None:
    draws = [
        tuple(ids(draw(POOL, Sample(prompts=100), seed, delivery, ())[0]))
        for seed, delivery in ((1, "d1"), (1, "d2"), (2, "d1"))
    ]
    assert len(set(draws)) == 3


def test_levels_stand_by_their_weights_the_fifth_twice() -> None:
    counts = np.zeros(5)
    for seed in range(20):
        table, _ = draw(POOL, Sample(prompts=300), seed, "d1", ())
        counts += np.bincount(table["complexity"].to_pylist(), minlength=6)[1:]
    # without replacement from topics of uneven size: near the shares, not at them
    assert np.abs(counts / counts.sum() - np.array([1, 1, 1, 1, 2]) / 6).max() < 0.03


def test_a_level_of_weight_zero_is_never_drawn_and_leaves_a_shortfall_that_is_told() -> None:
    pool = pool_of([(1, 0, 1)] * 5 + [(1, 0, 2)] * 5)
    table, figures = draw(pool, Sample(prompts=8, multi_turn_share=0, complexity_weights=(0, 1, 1, 1, 1)), 1, "d1", ())
    assert table["complexity"].to_pylist() == [2] * 5
    assert (figures["asked for"], figures["drawn"], figures["free in the pool"]) == (8, 5, 5)


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 1.0])
def test_the_share_is_exact_to_rounding_where_supply_allows(share: float) -> None:
    table, _ = draw(POOL, Sample(prompts=97, multi_turn_share=share), 1, "d1", ())
    assert abs(multi(table) / 97 - share) <= 0.5 / 97


def reference(pool: pa.Table, n: int, weights: np.ndarray, seed: int, delivery: str) -> set[str]:
    """The draw of single-turn prompts, one at a time in plain Python: the topic that has given least gives its next."""
    from pipeline.draws import uniforms

    rows = sorted(pool.to_pylist(), key=lambda r: r["prompt_id"])
    per_level = Counter(r["complexity"] for r in rows)
    queues: dict[int, list[tuple[float, float, str]]] = {}
    for row in rows:
        u, tie = uniforms([row["prompt_id"]], f"{seed}/{delivery}/draw", 2)[0]
        weight = weights[row["complexity"] - 1] / per_level[row["complexity"]]
        queues.setdefault(row["topic"], []).append((-np.log1p(-u) / weight, tie, row["prompt_id"]))
    for queue in queues.values():
        queue.sort()
    chosen: list[str] = []
    rank = 0
    while len(chosen) < n and any(len(q) > rank for q in queues.values()):
        turn = sorted((q[rank][1], q[rank][2]) for q in queues.values() if len(q) > rank)
        chosen += [i for _, i in turn[: n - len(chosen)]]
        rank += 1
    return set(chosen)


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(2, 30), st.integers(0, 99))
def test_the_draw_is_that_of_a_plain_loop(kinds: list[tuple[int, int, int]], n: int, seed: int) -> None:
    assume(kinds)
    pool = pool_of([(1, topic, level) for _, topic, level in kinds])
    sample = Sample(prompts=n, multi_turn_share=0)
    table, _ = draw(pool, sample, seed, "d1", ())
    assert set(ids(table)) == reference(pool, n, np.array(sample.complexity_weights), seed, "d1")
