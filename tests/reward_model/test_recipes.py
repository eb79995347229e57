"""Every recipe end to end on a small Llama, and what is done with the models."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.models.checkpoints import resolve
from pipeline.models.classifier import keep_outputs, load_model, merged, new_model, set_head, with_adapters
from pipeline.models.encoding import encode, prepare_tokenizer
from pipeline.models.loading import load_scorer
from pipeline.models.outputs import parse_weights
from pipeline.models.scoring import score
from pipeline.reward_model import fit_probe, training
from pipeline.reward_model.export import fold
from pipeline.reward_model.worker import work
from pipeline.settings import Lora, PreferenceStage, Recipe, load_profile
from pipeline.vocabulary import ATTRIBUTES
from tests.helpers import quiet
from tests.reward_model.small import save_small_model
from tests.reward_model.test_training import RECIPE, spec, tables

BT = {"objective": "bradley_terry"}
TWO = {
    "objective": "two_stage",
    "attributes": ("helpfulness",),
    "preference": PreferenceStage(batch_size=4, epochs=2, learning_rate=1e-3, warmup_steps=1, evaluations=2),
}
KINDS: dict[str, dict[str, Any]] = {
    "helpfulness_only": {"attributes": ("helpfulness",)},
    "bradley_terry": BT,
    "margin_bt": {"objective": "margin_bt", "head": "zero"},
    "scaled_bt": {"objective": "scaled_bt"},
    "two_stage": TWO,
    "extrapolated": TWO | {"preference": TWO["preference"].model_copy(update={"extrapolation": 1.5})},
    "lora": {"lora": Lora(rank=4, alpha=8)},
    "lora_two_stage": TWO | {"lora": Lora(rank=4, alpha=8)},
    "one_layer": {"layers": 1, "gradient_checkpointing": True},
    "probe": {"objective": "probe"},
    "helpsteer_template": {"template": "helpsteer", "precision": "float32"},
}


def encoded(count: int = 6) -> list[list[int]]:
    generator = np.random.default_rng(1)
    return [[int(t) for t in generator.integers(4, 20, n)] + [2] for n in (3, 30, 7, 15, 4, 9)[:count]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_makes_a_model_that_scores_as_its_development_figures_say(place: Path, kind: str) -> None:
    recipe = Recipe.model_validate(
        RECIPE.model_dump() | Recipe(base="small", **KINDS[kind]).model_dump(include=set(KINDS[kind]))
    )
    figures = work(spec(place, kind, recipe, tracking=place / "curves" / kind), quiet)
    curve = pq.read_table(place / kind / "training_curve.parquet").to_pylist()
    chosen = [row for row in curve if row["chosen"]]
    rounded = (
        2e-2 if recipe.lora else 1e-4
    )  # adapters beside the weights are rounded to bfloat16 otherwise than in them
    assert figures["published_loss"] == pytest.approx(figures["written_loss"], rel=rounded)
    if kind == "probe":  # which is fitted again, with the development rows
        assert figures["written_loss"] < figures["development_loss"]
    else:
        assert figures["written_loss"] == figures["development_loss"] == chosen[-1]["development_loss"]
    assert [row["stage"] for row in chosen] == {
        "two_stage": ["ratings", "preferences"],
        "lora_two_stage": ["ratings", "preferences"],
        "extrapolated": ["ratings", "preferences", "extrapolated"],
    }.get(kind, ["preferences" if recipe.pairs else "ratings"])
    scorer = load_scorer(place / kind)
    assert score(scorer, encoded()).shape == (6, len(recipe.outputs))
    # how often a response says `good` can be learned: better than knowing nothing of it
    assert figures["development_loss"] < figures["baseline_loss"]
    if kind != "probe":
        steps = pq.read_table(place / kind / "training_steps.parquet").to_pydict()
        assert min(steps["flops"]) > 0
        assert min(figures["speed"]["tokens_per_second"]) > 0
        assert list((place / "curves" / kind).glob("events.out.tfevents.*"))


def test_scores_of_a_probe_do_not_depend_on_batch_and_padding(tmp_path: Path) -> None:
    work(spec(tmp_path, "probe", RECIPE.model_copy(update={"objective": "probe"})), quiet)
    scorer = load_scorer(tmp_path / "probe")
    together = score(scorer, encoded())
    assert together == pytest.approx(np.concatenate([score(scorer, [row]) for row in encoded()]), abs=1e-4)


@pytest.mark.parametrize("shape", [(30, 4, 3), (12, 40, 2)])
def test_a_probes_weights_are_plain_ridge_regression_with_an_intercept(shape: tuple[int, int, int]) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rows, width, outputs = shape
    generator = np.random.default_rng(0)
    states, labels = generator.normal(2, 3, (rows, width)), generator.normal(size=(rows, outputs))
    labels[: rows // 3, 0] = np.nan
    weights, bias = fit_probe.ridge(states, labels, 0.3)
    scaled = StandardScaler().fit(states).transform(states)
    for n in range(outputs):
        rated = np.isfinite(labels[:, n])
        # rows of fewer ratings are centred by their own mean of labels, but by all rows' mean of states
        x = scaled[rated]
        y = labels[rated, n]
        plain = Ridge(alpha=0.3 * width, fit_intercept=False).fit(x, y - y.mean())
        wanted = scaled @ plain.coef_ + y.mean()
        assert states @ weights[n] + bias[n] == pytest.approx(wanted, abs=1e-6)


def test_the_errors_that_choose_a_probe_are_those_of_left_out_folds() -> None:
    generator = np.random.default_rng(0)
    states, labels = generator.normal(size=(40, 6)), generator.normal(size=(40, 2))
    labels[::4, 1] = np.nan
    folds = np.arange(40) // 2 % 4
    found = fit_probe.cross_validated(states @ states.T / 6, labels, folds)
    for n, strength in enumerate(fit_probe.STRENGTHS):
        squares = []
        for part in range(4):
            for a in range(2):
                kept, held = (folds != part) & np.isfinite(labels[:, a]), (folds == part) & np.isfinite(labels[:, a])
                x, y = states[kept] / np.sqrt(6), labels[kept, a]
                plain = np.linalg.solve(x.T @ x + strength * np.eye(6), x.T @ (y - y.mean()))
                squares += ((states[held] / np.sqrt(6) @ plain + y.mean() - labels[held, a]) ** 2).tolist()
        assert found[n] == pytest.approx(np.mean(squares), rel=1e-8)


def test_a_choice_of_states_that_knows_the_answer_is_found() -> None:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(120, 4, 2, 8)).astype(np.float32)
    labels = states[:, 2, 1] @ generator.normal(size=(8, 2))
    chosen, weights, bias, tried = fit_probe.fit(states, labels, np.arange(120) // 2 % 5, (5, 10, 15, 20))
    assert (chosen.layers, chosen.poolings) == ((15,), ("mean",))
    assert len(tried) == len(list(fit_probe.choices(4))) == 18
    assert states[:, 2, 1] @ weights.T + bias == pytest.approx(labels, abs=0.1)


@pytest.fixture
def small(tmp_path: Path) -> Any:
    torch.manual_seed(0)
    model = new_model(save_small_model(tmp_path / "base"), 0, ATTRIBUTES)
    set_head(model, np.random.default_rng(0).normal(size=(5, 32)))
    return model


def test_adapters_saved_and_loaded_and_merged_equal_those_in_memory(small: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    model = with_adapters(small, Lora(rank=4, alpha=8))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
    wanted = score(model, encoded())
    training.keep_trained(model, tmp_path / "kept.safetensors")
    model.save_pretrained(tmp_path / "adapter")

    def fresh() -> Any:
        return new_model(tmp_path / "base", 0, ATTRIBUTES)

    again = training.restore(with_adapters(fresh(), Lora(rank=4, alpha=8)), tmp_path / "kept.safetensors")
    assert score(again, encoded()) == pytest.approx(wanted, abs=1e-6)
    loaded = PeftModel.from_pretrained(fresh(), tmp_path / "adapter")
    assert score(loaded, encoded()) == pytest.approx(wanted, abs=1e-6)
    merged(model).save_pretrained(tmp_path / "merged")
    assert score(load_model(tmp_path / "merged"), encoded()) == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(ValueError, match="doesn't hold the trained weights of this model"):
        training.restore(fresh(), tmp_path / "kept.safetensors")


WEIGHTS = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45, "complexity": 0.55, "verbosity": -0.4}


def test_the_folded_model_scores_as_weights_times_outputs(small: Any, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "five")
    AutoTokenizer.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "five")
    fold(tmp_path / "five", tmp_path / "one", WEIGHTS)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "one")
    assert plain.config.num_labels == 1
    wanted = score(small, encoded()) @ [WEIGHTS[a] for a in ATTRIBUTES]
    assert score(plain, encoded())[:, 0] == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(ValueError, match=r"weights: .* has no output reward; its outputs are helpfulness, "):
        fold(tmp_path / "five", tmp_path / "other", {"reward": 1.0})


def test_a_bias_is_folded_too(small: Any) -> None:
    small.score = torch.nn.Linear(32, 5, bias=True, device=small.device)
    wanted = score(small, encoded()) @ [1.0, 0.0, 2.0, 0.0, -1.0]
    keep_outputs(small, [[1.0, 0.0, 2.0, 0.0, -1.0]], ("reward",))
    assert score(small, encoded())[:, 0] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("text", ["charm=1", "helpfulness=much", "helpfulness"])
def test_weights_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="weights: "):
        parse_weights(text, ATTRIBUTES)
    assert parse_weights("helpfulness=0.5, verbosity=-1", ATTRIBUTES) == {"helpfulness": 0.5, "verbosity": -1.0}


@pytest.mark.engine
def test_two_processes_that_shard_the_model_have_the_loss_of_one(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "float32"})
    work(spec(tmp_path, "one", recipe), quiet)
    said = list[str]()
    work(spec(tmp_path, "two", recipe, processes=2, work=tmp_path / "others"), said.append)
    curves = [
        pq.read_table(tmp_path / n / "training_curve.parquet")["development_loss"].to_pylist() for n in ("one", "two")
    ]
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)
    losses = [pq.read_table(tmp_path / n / "training_steps.parquet")["loss"].to_pylist() for n in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    ours = [score(load_scorer(tmp_path / n), encoded()) for n in ("one", "two")]
    assert ours[1] == pytest.approx(ours[0], abs=1e-2)
    assert any(line.startswith("training steps") for line in said)


@pytest.mark.engine
def test_adapters_of_both_stages_are_in_what_two_processes_publish(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "float32", **KINDS["lora_two_stage"]})
    figures = work(spec(tmp_path, "two", recipe, processes=2), quiet)
    curve = pq.read_table(tmp_path / "two" / "training_curve.parquet").to_pylist()
    *_, chosen = [row["development_loss"] for row in curve if row["chosen"]]
    assert figures["published_loss"] == pytest.approx(chosen, rel=1e-3)


@pytest.mark.engine
def test_what_fails_in_one_of_several_processes_is_said(tmp_path: Path) -> None:
    given = spec(tmp_path, processes=2)
    pq.write_table(tables()[0].slice(0, 0), tmp_path / "rated.parquet")
    with pytest.raises(
        RuntimeError, match=r"training in 2 processes ended with status 1:(.|\n)*there is no rating of .* to train on"
    ):
        work(given, quiet)


@pytest.mark.engine
def test_trl_takes_a_folded_model_as_it_is(small: Any, tmp_path: Path) -> None:
    """TRL's reward trainer loads the model by its path, and judges pairs as our scores do."""
    import datasets
    from trl import RewardConfig, RewardTrainer

    small.save_pretrained(tmp_path / "five")
    prepare_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "base")).save_pretrained(tmp_path / "five")
    fold(tmp_path / "five", tmp_path / "one", WEIGHTS)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path / "one"), load_model(tmp_path / "one")
    pairs = [row for row in tables()[1].to_pylist() if row["split"] == "train"]

    def ours(side: str) -> Any:
        ids = [encode(tokenizer, row["messages"], row[side], 128).ids for row in pairs]
        return score(model, ids)[:, 0]

    data = datasets.Dataset.from_list(
        [
            {side: [*row["messages"], {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
            for row in pairs
        ]
    )
    settings = RewardConfig(
        output_dir=str(tmp_path / "trl"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        max_length=128,
        per_device_eval_batch_size=len(pairs),
    )
    trainer = RewardTrainer(model=str(tmp_path / "one"), args=settings, train_dataset=data, eval_dataset=data)
    theirs = trainer.evaluate()
    gaps = ours("chosen") - ours("rejected")
    assert theirs["eval_accuracy"] == pytest.approx((gaps > 0).mean(), abs=1e-6)
    assert theirs["eval_margin"] == pytest.approx(gaps.mean(), abs=1e-3)


@pytest.mark.engine
def test_vllm_takes_a_folded_model_as_it_is(checkpoint_cache: Path, tmp_path: Path) -> None:
    """The real vLLM on real weights (two layers of them) gives our rewards, so the same order."""
    base = resolve(load_profile("tiny").checkpoints["smollm2_135m_instruct"], checkpoint_cache)
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(base))
    model = new_model(base, tokenizer.pad_token_id, ATTRIBUTES, layers=2)
    set_head(model, np.random.default_rng(0).normal(size=(5, model.config.hidden_size)))
    model.save_pretrained(tmp_path / "five")
    tokenizer.save_pretrained(tmp_path / "five")
    fold(tmp_path / "five", tmp_path / "one", WEIGHTS)
    questions = (
        "What is tea?",
        "Name three rivers, and say where they are.",
        "Hi",
        "Why?",
        "Write a haiku about rain.",
    )
    ids = [encode(tokenizer, [{"role": "user", "content": q}], q[::-1], 256).ids for q in questions]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in the process itself, as in our worker
    command = [sys.executable, Path(__file__).parent / "vllm_scores.py", tmp_path / "one", tmp_path / "ids.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = np.array(json.loads(done.stdout.splitlines()[-1]))
    ours = score(load_model(tmp_path / "one"), ids)[:, 0]
    assert theirs == pytest.approx(ours, abs=1e-2)
    assert np.argsort(theirs).tolist() == np.argsort(ours).tolist()
