"""The stage's worker: trains a recipe's reward model.

Spec: input (URI of the data set's table), data_version, work (local folder for checkpoints), cache, checkpoint, recipe, recipe_name, seed,
simulated. Writes a model folder in Hugging Face format: weights, config, tokenizer, training_curve.parquet, development_predictions.parquet, card.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from pipeline.checkpoints import identity, resolve
from pipeline.draws import uniforms
from pipeline.reward_model.encoding import encode, prepare_tokenizer
from pipeline.reward_model.schema import CURVE, PREDICTIONS
from pipeline.settings import ATTRIBUTES, Checkpoint, Recipe, digest
from pipeline.store import local_path, write_table
from pipeline.worker import Log, Progress, Spec, run_worker

COLUMNS = ["split", "prompt_id", "response_id", "position", "messages", "response", "helpfulness_mean", *ATTRIBUTES]


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

    model = training.new_model(folder, tokenizer.pad_token_id)
    checkpoints = Path(spec["work"]) / digest([spec["recipe"], spec["checkpoint"], spec["data_version"], spec["seed"]])
    states = [
        training.last_states(model, ids, Progress(log, "states for the head's start", len(ids)))
        for ids in (train_ids, development_ids)
    ]
    head = training.ridge_head(states[0], train_labels, states[1], wanted)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(head, dtype=torch.float32))
    begun = time.monotonic()
    curve = training.train(
        model, train_ids, train_labels, development_ids, wanted, recipe, spec["seed"], checkpoints, log
    )
    seconds = time.monotonic() - begun

    out = local_path(UPath(spec["out"]))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    del model
    published = training.load_model(
        out
    )  # predictions are of what is published, not of the trainer's mixed-precision copy
    progress = Progress(log, "development predictions", len(development_ids))
    predictions = score(published, development_ids, progress.update)
    write_table(pa.Table.from_pylist(curve, schema=CURVE), UPath(out / "training_curve.parquet"))
    write_table(_predictions(development, predictions, wanted), UPath(out / "development_predictions.parquet"))
    chosen = next(row for row in curve if row["chosen"])
    baseline = float(np.nanmean((np.nanmean(train_labels, axis=0) - wanted) ** 2))
    (out / "README.md").write_text(_card(spec, base, recipe, train, development, chosen, baseline))
    shutil.rmtree(checkpoints, ignore_errors=True)
    tokens = sum(map(len, train_ids)) * recipe.epochs
    return {
        **figures,
        "train_responses": len(train),
        "development_responses": len(development),
        "steps": curve[-1]["step"],
        "chosen_step": chosen["step"],
        "development_loss": chosen["development_loss"],
        "mean_baseline_loss": baseline,
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds, 1),
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


def _read(uri: str) -> pa.Table:
    with UPath(uri).open("rb") as file:
        return pq.read_table(file, columns=COLUMNS)


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
        simulated=spec["simulated"],
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
