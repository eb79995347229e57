"""The rules of method and poster, against a plain oracle that loops."""

from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotations.consensus import (
    LEVELS,
    OutlierRule,
    Totals,
    agreed_tasks,
    closest_by_level,
    consensus_labels,
    labels_of_stream,
    most_agreeing,
    spreads,
)
from pipeline.forms.rows import ANNOTATIONS
from pipeline.forms.streams import in_whole_prompts
from pipeline.vocabulary import ATTRIBUTES

Rows = list[tuple[str, list[int | None]]]
SORTED = [(name, "ascending") for name in ("prompt_id", *ATTRIBUTES)]
rating = st.one_of(st.none(), st.integers(0, 4))
rows_strategy = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.lists(rating, min_size=5, max_size=5)), min_size=1, max_size=30
)


def table(rows: Rows) -> pa.Table:
    """Annotations of responses by name; prompt p has responses a and b, q has c and d, ..."""
    records = [
        {
            "prompt_id": "pqr"["abcdef".index(response) // 2],
            "response_id": response,
            "annotator_id": f"n{n}",
            "simulated": False,
        }
        | dict(zip(ATTRIBUTES, ratings, strict=True))
        for n, (response, ratings) in enumerate(rows)
    ]
    return pa.Table.from_pylist(records, schema=ANNOTATIONS)


def of_one(*ratings: int | None) -> pa.Table:
    return table([("a", [r] * 5) for r in ratings])


def cost(values: tuple[int, ...]) -> int:
    return sum((x - y) ** 2 for x, y in combinations(values, 2))


def oracle(rows: Rows, keep: int, rule: str) -> dict[tuple[str, int], list[int]]:
    """Places (within the response) kept, for each response and attribute."""
    kept = {}
    for response in dict.fromkeys(r for r, _ in rows):
        mine = [ratings for r, ratings in rows if r == response]
        whole = [n for n, ratings in enumerate(mine) if None not in ratings]
        for attribute in range(5):
            if rule == "per_attribute":
                candidates = [n for n, ratings in enumerate(mine) if ratings[attribute] is not None]
                subsets = list(combinations(candidates, keep)) if len(candidates) > keep else [tuple(candidates)]
                costs = [cost(tuple(mine[n][attribute] for n in s)) for s in subsets]
            else:
                subsets = list(combinations(whole, keep)) if len(whole) > keep else [tuple(range(len(mine)))]
                costs = [sum(cost(tuple(mine[n][a] or 0 for n in s)) for a in range(5)) for s in subsets]
            best = subsets[costs.index(min(costs))]
            kept[response, attribute] = [n for n in best if mine[n][attribute] is not None]
    return kept


@settings(max_examples=1000, deadline=None)
@given(rows_strategy, st.integers(2, 4), st.sampled_from(["per_attribute", "annotator"]))
def test_the_ratings_that_agree_most_are_those_of_the_oracle(rows: Rows, keep: int, rule: str) -> None:
    given_, kept = table(rows), most_agreeing(table(rows), keep, rule)
    places, counts = [], dict[str, int]()
    for response, _ in rows:
        places.append(counts.get(response, 0))
        counts[response] = places[-1] + 1
    left = {r["annotator_id"]: r for r in kept.to_pylist()}
    wanted = oracle(rows, keep, rule)
    for place, row in zip(places, given_.to_pylist(), strict=True):
        for n, attribute in enumerate(ATTRIBUTES):
            expected = row[attribute] if place in wanted[row["response_id"], n] else None
            found = left[row["annotator_id"]][attribute] if row["annotator_id"] in left else None
            assert found == expected
    assert all(any(r[a] is not None for a in ATTRIBUTES) for r in left.values()), (
        "annotations with none left are removed"
    )


@settings(max_examples=300, deadline=None)
@given(rows_strategy)
def test_names_of_responses_may_repeat_from_prompt_to_prompt(rows: Rows) -> None:
    """Of each prompt the responses are called A and B: everything is as if they had names of their own."""
    own = table(rows)
    called = [{"a": "A", "c": "A", "e": "A"}.get(r, "B") for r in own["response_id"].to_pylist()]
    again = own.set_column(1, ANNOTATIONS.field("response_id"), pa.array(called))
    for found in (most_agreeing, consensus_labels, lambda t: agreed_tasks(most_agreeing(t))):
        wanted, got = found(own), found(again)
        assert got.drop_columns("response_id").sort_by(SORTED) == wanted.drop_columns("response_id").sort_by(SORTED)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(2, 6))
