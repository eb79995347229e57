import itertools
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompts.filters import prompt_id
from pipeline.prompts.sampling import by_weight, draw, evenly, free, shortfall, taken
from pipeline.prompts.schema import COMPLEXITY, PROMPTS
from pipeline.settings import Sample
from pipeline.shown import first_of_each


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


@settings(max_examples=150, deadline=None)
@given(kinds, samples, st.integers(0, 99))
def test_a_delivery_drawn_again_after_a_later_one_is_the_same(
    kinds: list[tuple[int, int, int]], sample: Sample, seed: int
) -> None:
    pool = pool_of(kinds)
    first, _ = draw(pool, sample, seed, "d1", ())
    later, _ = draw(pool, sample, seed, "d2", ids(first))
    assert not set(ids(first)) & set(ids(later))
    assert draw(pool, sample, seed, "d1", ids(later), ids(first))[0] == first


@settings(max_examples=150, deadline=None)
@given(kinds, kinds, samples, st.integers(0, 99))
def test_a_pool_that_has_grown_moves_no_prompt_of_an_earlier_draw_and_fills_what_was_missing(
    kinds: list[tuple[int, int, int]], more: list[tuple[int, int, int]], sample: Sample, seed: int
) -> None:
    grown = pool_of(kinds + more)
    before, _ = draw(grown.slice(0, len(kinds)), sample, seed, "d1", ())
    again, figures = draw(grown, sample, seed, "d1", (), ids(before))
    assert set(ids(before)) <= set(ids(again))
    assert len(again) == min(sample.prompts, len(grown))
    assert figures["kept of an earlier draw"] == len(before)
    if len(before) == sample.prompts:
        assert again == before


def test_a_prompt_that_left_the_pool_is_replaced_by_one_of_its_kind_and_no_other_moves() -> None:
    sample = Sample(prompts=120)
    before, _ = draw(POOL, sample, 4, "d1", ())
    gone = set(ids(before)[::10])
    left = POOL.filter(pa.array([i not in gone for i in ids(POOL)]))
    again, figures = draw(left, sample, 4, "d1", (), ids(before))
    assert set(ids(before)) - gone <= set(ids(again))
    assert (len(again), figures["kept of an earlier draw"]) == (120, 108)
    assert multi(again) == multi(before)
    assert Counter(again["complexity"].to_pylist()) == Counter(before["complexity"].to_pylist())


def test_more_kept_prompts_than_a_delivery_has_are_refused() -> None:
    with pytest.raises(ValueError, match="3 prompts are to be kept, but the sample has only 2"):
        draw(POOL, Sample(prompts=2), 1, "d1", (), ids(POOL)[:3])


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
def test_counts_by_weight_are_those_of_giving_one_at_a_time(
    n: int, weights: list[float], supply: list[int], before: list[int]
) -> None:
    given_ = [0] * 5
    for _ in range(min(n, sum(supply))):
        open_ = [level for level in range(5) if given_[level] < supply[level]]
        given_[min(open_, key=lambda k: ((before[k] + given_[k] + 0.5) / weights[k], k))] += 1
    assert by_weight(n, np.array(weights), np.array(supply), np.array(before)).tolist() == given_


def test_a_level_of_weight_zero_is_never_drawn_and_leaves_a_shortfall_that_is_told() -> None:
    pool = pool_of([(1, 0, 1)] * 5 + [(1, 0, 2)] * 5)
    table, figures = draw(pool, Sample(prompts=8, multi_turn_share=0, complexity_weights=(0, 1, 1, 1, 1)), 1, "d1", ())
    assert table["complexity"].to_pylist() == [2] * 5
    assert (figures["asked for"], figures["drawn"], figures["free in the pool"]) == (8, 5, 5)


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 1.0])
def test_the_share_is_exact_to_rounding_where_supply_allows(share: float) -> None:
    table, _ = draw(POOL, Sample(prompts=97, multi_turn_share=share), 1, "d1", ())
    assert abs(multi(table) / 97 - share) <= 0.5 / 97


