"""`python -m pipeline.evaluation`: from a model and a file to a report."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from pipeline.evaluation.__main__ import main
from pipeline.evaluation.schema import SCORES
from pipeline.reward_model.schema import PREFERENCE_PREDICTIONS
from pipeline.settings import PROJECT
from pipeline.store import write_table
from pipeline.texts.decontamination import SEEN_PROMPTS, fingerprints
from pipeline.vocabulary import ATTRIBUTES
from tests.evaluation.models import drawn_pairs, save_reward_model
from tests.evaluation.test_weights import as_people_prefer, preferences
from tests.reward_model.small import save_small_model

FILES = ["outcomes.parquet", "rejected.parquet", "report.html", "scores.parquet", "summary.csv", "summary.json"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    save_reward_model(folder / "one")
    save_reward_model(folder / "five", ATTRIBUTES)
    pairs_file(folder / "pairs.jsonl")
    return folder


def pairs_file(path: Path, count: int = 24, *more: Any) -> Path:
    rows = [
        {"id": n, "subset": "even" if n % 2 else "odd", "prompt": "one two", "chosen": chosen, "rejected": rejected}
        for n, (chosen, rejected) in enumerate(drawn_pairs(count))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
    return path


def run(place: Path, model: str, out: Path, *more: str, benchmark: str = "pairs.jsonl") -> int:
    return main(
        [
            str(place / model) if (place / model).exists() else model,
            "--benchmark",
            str(place / benchmark),
            "--out",
            str(out),
            *more,
        ]
    )


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def test_a_model_and_a_file_become_a_report_that_says_what_it_rests_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "one", tmp_path) == 0
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == FILES
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert (scores.schema, len(scores)) == (SCORES, 48)
    (model,) = summary_of(tmp_path)["models"]
    made = model["provenance"]
    assert made["model"] == "one"
    assert len(made["model_version"]) == 16
    assert made["benchmarks"]["pairs"]["items"] == 24
    assert len(made["benchmarks"]["pairs"]["sha256"]) == 64
    assert made["code"]
    assert (made["precision"], made["max_tokens"], made["weights"]) == ("float32", 128, {"reward": 1.0})
    assert {row["level"] for row in model["summary"]} == {"subset", "section", "overall"}
    wins = scores["goodness"].to_numpy().reshape(-1, 2)
    (total,) = [row for row in model["summary"] if row["level"] == "overall"]
    shown = capsys.readouterr()
    assert f"{100 * total['accuracy']:.1f}" in shown.out
    by_subset = {name: (wins[k::2, 0] > wins[k::2, 1]).mean() for name, k in (("odd", 0), ("even", 1))}
    assert {r["name"]: r["accuracy"] for r in model["summary"] if r["level"] == "subset"} == pytest.approx(by_subset)
    assert "48 conversations were scored" in shown.err

    # a second time there is nothing to score
    assert run(place, "one", tmp_path) == 0
    assert "0 conversations were scored in 0 s; 48 had been scored before" in capsys.readouterr().err


@pytest.mark.engine
def test_killed_half_way_and_started_again_it_scores_only_the_rest(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
import os, signal, sys
from pipeline.evaluation import scoring
from pipeline.evaluation.__main__ import main
from pipeline.evaluation.scorers import model as scorers_model

def until_killed(self, conversations, whole=scorers_model.LocalModel.score):  # test double: the process is killed half way
    done = 0
    for scored in whole(self, conversations):
        yield scored
        done += len(scored.rows)
        if done >= len(conversations) / 2:
            os.kill(os.getpid(), signal.SIGKILL)

scorers_model.LocalModel.score = until_killed
scorers_model.batches = lambda lengths, tokens, whole=scorers_model.batches: whole(lengths, 128)
scoring.KEEP_SECONDS = 0.0
main(sys.argv[1:])
"""
    arguments = [str(place / "one"), "--benchmark", str(place / "pairs.jsonl"), "--out", str(tmp_path / "killed")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "report.html").exists()
    kept = sum(pq.read_metadata(p).num_rows for p in (tmp_path / "killed" / ".scores").glob("part-*"))
    assert 24 <= kept < 48
    assert main(arguments) == 0
    assert f"{48 - kept} conversations were scored" in capsys.readouterr().err
    assert run(place, "one", tmp_path / "whole") == 0
    killed, whole = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("killed", "whole"))
    assert killed["goodness"].to_numpy() == pytest.approx(whole["goodness"].to_numpy(), abs=1e-4)
    assert killed.drop_columns(["reward", "goodness"]).equals(whole.drop_columns(["reward", "goodness"]))