def test_ratings_taken_by_level_are_those_of_all_subsets(rows: list[list[int]], keep: int) -> None:
    found = closest_by_level(np.array(rows, dtype=np.int8), keep)
    for row, chosen in zip(rows, found, strict=True):
        subsets = list(combinations(range(7), keep))
        costs = [cost(tuple(row[n] for n in subset)) for subset in subsets]
        assert tuple(np.flatnonzero(chosen)) == subsets[costs.index(min(costs))]


def test_a_thousand_ratings_of_a_response_are_chosen_from_or_refused() -> None:
    ratings = np.random.default_rng(0).integers(0, LEVELS, (1000, 5))
    ratings[500:504] = 3  # the first three 3s come earlier
    many = table([("a", row.tolist()) for row in ratings])
    kept = most_agreeing(many)
    for n, attribute in enumerate(ATTRIBUTES):
        values = [v for v in kept[attribute].to_pylist() if v is not None]
        firsts = [tuple(np.flatnonzero(ratings[:, n] == level)[:3]) for level in range(LEVELS)]
        assert values == [min(range(LEVELS), key=firsts.__getitem__)] * 3
    with pytest.raises(ValueError, match=r"1 responses have 1000 ratings, too many .* take the rule per_attribute"):
        most_agreeing(many, rule="annotator")


def test_a_prompt_with_three_responses_is_a_task() -> None:
    rows = [
        {"prompt_id": prompt, "response_id": name, "annotator_id": f"n{n}", "simulated": False}
        | dict.fromkeys(ATTRIBUTES, level)
        for prompt, levels in {"p": (1, 2, 3), "q": (4, 4, 0), "r": (2,)}.items()
        for name, level in zip("ABC", levels, strict=False)
        for n in range(2)
    ]
    rows[-3] |= {"helpfulness": 4}  # of q's C: one says 4, one 0
    kept = pa.Table.from_pylist(rows, schema=ANNOTATIONS)
    assert set(agreed_tasks(kept)["prompt_id"].to_pylist()) == {"p"}


@settings(max_examples=200, deadline=None)
@given(rows_strategy)
def test_labels_are_means_rounded_half_up(rows: Rows) -> None:
    labels = {r["response_id"]: r for r in consensus_labels(table(rows)).to_pylist()}
    for response, label in labels.items():
        for n, attribute in enumerate(ATTRIBUTES):
            ratings = [r[n] for who, r in rows if who == response and r[n] is not None]
            assert label[f"{attribute}_n"] == len(ratings)
            assert label[f"{attribute}_votes"] == [ratings.count(level) for level in range(5)]
            if ratings:
                assert label[attribute] == int(np.floor(np.mean(ratings) + 0.5))
                assert label[f"{attribute}_mean"] == pytest.approx(np.mean(ratings), abs=1e-6)
                assert label[f"{attribute}_sd"] == pytest.approx(np.std(ratings), abs=1e-6)
            else:
                assert label[attribute] is None


@pytest.mark.parametrize(
    ("ratings", "label"),
    # the data card's and the poster's examples (method.md D), and .5, which is rounded up
    [
        ((3, 3, 4), 3),
        ((3, 4, 4), 4),
        ((4, 3, 4), 4),
        ((2, 2, 2), 2),
        ((2, 1, 1), 1),
        ((0, 0, 0, 0, 4), 0),
        ((2, 3), 3),
        ((0, 1), 1),
    ],
)
def test_the_published_examples(ratings: tuple[int, ...], label: int) -> None:
    assert consensus_labels(most_agreeing(of_one(*ratings)))["helpfulness"].to_pylist() == [label]


def test_a_tie_goes_to_the_first() -> None:
    # 0, 1, 2 and 2, 3, 4 agree as well as each other, as do 1, 2, 3
    kept = most_agreeing(of_one(0, 1, 2, 3, 4))
    assert kept["annotator_id"].to_pylist() == ["n0", "n1", "n2"]


def test_pandas_gives_pandas_in_the_same_order() -> None:
    frame = of_one(4, 0, 0, 0).to_pandas()
    kept = most_agreeing(frame)
    assert isinstance(kept, pd.DataFrame)
    assert list(kept["annotator_id"]) == ["n1", "n2", "n3"]


def test_keeping_fewer_than_two_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        most_agreeing(of_one(1, 2, 3), keep=1)


def test_no_annotations_give_no_labels() -> None:
    assert len(consensus_labels(most_agreeing(ANNOTATIONS.empty_table()))) == 0


