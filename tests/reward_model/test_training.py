"""The worker's function end to end on a small Llama: what it publishes is what anyone's plain code scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.dataset.schema import DATASET
from pipeline.reward_model import training
from pipeline.reward_model.scoring import score
from pipeline.reward_model.worker import split_development, work
from pipeline.settings import ATTRIBUTES, Recipe
from pipeline.store import write_table
from tests.reward_model.small import WORDS, save_small_model

RECIPE = Recipe(base="small", epochs=2, batch_size=8, micro_batch_size=4, learning_rate=1e-3, warmup_steps=1, evaluations=2, max_tokens=64,
                development_share=0.3)  # fmt: skip


def data(n: int = 40) -> pa.Table:
    """Prompts with two responses; the more often a response says `good`, the better it is."""
    generator = np.random.default_rng(0)
    rows = []
    for p in range(n):
        for position in (1, 2):
            words = list(generator.choice(WORDS[3:-1], 12))
            level = min(4, words.count("good") + words.count("yes"))
            rows.append(
                {"split": "train", "prompt_id": f"p{p}", "response_id": f"p{p}/{position}", "position": position,
                 "messages": [{"role": "user", "content": "one two"}], "response": " ".join(words), "helpfulness_mean": float(level),
                 **dict.fromkeys(ATTRIBUTES, level), "verbosity": None if p % 3 else 2}
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=DATASET)


def spec(place: Path, name: str = "out") -> dict[str, Any]:
    (place / name).mkdir()
    base = place / "base"
    if not base.exists():
        torch.manual_seed(0)
        save_small_model(base)
        from upath import UPath

        write_table(data(), UPath(place / "data.parquet"))
    return {
        "input": str(place / "data.parquet"),
        "data_version": "v",
        "work": str(place / "work"),
        "cache": str(place / "cache"),
        "checkpoint": {"folder": str(base), "licence": "none"},
        "recipe": RECIPE.model_dump(),
        "recipe_name": "small",
        "seed": 1,
        "rated_by": "simulated annotators",
        "ratings_note": "Ratings come from simulated annotators.",
        "out": str(place / name),
    }


def quiet(message: str) -> None:
    del message


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("reward")
    figures = work(spec(place), quiet)
    return place / "out", figures


def test_plain_transformers_code_gives_our_scores(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    ours = {r["response_id"]: r for r in pq.read_table(folder / "development_predictions.parquet").to_pylist()}
    assert len(ours) >= 10
    for row in data().to_pylist():
        if row["response_id"] in ours:
            messages = [*row["messages"], {"role": "assistant", "content": row["response"]}]
            with torch.no_grad():
                outputs = model(
                    **tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
                ).logits[0]
            assert outputs.tolist() == pytest.approx([ours[row["response_id"]][a] for a in ATTRIBUTES], abs=1e-4)


def test_scores_do_not_depend_on_batch_and_padding(trained: tuple[Path, dict[str, Any]]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained[0])
    generator = np.random.default_rng(1)
    encoded = [[int(t) for t in generator.integers(4, 20, n)] + [2] for n in (3, 30, 7, 15)]
    together = score(model, encoded, lambda n: None)
    alone = np.concatenate([score(model, [row], lambda n: None) for row in encoded])
    assert together == pytest.approx(alone, abs=1e-4)


def test_the_published_checkpoint_has_the_least_development_loss(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = trained
    curve = pq.read_table(folder / "training_curve.parquet").to_pylist()
    assert curve[0]["step"] == 0
    assert len(curve) >= 3
    best = min(curve, key=lambda r: r["development_loss"])
    assert [r["chosen"] for r in curve] == [r is best for r in curve]
    predictions = pq.read_table(folder / "development_predictions.parquet").to_pandas()
    squared = np.concatenate([((predictions[a] - predictions[f"{a}_label"]) ** 2).dropna() for a in ATTRIBUTES])
    # training runs in bfloat16; what picks the checkpoint is the loss in float32, as it is published
    assert squared.mean() == pytest.approx(best["development_loss"], rel=1e-5)
    assert best["development_loss"] < figures["mean_baseline_loss"]


def test_the_card_says_that_ratings_are_simulated(trained: tuple[Path, dict[str, Any]]) -> None:
    assert "simulated annotators" in (trained[0] / "README.md").read_text()


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_the_same(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pq.read_table(trained[0] / "training_curve.parquet").to_pylist()
    real, said = training.Say.on_log, list[str]()

    def dying(
        self: Any, args: Any, state: Any, control: Any, logs: Any = None, **more: Any
    ) -> None:  # test double: killed after step 8
        if state.global_step > 8:
            raise KeyboardInterrupt
        real(self, args, state, control, logs, **more)

    monkeypatch.setattr(training.Say, "on_log", dying)
    with pytest.raises(KeyboardInterrupt):
        work(spec(tmp_path, "first"), quiet)
    monkeypatch.setattr(training.Say, "on_log", real)
    figures = work(spec(tmp_path, "second"), said.append)
    assert any(line.startswith("going on from checkpoint-") for line in said)
    again = pq.read_table(tmp_path / "second" / "training_curve.parquet").to_pylist()
    assert [r["step"] for r in again] == [r["step"] for r in whole]
    assert [r["development_loss"] for r in again] == pytest.approx([r["development_loss"] for r in whole], rel=1e-3)
    assert figures["steps"] == whole[-1]["step"]


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from_and_what_other_settings_left_is_removed(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given, said = spec(tmp_path), list[str]()
    (tmp_path / "work" / "of_other_settings" / "checkpoint-1").mkdir(parents=True)
    work(given, quiet)
    (mine,) = (tmp_path / "work").iterdir()
    (mine / "checkpoint-999").mkdir()
    (mine / "checkpoint-999" / "model.safetensors").write_bytes(b"cut off")
    # all was done before: nothing is trained again, and the same model comes out
    figures = work(given, said.append)
    assert any(line == f"going on from checkpoint-{figures['steps']}" for line in said)
    assert not any(line.startswith("training steps") for line in said)
    ours, first = ((folder / "model.safetensors").read_bytes() for folder in (tmp_path / "out", trained[0]))
    assert ours == first


def test_the_prompts_that_were_trained_on_are_published(trained: tuple[Path, dict[str, Any]]) -> None:
    seen = pq.read_table(trained[0] / "training_prompts.parquet")["prompt_id"].to_pylist()
    train, _ = split_development(data(), RECIPE.development_share)
    assert seen == sorted(set(train["prompt_id"].to_pylist()))


def test_data_without_a_rating_is_an_error(tmp_path: Path) -> None:
    given = spec(tmp_path)
    unrated = pa.Table.from_pylist([row | dict.fromkeys(ATTRIBUTES) for row in data().to_pylist()], schema=DATASET)
    pq.write_table(unrated, tmp_path / "data.parquet")
    with pytest.raises(ValueError, match="no rating among the responses"):
        work(given, quiet)


def test_development_prompts_are_others_than_training_prompts() -> None:
    train, development = split_development(data(), 0.3)
    assert not set(train["prompt_id"].to_pylist()) & set(development["prompt_id"].to_pylist())
    assert len(train) + len(development) == 80


def test_too_little_data_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="0 responses to train on and 0 to pick the checkpoint"):
        split_development(DATASET.empty_table(), 0.3)
