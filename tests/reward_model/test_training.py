"""The worker's function end to end on a small Llama: what it publishes is what anyone's plain code scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from upath import UPath

from pipeline.dataset.schema import DATASET
from pipeline.models.loading import load_scorer
from pipeline.models.scoring import score
from pipeline.reward_model import training
from pipeline.reward_model.schema import PREFERRED, RATED
from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.worker import work
from pipeline.settings import Checkpoint, Decontamination, Recipe
from pipeline.store import read_table, write_table
from pipeline.texts.decontamination import SEEN_PROMPTS, overlaps
from pipeline.texts.words import prompt_texts
from pipeline.vocabulary import ATTRIBUTES
from tests.helpers import quiet
from tests.reward_model.small import WORDS, save_small_model

RECIPE = Recipe(base="small", epochs=2, batch_size=8, micro_batch_tokens=128, learning_rate=1e-3, warmup_steps=1, evaluations=2, max_tokens=64,
                development_share=0.3)  # fmt: skip


def data(n: int = 40) -> pa.Table:
    """Prompts with two responses; the more often a response says `good`, the better it is."""
    generator = np.random.default_rng(0)
    rows = []
    for p in range(n):
        asked = " ".join(["one", "two"][int(bit)] for bit in f"{p:06b}")
        for position in (1, 2):
            words = list(generator.choice(WORDS[3:-1], 12))
            level = min(4, words.count("good") + words.count("yes"))
            rows.append(
                {"split": "train", "prompt_id": f"p{p}", "response_id": f"p{p}/{position}", "position": position,
                 "messages": [{"role": "user", "content": asked}], "response": " ".join(words), "helpfulness_mean": float(level),
                 **dict.fromkeys(ATTRIBUTES, level), "verbosity": None if p % 3 else 2}
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=DATASET)


def tables(n: int = 40, share: float = 0.3) -> tuple[pa.Table, pa.Table]:
    """Ratings and preferences of `data`, some prompts held out for development."""
    rows = data(n).to_pylist()
    rated = [row | {"split": "development" if int(row["prompt_id"][1:]) < share * n else "train"} for row in rows]
    preferred = []
    for one, other in zip(rated[::2], rated[1::2], strict=True):
        better, worse = sorted((one, other), key=lambda row: -row["helpfulness"])
        gap = better["helpfulness"] - worse["helpfulness"]
        if gap:
            texts = {"chosen": better["response"], "rejected": worse["response"], "strength": float(gap)}
            preferred.append({k: one[k] for k in ("split", "prompt_id", "messages")} | texts)
    return pa.Table.from_pylist(rated, schema=RATED), pa.Table.from_pylist(preferred, schema=PREFERRED)


def spec(place: Path, name: str = "out", recipe: Recipe = RECIPE, **more: Any) -> TrainingSpec:
    (place / name).mkdir()
    base = place / "base"
    if not base.exists():
        torch.manual_seed(0)
        save_small_model(base)
        for table, file in zip(tables(), ("rated", "preferred"), strict=True):
            write_table(table, UPath(place / f"{file}.parquet"))
    given = {
        "rated": UPath(place / "rated.parquet"),
        "preferred": UPath(place / "preferred.parquet"),
        "data_version": "v",
        "work": place / "work",
        "cache": place / "cache",
        "checkpoint": Checkpoint(folder=str(base), licence="none"),
        "recipe": recipe,
        "recipe_name": "small",
        "seed": 1,
        "rated_by": "simulated annotators",
        "ratings_note": "Ratings come from simulated annotators.",
        "out": UPath(place / name),
    }
    return TrainingSpec(**given | more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("reward")
    figures = work(spec(place), quiet)
    return place / "out", figures


def test_plain_transformers_code_gives_our_scores(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    predicted = {r["response_id"]: r for r in pq.read_table(folder / "development_predictions.parquet").to_pylist()}
    assert len(predicted) >= 10
    for row in data().to_pylist():
        if row["response_id"] in predicted:
            messages = [*row["messages"], {"role": "assistant", "content": row["response"]}]
            inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
            with torch.no_grad():
                outputs = model(**inputs).logits[0].tolist()
            ours = score(load_scorer(folder), inputs["input_ids"].tolist())[0]
            assert outputs == pytest.approx(list(ours), abs=1e-4)
            # predictions are in the precision of training
            assert outputs == pytest.approx([predicted[row["response_id"]][a] for a in ATTRIBUTES], abs=5e-2)


def test_scores_do_not_depend_on_batch_and_padding(trained: tuple[Path, dict[str, Any]]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained[0])
    generator = np.random.default_rng(1)
    encoded = [[int(t) for t in generator.integers(4, 20, n)] + [2] for n in (3, 30, 7, 15)]
    together = score(model, encoded)
    alone = np.concatenate([score(model, [row]) for row in encoded])
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
    assert squared.mean() == pytest.approx(best["development_loss"], rel=1e-5)
    assert figures["published_loss"] == pytest.approx(best["development_loss"], rel=1e-5)
    assert best["development_loss"] < figures["baseline_loss"]


def test_the_figures_and_the_card_have_what_words_and_surface_reach(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = trained
    assert figures["text_pair_accuracy"] > 0.75, "the more often a response says `good`, the better it is"
    helpfulness, *_, verbosity = figures["text_pearson"]
    assert helpfulness > 0.5
    assert verbosity is None, "its labels are all the same"
    card = (folder / "README.md").read_text()
    assert f"orders {100 * figures['text_pair_accuracy']:.1f} %" in card
    assert f"| helpfulness | {figures['pearson'][0]:.3f} | {helpfulness:.3f} |" in card
    (chosen,) = [row for row in pq.read_table(folder / "training_curve.parquet").to_pylist() if row["chosen"]]
    assert figures["pair_accuracy"] == chosen["pair_accuracy"]
    assert figures["pearson"][0] == chosen["helpfulness_pearson"]


def test_the_card_says_that_ratings_are_simulated(trained: tuple[Path, dict[str, Any]]) -> None:
    assert "simulated annotators" in (trained[0] / "README.md").read_text()


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_the_same(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pq.read_table(trained[0] / "training_curve.parquet").to_pylist()
    real, said = training.Say.on_log, list[str]()

    def dying(
        self: Any, args: Any, state: Any, control: Any, logs: Any = None, **more: Any
    ) -> None:  # test double: killed after step 10
        if state.global_step > 10:
            raise KeyboardInterrupt
        real(self, args, state, control, logs, **more)

    monkeypatch.setattr(training.Say, "on_log", dying)
    with pytest.raises(KeyboardInterrupt):
        work(spec(tmp_path, "first"), quiet)
    monkeypatch.setattr(training.Say, "on_log", real)
    figures = work(spec(tmp_path, "second"), said.append)
    assert any(line.startswith("Training goes on from checkpoint-") for line in said)
    again = pq.read_table(tmp_path / "second" / "training_curve.parquet").to_pylist()
    assert [r["step"] for r in again] == [r["step"] for r in whole]
    assert [r["development_loss"] for r in again] == pytest.approx([r["development_loss"] for r in whole], rel=1e-3)
    assert figures["steps"] == whole[-1]["step"]
    ours, first = (load_file(folder / "model.safetensors") for folder in (tmp_path / "second", trained[0]))
    assert all(torch.equal(ours[name], first[name]) for name in first)
    steps = [
        pq.read_table(folder / "training_steps.parquet")["loss"].to_pylist()
        for folder in (trained[0], tmp_path / "second")
    ]
    assert steps[0] == steps[1]


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from_and_what_other_settings_left_is_removed(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given, said = spec(tmp_path), list[str]()
    (tmp_path / "work" / "of_other_settings" / "checkpoint-1").mkdir(parents=True)
    work(given, quiet)
    (mine,) = (tmp_path / "work").iterdir()
    (mine / "ratings" / "checkpoint-999").mkdir()
    (mine / "ratings" / "checkpoint-999" / "model.safetensors").write_bytes(b"cut off")
    # all was done before: nothing is trained again, and the same model comes out
    figures = work(given, said.append)
    assert any(line == f"Training goes on from checkpoint-{figures['steps']}" for line in said)
    assert not any(line.startswith("training steps") for line in said)
    ours, first = ((folder / "model.safetensors").read_bytes() for folder in (tmp_path / "out", trained[0]))
    assert ours == first


def test_the_prompts_that_were_trained_on_are_published(trained: tuple[Path, dict[str, Any]]) -> None:
    seen = pq.read_table(trained[0] / "training_prompts.parquet")["prompt_id"].to_pylist()
    rated, _ = tables()
    assert seen == sorted({r["prompt_id"] for r in rated.to_pylist() if r["split"] == "train"})


def test_the_folder_knows_every_prompt_that_it_saw_by_hashes_alone(trained: tuple[Path, dict[str, Any]]) -> None:
    seen, (rated, _) = read_table(UPath(trained[0] / SEEN_PROMPTS)), tables()
    texts = pc.unique(prompt_texts(rated["messages"]))
    other = pa.array(["what nobody ever asked this model in its life, not even once"])
    found = overlaps(seen, {"seen": texts, "other": other}, Decontamination())
    assert set(found["benchmark"].to_pylist()) == {"seen"}
    assert len(found) == len(seen)
    assert all(pa.types.is_uint64(t) or pa.types.is_list(t) for t in seen.schema.types)


def test_data_without_a_rating_is_an_error(tmp_path: Path) -> None:
    given = spec(tmp_path)
    unrated = [row | dict.fromkeys(ATTRIBUTES) for row in tables()[0].to_pylist()]
    pq.write_table(pa.Table.from_pylist(unrated, schema=RATED), tmp_path / "rated.parquet")
    with pytest.raises(ValueError, match=r"there is no rating of helpfulness.* to train on"):
        work(given, quiet)


def test_data_without_a_preference_is_an_error_for_preferences_alone(tmp_path: Path) -> None:
    given = spec(tmp_path, recipe=RECIPE.model_copy(update={"objective": "scaled_bt"}))
    pq.write_table(PREFERRED.empty_table(), tmp_path / "preferred.parquet")
    with pytest.raises(ValueError, match="there is no preference to train on; objective scaled_bt needs preferences"):
        work(given, quiet)
    assert work(spec(tmp_path, "ratings"), quiet)["steps"] > 0


def test_the_rest_of_a_training_takes_what_its_tokens_and_evaluations_take() -> None:
    pace = training.Pace([100, 300, 200, 400, 50])
    pace.evaluation = 7.0
    pace.stepped(10.0, 100)
    # steps 2 to 5 at ten tokens a second, evaluations after steps 2, 4 and 5
    assert pace.left(1, 2) == pytest.approx(95 + 3 * 7)
    pace.stepped(20.0, 300)
    assert pace.left(2, 2) == pytest.approx(650 * 30 / 400 + 3 * 7)  # the evaluation of step 2 is still to come
    assert pace.left(5, 2) == pytest.approx(7)
    assert pace.left(5, 5) == pytest.approx(7)
