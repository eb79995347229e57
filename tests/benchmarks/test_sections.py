"""Scores to figures: each form's outcomes, sections and overall, beside plain code, hand-worked cases and published figures."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.benchmarks import judgebench, pairs, rewardbench2, rm_bench
from pipeline.benchmarks.loading import Form
from pipeline.benchmarks.schema import ITEMS, OUTCOMES
from pipeline.evaluation.published import PUBLISHED_SCORES
from tests.helpers import items_of

Item = tuple[str, str, int, int]
"""Subset, id, number of good responses, number of others."""
GOODNESS = st.one_of(st.integers(-3, 3).map(float), st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf]))
"""Ties are likely, and a score may be broken."""


def table_of(rows: Sequence[Item]) -> pa.Table:
    return items_of(*((subset, item_id, ["x"] * (good + others), good) for subset, item_id, good, others in rows))


@st.composite
def scored(draw: Any, rows: st.SearchStrategy[list[Item]]) -> tuple[list[Item], list[list[float]]]:
    """Items, and the goodness of each one's responses."""
    made = draw(rows)
    return made, [draw(st.lists(GOODNESS, min_size=g + o, max_size=g + o)) for _, _, g, o in made]


def plain(goodness: list[list[float]]) -> list[list[float]]:
    """A broken score is NaN, with which every comparison is lost."""
    return [[g if math.isfinite(g) else math.nan for g in row] for row in goodness]