def totals_that_fit(supply: npt.NDArray[np.int64], room: npt.NDArray[np.int64]) -> set[tuple[int, ...]]:
    """Every vector of givers' totals with which the cells are full: by trying all ways, cell by cell."""
    vectors = {tuple([0] * len(supply))}
    for cell in range(supply.shape[1]):
        ways = [
            way
            for way in itertools.product(*(range(int(has) + 1) for has in supply[:, cell]))
            if sum(way) == room[cell]
        ]
        vectors = {tuple(a + b for a, b in zip(v, way, strict=True)) for v in vectors for way in ways}
    return vectors


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_no_filling_of_cells_is_more_even_than_the_one_that_is_found(
    data: st.DataObject, givers: int, cells: int
) -> None:
    rows = st.lists(st.integers(0, 3), min_size=cells, max_size=cells)
    supply = np.array(data.draw(st.lists(rows, min_size=givers, max_size=givers)))
    room = np.array([data.draw(st.integers(0, int(has))) for has in supply.sum(axis=0)])
    before = np.array(data.draw(st.lists(st.integers(0, 3), min_size=givers, max_size=givers)))
    weights = np.array(data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=givers, max_size=givers)))
    found = evenly(supply, room, before, weights, np.arange(givers, dtype=float))
    assert (found <= supply).all()
    assert found.sum(axis=0).tolist() == room.tolist()

    def uneven(totals: tuple[int, ...]) -> float:
        return float((((before + np.array(totals)) ** 2 - before**2) / weights).sum())

    best = min(map(uneven, totals_that_fit(supply, room)))
    assert uneven(tuple(found.sum(axis=1).tolist())) == pytest.approx(best)


@settings(max_examples=100, deadline=None)
@given(kinds, samples, st.integers(0, 99))
def test_topics_are_within_one_of_each_other_wherever_some_draw_with_the_same_numbers_by_turns_and_level_is(
    kinds: list[tuple[int, int, int]], sample: Sample, seed: int
) -> None:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_flow

    pool = pool_of(kinds)
    table, _ = draw(pool, sample, seed, "d1", ())
    if not len(table):
        return
    cell_of = {cell: n for n, cell in enumerate(sorted(set(kinds)))}
    topics = sorted({topic for _, topic, _ in kinds})
    cells = sorted({(turns, level) for turns, _, level in cell_of})
    supply, wanted = (
        Counter(kinds),
        Counter(zip(table["n_turns"].to_pylist(), table["complexity"].to_pylist(), strict=True)),
    )
    share, gave = len(table) // len(topics), Counter(table["topic"].to_pylist())
    # a flow from a source through topics and cells to a sink: each topic gives `share`, and so many of them one more
    size, source, sink = len(topics) + len(cells) + 3, 0, len(topics) + len(cells) + 1
    extra = sink + 1
    capacity = np.zeros((size, size), dtype=np.int32)
    for t, topic in enumerate(topics, start=1):
        capacity[source, t], capacity[extra, t] = share, 1
        for c, (turns, level) in enumerate(cells, start=1 + len(topics)):
            capacity[t, c] = supply[turns, topic, level]
            capacity[c, sink] = wanted[turns, level]
    base = maximum_flow(csr_matrix(capacity), source, sink).flow_value
    capacity[source, extra] = len(table) - share * len(topics)
    possible = base == share * len(topics) and maximum_flow(csr_matrix(capacity), source, sink).flow_value == len(table)
    counts = [gave[topic] for topic in topics]
    assert (max(counts) - min(counts) <= 1) >= possible


def test_multi_turn_prompts_of_every_number_of_turns_stand_as_in_the_pool() -> None:
    table, _ = draw(POOL, Sample(prompts=300), 1, "d1", ())
    in_pool, drawn = Counter(POOL["n_turns"].to_pylist()), Counter(table["n_turns"].to_pylist())
    multi_in_pool = sum(n for turns, n in in_pool.items() if turns > 1)
    for turns in (2, 3, 4):
        assert abs(drawn[turns] - 87 * in_pool[turns] / multi_in_pool) < 1


