"""The commands as a person runs them: what they print, write, and exit with."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.annotations.__main__ import main
from pipeline.forms import ratings as formats
from pipeline.vocabulary import ATTRIBUTES


def row(prompt: str, response: str, *ratings: int) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, **{a: list(ratings) for a in ATTRIBUTES}}


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rows = [row("p", "a", 0, 0, 0, 0, 4), row("p", "b", 3, 3, 4), row("q", "c", 1, 2, 4), row("q", "d", 2, 2, 2)]
    path = tmp_path / "disagreements.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_the_consensus_of_published_rows_is_the_posters(ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ratings.with_name("train.jsonl.gz")
    assert main(["consensus", str(ratings), str(out)]) == 0
    quarantine = formats.Quarantine()
    rows = [r for t in formats.read(out, "helpsteer", quarantine) for r in t.to_pylist()]
    # 0,0,0,0,4 -> 0; 1,2,4 is no agreement, and takes its task with it (poster)
    assert [(r["prompt"], r["response"], r["helpfulness"]) for r in rows] == [("p", "a", 0), ("p", "b", 3)]
    assert "2 rows" in capsys.readouterr().out


def annotated(path: Path, *ratings: tuple[str, str, str, int]) -> Path:
    rows = [
        {"prompt_id": p, "response_id": r, "annotator_id": a, **dict.fromkeys(ATTRIBUTES, x)} for p, r, a, x in ratings
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_the_consensus_of_annotations_in_any_order_is_labels(tmp_path: Path) -> None:
    said = [("p", "1", "x", 3), ("q", "3", "x", 4), ("p", "2", "x", 1), ("p", "1", "y", 4), ("q", "4", "y", 2)]
    given = annotated(tmp_path / "a.jsonl", *said)
    assert main(["consensus", str(given), str(tmp_path / "labels.parquet")]) == 0
    labels = {r["response_id"]: r["helpfulness"] for r in pq.read_table(tmp_path / "labels.parquet").to_pylist()}
    assert labels == {"1": 4, "2": 1, "3": 4, "4": 2}


def test_agreement_prints_every_figure_with_its_interval_and_null(
    ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agreement", str(ratings), "--permutations", "2", "--draws", "20"]) == 0
    said = capsys.readouterr().out
    assert "Weighted kappa" in said
    assert "Krippendorff" in said
    assert said.count("by chance") >= 45
    assert main(["agreement", str(ratings), "--json", "--permutations", "2", "--draws", "20"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 15
    assert rows[0]["responses"] == 4


def test_simulated_annotators_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt_id": "p", "response_id": r, "annotator_id": f"s{n}", "simulated": True, **dict.fromkeys(ATTRIBUTES, n)}
        for r in "ab"
        for n in range(3)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["agreement", str(tmp_path / "a.jsonl"), "--permutations", "1", "--draws", "5"]) == 0
    assert "of simulated annotators" in capsys.readouterr().out


def test_a_file_goes_through_every_kind_and_comes_back(ratings: Path) -> None:
    kinds = ["a.parquet", "b.csv.gz", "c.csv", "d.jsonl.gz", "e.jsonl"]
    files = [ratings, *(ratings.with_name(k) for k in kinds)]
    for one, other in itertools.pairwise(files):
        assert main(["convert", str(one), str(other)]) == 0
    assert files[-1].read_bytes() == ratings.read_bytes()


def test_annotations_go_to_label_studio_and_back(tmp_path: Path) -> None:
    given = annotated(tmp_path / "a.jsonl", ("q", "3", "x", 1), ("p", "1", "x", 3), ("p", "2", "x", 4))
    assert main(["convert", str(given), str(tmp_path / "b.json")]) == 0
    assert len(json.loads((tmp_path / "b.json").read_text())) == 2
    assert main(["convert", str(tmp_path / "b.json"), str(tmp_path / "c.parquet")]) == 0
    back = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert {(r["prompt_id"], r["response_id"], r["annotator_id"], r["helpfulness"]) for r in back} == {
        ("q", "3", "x", 1),
        ("p", "1", "x", 3),
        ("p", "2", "x", 4),
    }


def test_a_bad_row_ends_the_command_unless_it_may_be_set_aside(
    ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ratings.open("a") as file:
        file.write(json.dumps(row("p", "x", 7)) + "\n")
    out, aside = ratings.with_name("out.parquet"), ratings.with_name("aside.jsonl")
    assert main(["consensus", str(ratings), str(out)]) == 1
    said = capsys.readouterr().err
    assert "disagreements.jsonl:5: helpfulness is not a whole number from 0 to 4" in said
    assert "--quarantine" in said
    assert not out.exists()
    assert main(["consensus", str(ratings), str(out), "--quarantine", str(aside)]) == 0
    assert pq.read_metadata(out).num_rows == 2
    assert [json.loads(line)["line"] for line in aside.read_text().splitlines()] == [5]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["consensus", "gone.jsonl", "out.parquet"], "No such file"),
        (["consensus", "disagreements.jsonl", "out.xlsx"], "its name must end in one of"),
        (["consensus", "disagreements.jsonl", "out.parquet", "--keep", "1"], "keep: must be at least 2"),
        (["convert", "disagreements.jsonl", "out.csv", "--to", "helpsteer"], "the command `consensus` makes them"),
        (
            ["convert", "disagreements.jsonl", "out.json"],
            "rows of the form disagreements can't be written in the form label_studio",
        ),
        (["agreement", "labels.jsonl"], "have no single ratings"),
        (["agreement", "empty.jsonl"], "holds no record"),
        (["agreement", "empty.jsonl", "--form", "annotations"], "no row that can be used"),
    ],
)
def test_what_cannot_be_done_is_said_and_writes_nothing(
    ratings: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(ratings.parent)
    Path("empty.jsonl").touch()
    Path("labels.jsonl").write_text(json.dumps({"prompt": "q", "response": "r", **dict.fromkeys(ATTRIBUTES, 3)}) + "\n")
    before = sorted(p.name for p in Path().iterdir())
    assert main(arguments) == 1
    assert reason in capsys.readouterr().err
    assert sorted(p.name for p in Path().iterdir()) == before


def test_it_runs_as_a_module_and_imports_no_dagster(ratings: Path) -> None:
    code = "import sys, runpy; sys.argv[1:] = ['--help']\ntry: runpy.run_module('pipeline.annotations', run_name='__main__')\n"
    code += "except SystemExit as end: print('dagster' in sys.modules, 'torch' in sys.modules, end.code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False False 0\n")
    assert "consensus" in done.stdout


def test_a_persons_last_rating_counts_and_what_is_no_rating_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def annotation(who: int, level: int, at: str, **more: Any) -> dict[str, Any]:
        results = [{"from_name": f"{a}_{n}", "value": {"choices": [str(level)]}} for a in ATTRIBUTES for n in (1, 2)]
        return {"completed_by": who, "created_at": at, "result": results, **more}

    task = {
        "data": {"prompt_id": "p", "response_1_id": "A", "response_2_id": "B"},
        "predictions": [{"result": []}],
        "drafts": [{"result": []}],
        "annotations": [
            annotation(1, 4, "2026-01-01T00:00:00Z", updated_at="2026-01-09T00:00:00Z"),  # the last one to be changed
            annotation(1, 0, "2026-01-02T00:00:00Z"),
            annotation(2, 4, "2026-01-02T00:00:00Z"),
            annotation(3, 0, "2026-01-02T00:00:00Z", ground_truth=True),
            annotation(4, 0, "2026-01-02T00:00:00Z", was_cancelled=True),
        ],
    }
    (tmp_path / "export.json").write_text(json.dumps([task, task]))  # as merged exports have it
    assert main(["consensus", str(tmp_path / "export.json"), str(tmp_path / "labels.jsonl")]) == 0
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [(r["response_id"], r["helpfulness"], r["helpfulness_n"]) for r in labels] == [("A", 4, 2), ("B", 4, 2)]
    said = " ".join(capsys.readouterr().err.split())
    for reason in (
        "a draft is no rating",
        "a model's prediction is no rating",
        "skipped the task",
        "is gold, no rater's",
        "last rating counts",
    ):
        assert reason in said.replace(" │ │ │ ", " "), said


def test_the_hundredth_line_is_named_by_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not by an emoji, which :100: is in rich's markup."""
    rated = {"prompt_id": "p", "response_id": "r", **dict.fromkeys(ATTRIBUTES, 3)}
    lines = [
        json.dumps(rated | {"annotator_id": f"a{n}"} | ({"helpfulness": 7} if n == 99 else {})) for n in range(120)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["consensus", str(tmp_path / "a.jsonl"), str(tmp_path / "out.jsonl")]) == 1
    assert "a.jsonl:100: helpfulness is not a whole number from 0 to 4" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
