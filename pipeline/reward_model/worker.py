"""The stage's worker: trains a recipe's reward model.

Spec: input (URI of the data set's table), data_version, work (local folder for checkpoints), cache, checkpoint, recipe, recipe_name, seed,
rated_by, ratings_note. Writes a model folder in Hugging Face format (weights, config, tokenizer, card) with training_curve.parquet,
development_predictions.parquet, and training_prompts.parquet, the prompts that it was trained on.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.checkpoints import identity, resolve
from pipeline.draws import uniforms
from pipeline.reward_model.encoding import encode, prepare_tokenizer
from pipeline.reward_model.schema import CURVE, PREDICTIONS, TRAINING_PROMPTS
from pipeline.settings import ATTRIBUTES, Checkpoint, Recipe, digest
from pipeline.store import local_path, read_table, write_table
from pipeline.worker import Log, Progress, Spec, run_worker

COLUMNS = ["split", "prompt_id", "response_id", "position", "messages", "response", "helpfulness_mean", *ATTRIBUTES]

FOLDS = 5
"""Folds of prompts that choose the strength of the head's ridge regression."""


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Train; see the module's description."""
    import torch
    from transformers import AutoTokenizer

    from pipeline.reward_model import training
    from pipeline.reward_model.scoring import score

    recipe, base = Recipe.model_validate(spec["recipe"]), Checkpoint.model_validate(spec["checkpoint"])
    torch.manual_seed(spec["seed"])
    folder = resolve(base, Path(spec["cache"]))
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folder))
    train, development = split_development(_read(spec["input"]), recipe.development_share)
    log(f"{len(train)} responses to train on, {len(development)} of other prompts to pick the checkpoint")
    (train_ids, train_labels, cut), (development_ids, wanted, cut_too) = (
        _encode(tokenizer, t, recipe) for t in (train, development)
    )
    figures = {name: cut[name] + cut_too[name] for name in cut}
    if not np.isfinite(train_labels).any() or not np.isfinite(wanted).any():
        raise ValueError("no rating among the responses to train on, or among those that pick the checkpoint")

    model = training.new_model(folder, tokenizer.pad_token_id)
    states = training.last_states(model, train_ids, Progress(log, "states for the head's start", len(train_ids)))
    folds = (FOLDS * uniforms(train["prompt_id"].to_pylist(), "helpsteer/folds")[:, 0]).astype(np.int64)
    training.set_head(model, training.ridge_head(states, train_labels, folds))
    checkpoints = Path(spec["work"]) / digest([spec["recipe"], spec["checkpoint"], spec["data_version"], spec["seed"]])
    _remove_others(checkpoints)
    begun = time.monotonic()
    curve, steps = training.train(
        model, train_ids, train_labels, development_ids, wanted, recipe, spec["seed"], checkpoints, log
    )
    seconds = time.monotonic() - begun
    chosen = next(row for row in curve if row["chosen"])

    out = local_path(UPath(spec["out"]))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    del model
    published = training.load_model(out)  # predictions are of this, not of the trainer's copy in lower precision
    progress = Progress(log, "development predictions", len(development_ids))
    predictions = score(published, development_ids, progress.update)
    write_table(pa.Table.from_pylist(curve, schema=CURVE), UPath(out / "training_curve.parquet"))
    write_table(_predictions(development, predictions, wanted), UPath(out / "development_predictions.parquet"))
    write_table(_prompts(train), UPath(out / "training_prompts.parquet"))
    baseline = training.mean_baseline(train_labels, wanted)
    (out / "README.md").write_text(_card(spec, base, recipe, train, development, chosen, baseline["loss"]))
    return {
        **figures,
        "train_responses": len(train),
        "development_responses": len(development),
        "steps": curve[-1]["step"],
        "chosen_step": chosen["step"],
        "development_loss": chosen["development_loss"],
        "mean_baseline_loss": baseline["loss"],
        "mean_baseline_mse": [baseline[f"{a}_mse"] for a in ATTRIBUTES],
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(sum(map(len, train_ids)) * recipe.epochs * steps / curve[-1]["step"] / seconds, 1),
    }


