"""Every figure of doubt beside plain code that computes the same in another way."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from pipeline.benchmarks import judgebench, pairs, rewardbench2, rm_bench
from pipeline.benchmarks.loading import load
from pipeline.benchmarks.schema import ITEMS, OUTCOMES
from pipeline.dataset.schema import DATASET
from pipeline.evaluation.doubt import bootstrap
from pipeline.evaluation.doubt.bootstrap import Units
from pipeline.evaluation.doubt.calibration import BINS, calibration
from pipeline.evaluation.doubt.chance import chance
from pipeline.evaluation.doubt.contamination import contaminated
from pipeline.evaluation.doubt.length import length_bias, weighted_pearson, weighted_ranks
from pipeline.evaluation.summary import contamination, outcomes_of
from pipeline.reward_model.schema import PREDICTIONS
from pipeline.settings import Decontamination, FileBenchmark
from tests.evaluation.made import pairs_of, scores_of, won
from tests.helpers import items_of

FORMS = {"b": pairs}


def outcomes(values: dict[str, list[float]]) -> pa.Table:
    """Outcomes of units 0, 1, ... of some subsets."""
    rows = [
        {"benchmark": "b", "subset": subset, "unit": str(n), "measure": "accuracy", "value": value, "margin": 0.0}
        for subset, found in values.items()
        for n, value in enumerate(found)
    ]
    return pa.Table.from_pylist(rows, schema=OUTCOMES)


# ---------------------------------------------------------------------------------------------------------------------- weighted means


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]) | st.floats(0, 1), min_size=2, max_size=40),
    st.integers(0, 99),
)
def test_draws_are_distributed_as_means_of_samples_with_replacement(values: list[float], seed: int) -> None:
    given_values = np.array(values)
    drawn = bootstrap.drawn_means(given_values, np.random.default_rng(seed), draws=4000)
    # the bootstrap mean has the sample's mean, and the population variance over n
    spread = given_values.std() / math.sqrt(len(values))
    assert drawn.mean() == pytest.approx(given_values.mean(), abs=5 * spread / math.sqrt(4000) + 1e-12)
    assert drawn.std() == pytest.approx(spread, rel=0.1, abs=1e-12)
    assert drawn.min() >= given_values.min() - 1e-12
    assert drawn.max() <= given_values.max() + 1e-12


def test_the_interval_is_that_of_plain_resampling() -> None:
    values = np.random.default_rng(1).choice([0, 0.25, 0.5, 1, 0.731], size=150)
    plain = np.array([np.random.default_rng(n).choice(values, size=150).mean() for n in range(4000)])
    ours = bootstrap.interval(bootstrap.drawn_means(values, np.random.default_rng(2), draws=4000))
    assert ours == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)


def test_wins_and_losses_are_binomial() -> None:
    drawn = np.round(
        bootstrap.drawn_means(np.array([1.0] * 60 + [0.0] * 40), np.random.default_rng(0), draws=20000) * 100
    )
    assert stats.ks_2samp(drawn, stats.binom(100, 0.6).rvs(20000, random_state=1)).pvalue > 0.01


def test_a_matrix_of_draws_in_parts_is_as_good_as_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CELLS", 64)
    drawn = bootstrap.drawn_means(np.random.default_rng(0).random(30), np.random.default_rng(1), draws=3001)
    assert drawn.shape == (3001,)
    parts = list(bootstrap.drawn_units(np.array([0, 0, 1, 1, 1]), np.random.default_rng(1), width=30, draws=101))
    assert [len(part) for part in parts] == [2] * 50 + [1]


def test_units_are_drawn_within_their_stratum() -> None:
    strata = np.array([0, 1, 0, 1, 1])
    drawn = np.concatenate(list(bootstrap.drawn_units(strata, np.random.default_rng(0), width=5, draws=50)))
    assert (drawn[:, strata == 0].sum(axis=1) == 2).all()
    assert (drawn[:, strata == 1].sum(axis=1) == 3).all()


def test_another_subset_moves_nobody_elses_draws() -> None:
    values = outcomes({"a": [0.0, 1, 1], "b": [1.0, 0]})
    units, first = Units.of(values), Units.of(values.filter(pc.equal(values["subset"], "a")))
    alone = bootstrap.drawn_subsets(first, 7, "x")
    assert np.array_equal(bootstrap.drawn_subsets(units, 7, "x")["a"], alone["a"])
    assert not np.array_equal(bootstrap.drawn_subsets(units, 8, "x")["a"], alone["a"])


# ----------------------------------------------------------------------------------------------------------------------------- clusters


def clustered(rows: list[tuple[str, float, str | None]]) -> pa.Table:
    """Outcomes of subset, value and cluster each."""
    found = [
        {"benchmark": "b", "subset": s, "unit": str(n), "measure": "accuracy", "value": v, "margin": 0.0, "cluster": c}
        for n, (s, v, c) in enumerate(rows)
    ]
    return pa.Table.from_pylist(found, schema=OUTCOMES)


def test_units_that_are_each_a_cluster_are_drawn_as_before() -> None:
    values = np.random.default_rng(0).choice([0.0, 0.5, 1.0], 50)
    named = clustered([("s", v, str(n)) for n, v in enumerate(values)])
    plain = bootstrap.drawn_means(values, bootstrap.generator_of(3, "x", "s"))
    for table in (named, clustered([("s", v, None) for v in values])):
        assert np.allclose(bootstrap.drawn_subsets(Units.of(table), 3, "x")["s"], plain, atol=1e-12)


def test_the_same_items_written_down_k_times_leave_the_interval_where_it_was() -> None:
    values = [float(v) for v in np.random.default_rng(1).random(80) < 0.6]
    once = bootstrap.overall_with_interval(clustered([("s", v, str(n)) for n, v in enumerate(values)]), pairs, 1)
    for subsets in (["s"] * 6, ["hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"]):
        rows = [(subset, v, str(n)) for subset in subsets for n, v in enumerate(values)]
        six = bootstrap.overall_with_interval(clustered(rows), pairs, 1)
        alone = bootstrap.overall_with_interval(clustered([(s, v, None) for s, v, _ in rows]), pairs, 1)
        assert six.value == pytest.approx(once.value)
        assert (six.low, six.high) == pytest.approx((once.low, once.high), abs=0.015)
        assert alone.high - alone.low < 0.5 * (six.high - six.low)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 1.0]), st.sampled_from([None, *"uvwxyz"])),
        min_size=12,
        max_size=40,
    ),
    st.integers(0, 9),
)
def test_draws_of_clusters_are_those_of_plain_resampling(rows: list[tuple[str, float, str | None]], seed: int) -> None:
    units = Units.of(clustered(rows))
    drawn = bootstrap.drawn_subsets(units, seed, "x")
    # the oracle: clusters by name, drawn with replacement among those of the subsets that share any
    named: dict[str, list[tuple[str, float]]] = {}
    for n, (subset, value, cluster) in enumerate(rows):
        named.setdefault(cluster or f"alone {n}", []).append((subset, value))
    shared = any(len({s for s, _ in members}) > 1 for members in named.values())
    generator = np.random.default_rng(seed)
    for subset in units.values:
        pool = [m for m in named.values() if shared or m[0][0] == subset]
        plain = []
        for _ in range(1500):
            found = [v for k in generator.integers(0, len(pool), len(pool)) for s, v in pool[k] if s == subset]
            plain.append(np.mean(found) if found else np.nan)
        ours, theirs = (np.array(d)[np.isfinite(d)] for d in (drawn[subset], plain))
        assert abs(len(ours) / len(drawn[subset]) - len(theirs) / len(plain)) < 0.08
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.05)
        assert ours.std() == pytest.approx(theirs.std(), abs=0.04)


def test_a_difference_draws_the_clusters_of_the_later_run() -> None:
    generator = np.random.default_rng(2)
    before = generator.random(100) < 0.6
    after = np.where(generator.random(100) < 0.7, before, ~before)
    sides = [[("s", float(v), f"{n}") for _ in range(5) for n, v in enumerate(side)] for side in (before, after)]
    once = [clustered(side[:100]) for side in sides]
    plain = bootstrap.difference(*once, pairs, seed=1)
    many = bootstrap.difference(clustered([(s, v, None) for s, v, _ in sides[0]]), clustered(sides[1]), pairs, seed=1)
    assert (many.low, many.high) == pytest.approx((plain.low, plain.high), abs=0.02)
    assert many.units == 500


def test_length_figures_draw_clusters_too() -> None:
    generator = np.random.default_rng(4)
    rows = [
        ("s", str(n), ("x" * int(a), "x" * int(b)), 1) for n, (a, b) in enumerate(generator.integers(1, 30, (60, 2)))
    ]
    items = items_of(*rows)
    goodness = generator.normal(size=120)
    once = length_bias(items, scores_of(items, goodness), seed=1)
    again = items_of(*(("s", f"{n} {k}", texts, good) for k in range(4) for n, (_, _, texts, good) in enumerate(rows)))
    again = again.set_column(
        ITEMS.get_field_index("cluster"), "cluster", pa.array([str(n) for _ in range(4) for n in range(60)])
    )
    four = length_bias(again, scores_of(again, np.tile(goodness, 4)), seed=1)
    for name in ("longer", "pearson", "spearman"):
        assert figure(four, name)["value"] == pytest.approx(figure(once, name)["value"])
        ends = [(figure(t, name)["low"], figure(t, name)["high"]) for t in (four, once)]
        assert ends[0] == pytest.approx(ends[1], abs=0.04)


# ------------------------------------------------------------------------------------------------------------------------ two models

UNITS = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({"math-prm": UNITS, "hep-cpp": UNITS, "other": UNITS}))
def test_the_paired_difference_is_that_of_the_two_figures(values: dict[str, list[tuple[float, float]]]) -> None:
    sides = [outcomes({s: [pair[n] for pair in found] for s, found in values.items()}) for n in (0, 1)]
    found = bootstrap.difference(*sides, pairs, seed=1)
    alone = [bootstrap.overall_with_interval(side, pairs, 1).value for side in sides]
    assert (found.before, found.after) == pytest.approx(tuple(alone))
    assert found.difference == pytest.approx(alone[1] - alone[0])
    assert found.low - 1e-9 <= found.high
    assert found.units == sum(map(len, values.values()))
    back = bootstrap.difference(*sides[::-1], pairs, seed=1)
    assert back.difference == pytest.approx(-found.difference)


def test_the_interval_of_a_paired_difference_is_that_of_plain_resampling() -> None:
    generator = np.random.default_rng(3)
    before = (generator.random(200) < 0.6).astype(float)
    after = np.where(generator.random(200) < 0.8, before, 1 - before)
    found = bootstrap.difference(outcomes({"s": before.tolist()}), outcomes({"s": after.tolist()}), pairs, seed=1)
    picks = np.random.default_rng(4).integers(0, 200, (4000, 200))
    plain = (after[picks] - before[picks]).mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.008)
    independent = bootstrap.apart(outcomes({"s": before.tolist()}), outcomes({"s": after.tolist()}), pairs, seed=1)
    assert independent.high - independent.low > found.high - found.low
    assert independent.p_value is None


def test_only_units_of_both_sides_count_whatever_their_order() -> None:
    before, after = outcomes({"s": [1.0, 0.0, 1.0]}), outcomes({"s": [0.0, 1.0, 1.0, 0.0]})
    found = bootstrap.difference(before, after.take([3, 2, 1, 0]), pairs, seed=1)
    assert (found.units, found.before, found.after) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    with pytest.raises(ValueError, match="nothing to compare"):
        bootstrap.difference(before, outcomes({"t": [1.0]}), pairs, seed=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_the_p_value_counts_draws_on_the_smaller_side_with_one_added(draws: list[float]) -> None:
    below, above = sum(d <= 0 for d in draws), sum(d >= 0 for d in draws)
    plain = min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1))
    assert bootstrap.p_value(np.array(draws)) == pytest.approx(plain)
    assert bootstrap.p_value(np.ones(1999)) == 2 / 2000


def test_equal_models_have_no_difference_and_p_1() -> None:
    same = outcomes({"s": [1.0, 0.0, 1.0]})
    found = bootstrap.difference(same, same, pairs, seed=1)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_p_values_of_models_that_are_alike_are_even() -> None:
    generator = np.random.default_rng(5)
    found = []
    for _ in range(120):
        sides = [outcomes({"s": (generator.random(150) < 0.7).astype(float).tolist()}) for _ in range(2)]
        found.append(bootstrap.difference(*sides, pairs, seed=int(generator.integers(2**31))).p_value)
    assert np.mean(np.array(found) < 0.05) < 0.12
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


# ------------------------------------------------------------------------------------------------------------------------------ chance


def test_chance_gets_half_of_pairs_a_quarter_of_best_of_four_and_half_of_each_style() -> None:
    assert chance(pairs_of(3), pairs, 0) == {"accuracy": {"s": 0.5}}
    four = items_of(("Math", "0", "abcd", 1), ("Math", "1", "abc", 1))
    assert chance(four, rewardbench2, 0)["accuracy"]["Math"] == pytest.approx((1 / 4 + 1 / 3) / 2)
    styles = items_of(("chat", "0", "abcdef", 3))
    assert {m: v["chat"] for m, v in chance(styles, rm_bench, 0).items()} == pytest.approx(
        dict.fromkeys(("accuracy", "easy", "normal", "hard"), 0.5)
    )
    judged = items_of(("mmlu-pro-law", "0", "ab", 1))
    assert chance(judged, judgebench, 0) == {"accuracy": {"mmlu-pro-law": 0.5}}


def test_chance_in_ties_is_near_what_rank_and_spacings_say() -> None:
    # P(the right one of 4 is best) = 1/4; P(the 2 right of 7 are best) = 1/21; of those the margin beats the spread half of the time
    ties = items_of(
        *(
            ("Ties", f"{kind}:{n}", "abcdefg"[:size], good)
            for n in range(40)
            for kind, size, good in (("ref", 4, 1), ("tied", 7, 2))
        )
    )
    found = chance(ties, rewardbench2, 0)["accuracy"]["Ties"]
    least = 0.3 / 4 + 0.3 / 21 + 0.2 / 21 / 2 - 0.01
    assert least < found < least + 0.02


def test_chance_in_a_part_of_ties_is_drawn_too() -> None:
    (found,) = chance(items_of(("Ties", "tied:3", "abc", 2)), rewardbench2, 0)["accuracy"].values()
    assert found == pytest.approx(0.3 / 3, abs=0.1)  # the right two of three are best, and no ref:3 to compare with


@pytest.mark.parametrize(
    ("form", "items"),
    [(pairs, pairs_of(60)), (rewardbench2, items_of(*(("Math", str(n), "abcd", 1) for n in range(60))))],
)
def test_chance_is_what_random_scorers_get_in_the_mean(form: Any, items: pa.Table) -> None:
    generator = np.random.default_rng(0)
    responses = sum(map(len, items["responses"].to_pylist()))
    got = [np.mean(form.outcomes(items, generator.random(responses))["value"].to_pylist()) for _ in range(200)]
    (subset,) = chance(items, form, 0)["accuracy"].values()
    assert subset == pytest.approx(np.mean(got), abs=0.02)


# ------------------------------------------------------------------------------------------------------------------------- length bias


def figure(table: pa.Table, name: str) -> dict[str, Any]:
    return next(row for row in table.to_pylist() if row["figure"] == name)


TEXTS = st.integers(1, 6).map(lambda n: "x" * n)
SCORED = st.tuples(TEXTS, TEXTS, st.integers(-3, 3).map(float), st.integers(-3, 3).map(float))


@settings(max_examples=25, deadline=None)
@given(st.lists(SCORED, min_size=2, max_size=25))
def test_length_figures_of_pairs_are_plain_means_and_scipys_correlations(
    rows: list[tuple[str, str, float, float]],
) -> None:
    items = items_of(*(("s", str(n), row[:2], 1) for n, row in enumerate(rows)))
    found = length_bias(items, scores_of(items, [g for row in rows for g in row[2:]]), seed=1)
    longer = np.array([len(chosen) - len(other) for chosen, other, _, _ in rows])
    margin = np.array([good - bad for _, _, good, bad in rows])
    for name, part in (("longer", longer > 0), ("shorter", longer < 0), ("equal", longer == 0)):
        row = figure(found, name)
        assert row["comparisons"] == part.sum()
        assert row["value"] == (pytest.approx((margin[part] > 0).mean()) if part.any() else None)
    for name, plain in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        row = figure(found, name)
        if np.ptp(longer) and np.ptp(margin):
            assert row["value"] == pytest.approx(plain(longer, margin).statistic, abs=1e-9)
            assert row["low"] - 1e-9 <= row["high"]
        else:
            assert row["value"] is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=12))
def test_weighted_correlations_are_those_of_a_sample_that_has_each_so_often(rows: list[tuple[int, int, int]]) -> None:
    x, y, times = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    ranks = [weighted_ranks(values, times[None]) for values in (x, y)]
    got = {
        "pearson": weighted_pearson(x[None], y[None], times[None]),
        "spearman": weighted_pearson(*ranks, times[None]),
    }
    sample = [np.repeat(values, times.astype(int)) for values in (x, y)]
    varied = all(len(values) and np.ptp(values) for values in sample)
    for name, plain in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        value = got[name][0]
        assert (
            value == pytest.approx(plain(*sample).statistic, abs=1e-9)
            if varied
            else np.isnan(value) or abs(value) <= 1 + 1e-9
        )


def test_a_scorer_of_length_alone_is_told_as_such() -> None:
    items = items_of(*(("s", str(n), ("x" * (n % 7 + 1), "x" * (n % 5 + 1)), 1) for n in range(60)))
    lengths = [float(len(text)) for item in items.to_pylist() for text in item["responses"]]
    found = length_bias(items, scores_of(items, lengths), seed=1)
    assert [figure(found, name)["value"] for name in ("longer", "shorter", "equal")] == [1, 0, 0]
    assert [figure(found, name)["value"] for name in ("pearson", "spearman")] == pytest.approx([1, 1])


def test_an_item_counts_once_however_many_responses_it_has() -> None:
    items = items_of(("s", "0", ("xx", "x"), 1), ("s", "1", ("xx", "xx", "xx", "x", "x", "x"), 3))
    found = length_bias(items, scores_of(items, [1, 0, 0, 0, 0, 1, 1, 1]), seed=1)
    assert figure(found, "longer")["value"] == pytest.approx(0.5)
    assert figure(found, "longer")["comparisons"] == 10


def test_a_score_that_is_not_finite_loses_and_has_no_say_in_the_correlation() -> None:
    items = pairs_of(6)
    found = length_bias(
        items, scores_of(items, [math.inf, 0, 1, 0, math.nan, 0, math.inf, math.inf, 2, 0, 3, 0]), seed=1
    )
    assert figure(found, "longer")["value"] == pytest.approx(0.5)
    assert figure(found, "pearson")["comparisons"] == 3


def test_intervals_of_length_figures_are_those_of_plain_resampling_of_items() -> None:
    generator = np.random.default_rng(2)
    items = items_of(
        *(
            ("s", str(n), ("x" * int(a), "x" * int(b)), 1)
            for n, (a, b) in enumerate(generator.integers(1, 40, (120, 2)))
        )
    )
    lengths = np.array([[len(text) for text in item["responses"]] for item in items.to_pylist()])
    goodness = 0.05 * lengths + generator.normal(size=lengths.shape)
    found = length_bias(items, scores_of(items, goodness.ravel()), seed=1)
    longer, margin = lengths @ [1, -1], goodness @ [1, -1]
    picks = generator.integers(0, 120, (1500, 120))
    plain = {
        "longer": [(margin[p][longer[p] > 0] > 0).mean() for p in picks],
        "pearson": [stats.pearsonr(longer[p], margin[p]).statistic for p in picks],
        "spearman": [stats.spearmanr(longer[p], margin[p]).statistic for p in picks],
    }
    for name, draws in plain.items():
        row = figure(found, name)
        assert (row["low"], row["high"]) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.025)


# ------------------------------------------------------------------------------------------------------------------------- calibration


def predictions(predicted: np.ndarray, rated: np.ndarray) -> pa.Table:
    rows = [
        {
            "prompt_id": f"p{n // 2}",
            "response_id": f"r{n}",
            "position": n % 2 + 1,
            "helpfulness": float(p),
            "helpfulness_label": float(y),
        }
        for n, (p, y) in enumerate(zip(predicted, rated, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def test_the_line_is_the_least_squares_line_and_its_interval_that_of_resampled_prompts() -> None:
    generator = np.random.default_rng(0)
    rated = generator.integers(0, 5, 160).astype(float)
    predicted = 1 + 0.5 * rated + generator.normal(size=160)
    table, _ = calibration(predictions(predicted, rated), {"helpfulness": 2.5}, seed=1)
    (row,) = table.to_pylist()
    line = LinearRegression().fit(predicted[:, None], rated)
    assert (row["slope"], row["intercept"]) == pytest.approx((line.coef_[0], line.intercept_))
    assert row["mse"] == pytest.approx(((predicted - rated) ** 2).mean())
    assert row["mse_of_mean"] == pytest.approx(((2.5 - rated) ** 2).mean())
    picks = generator.integers(0, 80, (1500, 80))
    members = np.stack([2 * picks, 2 * picks + 1], axis=-1).reshape(1500, 160)
    slopes = [np.polyfit(predicted[m], rated[m], 1)[0] for m in members]
    assert (row["slope_low"], row["slope_high"]) == pytest.approx(np.quantile(slopes, [0.025, 0.975]), abs=0.03)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.25]) | st.floats(0, 4), st.integers(0, 4)), min_size=1, max_size=60)
)
def test_bins_hold_every_response_once_in_the_order_of_predictions(rows: list[tuple[float, int]]) -> None:
    predicted, rated = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    table, bins = calibration(predictions(predicted, rated), {"helpfulness": 2.0}, seed=1)
    found = bins.to_pylist()
    assert sum(b["responses"] for b in found) == len(rows)
    assert len(found) <= BINS
    assert all(before["high"] < after["low"] for before, after in pairwise(found))
    plain = 0.0
    for b in found:
        mine = (predicted >= b["low"]) & (predicted <= b["high"])
        assert mine.sum() == b["responses"]
        plain += abs(predicted[mine].sum() - rated[mine].sum())
    assert table["expected_error"][0].as_py() == pytest.approx(plain / len(rows), abs=1e-9)


def test_perfect_predictions_are_calibrated_and_a_constant_has_no_line() -> None:
    rated = np.arange(20) % 5.0
    (row,) = calibration(predictions(rated, rated), {"helpfulness": 2.0}, seed=1)[0].to_pylist()
    assert (row["slope"], row["intercept"], row["mse"], row["expected_error"]) == pytest.approx((1, 0, 0, 0), abs=1e-9)
    for constant in (2.0, 0.3):
        (row,) = calibration(predictions(np.full(20, constant), rated), {"helpfulness": constant}, seed=1)[
            0
        ].to_pylist()
        assert (row["slope"], row["slope_low"]) == (None, None)
        assert row["mse"] == pytest.approx(row["mse_of_mean"])


def test_a_model_of_preferences_has_no_calibration() -> None:
    nothing = pa.Table.from_pylist(
        [{"prompt_id": "p", "response_id": "r", "position": 1, "reward": 0.5}], schema=PREDICTIONS
    )
    assert [len(table) for table in calibration(nothing, {}, seed=1)] == [0, 0]


# ----------------------------------------------------------------------------------------------------------------------- contamination


def messages(*texts: str) -> pa.ChunkedArray:
    return pa.chunked_array(
        [pa.array([[{"role": "user", "content": text}] for text in texts], pairs_of(1)["messages"].type)]
    )


def test_items_whose_prompt_was_trained_on_are_found_and_accuracy_is_given_without_them() -> None:
    words = "one two three four five six seven eight nine ten"
    items = pairs_of(4)
    items = items.set_column(3, "messages", messages(words, "something else altogether", f"{words} eleven", "s 3"))
    trained = [messages("s 3!", "nothing like it"), messages(f"before that {words} and after")]
    found = contaminated(items, trained, Decontamination())
    assert [(row["item_id"], row["overlap"]) for row in found.to_pylist()] == [
        ("0", 1.0),
        ("2", pytest.approx(10 / 11)),
        ("3", 1.0),
    ]
    scores = scores_of(items, won(1, -1, 1, 1))
    (row,) = contamination(items, scores, FORMS, found, seed=1).to_pylist()
    assert {name: row[name] for name in ("items", "contaminated", "accuracy", "without")} == {
        "items": 4, "contaminated": 3, "accuracy": 0.75, "without": 0.0
    }  # fmt: skip
    everything = contaminated(items, [items["messages"]], Decontamination())
    assert contamination(items, scores, FORMS, everything, seed=1)["without"].to_pylist() == [None]
    assert len(contaminated(items, [messages("unlike")], Decontamination())) == 0


def test_without_contaminated_items_is_what_the_others_alone_reach() -> None:
    items = items_of(*((subset, str(n), "ab", 1) for subset in ("math-prm", "hep-cpp") for n in range(12)))
    generator = np.random.default_rng(0)
    scores = scores_of(items, generator.random(48))
    hit = items.filter(pa.array(generator.random(24) < 0.4))
    found = contaminated(items, [hit["messages"]], Decontamination())
    assert len(found) == len(hit)
    rest = pa.array([name not in hit["messages"].to_pylist() for name in items["messages"].to_pylist()])
    clean = scores.filter(pa.array(np.repeat(np.asarray(rest), 2)))
    wanted = bootstrap.overall_with_interval(outcomes_of(items.filter(rest), clean, FORMS), pairs, 1)
    (row,) = contamination(items, scores, FORMS, found, seed=1).to_pylist()
    assert (row["without"], row["without_low"], row["without_high"]) == pytest.approx(wanted)


def test_a_prompt_of_a_benchmarks_file_that_stands_in_helpsteer2s_rows_is_found(tmp_path: Path) -> None:
    asked = [
        "Name the largest lakes of the country that I was born in, with their depths, please.",
        "Which tools does a carpenter of our days need who works with wet wood alone?",
        "Write a letter to a landlord who has left the lift broken for two months.",
    ]
    pairs_ = [
        {"id": n, "subset": "llmbar-adver-neighbor", "prompt": p, "chosen": "a", "rejected": "b"}
        for n, p in enumerate(asked)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs_))
    items = load("part", FileBenchmark(kind="file", path=str(tmp_path / "pairs.jsonl")), DATASET.empty_table()).items
    later = f"{asked[1]}\n<extra_id_1>Assistant\nThere are none.\n<extra_id_1>User\nAre you sure?"
    trained = messages(
        "Why is the sky blue?", later.replace("of our days", "OF  our days"), "Write a poem about a lake."
    )
    assert contaminated(items, [trained], Decontamination()).to_pylist() == [
        {"benchmark": "part", "subset": "llmbar-adver-neighbor", "item_id": "1", "overlap": 1.0}
    ]