def test_records_that_are_none_are_set_aside_and_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (
        {"id": 98, "subset": "odd", "prompt": "a", "chosen": "b"},
        {"id": 99, "subset": "odd", "prompt": "a", "chosen": "[red]b", "rejected": " "},
    )
    pairs_file(tmp_path / "bad.jsonl", 4, *more)
    assert run(tmp_path, str(place / "one"), tmp_path / "out", benchmark="bad.jsonl") == 0
    said = capsys.readouterr().err
    assert "Records set aside: 2" in said
    assert "rejected" in said
    assert pq.read_table(tmp_path / "out" / "rejected.parquet")["line"].to_pylist() == [5, 6]
    (tmp_path / "none.jsonl").write_text('{"prompt": "a"}\n')
    assert run(tmp_path, str(place / "one"), tmp_path / "none", benchmark="none.jsonl") == 1
    assert "no usable item" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("model", "more", "reason"),
    [
        ("base", (), "is not a reward model: LlamaForCausalLM"),
        ("five", (), "give them with --weights helpfulness=1,..."),
        ("five", ("--weights", "honesty=1"), "'honesty' is no output of the model"),
        ("five", ("--weights", "helpfulness=1", "--as-published"), "--weights and --as-published exclude each other"),
        ("one", ("--against", "nowhere"), "--against nowhere: holds no finished evaluation"),
        ("no model", (), "is neither a folder, nor an address, nor a hub id"),
    ],
)
def test_what_cannot_be_done_is_said(
    place: Path, tmp_path: Path, model: str, more: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if model == "base" and not (place / "base").exists():
        save_small_model(place / "base")
    assert run(place, model, tmp_path / "out", *more) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_benchmark_stands_once(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "longest", tmp_path, "--benchmark", str(place / "pairs.jsonl")) == 1
    assert "two benchmarks of the name pairs" in capsys.readouterr().err


def test_weights_that_were_searched_on_the_benchmark_are_marked_wherever_the_figure_stands(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "five", tmp_path / "given", "--weights", "helpfulness=1") == 0
    assert "tuned on the test set" not in capsys.readouterr().out
    assert run(place, "five", tmp_path / "tuned", "--as-published") == 0
    assert "tuned on the test set" in capsys.readouterr().out
    given, tuned = (summary_of(tmp_path / name)["models"][0] for name in ("given", "tuned"))
    assert (given["tuned_on"], tuned["tuned_on"]) == (None, "pairs")
    assert "pairs" in (tmp_path / "tuned" / "report.html").read_text()
    accuracy = [next(r["accuracy"] for r in m["summary"] if r["level"] == "overall") for m in (given, tuned)]
    assert accuracy[1] >= accuracy[0]
    assert tuned["provenance"]["weights_from"] == "pairs"


def test_a_model_that_brings_its_development_preferences_is_weighed_by_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_reward_model(tmp_path / "model", ATTRIBUTES)
    table = preferences(as_people_prefer(0, 60))
    assert table.schema == PREFERENCE_PREDICTIONS
    write_table(table, UPath(tmp_path / "model" / "development_preferences.parquet"))
    assert run(place, str(tmp_path / "model"), tmp_path / "out") == 0
    assert "The weights are fitted on 60 preferences of development prompts: helpfulness=" in capsys.readouterr().err
    assert (
        summary_of(tmp_path / "out")["models"][0]["provenance"]["weights_from"] == "preferences of development prompts"
    )


def test_two_models_are_compared_on_the_same_items(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "longest", tmp_path / "first") == 0
    assert run(place, "one", tmp_path / "second", "--against", str(tmp_path / "first")) == 0
    assert "Beside longest" in capsys.readouterr().out
    found = summary_of(tmp_path / "second")
    assert [m["model"] for m in found["models"]] == ["one", "longest"]
    (row,) = found["models"][0]["history"]
    before, after = (
        next(r["accuracy"] for r in m["summary"] if r["level"] == "overall") for m in reversed(found["models"])
    )
    assert (row["paired"], row["before"], row["after"]) == (True, pytest.approx(before), pytest.approx(after))
    assert row["low"] <= row["difference"] <= row["high"]
    assert "longest" in (tmp_path / "second" / "report.html").read_text()


def test_one_model_beside_itself_with_other_weights_stands_under_two_names(place: Path, tmp_path: Path) -> None:
    assert run(place, "five", tmp_path / "first", "--weights", "helpfulness=1") == 0
    assert (
        run(place, "five", tmp_path / "second", "--weights", "verbosity=1", "--against", str(tmp_path / "first")) == 0
    )
    first, second = (summary_of(tmp_path / name)["models"] for name in ("first", "second"))
    assert [m["model"] for m in second] == ["five", "five (before)"]
    assert second[1]["summary"] == first[0]["summary"] != second[0]["summary"]


def test_what_a_model_was_trained_on_is_looked_for_among_the_items(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "longest", tmp_path / "unknown") == 0
    assert "nobody has looked" in capsys.readouterr().err
    assert "nobody has looked" in (tmp_path / "unknown" / "report.html").read_text()
    (tmp_path / "seen.jsonl").write_text('{"prompt": "one two"}\n')
    assert run(place, "longest", tmp_path / "told", "--trained-on", str(tmp_path / "seen.jsonl")) == 0
    assert "Prompts that the model was trained on: 24 of 24 items of pairs." in capsys.readouterr().err
    (row,) = summary_of(tmp_path / "told")["models"][0]["contamination"]
    assert (row["items"], row["contaminated"], row["without"]) == (24, 24, None)
    # a folder of this project says it by itself, and files are added to it
    save_reward_model(tmp_path / "model")
    write_table(fingerprints(pa.array(["something else"]), 8), UPath(tmp_path / "model" / SEEN_PROMPTS))
    assert run(place, str(tmp_path / "model"), tmp_path / "own") == 0
    assert "0 of 24 items of pairs" in capsys.readouterr().err
    assert run(place, str(tmp_path / "model"), tmp_path / "both", "--trained-on", str(tmp_path / "seen.jsonl")) == 0
    assert "24 of 24 items of pairs" in capsys.readouterr().err
    # what can't be read is told before anything is scored
    assert run(place, "one", tmp_path / "bad", "--trained-on", str(tmp_path / "gone.jsonl")) == 1
    assert not (tmp_path / "bad").exists()


def test_a_part_of_a_published_benchmark_is_called_that(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    styles = {"prompt": "one two", "chosen": ["a", "bb", "ccc"], "rejected": ["d", "ee", "fff"]}
    (tmp_path / "chat_filtered.json").write_text(json.dumps([{"id": str(n), **styles} for n in range(3)]))
    assert (
        main(["longest", "--benchmark", f"rm_bench:{tmp_path / 'chat_filtered.json'}", "--out", str(tmp_path / "out")])
        == 0
    )
    said = capsys.readouterr().out
    assert "part" in said
    assert "overall" not in said
    assert "This is RM-Bench without Code, Math and Safety: no score of the published benchmark." in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Published models on RM-Bench" in page
    assert "Published models on RewardBench<" not in page
    (model,) = summary_of(tmp_path / "out")["models"]
    assert {row["level"] for row in model["summary"]} == {"subset", "section", "part"}
    assert {(row["units"], row["independent"], row["low"], row["high"]) for row in model["summary"]} == {(3, 1, 0, 1)}


def test_random_scores_are_drawn_by_their_seed(place: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(place, "random", tmp_path / name, "--seed", seed) == 0
    found = [pq.read_table(tmp_path / name / "scores.parquet")["goodness"].to_pylist() for name in "abc"]
    assert found[0] == found[1] != found[2]
