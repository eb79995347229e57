import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.reward_model.__main__ import main
from pipeline.reward_model.rows import read
from pipeline.vocabulary import ATTRIBUTES
from tests.reward_model.small import WORDS, save_small_model

MULTI = "one two\n<extra_id_1>Assistant\nthree\n<extra_id_1>User\nfour"


def lines(count: int) -> list[dict[str, object]]:
    generator = np.random.default_rng(3)
    words = [w for w in WORDS if w.strip()]
    return [
        {"prompt": f"{MULTI} {words[n // 2 % len(words)]} {words[n // 40]}", "response": " ".join(generator.choice(words, 5))}
        | {a: int(generator.integers(0, 5)) for a in ATTRIBUTES}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_small_model(tmp_path / "base")
    (tmp_path / "mine.yaml").write_text(
        f"extends: tiny\nname: mine\nstore: {tmp_path}/store\ncheckpoints:\n  small: {{folder: {tmp_path}/base, licence: none}}\n"
        "recipes:\n  little: {base: small, epochs: 1, batch_size: 8, micro_batch_tokens: 256, max_tokens: 64, evaluations: 1, "
        "development_share: 0.3}\n"
    )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines(60)))
    return tmp_path


def test_a_file_trains_a_model_and_another_is_scored_in_its_order(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", str(place / "rows.jsonl"), str(place / "model"), "--profile", str(place / "mine.yaml")]
    assert main([*train, "--recipe", "little"]) == 0
    assert sorted(p.name for p in place.iterdir() if "model" in p.name) == ["model"], "nothing is left beside it"
    assert main(["score", str(place / "model"), str(place / "rows.jsonl"), str(place / "out.parquet")]) == 0
    found = pq.read_table(place / "out.parquet")
    assert found.column_names == list(ATTRIBUTES)
    folder = place / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    rows = read(place / "rows.jsonl").rated.to_pylist()
    for n in (0, 31, 59):
        messages = [*rows[n]["messages"], {"role": "assistant", "content": rows[n]["response"]}]
        with torch.no_grad():
            inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
            plain = model(**inputs).logits[0].tolist()
        assert [found[a][n].as_py() for a in ATTRIBUTES] == pytest.approx(plain, abs=1e-4)
    said = capsys.readouterr().out
    assert "60 responses" in said
    shown = {
        row[0]: row[1:]
        for row in (
            re.split(r" *│ *", line)[1:-1] for line in said.partition("60 responses")[0].splitlines() if "│" in line
        )
    }
    assert float(shown["loss"][0]) > 0 < float(shown["loss"][2])
    for name in ("pairs in order", *ATTRIBUTES):
        assert all(-1 <= float(value) <= 1 for value in shown[name][:2])

    # what stands is not written over
    assert main(train) == 1
    assert "exists" in capsys.readouterr().err


def test_responses_without_ratings_are_scored_into_the_format_of_the_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, profile = str(place / "model"), str(place / "mine.yaml")
    assert main(["train", str(place / "rows.jsonl"), model, "--profile", profile, "--recipe", "little"]) == 0
    rows = [{"prompt": row["prompt"], "response": row["response"]} for row in lines(6)]
    (place / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for ending in ("parquet", "csv", "jsonl"):
        out = place / f"out.{ending}"
        assert main(["score", model, str(place / "plain.jsonl"), str(out)]) == 0
        match ending:
            case "parquet":
                found.append(pd.read_parquet(out))
            case "csv":
                found.append(pd.read_csv(out))
            case "jsonl":
                found.append(pd.read_json(out, lines=True))
    for other in found[1:]:
        assert np.allclose(found[0], other, atol=1e-6)
    assert "no ratings that the scores could be held against" in capsys.readouterr().out
    assert main(["score", model, str(place / "plain.jsonl"), str(place / "out.xlsx")]) == 1
    assert "scores are written as .parquet, .jsonl, .csv" in capsys.readouterr().err
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.model_max_length == 64, "whoever scores reads as much as was trained on"


def test_a_file_with_some_attributes_alone_says_which_are_missing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in (rows := lines(60)):
        del row["verbosity"]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = ["train", str(place / "rows.jsonl"), str(place / "model"), "--profile", str(place / "mine.yaml")]
    assert main([*train, "--recipe", "little"]) == 0
    assert (
        "No row rates verbosity: the model predicts helpfulness, correctness, coherence, complexity alone"
        in capsys.readouterr().err
    )
    shutil.rmtree(place / "model")
    profile = yaml.safe_load((place / "mine.yaml").read_text())
    profile["recipes"]["all_five"] = profile["recipes"]["little"] | {"attributes": list(ATTRIBUTES)}
    (place / "mine.yaml").write_text(yaml.safe_dump(profile))
    assert main([*train, "--recipe", "all_five"]) == 1
    assert "the file has no rating of verbosity; name those attributes alone" in capsys.readouterr().err
    # some rows without one are masked; means are rounded by a recipe of rounded labels, and it says so
    some = [row | ({"verbosity": 2.5} if n % 3 else {}) for n, row in enumerate(rows)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    assert main([*train, "--recipe", "little", "--rated-by", "simulated annotators"]) == 0
    assert "verbosity: has means, which the recipe rounds" in capsys.readouterr().err
    card = (place / "model" / "README.md").read_text()
    assert "rated-by-simulated-annotators" in card


def test_what_was_read_is_printed_before_it_trains_and_columns_may_have_other_names(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"response": "reply", "helpfulness": "stars"}
    given = [{names.get(name, name): value for name, value in row.items()} for row in lines(60)]
    given += [row | {"split": "test"} for row in given[:4]]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    arguments = [
        str(place / "rows.jsonl"),
        str(place / "model"),
        "--profile",
        str(place / "mine.yaml"),
        "--recipe",
        "little",
    ]
    assert main(["train", *arguments]) == 1
    assert "response is missing, and prompt does not end with" in capsys.readouterr().err
    columns = ["--columns", "response=reply", "helpfulness=stars"]
    assert main(["train", *arguments, *columns]) == 0
    told = capsys.readouterr()
    for what in (
        "What was read of rows.jsonl",
        "rows read",
        "with the column reply as response",
        "validation rows left out",
    ):
        assert what in told.out
    assert told.out.index("rows read") < told.out.index("Development responses")
    assert "prompts dropped, as rows of the file's validation and test splits have them: 2" in told.err
    assert main(["score", str(place / "model"), str(place / "rows.jsonl"), str(place / "out.csv"), *columns]) == 0
    assert len(pd.read_csv(place / "out.csv")) == 64
    for wrong, why in (("reply", "is not FIELD=COLUMN"), ("answer=reply", "the form has no field answer")):
        assert main(["train", *arguments[:1], str(place / "other"), *arguments[2:], "--columns", wrong]) == 1
        assert why in capsys.readouterr().err


def test_pairs_in_any_form_train_a_recipe_of_preferences(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = lines(60)
    pairs = [
        {"context": [{"role": "user", "content": f"four {n}"}], "response1": one["response"], "response2": other["response"],
         "overall_preference": n % 4 - 2}
        for n, (one, other) in enumerate(zip(rows[::2], rows[1::2], strict=True))
    ]  # fmt: skip
    (place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    profile = place / "mine.yaml"
    profile.write_text(profile.read_text().replace("little: {base", "little: {objective: scaled_bt, base"))
    arguments = [str(place / "pairs.jsonl"), str(place / "model"), "--profile", str(profile), "--recipe", "little"]
    assert main(["train", *arguments]) == 0
    told = capsys.readouterr().out
    assert re.search(r"of the form context, response1, response2 and\s+overall_preference", told)
    assert "ties dropped" in told


def test_a_run_that_is_stopped_leaves_no_copy_of_the_data(place: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(place / "tmp")}
    (place / "tmp").mkdir()
    train = ["train", "rows.jsonl", "model", "--profile", "mine.yaml", "--recipe", "little"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.reward_model", *train],
        cwd=place,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    next(line for line in process.stderr if "to train on" in line)
    process.terminate()
    assert process.wait(60) == 143
    left = [p for p in place.rglob("*") if p.suffix == ".parquet"]
    assert not left
    assert not (place / "model").exists()


def test_training_starts_anew_where_the_base_models_weights_are_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.reward_model import worker

    places = list[Path]()

    def cut_off(
        spec: object, folder: Path, tokenizer: object, train: object, development: object, at: Path, log: object
    ) -> None:
        places.append(at)
        raise RuntimeError("cut off")

    monkeypatch.setattr(worker, "train_stages", cut_off)
    train = ["train", str(place / "rows.jsonl"), str(place / "model"), "--profile", str(place / "mine.yaml")]
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        save_small_model(place / "base")
        assert main([*train, "--recipe", "little"]) == 1
    assert places[0] == places[1] != places[2]


def test_rows_keep_their_order_and_their_turns(place: Path) -> None:
    table = read(place / "rows.jsonl").rated
    given = lines(60)
    assert table["response"].to_pylist() == [row["response"] for row in given]
    assert [m["role"] for m in table["messages"][0].as_py()] == ["user", "assistant", "user"]
    assert table["prompt_id"][0] == table["prompt_id"][1] != table["prompt_id"][2]
    assert len(set(table["response_id"].to_pylist())) == 60


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lines(1)[0] | {"helpfulness": 7}, "bad.jsonl:2: helpfulness is "),
        ({"response": "a"}, "bad.jsonl:2: "),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    place: Path, row: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = place / "bad.jsonl"
    bad.write_text(json.dumps(lines(1)[0]) + "\n" + json.dumps(row) + "\n")
    assert main(["train", str(bad), str(place / "model"), "--profile", str(place / "mine.yaml")]) == 1
    assert said in capsys.readouterr().err
    assert not (place / "model").exists()


def test_an_unknown_recipe_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(place / "rows.jsonl"), str(place / "model"), "--profile", str(place / "mine.yaml")]
    assert main([*arguments, "--recipe", "huge"]) == 1
    assert "has no recipe huge; it has: smollm2_regression, smollm2_probe, little" in capsys.readouterr().err


def test_what_is_no_reward_model_is_not_scored_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, reason in (
        (place / "base", "not a reward model: it has no weights for score.weight"),
        (place, "holds no model"),
    ):
        assert main(["score", str(folder), str(place / "rows.jsonl"), str(place / "none.parquet")]) == 1
        assert reason in capsys.readouterr().err
    assert not (place / "none.parquet").exists()