def test_a_task_stays_with_both_responses_or_not_at_all() -> None:
    rows = [
        ("a", [2] * 5),
        ("a", [4] * 5),
        ("b", [1] * 5),
        ("b", [4] * 5),
        ("c", [0] * 5),
        ("c", [2] * 5),
        ("d", [3] * 5),
        ("d", [3] * 5),
    ]
    assert set(agreed_tasks(table(rows), max_spread=2)["response_id"].to_pylist()) == {"c", "d"}


def test_a_task_with_one_response_or_without_helpfulness_is_dropped() -> None:
    nothing = [None, 1, 1, 1, 1]
    assert len(agreed_tasks(table([("a", [1] * 5), ("c", nothing), ("d", [1] * 5)]))) == 0


def test_the_posters_disagreement_has_a_spread_of_three() -> None:
    assert spreads(of_one(1, 2, 4))["spread"].to_pylist() == [3]


@settings(max_examples=2000, deadline=None)
@given(st.lists(rating, min_size=1, max_size=7), st.integers(2, 4))
def test_of_two_to_seven_ratings_with_gaps_and_ties_the_closest_are_kept(ratings: list[int | None], keep: int) -> None:
    kept = most_agreeing(of_one(*ratings), keep)
    wanted = oracle([("a", [r] * 5) for r in ratings], keep, "per_attribute")["a", 0]
    assert kept["annotator_id"].to_pylist() == [f"n{n}" for n in wanted]


@pytest.mark.parametrize("wrong", [7, -2])
def test_what_is_no_rating_is_refused_by_its_attribute(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"helpfulness: ratings must be whole numbers from 0 to 4; one is {wrong}"):
        most_agreeing(of_one(1, wrong, 3))


def test_a_rating_between_two_levels_is_refused() -> None:
    frame = of_one(1, 2, 3).to_pandas().astype({"coherence": float})
    frame.loc[1, "coherence"] = 2.5
    with pytest.raises(ValueError, match="coherence: ratings must be whole numbers"):
        most_agreeing(frame)


def test_an_annotation_without_a_response_is_refused() -> None:
    rows = [*of_one(1, 2).to_pylist(), of_one(3).to_pylist()[0] | {"response_id": None}]
    with pytest.raises(ValueError, match="1 annotations have no response_id"):
        most_agreeing(pa.Table.from_pylist(rows, schema=ANNOTATIONS))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=12, unique_by=lambda p: p[0]),
    st.integers(1, 7),
    st.integers(1, 9),
)
def test_a_stream_in_blocks_of_whole_prompts_is_the_stream(
    prompts: list[tuple[int, int]], rows: int, size: int
) -> None:
    ids = [f"p{p}" for p, n in prompts for _ in range(n)]
    whole = pa.table({"prompt_id": pa.array(ids, pa.string()), "row": pa.array(range(len(ids)), pa.int64())})
    blocks = list(in_whole_prompts(whole.to_batches(max_chunksize=size), rows))
    assert pa.concat_tables([whole.slice(0, 0), *blocks]).equals(whole.combine_chunks())
    found = [p for block in blocks for p in set(block["prompt_id"].to_pylist())]
    assert len(found) == len(set(found)), "no prompt is in two blocks"


def test_a_stream_in_which_a_prompt_comes_back_is_refused() -> None:
    stream = pa.table({"prompt_id": ["a", "a", "b", "c", "a", "d"]}).to_batches(max_chunksize=1)
    with pytest.raises(ValueError, match="the rows of 1 prompts don't stand together"):
        list(in_whole_prompts(stream, rows=2))


@settings(max_examples=200, deadline=None)
@given(
    rows_strategy,
    st.integers(2, 4),
    st.sampled_from(["per_attribute", "annotator"]),
    st.integers(0, 4),
    st.integers(1, 9),
)
def test_the_labels_of_a_stream_are_those_of_the_whole(
    rows: Rows, keep: int, rule: OutlierRule, spread: int, size: int
) -> None:
    whole, totals = table(rows).sort_by("prompt_id"), Totals()
    kept = most_agreeing(whole, keep, rule)
    wanted = consensus_labels(agreed_tasks(kept, spread))
    found = list(labels_of_stream(whole.to_batches(max_chunksize=size), totals, keep, rule, spread))
    order = [("prompt_id", "ascending"), ("response_id", "ascending")]
    assert pa.concat_tables([wanted.slice(0, 0), *found]).sort_by(order).equals(wanted)
    assert totals.ratings == sum(r is not None for _, given_ in rows for r in given_)
    assert totals.kept == sum(len(kept) - kept[a].null_count for a in ATTRIBUTES)
    prompts = set(whole["prompt_id"].to_pylist())
    assert (totals.tasks, totals.dropped) == (len(prompts), len(prompts - set(wanted["prompt_id"].to_pylist())))