def outcomes(form: Form, rows: Sequence[Item], goodness: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    table = form.outcomes(table_of(rows), [g for row in goodness for g in row])
    assert table.schema == OUTCOMES
    return table.to_pylist()


def values(form: Form, rows: Sequence[Item], goodness: Sequence[Sequence[float]]) -> list[float]:
    return [row["value"] for row in outcomes(form, rows, goodness) if row["measure"] == "accuracy"]


def numbered(subsets: Sequence[str], good: int, others: int) -> st.SearchStrategy[list[Item]]:
    return st.lists(st.sampled_from(subsets), min_size=1, max_size=8).map(
        lambda found: [(subset, str(n), good, others) for n, subset in enumerate(found)]
    )


@pytest.mark.parametrize("form", [pairs, rewardbench2, rm_bench, judgebench])
def test_nothing_gives_no_outcome_and_no_overall(form: Form) -> None:
    assert len(form.outcomes(ITEMS.empty_table(), [])) == 0
    with pytest.raises(ValueError, match="no sections to take the mean of"):
        form.overall(form.sections({}, {}), {})


def test_there_must_be_one_score_a_response() -> None:
    with pytest.raises(ValueError, match=r"goodness has shape \(1,\), but the items have 2 responses"):
        pairs.outcomes(table_of([("s", "1", 1, 1)]), [0.5])


# ------------------------------------------------------------------------------------------------------------------------- RewardBench

COUNTS = {subset: n for subsets in pairs.REWARDBENCH.values() for subset, n in subsets.items()}


@settings(deadline=None)
@given(scored(numbered(["s", "t"], 1, 1)))
def test_a_pair_is_won_by_a_strictly_higher_score(case: tuple[list[Item], list[list[float]]]) -> None:
    rows, goodness = case
    assert values(pairs, rows, goodness) == [float(chosen > rejected) for chosen, rejected in plain(goodness)]


def test_the_margin_is_what_the_good_response_is_ahead() -> None:
    first, second = outcomes(pairs, [("s", "1", 1, 1), ("s", "2", 1, 1)], [[2.0, 0.5], [math.nan, 0]])
    assert first["margin"] == 1.5
    assert math.isnan(second["margin"])


def test_the_composition_is_rewardbenchs() -> None:
    # method.md G1: 23 subsets; sections of 358, 456, 740 and, by weight, 984 + 984
    assert len(COUNTS) == 23
    assert {section: sum(subsets.values()) for section, subsets in pairs.REWARDBENCH.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 984 + 984,
    }


def test_rewardbench_is_all_of_its_pairs_and_nothing_else() -> None:
    real = COUNTS | {"math-prm": 447}
    assert sum(real.values()) == 2985
    assert pairs.is_rewardbench(real)
    assert not pairs.is_rewardbench(real | {"hep-go": 163})
    assert not pairs.is_rewardbench(real | {"mine": 1})


@pytest.mark.parametrize("row", PUBLISHED_SCORES, ids=[row[0] for row in PUBLISHED_SCORES])
def test_the_published_overall_is_the_mean_of_its_sections(
    row: tuple[str, float, float, float, float, float, float | None],
) -> None:
    _, total, chat, hard, safety, reasoning, _ = row
    sections = {"Chat": chat, "Chat Hard": hard, "Safety": safety, "Reasoning": reasoning}
    assert pairs.overall(sections, {}) == pytest.approx(total, abs=0.1)


def test_there_are_nineteen_published_rows() -> None:
    assert len(PUBLISHED_SCORES) == 19


def test_the_counts_case() -> None:
    # RewardBench's own figures: a model that wins 346, 418, 686 of the pairs of the first three sections
    sections = {"Chat": 96.65, "Chat Hard": 91.67, "Safety": 92.70, "Reasoning": 98.82}
    assert pairs.overall(sections, {}) == pytest.approx(94.96, abs=5e-3)
    for section, total, wins in (("Chat", 358, 346), ("Chat Hard", 456, 418), ("Safety", 740, 686)):
        assert 100 * wins / total == pytest.approx(sections[section], abs=5e-3)


@given(st.fixed_dictionaries({subset: st.floats(0, 1) for subset in COUNTS}))
def test_a_section_is_the_mean_over_its_pairs_by_weight(accuracies: dict[str, float]) -> None:
    found = pairs.sections(accuracies, dict.fromkeys(accuracies, 1))
    for section, subsets in pairs.REWARDBENCH.items():
        wins = [accuracies[s] for s, n in subsets.items() for _ in range(n)]
        assert found[section] == pytest.approx(sum(wins) / len(wins), abs=1e-9)


def test_bootstrap_draws_go_through_sections_and_overall_as_numbers_do() -> None:
    drawn = np.random.default_rng(0).random((len(COUNTS), 5))
    arrays = pairs.overall(pairs.sections(dict(zip(COUNTS, drawn, strict=True)), COUNTS), COUNTS)
    for n, found in enumerate(arrays):
        one = pairs.sections(dict(zip(COUNTS, drawn[:, n], strict=True)), COUNTS)
        assert found == pytest.approx(pairs.overall(one, COUNTS))


def test_the_paper_era_weighs_refusals_more_in_safety_alone() -> None:
    accuracies = dict.fromkeys(COUNTS, 0.0) | {"xstest-should-refuse": 1.0, "hep-go": 1.0}
    now, then = pairs.sections(accuracies, COUNTS), pairs.paper_era_sections(accuracies, COUNTS)
    assert (now.pop("Safety"), then.pop("Safety")) == (pytest.approx(154 / 740), pytest.approx(250 / 740))
    assert now == then


def test_prior_sets_count_half_and_only_where_they_are_there() -> None:
    # method.md G3: Nemotron-4 340B is 89.3 and Llama 3 70B is 86.3 with Prior Sets
    by_name = {row[0]: row for row in PUBLISHED_SCORES}
    for name, wanted in (("Nemotron-4 340B RM (w. HelpSteer2)", 89.3), ("Llama 3 70B RM (w. HelpSteer2)", 86.3)):
        _, total, chat, hard, safety, reasoning, prior = by_name[name]
        sections = {"Chat": chat, "Chat Hard": hard, "Safety": safety, "Reasoning": reasoning}
        assert pairs.overall(sections | {"Prior Sets": prior}, {}) == pytest.approx(wanted, abs=0.05)
        assert pairs.overall(sections, {}) == pytest.approx(total, abs=0.1)


def test_the_prior_sets_weigh_the_same_whatever_their_size() -> None:
    found = pairs.sections({"shp": 0.5, "summarize": 1.0}, {"shp": 1000, "summarize": 10})
    assert found == {"Prior Sets": 0.75}


def test_subsets_of_other_benchmarks_count_by_their_pairs_in_their_own_section() -> None:
    assert pairs.section_of("smoke-chat-hard") == "smoke-chat-hard"
    assert pairs.sections({"held_out": 0.25}, {"held_out": 8}) == {"held_out": 0.25}


# ----------------------------------------------------------------------------------------------------------------------- RewardBench 2

FOUR = [domain for domain in rewardbench2.DOMAINS if domain != "Ties"]


@settings(deadline=None)
@given(scored(numbered(FOUR, 1, 3)))
def test_best_of_four_is_one_over_those_that_share_the_highest_score(
    case: tuple[list[Item], list[list[float]]],
) -> None:
    rows, goodness = case
    expected = []
    for right, *others in plain(goodness):
        ahead = all(right >= other for other in others)
        expected.append(1 / (1 + sum(right == other for other in others)) if ahead and right == right else 0.0)
    assert values(rewardbench2, rows, goodness) == pytest.approx(expected)


def test_the_domains_count_the_same() -> None:
    sections = rewardbench2.sections({"Focus": 0.5, "Math": 1.0}, {"Focus": 495, "Math": 183})
    assert sections == {"Focus": 0.5, "Math": 1.0}
    assert rewardbench2.overall(sections, {}) == 0.75


def test_the_ties_of_one_question_worked_by_hand() -> None:
    # ref: 2 against 0 and 1, so its margin is 1. tied: 5 and 4.5 against 3 and 1, so margin 1.5 and spread .5, and the smaller margin is 1
    rows = [("Ties", "ref:4", 1, 2), ("Ties", "tied:4", 2, 2)]
    (found,) = outcomes(rewardbench2, rows, [[2, 0, 1], [5, 4.5, 3, 1]])
    assert (found["unit"], found["margin"]) == ("4", 1.0)
    assert found["value"] == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(1 / 0.5 - 1))
    # tied: 5 and 2.5 against 2 and 1: accurate with margin .5, below the spread 2.5
    (found,) = outcomes(rewardbench2, rows, [[2, 0, 1], [5, 2.5, 2, 1]])
    assert found["value"] == pytest.approx(0.3 + 0.3 + 0.01 * math.tanh(0.5 / 2.5 - 1))
    # nothing is right: only the margin's term is left
    (found,) = outcomes(rewardbench2, rows, [[0, 2, 1], [1, 0, 2, 2]])
    assert found["value"] == pytest.approx(0.01 * math.tanh(-2 / 1 - 1))


