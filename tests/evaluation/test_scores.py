"""From scores to the summary of a benchmark."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.benchmarks import pairs, rewardbench2, rm_bench
from pipeline.benchmarks.loading import load
from pipeline.benchmarks.schema import OUTCOMES
from pipeline.dataset.schema import DATASET
from pipeline.evaluation.schema import LENGTH_BIAS, SUMMARY
from pipeline.evaluation.summary import figures, outcomes_of, summarise
from pipeline.settings import FileBenchmark
from tests.evaluation.made import pairs_of, scores_of, won
from tests.helpers import items_of

FORMS = {"b": pairs}


def summary_of(items: pa.Table, goodness: Any, form: Any = pairs) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = summarise(items, scores_of(items, goodness), {"b": form}, seed=1).to_pylist()
    return rows


def row_of(rows: list[dict[str, Any]], level: str, name: str, measure: str = "accuracy") -> dict[str, Any]:
    (row,) = [r for r in rows if (r["level"], r["name"], r["measure"]) == (level, name, measure)]
    return row


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=60))
def test_accuracy_is_the_share_of_strict_wins_within_its_interval(wins: list[int]) -> None:
    rows = summary_of(pairs_of(len(wins)), won(*wins))
    accuracy = sum(w > 0 for w in wins) / len(wins)
    assert [row["level"] for row in rows] == ["subset", "section", "overall"]
    for row in rows:
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["low"] - 1e-9 <= accuracy <= row["high"] + 1e-9
        assert (row["longest_accuracy"], row["random_accuracy"], row["units"]) == (1, 0.5, len(wins))


def test_subset_weights_hold_in_every_draw_of_a_sections_interval() -> None:
    # math-prm weighs 984 in Reasoning however few of its pairs are here, hep-cpp 164
    items = pa.concat_tables([pairs_of(100, "math-prm"), pairs_of(10, "hep-cpp")])
    section = row_of(summary_of(items, won(*[1, -1] * 50, *[1] * 10)), "section", "Reasoning")
    share = 984 / (984 + 164)
    assert section["accuracy"] == pytest.approx(share * 0.5 + (1 - share))
    half = 1.96 * share * np.sqrt(0.25 / 100)
    assert section["high"] - section["low"] == pytest.approx(2 * half, abs=0.02)
    assert section["units"] == 110


def test_the_interval_is_as_wide_as_the_binomial_says() -> None:
    row = summary_of(pairs_of(400), won(*[1, -1] * 200))[0]
    half = 1.96 * np.sqrt(0.25 / 400)
    assert (row["low"], row["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)


def test_best_of_four_has_its_own_chance_and_shares_a_tie() -> None:
    items = items_of(("Math", "0", "abcd", 1), ("Math", "1", "abcd", 1))
    row = row_of(summary_of(items, [1, 1, 0, 0, 2, 1, 1, 1], rewardbench2), "part", "b")  # of six domains, one
    assert (row["accuracy"], row["random_accuracy"]) == (0.75, 0.25)
    assert row["longest_accuracy"] == 0.25  # all four are as long


def test_every_measure_of_a_benchmark_has_its_rows() -> None:
    styles = ["short", "a longer one", "an even longer one"]
    items = items_of(*((domain, "0", [*styles, *styles], 3) for domain in ("chat", "safety-refuse", "safety-response")))
    rows = summary_of(items, [len(text) for _ in range(6) for text in styles], rm_bench)
    assert {row["measure"] for row in rows} == {"accuracy", "easy", "normal", "hard"}
    # who goes by length wins where the right response is in the longer style, and never elsewhere
    for measure, value in (("easy", 1), ("normal", 0), ("hard", 0)):
        row = row_of(rows, "part", "b", measure)
        assert (row["accuracy"], row["longest_accuracy"], row["random_accuracy"]) == pytest.approx((value, value, 0.5))
    assert row_of(rows, "section", "Safety")["units"] == 2


def test_another_benchmark_moves_no_figure() -> None:
    here, there = pairs_of(30), pairs_of(20, benchmark="c")
    goodness = np.random.default_rng(0).random(100)
    both = pa.concat_tables([here, there])
    forms = {"b": pairs, "c": pairs}
    together = summarise(both, scores_of(both, goodness), forms, seed=1).to_pylist()
    assert [row for row in together if row["benchmark"] == "b"] == summary_of(here, goodness[:60])


def test_scores_of_other_items_are_refused() -> None:
    items = pairs_of(3)
    scores = scores_of(items, won(1, 1, 1))
    for wrong in (scores.slice(1), scores.take([1, 0, 2, 3, 4, 5]), scores.take([2, 3, 0, 1, 4, 5])):
        with pytest.raises(ValueError, match="the scores don't belong to these items of b"):
            summarise(items, wrong, FORMS, seed=1)


def test_figures_are_what_is_published_beside_scores() -> None:
    items = pairs_of(12)
    scores = scores_of(items, np.random.default_rng(0).random(24))
    found = figures(items, scores, FORMS, seed=1)
    schemas = {"summary.parquet": SUMMARY, "outcomes.parquet": OUTCOMES, "length_bias.parquet": LENGTH_BIAS}
    assert {name: table.schema for name, table in found.items()} == schemas
    assert found["outcomes.parquet"].equals(outcomes_of(items, scores, FORMS))
    assert all(table.equals(figures(items, scores, FORMS, seed=1)[name]) for name, table in found.items())


def test_the_real_part_of_rewardbench_has_the_baselines_that_its_makers_meant(shared_data: Path) -> None:
    file = FileBenchmark(kind="file", path=str(shared_data / "eval" / "rewardbench_part.jsonl"))
    items = load("b", file, DATASET.empty_table()).items
    lengths = [len(text) for responses in items["responses"].to_pylist() for text in responses]
    rows = summary_of(items, lengths)
    total = row_of(rows, "part", "b")
    # the two programming languages are the same 164 problems, two of which share a prompt's words; one prompt of LLMBar stands twice
    assert (total["units"], total["independent"]) == (747, 747 - 164 - 2)
    adversarial = [row["accuracy"] for row in rows if row["name"].startswith("llmbar-adver")]
    assert len(adversarial) == 4
    assert (
        max(adversarial) < 0.5
    )  # the adversarial subsets were made so that the longer response is rather the wrong one
    for row in rows:
        assert row["accuracy"] == row["longest_accuracy"]
