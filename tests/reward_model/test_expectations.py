"""Each rule is broken by what it forbids."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.dataset.schema import DATASET
from pipeline.gate import evaluate
from pipeline.reward_model.expectations import REWARD_MODEL, TRAINING_DATA, model_views, training_views
from pipeline.reward_model.schema import (
    CURVE,
    DROPPED,
    PREDICTIONS,
    PREFERENCE_PREDICTIONS,
    PREFERRED,
    RATED,
    TRAINING_PROMPTS,
)
from pipeline.rules import ROWS
from pipeline.vocabulary import ATTRIBUTES

NAN = float("nan")
# every prediction is one off: a development loss of 1
PREDICTED = [
    {"prompt_id": p, "response_id": f"{p}{n}", "position": n}
    | dict.fromkeys(ATTRIBUTES, 3.0)
    | {f"{a}_label": 2.0 for a in ATTRIBUTES}
    for p in ("d", "e")
    for n in (1, 2)
]
LOSSES = [(0, 1.5, False), (5, 1.0, True), (9, 1.2, False)]


def broken(
    losses: list[tuple[int, float, bool]] = LOSSES,
    trained_on: str = "abc",
    head: int = 5,
    baseline: float = 2.0,
    published: float = 1.0,
    **changes: float,
) -> set[str]:
    rows = [{"stage": "ratings", "step": s, "development_loss": loss, "chosen": c} for s, loss, c in losses]
    pair = {"prompt_id": "d", "strength": 1.0} | {
        f"{side}_{a}": 3.0 for side in ("chosen", "rejected") for a in ATTRIBUTES
    }
    views = model_views(
        {
            "training_curve": pa.Table.from_pylist(rows, schema=CURVE),
            "development_predictions": pa.Table.from_pylist(
                [PREDICTED[0] | changes, *PREDICTED[1:]], schema=PREDICTIONS
            ),
            "development_preferences": pa.Table.from_pylist([pair], schema=PREFERENCE_PREDICTIONS),
            "training_prompts": pa.table({"prompt_id": list(trained_on)}, schema=TRAINING_PROMPTS),
        },
        pa.table({"split": ["train"] * 5 + ["validation"], "prompt_id": list("abcdev")}),
        ATTRIBUTES,
        head,
        {
            "steps": 9,
            "development_loss": 1.0,
            "written_loss": 1.0,
            "published_loss": published,
            "baseline_loss": baseline,
        },
    )
    outcomes = list(evaluate(REWARD_MODEL, views))
    assert not [o.error for o in outcomes if o.error]
    return {o.rule.name for o in outcomes if not o.passed}


def test_a_good_model_breaks_no_rule() -> None:
    assert broken() == set()


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({"losses": LOSSES[1:2]}, {"evaluated"}),
        ({"losses": [*LOSSES, (12, NAN, False)]}, {"loss_finite"}),
        ({"losses": [(0, 1.0, True), (5, 1.0, True)]}, {"one_checkpoint"}),
        ({"losses": [(0, 1.0, False), (5, 1.0, False)]}, {"one_checkpoint"}),
        ({"losses": [(0, 1.5, False), (5, 1.0, True), (9, 0.9, False)]}, {"lowest_loss"}),
        ({"published": 1.1}, {"same_model"}),
        ({"head": 1}, {"outputs"}),
        ({"trained_on": "abcd"}, {"unseen_development"}),
        ({"trained_on": "abcv"}, {"unseen_validation"}),
        ({"coherence": NAN}, {"predicted"}),
        ({"coherence": 25.0}, {"within_reach"}),
        ({"baseline": 0.9}, {"better_than_nothing"}),
    ],
)
def test_each_rule_is_broken_by_what_it_forbids(given: dict[str, Any], rules: set[str]) -> None:
    assert broken(**given) == rules


def test_only_a_model_that_is_no_better_than_nothing_is_published_with_a_warning() -> None:
    assert [r.name for r in REWARD_MODEL if not r.gating] == ["better_than_nothing"]


SIDES = {"a": "train", "b": "train", "d": "development"}


def asked(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {prompt}?"}]


def training_rules_broken(
    row: dict[str, Any], pair: dict[str, Any], dropped: str = "x", rows: int = 3, pairs: int = 3
) -> set[str]:
    """Rules that break where one row, or one pair, is another than it should be. Validation: prompt v."""
    rated: list[dict[str, Any]] = [
        {"split": side, "prompt_id": p, "response_id": p, "position": 1, "messages": asked(p), "response": "So.", **dict.fromkeys(ATTRIBUTES, 2)}
        for p, side in SIDES.items()
    ][:rows]  # fmt: skip
    preferred: list[dict[str, Any]] = [
        {"split": side, "prompt_id": p, "messages": asked(p), "chosen": "So.", "rejected": "No.", "strength": 1.0}
        for p, side in SIDES.items()
    ][:pairs]
    if rows:
        rated[0] |= row
    if pairs:
        preferred[0] |= pair
    table = pa.Table.from_pylist(rated, schema=RATED)
    views = training_views(
        table,
        pa.Table.from_pylist(preferred, schema=PREFERRED),
        pa.Table.from_pylist([{"prompt_id": dropped}] * bool(dropped), schema=DROPPED),
        pa.Table.from_pylist([{"split": "validation", "prompt_id": "v", "messages": asked("v")}], schema=DATASET),
        bool(rows),
        bool(pairs),
    )
    outcomes = list(evaluate(TRAINING_DATA, {ROWS: table, **views}))
    assert not [o.error for o in outcomes if o.error]
    return {o.rule.name for o in outcomes if not o.passed and o.rule.gating}


@pytest.mark.parametrize(
    ("row", "pair", "more", "rules"),
    [
        ({}, {}, {}, set()),
        ({}, {}, {"dropped": ""}, set()),
        ({}, {}, {"rows": 0}, set()),
        ({}, {}, {"pairs": 0}, set()),
        ({"coherence": None}, {}, {}, set()),
        ({"coherence": 4.5}, {}, {}, {"coherence_in_range"}),
        ({"helpfulness": -1.0}, {}, {}, {"helpfulness_in_range"}),
        ({"response_id": "b"}, {}, {}, {"response_once"}),
        ({"split": "development"}, {}, {}, {"one_side"}),
        ({"split": "validation"}, {}, {}, {"split_named", "one_side"}),
        ({}, {"split": "development"}, {}, {"one_side"}),
        ({}, {}, {"rows": 2}, {"enough"}),
        ({}, {}, {"pairs": 2}, {"enough"}),
        ({"prompt_id": "v"}, {}, {}, {"unseen_validation"}),
        ({"messages": asked("V")}, {}, {}, {"unseen_validation"}),
        ({}, {"messages": asked("v")}, {}, {"unseen_validation"}),
        ({}, {}, {"dropped": "b"}, {"decontaminated"}),
        ({}, {"strength": 0.0}, {}, {"preferred"}),
        ({}, {"strength": None}, {}, {"preference_known"}),
        ({}, {"rejected": "So."}, {}, {"two_responses"}),
    ],
)
def test_each_rule_of_training_data_is_broken_by_what_it_forbids(
    row: dict[str, Any], pair: dict[str, Any], more: dict[str, Any], rules: set[str]
) -> None:
    assert training_rules_broken(row, pair, **more) == rules


def test_only_much_that_was_dropped_is_published_with_a_warning() -> None:
    assert [r.name for r in TRAINING_DATA if not r.gating] == ["little_dropped"]