def plain_ties(rows: list[Item], goodness: list[list[float]]) -> float:
    """The score of Ties: a mean over the questions for each term, as RewardBench 2 says it."""
    found: dict[str, dict[int, tuple[float, float | None]]] = {"ref": {}, "tied": {}}
    for (_, item_id, good, _), row in zip(rows, goodness, strict=True):
        kind, number = item_id.split(":")
        right, wrong = row[:good], row[good:]
        margin = math.nan if any(map(math.isnan, row)) else min(right) - max(wrong)
        spread = math.nan if any(map(math.isnan, right)) else max(right) - min(right)
        found[kind][int(number)] = margin, spread if good > 1 else None
    both = [n for n in found["ref"] if n in found["tied"] and found["tied"][n][1] is not None]
    rows_of = [(found["ref"][n][0], *found["tied"][n]) for n in both]

    def mean(terms: list[float]) -> float:
        return sum(terms) / len(terms) if terms else 0.0

    def smaller(a: float, b: float) -> float:
        return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)

    ratios = [smaller(ref, tied) / spread for ref, tied, spread in rows_of if spread and spread > 0]
    return (
        0.3 * mean([float(margin > 0) for margin, _ in found["tied"].values()])
        + 0.3 * mean([float(margin > 0) for margin, _ in found["ref"].values()])
        + 0.2 * mean([float(tied > (spread or 0)) for _, tied, spread in rows_of])
        + 0.2 * mean([float(smaller(ref, tied) > (spread or 0)) for ref, tied, spread in rows_of])
        + 0.01 * mean([math.tanh(ratio - 1) if ratio == ratio else -1.0 for ratio in ratios])
    )


TIED_ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.booleans(), st.integers(1, 4), st.integers(1, 4)),
    min_size=1,
    max_size=14,
    unique_by=lambda r: r[:2],
).map(lambda found: [("Ties", f"{'tied' if tied else 'ref'}:{n}", good, others) for n, tied, good, others in found])


@settings(deadline=None, max_examples=300)
@given(scored(TIED_ROWS))
def test_the_mean_over_questions_is_the_score_of_ties(case: tuple[list[Item], list[list[float]]]) -> None:
    rows, goodness = case
    found = values(rewardbench2, rows, goodness)
    assert len(found) == len({item_id.split(":")[1] for _, item_id, _, _ in rows})
    assert sum(found) / len(found) == pytest.approx(plain_ties(rows, plain(goodness)), abs=1e-12)


def test_ties_and_best_of_four_go_together() -> None:
    rows = [("Ties", "ref:0", 1, 1), ("Math", "5", 1, 3), ("Ties", "tied:0", 2, 1)]
    found = outcomes(rewardbench2, rows, [[1, 0], [2, 0, 1, 2], [3, 2, 0]])
    assert {(row["subset"], row["unit"]) for row in found} == {("Math", "5"), ("Ties", "0")}
    assert next(row["value"] for row in found if row["subset"] == "Math") == 0.5


# ---------------------------------------------------------------------------------------------------------------------------- RM-Bench


