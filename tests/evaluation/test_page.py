"""The page: what it says, that it runs nothing, and that strangers' text is text."""

import csv
import io
import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.benchmarks import pairs, rm_bench
from pipeline.evaluation import page
from pipeline.evaluation.doubt.calibration import calibration
from pipeline.evaluation.schema import CONTAMINATION, HISTORY
from tests.evaluation.made import evaluated, pairs_of
from tests.evaluation.test_doubt import predictions
from tests.evaluation.test_leaderboard import whole_rewardbench
from tests.helpers import items_of

HOSTILE = "<img src=x onerror=alert(1)>\"'{{ 7*7 }}<script>alert(2)</script>"


class Read(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def shown(*models: Any, note: str = "") -> Read:
    return Read(page.files("Models", models, note)[page.HTML].decode())


def full(name: str = "model", **more: Any) -> Any:
    styles = items_of(
        *((d, str(n), ["a", "bb", "ccc"] * 2, 3) for d in ("chat", "code") for n in range(3)), benchmark="c"
    )
    items = pa.concat_tables([pairs_of(12, "hep-go"), pairs_of(9, "llmbar-natural"), styles])
    rated = np.arange(40) % 5.0
    calibrated, bins = calibration(predictions(rated * 0.7 + 1, rated), {"helpfulness": 2.0}, seed=1)
    contaminated = {
        "benchmark": "b",
        "items": 21,
        "contaminated": 2,
        "accuracy": 0.5,
        "without": 0.4,
        "without_low": 0.3,
        "without_high": 0.6,
    }
    worse = {"benchmark": "b", "units": 21, "paired": True, "before": 0.7, "after": 0.5, "difference": -0.2, "low": -0.3, "high": -0.1,
             "p_value": 0.001, "regression": True, "before_version": "v1"}  # fmt: skip
    tables = {
        "calibration": calibrated,
        "calibration_bins": bins,
        "contamination": pa.Table.from_pylist([contaminated], schema=CONTAMINATION),
        "history": pa.Table.from_pylist([worse], schema=HISTORY),
    }
    return evaluated(
        name, items, {"b": pairs, "c": rm_bench}, compute={"train_seconds": 60.0, "device": "cpu"}, **{**tables, **more}
    )


def test_the_page_shows_doubt_baselines_length_contamination_calibration_and_where_it_comes_from() -> None:
    read = shown(full())
    for words in (
        "95 % bootstrap interval", "the longest response", "random scores",
        "Chat Hard", "Reasoning", "hard", "Comparison with another run", "worse", "-20.0",
        "Length", "Spearman", "Contamination", "Calibration", "slope", "Compute", "Published models on RewardBench", "Nemotron-4 340B RM", "sha256",
        "model-version", "helpfulness 0.700, verbosity -0.300", "This is RewardBench without Chat, Safety, mt-bench-hard"
    ):  # fmt: skip
        assert words in read.text, words


def test_the_page_loads_and_runs_nothing() -> None:
    read = shown(full(), full("other"))
    assert {tag for tag, _ in read.tags} & {
        "script",
        "link",
        "iframe",
        "img",
        "object",
        "embed",
        "form",
        "base",
    } == set()
    attributes = [(name, value) for _, found in read.tags for name, value in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name in ("src", "href", "style")]
    (policy,) = [found["content"] for tag, found in read.tags if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_strangers_text_is_text() -> None:
    items = pairs_of(3, HOSTILE, benchmark=HOSTILE)
    model = evaluated(HOSTILE, items, rated_by=HOSTILE, tuned_on=HOSTILE, compute={"device": HOSTILE})
    read = Read(page.files(HOSTILE, [model], HOSTILE, HOSTILE)[page.HTML].decode())
    assert {tag for tag, _ in read.tags} & {"script", "img"} == set()
    assert "{{ 7*7 }}" in read.text
    assert read.text.count("onerror=alert(1)") > 5


def test_tables_are_named_and_their_headings_say_what_they_head() -> None:
    read = shown(full())
    tags = [tag for tag, _ in read.tags]
    assert tags.count("table") == tags.count("caption") > 5
    assert all(found.get("scope") in ("col", "row") for tag, found in read.tags if tag == "th")
    headings = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    named = {found["id"] for _, found in read.tags if "id" in found}
    assert {found["aria-labelledby"] for _, found in read.tags if "aria-labelledby" in found} <= named


def test_who_rated_and_what_was_tuned_on_stand_beside_every_figure() -> None:
    note = "Ratings come from simulated annotators: the figures show that the chain works, not what people think."
    read = shown(full(rated_by="simulated annotators", tuned_on="b"), note=note)
    assert note in read.text
    assert (
        read.text.count("rated by simulated annotators") == 7
    )  # bars and two tables of two benchmarks, and where it comes from
    assert "weights searched on b: tuned on its test set" in read.text
    plain = shown(full(rated_by="people"))
    assert "tuned on" not in plain.text
    assert "simulated" not in plain.text


def test_models_that_were_scored_on_different_items_are_not_compared_without_a_word() -> None:
    said = "Not all of these models were scored on the same items"
    one, other, alike = (evaluated(name, pairs_of(count)) for name, count in (("one", 3), ("two", 4), ("three", 3)))
    assert said in shown(one, other).text
    assert said not in shown(one, alike).text


def test_ours_stand_among_the_published_ones_only_with_the_whole_of_rewardbench() -> None:
    assert "part (ours)" not in shown(evaluated("part", pairs_of(12, "hep-go"))).text
    read = shown(evaluated("whole", whole_rewardbench(), tuned_on="rewardbench", compute={"device": "this machine"}))
    assert "whole (ours) weights searched on rewardbench: tuned on its test set" in read.text
    assert read.text.count("this machine") == 1  # where scoring is told, not as what it was trained on
    assert "This benchmark is the whole of RewardBench" in read.text


def test_json_has_every_figure_and_no_number_that_json_has_no_word_for() -> None:
    model = full()
    bad = model.provenance | {"weights": {"reward": float("nan")}}
    document = json.loads(page.files("Models", [evaluated("m", pairs_of(3)), full()])[page.JSON])
    assert [m["model"] for m in document["models"]] == ["m", "model"]
    assert document["models"][1]["summary"] == model.summary.to_pylist()
    assert document["models"][1]["history"][0]["regression"] is True
    assert len({row["model"] for row in document["published"] if row["benchmark"] == "RewardBench"}) == 19
    assert {row["benchmark"] for row in document["published"]} == {"RewardBench", "RM-Bench"}
    broken = page.files("Models", [full(history=HISTORY.empty_table())])[page.JSON]
    assert b"NaN" not in broken
    assert page._finite(bad)["weights"] == {"reward": None}


def test_csv_has_a_row_a_figure_and_no_formula() -> None:
    files = page.files("Models", [evaluated("=HYPERLINK(1)", pairs_of(3, "@s"))])
    rows = list(csv.DictReader(io.StringIO(files[page.CSV].decode())))
    ours = [row for row in rows if row["origin"] == "ours"]
    assert {row["model"] for row in ours} == {"'=HYPERLINK(1)"}
    assert {row["name"] for row in ours} == {"b", "'@s"}
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "@", "+"))]
    assert float(ours[0]["low"]) <= float(ours[0]["accuracy"]) <= float(ours[0]["high"])


def test_it_is_written_with_its_files_and_needs_a_model(tmp_path: Path) -> None:
    path = page.write(tmp_path / "out", "Models", [full()])
    assert path == tmp_path / "out" / "report.html"
    assert {p.name for p in path.parent.iterdir()} == {page.HTML, page.JSON, page.CSV}
    with pytest.raises(ValueError, match="no model to show"):
        page.files("Models", [])


def test_the_same_figures_give_the_same_files() -> None:
    model = full()
    assert page.files("Models", [model]) == page.files("Models", [model])