def split_development(table: pa.Table, share: float) -> tuple[pa.Table, pa.Table]:
    """The train split without its development prompts, and these: chosen by a hash of the prompt, stable as data is added.

    Raises ValueError where either is empty.
    """
    table = table.filter(pc.equal(table["split"], "train"))
    held_out = pa.array(
        uniforms(table["prompt_id"].to_pylist(), "helpsteer/development")[:, 0] < share if len(table) else [],
        pa.bool_(),
    )
    train, development = table.filter(pc.invert(held_out)), table.filter(held_out)
    if not len(train) or not len(development):
        raise ValueError(
            f"{len(train)} responses to train on and {len(development)} to pick the checkpoint: both are needed. "
            "Collect more prompts, or change the recipe's development_share"
        )
    return train, development


def _remove_others(checkpoints: Path) -> None:
    """Remove what runs on other data or settings left beside a folder: nobody goes on from it."""
    checkpoints.parent.mkdir(parents=True, exist_ok=True)
    for other in checkpoints.parent.iterdir():
        if other != checkpoints:
            shutil.rmtree(other)


def _prompts(table: pa.Table) -> pa.Table:
    return pa.table({"prompt_id": pc.unique(table["prompt_id"]).sort()}, schema=TRAINING_PROMPTS)


def _read(uri: str) -> pa.Table:
    return read_table(UPath(uri), COLUMNS)


def _labels(table: pa.Table) -> Any:
    columns = [pc.fill_null(pc.cast(table[a], pa.float64()), float("nan")) for a in ATTRIBUTES]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def _encode(tokenizer: Any, table: pa.Table, recipe: Recipe) -> tuple[list[list[int]], Any, dict[str, int]]:
    """Token ids, labels, and how many conversations lost turns or were cut."""
    encoded = [
        encode(tokenizer, messages, response, recipe.max_tokens)
        for messages, response in zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
    ]
    counts = {"lost_oldest_turns": sum(bool(n) for _, n, _ in encoded), "start_cut": sum(cut for *_, cut in encoded)}
    return [ids for ids, _, _ in encoded], _labels(table), counts


def _predictions(table: pa.Table, predictions: Any, labels: Any) -> pa.Table:
    columns: dict[str, Any] = {name: table[name] for name in ("prompt_id", "response_id", "position")}
    columns |= {a: pa.array(predictions[:, n]) for n, a in enumerate(ATTRIBUTES)}
    columns |= {f"{a}_label": pa.array(labels[:, n], from_pandas=True) for n, a in enumerate(ATTRIBUTES)}
    columns["helpfulness_mean"] = table["helpfulness_mean"].cast(pa.float64())
    return pa.table(columns, schema=PREDICTIONS)


def _card(
    spec: Spec,
    base: Checkpoint,
    recipe: Recipe,
    train: pa.Table,
    development: pa.Table,
    chosen: dict[str, Any],
    baseline: float,
) -> str:
    import jinja2

    template = jinja2.Template((Path(__file__).parent / "card.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    card: str = template.render(
        recipe=spec["recipe_name"],
        rated_by=spec["rated_by"],
        ratings_note=spec["ratings_note"],
        licence=base.licence,
        base=" ".join(identity(base)),
        rows=len(train),
        prompts=len(pc.unique(train["prompt_id"])),
        data_version=spec["data_version"],
        settings=recipe,
        step=chosen["step"],
        loss=chosen["development_loss"],
        baseline=baseline,
        development=len(development),
        attributes=[{"attribute": a, "pearson": chosen[f"{a}_pearson"], "mse": chosen[f"{a}_mse"]} for a in ATTRIBUTES],
    )
    return card


if __name__ == "__main__":
    run_worker(work)