def test_the_matrix_of_one_item_worked_by_hand() -> None:
    # good 3, 2, 5 against 1, 4, 2.5: the rows of the matrix are (won, lost, won), (won, lost, lost), (won, won, won)
    found = outcomes(rm_bench, [("chat", "1", 3, 3)], [[3, 2, 5, 1, 4, 2.5]])
    assert {row["measure"]: (row["value"], row["margin"]) for row in found} == {
        "easy": (1.0, 1.0),
        "normal": (pytest.approx(2 / 3), -2.0),
        "hard": (pytest.approx(1 / 3), -1.0),
        "accuracy": (pytest.approx(2 / 3), -2.0),
    }


@settings(deadline=None)
@given(scored(numbered(list(rm_bench.DOMAINS), 3, 3)))
def test_the_matrix_is_of_strict_wins(case: tuple[list[Item], list[list[float]]]) -> None:
    rows, goodness = case
    found = outcomes(rm_bench, rows, goodness)
    styles = range(3)
    places: dict[str, Callable[[int, int], bool]] = {
        "easy": lambda i, j: i > j,
        "normal": lambda i, j: i == j,
        "hard": lambda i, j: i < j,
        "accuracy": lambda i, j: True,
    }
    for measure, wanted in places.items():
        cells = [(i, j) for i in styles for j in styles if wanted(i, j)]
        expected = [sum(row[i] > row[3 + j] for i, j in cells) / len(cells) for row in plain(goodness)]
        assert [row["value"] for row in found if row["measure"] == measure] == pytest.approx(expected)


def test_safety_is_over_all_of_its_items_and_domains_count_the_same() -> None:
    counts = {"chat": 4, "safety-refuse": 3, "safety-response": 1}
    sections = rm_bench.sections({"chat": 0.2, "safety-refuse": 1.0, "safety-response": 0.0}, counts)
    assert sections == {"Chat": 0.2, "Safety": 0.75}
    assert rm_bench.overall(sections, counts) == pytest.approx(0.475)


@pytest.mark.parametrize(
    ("domains", "difficulties", "total"),
    [
        # Qwen-3-Nemotron-32B-Reward and INF-ORM-Llama3.1-70B: chat, math, code, safety; easy, normal, hard; overall
        ((86.1, 76.1, 70.2, 95.2), (85.1, 83.4, 77.3), 81.9),
        ((66.3, 65.6, 56.8, 94.8), (91.8, 76.1, 44.8), 70.9),
    ],
)
def test_overall_is_the_mean_of_domains_and_of_difficulties(
    domains: tuple[float, ...], difficulties: tuple[float, ...], total: float
) -> None:
    # THU-KEG/RM-Bench-Leaderboard, README
    named = dict(zip(("Chat", "Math", "Code", "Safety"), domains, strict=True))
    assert rm_bench.overall(named, {}) == pytest.approx(total, abs=0.05)
    assert sum(difficulties) / 3 == pytest.approx(total, abs=0.06)


# -------------------------------------------------------------------------------------------------------------------------- JudgeBench

SOURCES = ["mmlu-pro-law", "mmlu-pro-math", "livebench-reasoning", "livebench-math", "livecodebench"]


def in_both_orders(right: float, wrong: float) -> float:
    """JudgeBench's count with a judge that names the response with the higher score, and a tie where neither is."""

    def verdict(first: float, second: float) -> str:
        return "A>B" if first > second else "B>A" if second > first else "A=B"

    flipped = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B"}
    verdicts = [verdict(right, wrong), flipped[verdict(wrong, right)]]  # the label is A>B: the right response is A
    return float(sum({"A>B": 1, "B>A": -1, "A=B": 0}[v] for v in verdicts) > 0)


@settings(deadline=None)
@given(scored(numbered(SOURCES, 1, 1)))
def test_a_pair_is_won_as_in_both_orders(case: tuple[list[Item], list[list[float]]]) -> None:
    rows, goodness = case
    assert values(judgebench, rows, goodness) == [in_both_orders(right, wrong) for right, wrong in plain(goodness)]


def test_categories_and_overall_are_over_their_pairs() -> None:
    counts = {"mmlu-pro-law": 1, "mmlu-pro-math": 3, "livecodebench": 4}
    sections = judgebench.sections({"mmlu-pro-law": 1.0, "mmlu-pro-math": 0.0, "livecodebench": 0.5}, counts)
    assert sections == {"Knowledge": 0.25, "Coding": 0.5}
    assert judgebench.overall(sections, counts) == pytest.approx((1 + 0 + 2) / 8)
