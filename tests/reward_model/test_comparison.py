import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from measurements import reward_models
from pipeline.reward_model.__main__ import main as reward_model
from pipeline.settings import load_profile
from pipeline.vocabulary import ATTRIBUTES
from tests.reward_model.small import WORDS, save_small_model

PROMPTS = 40


def made(seed: int = 0) -> list[dict[str, object]]:
    generator = np.random.default_rng(seed)
    words = [w for w in WORDS if w.strip()]
    return [
        {"prompt": f"question {n % PROMPTS}", "response": " ".join(generator.choice(words, int(generator.integers(1, 9))))}
        | {a: int(generator.integers(0, 5)) for a in ATTRIBUTES}
        for n in range(2 * PROMPTS)
    ]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made()))
    return path


def test_measures_are_those_of_the_drawn_prompts() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 5, (60, 2)).astype(float)
    predictions = np.round(labels + generator.normal(0, 2, (60, 2)), 1) + 1000
    counts = reward_models.bootstrap(60)
    assert counts.shape == (1 + reward_models.DRAWS, 60)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 60).all()
    correlations = reward_models.pearson(predictions, labels, counts)
    shares = reward_models.pair_accuracy(predictions, labels, counts)
    for draw in (0, 1, 2, 777):
        rows = np.repeat(np.arange(60), counts[draw].astype(int))
        p, y = predictions[rows], labels[rows]
        assert correlations[draw] == pytest.approx(np.corrcoef(p.ravel(), y.ravel())[0, 1])
        pairs = [((a > b), (c > d)) for (a, b), (c, d) in zip(p, y, strict=True) if c != d and a != b]
        assert shares[draw] == pytest.approx(sum(a == b for a, b in pairs) / (y[:, 0] != y[:, 1]).sum())


def test_equal_predictions_lose_and_equal_labels_do_not_count() -> None:
    labels = np.array([[3.0, 1.0], [2.0, 2.0], [0.0, 4.0], [1.0, 2.0]])
    one = np.ones((1, 4))
    assert reward_models.pair_accuracy(np.array([[1.0, 1], [1, 0], [0, 1], [1, 0]]), labels, one)[0] == pytest.approx(
        1 / 3
    )
    same = np.full((4, 2), 0.1)
    assert reward_models.pair_accuracy(same, labels, one)[0] == 0
    assert np.isnan(reward_models.pearson(same, labels, one)).all()


def test_folds_are_of_whole_prompts_in_the_order_of_their_hashes(file: Path) -> None:
    frame = reward_models.rated(file)
    order = sorted((row["prompt"] for row in made()), key=lambda text: hashlib.sha256(str(text).encode()).digest())
    assert frame["prompt"].tolist() == order
    assert frame["fold"].tolist() == [n // 16 for n in range(80)]
    assert (frame.groupby("prompt")["fold"].nunique() == 1).all()


def test_a_prompt_with_other_than_two_responses_is_refused(file: Path) -> None:
    rows = file.read_text().splitlines()
    file.write_text("\n".join(rows[:-1]))
    with pytest.raises(SystemExit, match="1 prompts don't have two responses, but \\[1\\]"):
        reward_models.rated(file)


def test_a_reward_is_measured_by_helpfulness_and_other_outputs_are_refused(file: Path) -> None:
    held = reward_models.rated(file).iloc[:16]
    counts = reward_models.bootstrap(8)
    found = reward_models.measure(pd.DataFrame({"reward": -held["helpfulness"].to_numpy(float)}), held, counts)
    assert list(found) == ["helpfulness", "pair_accuracy"]
    assert found["helpfulness"][0] == pytest.approx(-1)
    assert found["pair_accuracy"][0] == 0
    for columns in ({"other": range(16)}, {"correctness": range(16)}, {"reward": range(15)}):
        with pytest.raises(SystemExit, match="there must be 16, and helpfulness among them"):
            reward_models.measure(pd.DataFrame(columns), held, counts)


def test_length_has_the_sign_that_it_has_in_training() -> None:
    train = pd.DataFrame(
        {"response": ["a", "aa", "aaa"]} | {a: [0, 1, 2] for a in ATTRIBUTES} | {"verbosity": [2, 1, 0]}
    )
    found = reward_models.response_length(train, pd.DataFrame({"response": ["b", "bbb"]}))
    assert found["helpfulness"].is_monotonic_increasing
    assert found["verbosity"].is_monotonic_decreasing


def test_a_recipe_is_trained_once_and_stands_beside_the_baselines(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    save_small_model(tmp_path / "base")
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        f"extends: tiny\nname: mine\nstore: {tmp_path}/store\ncheckpoints:\n  small: {{folder: {tmp_path}/base, licence: none}}\n"
        "recipes:\n  little: {base: small, epochs: 1, batch_size: 16, max_tokens: 64, evaluations: 1, development_share: 0.3}\n"
    )
    ran: list[str] = []

    def here(*arguments: object) -> float:
        ran.append(str(arguments[0]))
        assert reward_model([str(a) for a in arguments]) == 0
        return 12.0

    monkeypatch.setattr(reward_models, "command", here)
    line = [str(file), "--profile", str(profile), "--recipe", "little", "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["reward_models.py", *line])
    reward_models.main()
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ran == ["train", "score"]
    assert first["prompts"] == {
        "train": 32,
        "held_out": 8,
        **{k: first["prompts"][k] for k in ("pairs", "equal_labels")},
    }
    assert list(first["models"]) == [*reward_models.BASELINES, "little"]
    assert first["models"]["little"]["peak_mib"] == 12
    assert list(first["folds"]) == list(reward_models.BASELINES)

    # the figures are those of the predictions that the command gave, row by row
    frame = reward_models.rated(file)
    held = frame[frame["fold"] == 0]
    (predictions,) = (tmp_path / "work").glob("little-*/predictions.parquet")
    expected = np.corrcoef(pd.read_parquet(predictions)["verbosity"], held["verbosity"])[0, 1]
    assert first["models"]["little"]["pearson"]["verbosity"][0] == pytest.approx(expected, abs=1e-4)
    difference = first["differences"]["little"]["helpfulness"]
    values = {name: first["models"][name]["pearson"]["helpfulness"][0] for name in (difference["baseline"], "little")}
    assert difference["difference"][0] == pytest.approx(values["little"] - values[difference["baseline"]], abs=2e-4)

    reward_models.main()
    assert ran == ["train", "score"], "what stands is taken"
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first
    profile.write_text(profile.read_text().replace("epochs: 1", "epochs: 2"))
    reward_models.main()
    assert ran == ["train", "score"] * 2, "another recipe is another model"


def test_the_benchmarks_recipes_can_be_read() -> None:
    recipes = load_profile(Path(reward_models.__file__).with_suffix(".yaml")).recipes
    assert {"regression_full", "regression_lora", "two_stage", "probe"} <= set(recipes)
