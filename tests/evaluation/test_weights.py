import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from pipeline.benchmarks import pairs
from pipeline.benchmarks.schema import ITEMS
from pipeline.evaluation.schema import SCORES, WEIGHT_ACCURACY, WEIGHTS
from pipeline.evaluation.weights import (
    HELD_OUT,
    PUBLISHED_70B,
    STRENGTHS,
    accuracies_of,
    fit_attribute_weights,
    searched,
    weights_of,
)
from pipeline.reward_model.schema import PREFERENCE_PREDICTIONS
from pipeline.vocabulary import ATTRIBUTES, OUTPUTS

Floats = npt.NDArray[np.float64]


def drawn(
    seed: int, n: int = 400, slopes: tuple[float, ...] = (0, 2, 0, 0, -1)
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Differences in ratings, and preferences that follow them with the logistic model."""
    generator = np.random.default_rng(seed)
    differences = generator.normal(size=(n, len(slopes))) * [1, 2, 0.5, 1, 3][: len(slopes)]
    return differences, generator.random(n) < 1 / (1 + np.exp(-differences @ np.array(slopes)))


def test_weights_find_what_people_go_by() -> None:
    differences, chosen = drawn(0, 4000)
    fitted = fit_attribute_weights(differences, chosen, np.arange(4000))
    assert fitted.weights == pytest.approx(np.array([0, 2, 0, 0, -1]) / 3, abs=0.1)
    assert np.abs(fitted.weights).sum() == pytest.approx(1)


def test_weights_are_the_minimum_of_the_penalised_log_loss() -> None:
    # minimised by a general method, on each pair once
    differences, chosen = drawn(3, 60)
    fitted = fit_attribute_weights(differences, chosen, np.arange(60))
    spread = np.sqrt((differences**2).mean(axis=0))
    signed = np.where(chosen, 1, -1)[:, None] * differences / spread

    def loss(w: Floats) -> float:
        return float(2 * np.logaddexp(0, -signed @ w).sum() + 0.5 * fitted.penalty * w @ w)

    wanted = minimize(loss, np.zeros(5), tol=1e-10).x / spread
    assert fitted.weights == pytest.approx(wanted / np.abs(wanted).sum(), abs=1e-3)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_weights_do_not_depend_on_the_order_within_pairs(seed: int) -> None:
    differences, chosen = drawn(seed, 40)
    flip = np.random.default_rng(seed).random(40) < 0.5
    other = fit_attribute_weights(np.where(flip[:, None], -differences, differences), chosen ^ flip, np.arange(40))
    fitted = fit_attribute_weights(differences, chosen, np.arange(40))
    assert fitted.penalty == other.penalty
    assert fitted.weights == pytest.approx(other.weights, abs=1e-3)


def test_preferences_that_follow_nothing_get_the_strongest_penalty_and_clear_ones_a_weak_one() -> None:
    differences, _ = drawn(1)
    coin = np.random.default_rng(5).random(400) < 0.5
    assert fit_attribute_weights(differences, coin, np.arange(400)).penalty >= 100
    assert fit_attribute_weights(differences, differences[:, 0] > 0, np.arange(400)).penalty == STRENGTHS[-1]


def test_too_few_pairs_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"4 preference pairs of 4 prompts are too few .* raise the recipe's development_share"
    ):
        fit_attribute_weights(np.zeros((4, 5)), np.ones(4, dtype=bool), np.arange(4))
    with pytest.raises(ValueError, match="9 preference pairs of 2 prompts are too few"):
        fit_attribute_weights(np.zeros((9, 5)), np.ones(9, dtype=bool), np.arange(9) // 5)


def test_five_pairs_are_enough_for_weights_and_their_accuracy() -> None:
    few = preferences(as_people_prefer(0, 5), ["a", "a", "b", "b", "c"])
    assert len(weights_of(few, rated_by="people")) == 5
    assert accuracies_of(few, seed=0)["prompts"].to_pylist() == [3] * 4


def preferences(
    differences: Floats, prompts: list[str] | None = None, outputs: tuple[str, ...] = ATTRIBUTES
) -> pa.Table:
    """Predictions of which the chosen response's are these differences above the rejected one's."""
    rows = [
        {"prompt_id": prompts[k] if prompts else f"p{k}", "strength": 1.0}
        | {f"chosen_{name}": 2 + row[n] for n, name in enumerate(outputs)}
        | {f"rejected_{name}": 2.0 for name in outputs}
        for k, row in enumerate(differences)
    ]
    return pa.Table.from_pylist(rows, schema=PREFERENCE_PREDICTIONS)


def as_people_prefer(seed: int, n: int) -> Floats:
    differences, chosen = drawn(seed, n)
    return np.where(chosen[:, None], differences, -differences)


def test_each_output_is_weighed_and_a_single_one_has_nothing_to_weigh() -> None:
    table = weights_of(preferences(as_people_prefer(0, 60)), rated_by="simulated annotators")
    assert table.schema == WEIGHTS
    assert table["pairs"].to_pylist() == [60] * 5
    assert set(table["tuned_on"].to_pylist()) == {HELD_OUT}
    assert set(table["penalty"].to_pylist()) <= set(STRENGTHS)
    assert table["published_70b"].to_pylist() == list(PUBLISHED_70B)
    single = weights_of(preferences(np.ones((1, 1)), outputs=("reward",)), rated_by="people").to_pylist()
    assert [(r["attribute"], r["weight"], r["published_70b"], r["penalty"]) for r in single] == [
        ("reward", 1.0, None, None)
    ]


def test_without_preferences_one_output_has_weight_1_and_several_are_an_error() -> None:
    none = PREFERENCE_PREDICTIONS.empty_table()
    assert weights_of(none, "people", ("reward",))["weight"].to_pylist() == [1.0]
    assert accuracies_of(none, seed=0) == WEIGHT_ACCURACY.empty_table()
    for outputs in (ATTRIBUTES, None):
        with pytest.raises(ValueError, match="0 preference pairs of 0 prompts are too few"):
            weights_of(none, "people", outputs)


def test_a_set_of_weights_orders_the_preferences_of_held_out_prompts() -> None:
    differences = as_people_prefer(0, 300)
    table = accuracies_of(preferences(differences), seed=0)
    assert table.schema == WEIGHT_ACCURACY
    rows = {row["weights"]: row for row in table.to_pylist()}
    assert list(rows) == ["fitted", "published_70b", "published_340b", "helpfulness"]
    assert rows["published_70b"]["accuracy"] == pytest.approx((differences @ np.array(PUBLISHED_70B) > 0).mean())
    assert rows["helpfulness"]["accuracy"] == pytest.approx((differences[:, 0] > 0).mean())
    assert rows["fitted"]["accuracy"] > rows["published_70b"]["accuracy"]  # these people dislike what is verbose more
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows.values())


def test_fitted_weights_are_tried_on_prompts_that_they_have_not_seen() -> None:
    # a coin decides for each prompt, and its ten pairs have the same differences: a fit that had seen the prompt would know the answer
    generator = np.random.default_rng(0)
    once = generator.normal(size=(12, 5)) * np.where(generator.random(12) < 0.5, 1, -1)[:, None]
    prompts = [f"p{k // 10}" for k in range(120)]
    table = accuracies_of(preferences(np.repeat(once, 10, axis=0), prompts), seed=0)
    assert table["prompts"].to_pylist() == [12] * 4
    assert table["accuracy"].to_pylist()[0] == pytest.approx(held_out_by_hand(once), abs=1e-9)


def held_out_by_hand(once: Floats) -> float:
    """Accuracy of each prompt by weights fitted without it, over the folds of five that the prompts fall into."""
    from sklearn.model_selection import GroupKFold

    groups = np.unique([f"p{k // 10}" for k in range(120)], return_inverse=True)[1]
    rows, won = np.repeat(once, 10, axis=0), np.zeros(120)
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(groups, groups=groups):
        assert not set(groups[train]) & set(groups[test])
        fitted = fit_attribute_weights(rows[train], np.ones(len(train), dtype=bool), groups[train])
        won[test] = rows[test] @ fitted.weights > 0
    return float(won.mean())


def test_a_prompt_counts_once_however_many_pairs_it_has() -> None:
    differences = np.concatenate([np.full((9, 1), 1.0), np.full((1, 1), -1.0)])
    table = accuracies_of(preferences(differences, ["a"] * 9 + ["b"], ("reward",)), seed=0)
    assert table.select(["weights", "pairs", "prompts", "accuracy"]).to_pylist() == [
        {"weights": "reward", "pairs": 10, "prompts": 2, "accuracy": 0.5}
    ]


# ------------------------------------------------------------------------------------------------------------- a search on a benchmark


def benchmark(predicted: Floats, outputs: tuple[str, ...] = ATTRIBUTES) -> tuple[pa.Table, pa.Table]:
    """Pairs of a benchmark, and predictions (pairs, 2, outputs) for their good and other responses."""
    n = len(predicted)
    items = [
        {"benchmark": "b", "subset": ("hep-go", "donotanswer")[k % 2], "item_id": str(k), "messages": [],
         "responses": ["x", "y"], "good": [True, False]}
        for k in range(n)
    ]  # fmt: skip
    scores = [
        {"benchmark": "b", "subset": items[k]["subset"], "item_id": str(k), "response": side, "good": side == 0}
        | dict(zip(outputs, map(float, predicted[k, side]), strict=True))
        for k in range(n)
        for side in (0, 1)
    ]
    return pa.Table.from_pylist(items, schema=ITEMS), pa.Table.from_pylist(scores, schema=SCORES)


def figure(items: pa.Table, scores: pa.Table, weights: npt.ArrayLike) -> float:
    outputs = [name for name in OUTPUTS if scores[name].null_count < len(scores)]
    goodness = np.stack([np.asarray(scores[name]) for name in outputs], axis=1) @ np.asarray(weights)
    found = pairs.outcomes(items, goodness).to_pandas().groupby("subset")["value"].mean().to_dict()
    counts = pc.value_counts(items["subset"]).to_pylist()
    sizes = {c["values"]: c["counts"] for c in counts}
    return float(pairs.overall(pairs.sections(found, sizes), sizes))


def test_a_search_on_a_benchmark_is_marked_and_flatters_itself() -> None:
    # ratings that say nothing: half of the pairs are won in truth, and more with weights that have seen the answers
    predicted = np.random.default_rng(0).normal(size=(40, 2, 5))
    items, scores = benchmark(predicted)
    table = searched(items, scores, pairs)
    assert table.schema == WEIGHTS
    assert set(table["tuned_on"].to_pylist()) == {"b"}
    assert table["rated_by"].null_count == 5
    weights = np.asarray(table["weight"])
    assert np.abs(weights).sum() == pytest.approx(1)
    assert figure(items, scores, weights) > 0.6
    assert figure(items, scores, weights) >= figure(items, scores, PUBLISHED_70B)


def test_a_search_finds_weights_that_no_start_has() -> None:
    # the good response is the one of lower coherence
    predicted = np.random.default_rng(1).normal(size=(60, 2, 5))
    predicted[:, 0, 2] = predicted[:, 1, 2] - 1
    items, scores = benchmark(predicted)
    assert figure(items, scores, searched(items, scores, pairs)["weight"].to_numpy()) == 1.0


def test_a_model_of_one_output_has_nothing_to_search() -> None:
    items, scores = benchmark(np.zeros((4, 2, 1)), ("reward",))
    assert searched(items, scores, pairs).select(["attribute", "weight"]).to_pylist() == [
        {"attribute": "reward", "weight": 1.0}
    ]
