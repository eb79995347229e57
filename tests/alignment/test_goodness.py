"""The reward of policies: what the exported model gives, standardised; pairs of samples against a plain loop."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from pipeline.alignment.goodness import Reward, Standard, best_and_worst, best_of, standard_of
from pipeline.alignment.samples import items_of, with_scores
from pipeline.alignment.schema import PAIRS, SAMPLES, SCORED
from pipeline.evaluation.scorers.model import LocalModel
from pipeline.evaluation.scorers.scorer import Conversation
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.evaluation.scoring import score
from pipeline.reward_model.export import fold
from pipeline.vocabulary import ATTRIBUTES
from tests.evaluation.models import QUESTION, save_reward_model
from tests.helpers import quiet

WEIGHTS = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45}
TEXTS = ("good", "one two three", "bad bad", "good", "yes no a b")


def drawn_samples() -> pa.Table:
    rows = [
        {"prompt_id": f"p{n // 3}", "sample": n % 3, "messages": QUESTION, "response": text, "ended": n != 2, "tokens": len(text.split()) + (n != 2)}
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SAMPLES)


# ------------------------------------------------------------------------------------------------------------------------------ rewards


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30).filter(lambda x: np.std(x) > 1e-3))
def test_the_data_sets_responses_have_mean_0_and_deviation_1(goodness: list[float]) -> None:
    values = np.array(goodness)
    found = standard_of(values).of(values)
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.std() == pytest.approx(1)
    assert (np.diff(found[np.argsort(values)]) >= 0).all()


def test_a_standard_does_something_and_is_the_data_sets_not_the_samples() -> None:
    standard = standard_of(np.array([2.0, 4.0, 6.0, np.nan]))
    assert (standard.mean, standard.sd) == (4.0, pytest.approx(math.sqrt(8 / 3)))
    samples = np.array([8.0, 9.0])
    assert standard.of(samples).tolist() == pytest.approx([4 / math.sqrt(8 / 3), 5 / math.sqrt(8 / 3)])
    assert not np.allclose(standard.of(samples), samples)


@pytest.mark.parametrize(
    "goodness", [[], [1.5], [3.0, 3.0], [0.1] * 7, [1.0, math.inf], [math.nan] * 3, [2.0, 2.0 + 1e-9]]
)
def test_a_standard_that_would_divide_by_nothing_is_refused(goodness: list[float]) -> None:
    with pytest.raises(ValueError, match="rewards can't be standardised"):
        standard_of(np.array(goodness))


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_so_is_one_that_is_given(mean: float, sd: float) -> None:
    with pytest.raises(ValueError, match="rewards can't be standardised"):
        Standard(mean, sd)


def test_rewards_are_those_of_the_exported_model_standardised(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path / "five", ATTRIBUTES)
    fold(folder, tmp_path / "exported", WEIGHTS)
    scorer, exported = (LocalModel(ModelSpec(model=str(tmp_path / name)), quiet) for name in ("five", "exported"))
    standard, samples = Standard(0.3, 0.2), drawn_samples()
    kept, items = UPath(tmp_path / "kept"), items_of(samples)
    scores, figures = score(scorer, items, kept, quiet, WEIGHTS)
    scored = with_scores(samples, scores, standard)
    assert scored.schema.equals(SCORED)
    assert scored.select(SAMPLES.names).equals(samples)
    assert scored["characters"].to_pylist() == [len(text) for text in TEXTS]
    asked = [Conversation(QUESTION, text) for text in TEXTS]
    plain = Reward(exported, None, Standard(0.0, 1.0))(asked)
    np.testing.assert_allclose(scored["goodness"], plain, atol=1e-5)
    np.testing.assert_allclose(scored["standardised"], (plain - 0.3) / 0.2, atol=1e-4)
    np.testing.assert_allclose(scored["standardised"], Reward(scorer, WEIGHTS, standard)(asked), atol=1e-6)
    by_hand = sum(weight * np.asarray(scored[name]) for name, weight in WEIGHTS.items())
    np.testing.assert_allclose(scored["goodness"], by_hand)
    assert scored["reward"].null_count == len(TEXTS)
    assert figures["conversations"] == 4, "a text that was drawn twice is scored once"
    again = score(scorer, items, kept, quiet, WEIGHTS)
    assert with_scores(samples, again[0], standard).equals(scored)
    assert again[1]["scored"] == 0
    for weights in (None, {"reward": 1.0}):
        with pytest.raises(ValueError, match="weights"):
            Reward(scorer, weights, standard)


# -------------------------------------------------------------------------------------------------------------------------------- pairs


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    empty = dict.fromkeys((*ATTRIBUTES, "reward", "standardised"))
    whole = [{"messages": QUESTION, "tokens": 1, "characters": len(row["response"])} | empty | row for row in rows]
    return pa.Table.from_pylist(whole, schema=SCORED)


scored_rows = st.lists(
    st.fixed_dictionaries(
        {
            "prompt_id": st.sampled_from("abc"),
            "response": st.sampled_from(["x", "y", "z"]),
            "ended": st.booleans(),
            "goodness": st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.nan]),
        }
    ),
    max_size=14,
).map(lambda rows: [row | {"sample": n} for n, row in enumerate(rows)])


@settings(max_examples=150, deadline=None)
@given(scored_rows, st.randoms(use_true_random=False))
def test_pairs_are_those_of_a_plain_loop_whatever_the_order_of_samples(rows: list[dict[str, Any]], draw: Any) -> None:
    pairs, reasons = {}, list[str]()
    for prompt in dict.fromkeys(row["prompt_id"] for row in rows):
        mine = [row for row in rows if row["prompt_id"] == prompt and not math.isnan(row["goodness"])]
        ended = [row for row in mine if row["ended"]]
        if not ended:
            reasons.append("no scored sample that ends")
            continue
        best, worst = max(ended, key=lambda row: row["goodness"]), min(mine, key=lambda row: row["goodness"])
        if best["goodness"] == worst["goodness"]:
            reasons.append("equal goodness")
        elif best["response"] == worst["response"]:
            reasons.append("equal texts")
        else:
            pairs[prompt] = (best["sample"], worst["sample"])
    found = best_and_worst(table_of(rows))
    numbers = [found.table[name].to_pylist() for name in ("prompt_id", "chosen_sample", "rejected_sample")]
    assert list(zip(*numbers, strict=True)) == [(prompt, *pair) for prompt, pair in pairs.items()]
    assert found.table.schema.equals(PAIRS)
    assert found.left_out == {reason: reasons.count(reason) for reason in reasons}
    for pair in found.table.to_pylist():
        assert pair["chosen_goodness"] > pair["rejected_goodness"]
        assert pair["chosen"] == rows[pair["chosen_sample"]]["response"] != pair["rejected"]
        assert rows[pair["chosen_sample"]]["ended"]
        assert pair["rejected_ended"] == rows[pair["rejected_sample"]]["ended"]
    shuffled = list(rows)
    draw.shuffle(shuffled)
    order = [("prompt_id", "ascending")]
    assert best_and_worst(table_of(shuffled)).table.sort_by(order).equals(found.table.sort_by(order))


@settings(max_examples=100, deadline=None)
@given(scored_rows)
def test_the_best_of_n_is_that_of_a_plain_loop(rows: list[dict[str, Any]]) -> None:
    wanted = []
    for prompt in dict.fromkeys(row["prompt_id"] for row in rows):
        mine = [row for row in rows if row["prompt_id"] == prompt and not math.isnan(row["goodness"])]
        if mine:
            wanted.append(max(mine, key=lambda row: (row["ended"], row["goodness"]))["sample"])
    found = best_of(table_of(rows))
    assert found["sample"].to_pylist() == wanted
    assert found.schema.equals(SCORED)


def test_a_sample_that_was_cut_off_can_be_the_worst_but_not_the_best() -> None:
    rows = [
        {"prompt_id": "p", "sample": n, "response": text, "ended": ended, "goodness": goodness}
        for n, (text, ended, goodness) in enumerate([("long", False, 3.0), ("short", True, 2.0), ("cut", False, 1.0)])
    ]
    (pair,) = best_and_worst(table_of(rows)).table.to_pylist()
    assert (pair["chosen"], pair["rejected"], pair["rejected_ended"]) == ("short", "cut", False)
    assert best_of(table_of(rows))["response"].to_pylist() == ["short"]
