from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.draws import uniforms
from pipeline.prompts.filters import prompt_id
from pipeline.prompts.sampling import draw, level_counts
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
def test_topics_of_one_level_give_as_evenly_as_supply_allows(
    kinds: list[tuple[int, int, int]], n: int, seed: int
) -> None:
    pool = pool_of([(1, topic, 3) for _, topic, _ in kinds])
    table, _ = draw(pool, Sample(prompts=n, multi_turn_share=0), seed, "d1", ())
    supply, gave = Counter(pool["topic"].to_pylist()), Counter(table["topic"].to_pylist())
    most = max(gave.values(), default=0)
    assert all(gave[topic] >= min(supply[topic], most - 1) for topic in supply)


def test_topics_of_a_large_pool_differ_by_at_most_one_over_all_kinds_and_levels() -> None:
    table, _ = draw(POOL, Sample(prompts=210), 3, "d1", ())
    assert sorted(set(Counter(table["topic"].to_pylist()).values())) == [10, 11]


@settings(max_examples=60, deadline=None)
@given(kinds, samples, st.randoms())
def test_the_order_of_the_pool_is_no_matter(kinds: list[tuple[int, int, int]], sample: Sample, shuffle: object) -> None:
    pool = pool_of(kinds)
    order = list(range(len(pool)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    assert draw(pool.take(pa.array(order, pa.int64())), sample, 7, "d1", ()) == draw(pool, sample, 7, "d1", ())


@settings(max_examples=300, deadline=None)
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


@pytest.mark.parametrize("share", [0.0, 0.29, 1.0])
def test_levels_stand_by_their_weights_the_fifth_twice_where_supply_allows(share: float) -> None:
    table, _ = draw(POOL, Sample(prompts=300, multi_turn_share=share), 1, "d1", ())
    assert np.bincount(table["complexity"].to_pylist(), minlength=6)[1:].tolist() == [50, 50, 50, 50, 100]


counts = st.lists(st.integers(0, 12), min_size=5, max_size=5)
weights_ = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=5, max_size=5)


@given(st.integers(0, 80), weights_, counts, counts)
def test_level_counts_are_those_of_giving_one_at_a_time(
    n: int, weights: list[float], supply: list[int], before: list[int]
) -> None:
    given_ = [0] * 5
    for _ in range(min(n, sum(supply))):
        open_ = [level for level in range(5) if given_[level] < supply[level]]
        given_[min(open_, key=lambda k: ((before[k] + given_[k] + 0.5) / weights[k], k))] += 1
    assert level_counts(n, np.array(weights), np.array(supply), np.array(before)).tolist() == given_


def test_a_level_of_weight_zero_is_never_drawn_and_leaves_a_shortfall_that_is_told() -> None:
    pool = pool_of([(1, 0, 1)] * 5 + [(1, 0, 2)] * 5)
    table, figures = draw(pool, Sample(prompts=8, multi_turn_share=0, complexity_weights=(0, 1, 1, 1, 1)), 1, "d1", ())
    assert table["complexity"].to_pylist() == [2] * 5
    assert (figures["asked for"], figures["drawn"], figures["free in the pool"]) == (8, 5, 5)


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 1.0])
def test_the_share_is_exact_to_rounding_where_supply_allows(share: float) -> None:
    table, _ = draw(POOL, Sample(prompts=97, multi_turn_share=share), 1, "d1", ())
    assert abs(multi(table) / 97 - share) <= 0.5 / 97


def reference(pool: pa.Table, sample: Sample, seed: int, delivery: str) -> set[str]:
    """The draw of a pool with one kind alone, one prompt at a time in plain Python."""
    rows = [r for r in pool.to_pylist() if sample.complexity_weights[r["complexity"] - 1]]
    in_pool, per_level = (Counter(r["complexity"] for r in table) for table in (pool.to_pylist(), rows))
    supply = np.array([per_level[level] for level in range(1, 6)])
    wanted = level_counts(sample.prompts, np.array(sample.complexity_weights), supply, np.zeros(5, dtype=np.int64))
    hashed = {r["prompt_id"]: uniforms([r["prompt_id"]], f"{seed}/{delivery}/prompts")[0, 0] for r in rows}
    tie = {r["topic"]: uniforms([str(r["topic"])], f"{seed}/{delivery}/topics")[0, 0] for r in rows}
    gave: Counter[int] = Counter()
    chosen: set[str] = set()
    for level in sorted(range(1, 6), key=lambda k: in_pool[k]):
        for _ in range(wanted[level - 1]):
            left = [r for r in rows if r["complexity"] == level and r["prompt_id"] not in chosen]
            topic = min({r["topic"] for r in left}, key=lambda t: (gave[t], tie[t]))
            chosen.add(min((r["prompt_id"] for r in left if r["topic"] == topic), key=lambda i: hashed[i]))
            gave[topic] += 1
    return chosen


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(2, 30), st.integers(0, 99), st.sampled_from([(1, 1, 1, 1, 2), (0, 1, 3, 0, 1)]))
def test_the_draw_is_that_of_a_plain_loop(
    kinds: list[tuple[int, int, int]], n: int, seed: int, weights: tuple[float, float, float, float, float]
) -> None:
    pool = pool_of([(1, topic, level) for _, topic, level in kinds])
    sample = Sample(prompts=n, multi_turn_share=0, complexity_weights=weights)
    assert set(ids(draw(pool, sample, seed, "d1", ())[0])) == reference(pool, sample, seed, "d1")
