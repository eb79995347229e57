"""Each rule is broken by what it forbids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evaluation import expectations
from pipeline.evaluation.schema import PAIRS, REJECTED_PAIRS, SCORES, WEIGHTS
from pipeline.evaluation.summary import leaderboard, score_table, summarise
from pipeline.gate import evaluate
from pipeline.rules import ROWS, Rule
from pipeline.settings import ATTRIBUTES

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


def pairs_of(chosen: str = "short", rejected: str = "a longer one") -> pa.Table:
    rows = [
        {"benchmark": "b", "pair_id": str(n), "subset": "s", "messages": [], "chosen": chosen, "rejected": rejected}
        for n in range(N)
    ]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def of_scores(pairs: pa.Table, change: dict[str, Any] | None = None, scored: int = N, unusable: int = 0) -> set[str]:
    rows = score_table(pairs, np.ones((N, 5)), np.zeros((N, 5)), [0.2] * 5).to_pylist()
    rows[0] |= change or {}
    table = pa.Table.from_pylist(rows[:scored], schema=SCORES)
    bad = [{"benchmark": "b", "line": n, "reason": "blank"} for n in range(unusable)]
    rejected = pa.Table.from_pylist(bad, schema=REJECTED_PAIRS)
    views = expectations.score_views(table, pairs, rejected, summarise(table, seed=1))
    return broken(expectations.SCORES, table, views)


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({}, set()),
        ({"change": {"pair_id": "1"}}, {"pair_once"}),
        ({"scored": N - 1}, {"every_pair"}),
        ({"change": {"chosen_goodness": float("inf")}}, {"chosen_finite"}),
        ({"change": {"win": False}}, {"win_is_greater"}),
        ({"unusable": 2}, {"few_unusable"}),
    ],
)
def test_each_rule_of_scores_is_broken_by_what_it_forbids(given: dict[str, Any], rules: set[str]) -> None:
    assert of_scores(pairs_of(), **given) == rules


def test_a_model_that_is_no_better_than_length_is_published_with_a_warning() -> None:
    assert of_scores(pairs_of(chosen="a longer one", rejected="short")) == {"better_than_length"}
    assert not next(r for r in expectations.SCORES if r.name == "better_than_length").gating


def test_a_leaderboard_without_ours_or_with_a_row_lost_is_not_published() -> None:
    scores = score_table(pairs_of(), np.ones((N, 5)), np.zeros((N, 5)), [0.2] * 5)

    def rules(table: pa.Table) -> set[str]:
        return broken(expectations.LEADERBOARD, table, expectations.leaderboard_views(table))

    whole = leaderboard({"recipe": summarise(scores, seed=1)}, rated_by="simulated annotators")
    assert rules(whole) == set()
    assert rules(whole.slice(1)) == {"ours_are_there"}
    assert rules(whole.slice(0, len(whole) - 1)) == {"published_are_there"}
    rows = whole.to_pylist()
    rows[0]["overall"] = 101.0
    assert rules(pa.Table.from_pylist(rows, schema=whole.schema)) == {"percent"}
