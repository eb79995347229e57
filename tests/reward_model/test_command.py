import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.reward_model.__main__ import main, rows_of
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
    rows = rows_of(place / "rows.jsonl").to_pylist()
    for n in (0, 31, 59):
        messages = [*rows[n]["messages"], {"role": "assistant", "content": rows[n]["response"]}]
        with torch.no_grad():
            inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
            plain = model(**inputs).logits[0].tolist()
        assert [found[a][n].as_py() for a in ATTRIBUTES] == pytest.approx(plain, abs=1e-4)
    said = capsys.readouterr().out
    assert "60 responses" in said
    shown = {row[0]: row[1:] for row in (re.split(r" *│ *", line)[1:-1] for line in said.splitlines() if "│" in line)}
    assert float(shown["loss"][0]) > 0 < float(shown["loss"][2])
    for name in ("pairs in order", *ATTRIBUTES):
        assert all(-1 <= float(value) <= 1 for value in shown[name][:2])

    # what stands is not written over
    assert main(train) == 1
    assert "exists" in capsys.readouterr().err


def test_rows_keep_their_order_and_their_turns(place: Path) -> None:
    table = rows_of(place / "rows.jsonl")
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
