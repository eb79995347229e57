"""The leaderboard, the run before, and where a score comes from."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import plots
from pipeline.benchmarks import pairs, rm_bench
from pipeline.evaluation import history
from pipeline.evaluation.history import Run, compare, fingerprints, last_published, provenance
from pipeline.evaluation.leaderboard import board, is_rewardbench, of_recipe, wide
from pipeline.evaluation.published import PUBLISHED_SCORES
from pipeline.evaluation.schema import CALIBRATION, CALIBRATION_BINS, CONTAMINATION, LEADERBOARD
from pipeline.evaluation.summary import figures, outcomes_of
from pipeline.store import Store, write_table
from tests.evaluation.made import evaluated, pairs_of, scores_of, won
from tests.helpers import items_of

FORMS = {"b": pairs, "c": pairs}


def whole_rewardbench(benchmark: str = "rewardbench") -> pa.Table:
    """As many pairs of each subset as RewardBench has, of made-up texts."""
    counts = {s: n for subsets in pairs.REWARDBENCH.values() for s, n in subsets.items()} | {
        "math-prm": pairs.MATH_PAIRS
    }
    return pa.concat_tables([pairs_of(n, subset, benchmark=benchmark) for subset, n in counts.items()])


# ---------------------------------------------------------------------------------------------------------------------------- leaderboard


def test_a_board_has_every_benchmark_with_sections_of_its_own_and_the_published_rows_last() -> None:
    styles = items_of(*((d, "0", "abcdef", 3) for d in ("chat", "code")), benchmark="c")
    items = pa.concat_tables([pairs_of(20), styles])
    models = [
        evaluated(name, items, {"b": pairs, "c": rm_bench}, seed, rated_by="people")
        for seed, name in enumerate(("one", "two"))
    ]
    table = board(models)
    assert table.schema == LEADERBOARD
    rows = table.to_pylist()
    origins = [row["origin"] for row in rows]
    assert origins == sorted(origins)
    sections = {(r["benchmark"], r["name"]) for r in rows if r["origin"] == "ours" and r["level"] == "section"}
    assert sections == {("b", "s"), ("c", "Chat"), ("c", "Code")}
    assert {r["measure"] for r in rows if r["benchmark"] == "c"} == {"accuracy", "easy", "normal", "hard"}
    totals = [
        r
        for r in rows
        if (r["origin"], r["level"], r["measure"], r["benchmark"]) == ("ours", "overall", "accuracy", "b")
    ]
    assert [r["accuracy"] for r in totals] == sorted((r["accuracy"] for r in totals), reverse=True)
    assert all(r["model_version"] == f"{r['model']}-version" for r in totals)


def test_smoke_never_fills_rewardbenchs_sections() -> None:
    items = pairs_of(4, "smoke-chat", benchmark="smoke")
    rows = board([evaluated("m", items)]).to_pylist()
    assert {r["name"] for r in rows if r["origin"] == "ours"} == {"smoke", "smoke-chat"}
    assert {r["benchmark"] for r in rows if r["origin"] == "published"} == {"RewardBench"}


def test_published_rows_are_table_3() -> None:
    rows = [r for r in board([evaluated("m", pairs_of(4))]).to_pylist() if r["origin"] == "published"]
    assert len({r["model"] for r in rows}) == len(PUBLISHED_SCORES) == 19
    best = {r["name"]: r["accuracy"] for r in rows if r["model"] == "Nemotron-4 340B RM (w. HelpSteer2)"}
    assert best == {
        "RewardBench": 92.0,
        "Chat": 95.8,
        "Chat Hard": 87.1,
        "Safety": 91.5,
        "Reasoning": 93.7,
        "Prior Sets": 67.4,
    }
    assert all(r["low"] is None and r["high"] is None for r in rows)
    without = [
        r["model"]
        for r in rows
        if r["level"] == "overall" and not any(o["name"] == "Prior Sets" and o["model"] == r["model"] for o in rows)
    ]
    assert without == ["Gemini 1.5 Pro-0514", "Claude-3-Opus-02292024", "Prometheus 2 Mistral 8*7B"]


def test_only_rewardbench_whole_is_rewardbench() -> None:
    items = whole_rewardbench()
    assert is_rewardbench(evaluated("m", items).summary, "rewardbench")
    assert not is_rewardbench(evaluated("m", items.slice(1)).summary, "rewardbench")
    assert not is_rewardbench(evaluated("m", pairs_of(3)).summary, "b")


def test_a_table_for_people_has_a_column_a_section_and_no_empty_one() -> None:
    items = pa.concat_tables([pairs_of(9, "units"), pairs_of(8, "hep-go")])
    shown = wide(board([evaluated("m", items, compute={"train_seconds": 12.34, "device": "cpu"})]), "b")
    assert shown.column_names == [
        "model", "part", "section units", "Reasoning", "longest", "random", "units", "train_seconds", "device"
    ]  # fmt: skip
    (row,) = shown.to_pylist()
    assert (row["units"], row["train_seconds"], row["random"]) == (17, 12.3, 50.0)
    published = wide(board([evaluated("m", items)]), "RewardBench", "published")
    assert published.column_names == [
        "model",
        "overall",
        "Chat",
        "Chat Hard",
        "Safety",
        "Reasoning",
        "Prior Sets",
        "device",
    ]
    assert len(published) == 19


def test_a_plot_has_a_row_a_model_whatever_its_name() -> None:
    names = ["recipe", "$x^{", "<img src=x onerror=alert(1)>"]
    plot = plots.interval_chart(
        names, [50.0, 60.0, 70.0], [(40.0, 60.0)] * 3, {"random": [50.0] * 3}, "Overall", "percent"
    )
    found = re.fullmatch(r"!\[Overall\. [^\[\]<>$]*\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", plot)
    assert found is not None
    assert base64.b64decode(found.group(1)).startswith(b"\x89PNG")


# ----------------------------------------------------------------------------------------------------------------------------- provenance


def test_a_fingerprint_changes_with_whatever_is_scored_and_with_nothing_else() -> None:
    items = pairs_of(5)
    (facts,) = fingerprints(items).values()
    assert facts["items"] == 5
    assert fingerprints(pa.concat_tables([items.slice(0, 2), items.slice(2)]))["b"] == facts
    assert fingerprints(pairs_of(5, benchmark="other name"))["other name"] == facts
    row = items.to_pylist()[0]
    changes = {
        "responses": ["a longer one", "shirt"], "good": [False, True], "item_id": "9", "subset": "t", "messages": [{"role": "user", "content": "q"}]
    }  # fmt: skip
    for name, value in changes.items():
        changed = pa.concat_tables([pa.Table.from_pylist([row | {name: value}], schema=items.schema), items.slice(1)])
        assert fingerprints(changed)["b"]["sha256"] != facts["sha256"], name


def test_provenance_is_json_and_names_model_data_code_and_seed() -> None:
    items, weights = pairs_of(2), {"helpfulness": 1.0}
    outcomes = outcomes_of(items, scores_of(items, [1, 0] * 2), FORMS)
    facts = provenance(items, outcomes, FORMS, "organisation/model", "abc", weights, 3, precision="float32", seed=4)
    assert json.loads(json.dumps(facts)) == facts
    assert {"model", "model_version", "weights", "benchmarks", "code", "seed", "scored_at", "precision"} == set(facts)
    assert facts["code"] == history.code_hash()
    assert facts["seed"] == 3
    assert len(facts["code"]) == 16


# ------------------------------------------------------------------------------------------------------------------------- the run before


def run(version: str, items: pa.Table, goodness: Any) -> Run:
    return Run(version, outcomes_of(items, scores_of(items, goodness), FORMS), fingerprints(items))


def test_a_run_is_paired_with_the_one_before_over_the_same_items() -> None:
    items = pairs_of(100)
    before, after = run("v1", items, won(*[1] * 80, *[-1] * 20)), run("v2", items, won(*[1] * 60, *[-1] * 40))
    (row,) = compare(before, after, FORMS, seed=1).to_pylist()
    assert (row["paired"], row["units"], row["before_version"]) == (True, 100, "v1")
    assert row["difference"] == pytest.approx(-0.2)
    assert row["high"] < 0
    assert row["p_value"] < 0.01
    assert row["regression"]
    (back,) = compare(after, before, FORMS, seed=1).to_pylist()
    assert not back["regression"]


def test_a_drop_within_its_doubt_is_a_regression_only_above_the_profiles_limit() -> None:
    items = pairs_of(20)
    before, after = run("v1", items, won(*[1] * 12, *[-1] * 8)), run("v2", items, won(*[1] * 11, *[-1] * 9))
    assert compare(before, after, FORMS, seed=1)["regression"].to_pylist() == [False]
    assert compare(before, after, FORMS, seed=1, most_lost=0.1)["regression"].to_pylist() == [False]
    assert compare(before, after, FORMS, seed=1, most_lost=0.04)["regression"].to_pylist() == [True]


def test_other_items_of_the_same_name_are_compared_as_two_samples() -> None:
    before = run("v1", pairs_of(50), won(*[1] * 25, *[-1] * 25))
    after = run("v2", pairs_of(50, chosen="another text"), won(*[1] * 25, *[-1] * 25))
    (row,) = compare(before, after, FORMS, seed=1).to_pylist()
    assert (row["paired"], row["p_value"], row["regression"]) == (False, None, False)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * np.sqrt(2 * 0.25 / 50), abs=0.04)


def test_a_benchmark_that_is_new_and_a_first_run_have_nothing_to_be_compared_with() -> None:
    after = run("v2", pairs_of(5), won(*[1] * 5))
    assert len(compare(None, after, FORMS, seed=1)) == 0
    assert len(compare(run("v1", pairs_of(5, benchmark="c"), won(*[1] * 5)), after, FORMS, seed=1)) == 0


# ------------------------------------------------------------------------------------------------------------------------- in the store


def publish(store: Store, recipe: str, items: pa.Table, goodness: Any) -> None:
    scores = scores_of(items, goodness)
    empty = {"contamination": CONTAMINATION, "calibration": CALIBRATION, "calibration_bins": CALIBRATION_BINS}
    tables = figures(items, scores, FORMS, seed=1) | {
        f"{name}.parquet": schema.empty_table() for name, schema in empty.items()
    }
    staged = store.staging("benchmark_scores", recipe)
    for name, table in tables.items():
        write_table(table, staged / name)
    before = last_published(store, recipe)
    after = Run("new", tables["outcomes.parquet"], fingerprints(items))
    info = {
        "provenance": provenance(items, tables["outcomes.parquet"], FORMS, recipe, "abc", {"reward": 1.0}, 0),
        "history": compare(before, after, FORMS, seed=1).to_pylist(),
        "seconds": 0.1,  # of the last run, that took most scores from before
        "seconds_of_all": 3.5,
        "tokens": 1200,
        "device": "cpu",
    }
    store.publish("benchmark_scores", recipe, staged, len(scores), info)


def test_what_is_published_of_a_recipe_is_read_with_its_compute_and_its_history(tmp_path: Path) -> None:
    store, items = Store(str(tmp_path)), pairs_of(60)
    assert last_published(store, "recipe") is None
    publish(store, "recipe", items, won(*[1] * 50, *[-1] * 10))
    first = store.manifest("benchmark_scores", "recipe")
    assert len(of_recipe(store, "recipe", "people").history) == 0
    publish(store, "recipe", items, won(*[1] * 30, *[-1] * 30))
    found = of_recipe(store, "recipe", "people")
    assert found.compute["score_seconds"] == 3.5
    assert found.compute["train_seconds"] is None
    (row,) = found.history.to_pylist()
    assert first is not None
    assert (row["before_version"], row["regression"]) == (first.version, True)
    totals = board([found]).filter(pc.equal(board([found])["level"], "overall")).to_pylist()
    assert (totals[0]["model"], totals[0]["accuracy"], totals[0]["score_tokens"]) == ("recipe", 50.0, 1200)


def test_scores_of_an_older_kind_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    staged = store.staging("benchmark_scores", "recipe")
    write_table(pa.table({"win": [True]}), staged / "data.parquet")
    store.publish("benchmark_scores", "recipe", staged)
    assert last_published(store, "recipe") is None