@settings(max_examples=100, deadline=None)
@given(kinds, samples, st.integers(0, 99))
def test_the_shortfall_names_every_topic_that_gave_less_than_its_share(
    kinds: list[tuple[int, int, int]], sample: Sample, seed: int
) -> None:
    pool = pool_of(kinds)
    table, figures = draw(pool, sample, seed, "d1", ())
    short = shortfall(table, free(pool, sample, ())).to_pylist()
    supply, gave = Counter(pool["topic"].to_pylist()), Counter(table["topic"].to_pylist())
    share = len(table) // max(len(supply), 1)
    assert {r["topic"]: (r["gave"], r["free"]) for r in short} == {
        topic: (gave[topic], supply[topic]) for topic in supply if gave[topic] < share
    }
    assert all((r["for_want_of"] == "prompts") == (r["free"] < share) for r in short)
    assert figures["topics that gave less than their share"] == len(short)
    assert figures["prompts that they lack"] == sum(share - r["gave"] for r in short)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def alike(a: str, b: str) -> float:
    """Jaccard similarity of two texts' word 3-grams, in plain Python."""
    first, second = ({tuple(w[k : k + 3]) for k in range(len(w) - 2)} for w in (words_of(a), words_of(b)))
    return len(first & second) / max(len(first | second), 1)


def test_two_deliveries_never_share_a_prompt_or_a_near_duplicate() -> None:
    words = [f"w{n}" for n in range(40)]
    shuffled = np.random.default_rng(5)
    texts = [" ".join(shuffled.choice(words, 30)) for _ in range(150)]
    # the pool that the second delivery is drawn from: the first's, with a word of each changed, and as many new ones
    changed = [text.replace(text.split()[n % 30], "other", 1) for n, text in enumerate(texts)]
    fresh = [" ".join(shuffled.choice(words, 30)) for _ in range(150)]

    def pool(texts: list[str]) -> pa.Table:
        table = pool_of([(1, n % 5, 1 + n % 5) for n in range(len(texts))])
        rows = [{**r, "turns": [t], "prompt_id": prompt_id([t])} for r, t in zip(table.to_pylist(), texts, strict=True)]
        return pa.Table.from_pylist(rows, schema=COMPLEXITY)

    sample = Sample(prompts=100, multi_turn_share=0)
    first, _ = draw(pool(texts), sample, 1, "d1", ())
    second, figures = draw(pool(changed + fresh), sample, 1, "d2", taken(pool(changed + fresh), [first], 0.6))
    pairs = [(a[0], b[0]) for a in first["turns"].to_pylist() for b in second["turns"].to_pylist()]
    assert max(alike(a, b) for a, b in pairs) < 0.6
    assert len(second) == 100
    assert figures["free in the pool"] == 200
    equal_only = taken(pool(changed + fresh), [first], None)
    assert equal_only == set(ids(first))


def test_a_pool_with_more_than_2_gib_of_text_is_drawn_from() -> None:
    text = pa.ListArray.from_arrays([0, 1], pa.array(["0123456789" * (4 << 20)]))  # 40 MiB, which all rows share
    small = pool_of([(1, n % 3, 1 + n % 5) for n in range(64)])
    large = small.set_column(small.schema.get_field_index("turns"), "turns", pa.chunked_array([text] * 64))
    sample = Sample(prompts=5, multi_turn_share=0)
    drawn, _ = draw(large, sample, 1, "d1", ())
    assert ids(drawn) == ids(draw(small, sample, 1, "d1", ())[0])
    first = first_of_each(large, "topic", rows=1)
    assert first["prompt_id"].to_pylist() == small["prompt_id"].to_pylist()[:3]


MADE = """
import hashlib
import pyarrow as pa
from pipeline.prompts.sampling import draw
from pipeline.prompts.schema import COMPLEXITY, PROMPTS
from pipeline.settings import Sample
rows = [{"prompt_id": f"{n:064x}", "turns": ["a"], "n_turns": 1 + (n * 7919 % 11 < 4) * (1 + n % 3), "topic": n * n % 23,
         "topic_name": "t", "complexity": 1 + n * 31 % 97 % 5} for n in range(3000)]
table, _ = draw(pa.Table.from_pylist(rows, schema=COMPLEXITY), Sample(prompts=400), 20240612, "d1", ())
print(hashlib.sha256("".join(table["prompt_id"].to_pylist()).encode()).hexdigest())
"""


@pytest.mark.parametrize("environment", [{"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "2"}])
def test_the_same_seed_gives_the_same_draw_in_every_process_and_on_every_machine(environment: dict[str, str]) -> None:
    env = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", MADE], env=env, capture_output=True, text=True, check=True)
    # what x86-64 gave, Linux, NumPy 2: another machine must give the same
    assert done.stdout.strip() == "db18299ec32f2a762ba0524997f86660010e12bc2cbcf3bd4b393e0c46a417d3"
