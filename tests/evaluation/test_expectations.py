"""Each rule is broken by what it forbids."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from pipeline.benchmarks import pairs
from pipeline.benchmarks.schema import REJECTED
from pipeline.evaluation import expectations
from pipeline.evaluation.leaderboard import board
from pipeline.evaluation.schema import CONTAMINATION, HISTORY, SCORES, WEIGHTS
from pipeline.evaluation.summary import summarise
from pipeline.gate import evaluate
from pipeline.rules import ROWS, Rule
from pipeline.vocabulary import ATTRIBUTES
from tests.evaluation.made import evaluated, pairs_of, scores_of, won

N = 60


def broken(rules: Sequence[Rule], table: pa.Table, views: dict[str, pa.Table]) -> set[str]:
    outcomes = list(evaluate(rules, {ROWS: table, **views}))
    assert not [o.error for o in outcomes if o.error]
    return {o.rule.name for o in outcomes if not o.passed}


def of_weights(weights: Sequence[float], names: Sequence[str] = ATTRIBUTES, pairs: int = 100) -> set[str]:
    rows = [{"attribute": name, "weight": w, "pairs": pairs} for name, w in zip(names, weights, strict=False)]
    table = pa.Table.from_pylist(rows, schema=WEIGHTS)
    return broken(expectations.WEIGHTS, table, expectations.weight_views(table))


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({"weights": [0.5, 0.2, 0.1, 0.1, -0.1]}, set()),
        ({"weights": [0.0] * 5}, {"scaled"}),
        ({"weights": [2.0, 0.2, 0.1, 0.1, -0.1]}, {"scaled"}),
        ({"weights": [1.0], "names": ["reward"]}, set()),
        ({"weights": [0.5, 0.5], "names": ["helpfulness"] * 2}, {"weighed_once"}),
        ({"weights": [0.5, 0.2, 0.1, 0.1, -0.1], "names": [*ATTRIBUTES[:4], "charm"]}, {"known_attributes"}),
        ({"weights": [-0.5, 0.2, 0.1, 0.1, -0.1]}, {"helpfulness_counts"}),
        ({"weights": [0.5, 0.2, 0.1, 0.1, -0.1], "pairs": 99}, {"enough_pairs"}),
    ],
)
def test_each_rule_of_weights_is_broken_by_what_it_forbids(given: dict[str, Any], rules: set[str]) -> None:
    assert of_weights(**given) == rules


def of_scores(
    change: dict[str, Any] | None = None,
    scored: int = 2 * N,
    unusable: int = 0,
    goodness: Sequence[float] | None = None,
    total: dict[str, Any] | None = None,
    contaminated: int = 0,
    regression: bool | None = None,
) -> set[str]:
    items = pairs_of(N, chosen="short", other="a longer one")
    scores = scores_of(items, goodness or won(*[1] * N))
    summary = summarise(items, scores, {"b": pairs}, seed=1).to_pylist()
    summary[-1] |= total or {}
    rows = scores.to_pylist()
    rows[0] |= change or {}
    table = pa.Table.from_pylist(rows[:scored], schema=SCORES)
    views = expectations.score_views(
        table,
        items,
        pa.Table.from_pylist(
            [{"benchmark": "b", "line": n, "reason": "blank"} for n in range(unusable)], schema=REJECTED
        ),
        pa.Table.from_pylist(summary),
        pa.Table.from_pylist([{"benchmark": "b", "items": N, "contaminated": contaminated}], schema=CONTAMINATION),
        pa.Table.from_pylist(
            [] if regression is None else [{"benchmark": "b", "regression": regression}], schema=HISTORY
        ),
    )
    return broken(expectations.score_rules(gate=True), table, views)


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({}, set()),
        ({"change": {"response": 1}}, {"response_once"}),
        ({"scored": 2 * N - 1}, {"every_response"}),
        ({"change": {"goodness": float("inf")}}, {"finite"}),
        ({"change": {"goodness": float("nan")}}, {"finite"}),
        ({"total": {"low": 0.9, "high": 0.8}}, {"sound_interval"}),
        ({"total": {"accuracy": 1.02, "high": 1.02}}, {"share"}),
        ({"unusable": 2}, {"few_unusable"}),
        ({"goodness": won(*[-1] * N)}, {"better_than_length", "better_than_chance"}),
        ({"goodness": won(*[1, -1] * (N // 2))}, {"better_than_chance"}),
        ({"contaminated": 1}, {"uncontaminated"}),
        ({"regression": False}, set()),
        ({"regression": True}, {"no_regression"}),
    ],
)
def test_each_rule_of_scores_is_broken_by_what_it_forbids(given: dict[str, Any], rules: set[str]) -> None:
    assert of_scores(**given) == rules


def test_a_poor_model_is_published_with_a_warning_and_a_regression_by_profile() -> None:
    warnings = {rule.name for rule in expectations.score_rules(gate=False) if not rule.gating}
    assert warnings == {"better_than_length", "better_than_chance", "uncontaminated", "no_regression"}
    assert {rule.name for rule in expectations.score_rules(gate=True) if not rule.gating} == warnings - {
        "no_regression"
    }


def of_board(table: pa.Table, unequal: int = 0) -> set[str]:
    return broken(expectations.LEADERBOARD, table, expectations.leaderboard_views(table, unequal))


def test_a_leaderboard_without_ours_or_with_a_model_lost_is_not_published() -> None:
    whole = board([evaluated("recipe", pairs_of(12))])
    ours = len(whole.filter(pa.compute.equal(whole["origin"], "ours")))
    assert of_board(whole) == set()
    assert of_board(whole.slice(ours)) == {"ours_are_there"}
    assert of_board(whole.slice(0, len(whole) - 7)) == {"published_are_there"}
    assert of_board(whole, unequal=1) == {"same_items"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"accuracy": 102.0}, "percent"),
        ({"low": None}, "doubt_shown"),
        ({"benchmark": "RewardBench"}, "published_apart"),
    ],
)
def test_each_rule_of_the_leaderboard_is_broken_by_what_it_forbids(change: dict[str, Any], rule: str) -> None:
    whole = board([evaluated("recipe", pairs_of(12))])
    rows = whole.to_pylist()
    rows[0] |= change
    assert of_board(pa.Table.from_pylist(rows, schema=whole.schema)) == {rule}
