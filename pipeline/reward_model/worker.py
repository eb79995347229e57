"""The stage's worker: trains a recipe's reward model.

Spec: rated, preferred (URIs of tables, schemas RATED and PREFERRED), data_version, work (local folder for checkpoints), cache, checkpoint,
recipe, recipe_name, seed, processes, tracking (folder for TensorBoard, or null), rated_by, ratings_note. Writes a model folder in Hugging
Face format (weights, config, tokenizer, card) with training_curve.parquet, training_steps.parquet, development_predictions.parquet,
development_preferences.parquet and training_prompts.parquet, the prompts that it was trained on.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.checkpoints import identity, resolve
from pipeline.draws import uniforms
from pipeline.reward_model.encoding import encode, prepare_tokenizer
from pipeline.reward_model.schema import (
    CURVE,
    OUTPUTS,
    PREDICTIONS,
    PREFERENCE_PREDICTIONS,
    PREFERRED,
    RATED,
    STEPS,
    TRAINING_PROMPTS,
)
from pipeline.settings import ATTRIBUTES, Checkpoint, Recipe, digest
from pipeline.store import local_path, read_table, write_table
from pipeline.worker import Log, Progress, Spec, run_worker

FOLDS = 5
"""Folds of prompts that choose the strength of a ridge regression."""


@dataclass(frozen=True)
class Side:
    """Data of one side, training or development: tables, their conversations as tokens (each once), and where each row's are."""

    rated: pa.Table
    preferred: pa.Table
    encoded: list[list[int]]
    rated_at: npt.NDArray[np.int64]  # (rated,)
    preferred_at: npt.NDArray[np.int64]  # (preferred, 2): chosen, rejected
    lost_oldest_turns: int
    start_cut: int

    def examples(self, stage: Recipe) -> Any:
        """What a stage of training takes; see `training.Examples`."""
        from pipeline.reward_model.training import Examples

        if stage.pairs:
            strength = np.asarray(self.preferred["strength"], dtype=np.float64)[:, None]
            return Examples(self.encoded, self.preferred_at, strength, self.preferred_at)
        return Examples(
            self.encoded, self.rated_at[:, None], labels_of(self.rated, stage.attributes), self.preferred_at
        )

    def folds(self, stage: Recipe) -> npt.NDArray[np.int64]:
        """A fold for each unit of a stage, by a hash of its prompt."""
        prompts = (self.preferred if stage.pairs else self.rated)["prompt_id"].to_pylist()
        return (FOLDS * uniforms(prompts, "helpsteer/folds")[:, 0]).astype(np.int64)


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Train; see the module's description. With `processes`, as many processes train together, here or as `torchrun` started them."""
    if spec.get("processes", 1) > 1 and "RANK" not in os.environ:
        return _together(spec, log)
    import torch
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()  # it warns of a new head, and of layers left out: both are asked for
    rank = _join()
    if rank:
        log = _silent
    recipe, base = Recipe.model_validate(spec["recipe"]), Checkpoint.model_validate(spec["checkpoint"])
    torch.manual_seed(spec["seed"])
    folder = resolve(base, Path(spec["cache"]))
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folder), recipe.template)
    tables = read_table(UPath(spec["rated"]), RATED.names), read_table(UPath(spec["preferred"]), PREFERRED.names)
    train, development = (_side(tokenizer, *tables, split, recipe.max_tokens) for split in ("train", "development"))
    what = f"{len(train.rated)} ratings and {len(train.preferred)} preferences"
    log(
        f"{what} to train on; {len(development.rated)} and {len(development.preferred)} of other prompts pick the checkpoint"
    )
    for stage in recipe.stages:
        _enough(stage, train, development)

    sharded = spec.get("processes", 1) > 1  # such a checkpoint is read by such a training alone
    parts = [spec["recipe"], spec["checkpoint"], spec["data_version"], spec["seed"], sharded]
    work_folder = Path(spec["work"]) / digest(parts)
    if not rank:
        _remove_others(work_folder)
    fit = _fit_probe if recipe.objective == "probe" else _train
    made = fit(spec, recipe, folder, tokenizer, train, development, work_folder, log)
    if rank:
        return {}
    out = local_path(UPath(spec["out"]))
    made.save(out)
    tokenizer.save_pretrained(out)
    return _publish(spec, recipe, base, train, development, made, out, log)


@dataclass(frozen=True)
class Made:
    """What training made: how to write the model, its curve and steps, and figures."""

    save: Callable[[Path], None]
    curve: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    baseline: dict[str, float]
    figures: dict[str, Any]


def _train(
    spec: Spec,
    recipe: Recipe,
    folder: Path,
    tokenizer: Any,
    train: Side,
    development: Side,
    place: Path,
    log: Log,
) -> Made:
    """The stages of a recipe, one after the other, each from the checkpoint that the one before ended with."""
    import torch

    from pipeline.reward_model import model as models
    from pipeline.reward_model import training
    from pipeline.reward_model.scoring import score
    from pipeline.reward_model.tracking import TensorBoard

    def new(stage: Recipe) -> Any:
        torch.manual_seed(spec["seed"])
        return models.new_model(folder, tokenizer.pad_token_id, stage.outputs, recipe.layers)

    curve: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    baseline: dict[str, float] = {}
    seconds, model, start = 0.0, new(recipe.stages[0]), None
    if (
        recipe.head == "ridge"
        and not (place / ("preferences" if recipe.stages[0].pairs else "ratings") / "first.safetensors").exists()
    ):
        models.set_head(model, _ridge_start(model, recipe.stages[0], train, log))
    for stage in recipe.stages:
        name = "preferences" if stage.pairs else "ratings"
        if stage is not recipe.stages[0]:
            models.keep_outputs(model, np.eye(1, model.config.num_labels), stage.outputs)
            start = {n: p.detach().clone() for n, p in model.state_dict().items()}
        if recipe.lora:
            model = models.with_adapters(model, recipe.lora)
        first = (
            place / name / "first.safetensors"
        )  # so that a run that goes on has the same head and adapters to begin with
        if first.exists():
            training.restore(model, first)
        elif "RANK" not in os.environ:
            training.keep_trained(model, first)
        tracked = TensorBoard(Path(spec["tracking"]), name) if spec.get("tracking") and not _rank() else nullcontext()
        examples, held_out = train.examples(stage), development.examples(stage)
        with tracked as tracker:
            done = training.train(model, stage, examples, held_out, spec["seed"], place / name, log, tracker)
        if "RANK" in os.environ:
            model = _again(new, stage, recipe, start)
        model = models.merged(training.restore(model, done.best))
        curve += [{"stage": name, **row} for row in done.curve]
        steps += [{"stage": name, **row} for row in done.steps]
        baseline, seconds = training.baseline_of(stage, examples, held_out), seconds + done.seconds
    if start and recipe.preference and recipe.preference.extrapolation != 1:
        alpha = recipe.preference.extrapolation
        model.load_state_dict({n: start[n] + alpha * (p - start[n]) for n, p in model.state_dict().items()})
        outputs = score(model, held_out.encoded, lambda done: None, precision=recipe.precision)
        figures = training.figures_of(recipe.stages[-1], outputs, held_out)
        (row,) = training.curve_of([{"step": curve[-1]["step"], **{f"eval_{n}": v for n, v in figures.items()}}])
        curve.append({"stage": "extrapolated", **row, "chosen": True})
    tokens = sum(row["tokens"] for row in steps)
    busy = sum(row["tokens"] / row["tokens_per_second"] for row in steps)
    peak = float(np.average([row["share_of_peak"] for row in steps], weights=[row["tokens"] for row in steps]))
    compute = {
        "steps": len(steps),
        "tokens": tokens,
        "flops": sum(row["flops"] for row in steps),
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / busy, 1),
        "share_of_peak": round(peak, 4),
        "speed": {name: [row[name] for row in _some(steps)] for name in ("step", *training.SPEED)},
    }
    return Made(model.save_pretrained, curve, steps, baseline, compute)


def _some(rows: Sequence[dict[str, Any]], most: int = 200) -> list[dict[str, Any]]:
    """At most so many rows, evenly."""
    return list(rows[:: -(-len(rows) // most)])


def _again(new: Callable[[Recipe], Any], stage: Recipe, recipe: Recipe, start: dict[str, Any] | None) -> Any:
    """A model of the same kind, whole, after a sharded training. start: the weights that it began with, where they aren't the base's."""
    from pipeline.reward_model.model import with_adapters

    model = new(stage)
    if start:
        model.load_state_dict(start)
    return with_adapters(model, recipe.lora) if recipe.lora else model


def _ridge_start(model: Any, stage: Recipe, train: Side, log: Log) -> Any:
    """Head weights by ridge regression on the frozen states: of labels, or for preferences of strengths on differences of states."""
    from pipeline.reward_model.scoring import last_states
    from pipeline.reward_model.training import ridge_head

    say = Progress(log, "states for the head's start", len(train.encoded))
    states = last_states(model, train.encoded, say.update, stage.precision, shared="RANK" in os.environ)
    examples, folds = train.examples(stage), train.folds(stage)
    if not stage.pairs:
        return ridge_head(states[examples.units[:, 0]], examples.targets, folds)
    differences = states[examples.units[:, 0]] - states[examples.units[:, 1]]
    return ridge_head(differences, examples.targets, folds)


def _fit_probe(
    spec: Spec,
    recipe: Recipe,
    folder: Path,
    tokenizer: Any,
    train: Side,
    development: Side,
    place: Path,
    log: Log,
) -> Made:
    """A probe on the frozen states of the base model."""
    import time

    import torch

    from pipeline.reward_model import model as models
    from pipeline.reward_model import probe, training
    from pipeline.reward_model.scoring import score

    begun = time.monotonic()
    backbone = probe.load_backbone(folder, tokenizer.pad_token_id, recipe.layers)
    layers = probe.candidate_layers(backbone.config.num_hidden_layers)
    examples, held_out = train.examples(recipe), development.examples(recipe)
    rows = examples.units[:, 0]
    say = Progress(log, "hidden states", len(train.encoded))
    states = probe.states_of(backbone, layers, train.encoded, say.update, recipe.precision)[rows]
    chosen, weights, bias, tried = probe.fit(states, examples.targets, train.folds(recipe), layers)
    log(
        f"layers {chosen.layers}, {' and '.join(chosen.poolings)}, strength {chosen.strength:g}: cross-validated error {chosen.error:.4f}"
    )
    backbone = probe.load_backbone(folder, tokenizer.pad_token_id, max(chosen.layers))
    made = probe.Probe(backbone, chosen.layers, chosen.poolings, recipe.outputs).to(models.device())
    with torch.no_grad():
        made.score.weight.copy_(torch.tensor(weights))
        made.score.bias.copy_(torch.tensor(bias))
    outputs = score(made, held_out.encoded, lambda done: None, precision=recipe.precision)
    figures = training.figures_of(recipe, outputs, held_out)
    curve = training.curve_of([{"step": 0, **{f"eval_{n}": v for n, v in figures.items()}}])
    return Made(
        made.save,
        [{"stage": "ratings", **row, "chosen": True} for row in curve],
        [],
        training.baseline_of(recipe, examples, held_out),
        {
            "steps": 0,
            "train_seconds": round(time.monotonic() - begun, 1),
            "layers": ", ".join(map(str, chosen.layers)),
            "poolings": " and ".join(chosen.poolings),
            "strength": chosen.strength,
            "choices_tried": len(tried),
        },
    )


def _publish(
    spec: Spec, recipe: Recipe, base: Checkpoint, train: Side, development: Side, made: Made, out: Path, log: Log
) -> dict[str, Any]:
    """Tables and card beside the model, with predictions of the model as it was written; the figures of the run."""
    from pipeline.reward_model.scoring import load_scorer, score
    from pipeline.reward_model.training import figures_of

    published = load_scorer(out)
    progress = Progress(log, "development predictions", len(development.encoded))
    predictions = score(published, development.encoded, progress.update)
    again = score(published, development.encoded, lambda done: None, precision=recipe.precision)
    write_table(pa.Table.from_pylist(made.curve, schema=CURVE), UPath(out / "training_curve.parquet"))
    write_table(
        pa.Table.from_pylist([{n: row[n] for n in STEPS.names} for row in made.steps], schema=STEPS),
        UPath(out / "training_steps.parquet"),
    )
    rated, preferred = _predictions(development, recipe.outputs, predictions)
    last = recipe.stages[-1]
    published_loss = figures_of(last, again, development.examples(last))["loss"]  # as the curve has it
    write_table(rated, UPath(out / "development_predictions.parquet"))
    write_table(preferred, UPath(out / "development_preferences.parquet"))
    write_table(_prompts(train), UPath(out / "training_prompts.parquet"))
    chosen = [row for row in made.curve if row["chosen"]][-1]
    (out / "README.md").write_text(_card(spec, base, recipe, train, development, chosen, made))
    return {
        "lost_oldest_turns": train.lost_oldest_turns + development.lost_oldest_turns,
        "start_cut": train.start_cut + development.start_cut,
        "train_responses": len(train.encoded),
        "train_ratings": len(train.rated),
        "train_preferences": len(train.preferred),
        "development_responses": len(development.encoded),
        "chosen_step": chosen["step"],
        "development_loss": chosen["development_loss"],
        "published_loss": published_loss,
        "baseline_loss": made.baseline["loss"],
        "baseline_mse": [made.baseline.get(f"{a}_mse") for a in ATTRIBUTES],
        **made.figures,
    }


def _enough(stage: Recipe, train: Side, development: Side) -> None:
    for side, what in ((train, "to train on"), (development, "to pick the checkpoint")):
        if stage.pairs and not len(side.preferred):
            raise ValueError(f"no preference {what}: objective {stage.objective} needs pairs, or ratings that differ")
        if not stage.pairs and not np.isfinite(labels_of(side.rated, stage.attributes)).any():
            raise ValueError(
                f"no rating {what} of {', '.join(stage.attributes)}: objective {stage.objective} needs them"
            )


def labels_of(table: pa.Table, attributes: Sequence[str]) -> npt.NDArray[np.float64]:
    """Targets of rated responses: shape (rows, attributes), NaN where not rated."""
    columns = [pc.fill_null(table[a], float("nan")) for a in attributes]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def _side(tokenizer: Any, rated: pa.Table, preferred: pa.Table, split: str, max_tokens: int) -> Side:
    """A side's rows, with every conversation encoded once, wherever it stands."""
    rated, preferred = (table.filter(pc.equal(table["split"], split)) for table in (rated, preferred))
    sides = [(rated, "response"), (preferred, "chosen"), (preferred, "rejected")]
    places: dict[tuple[int, ...], int] = {}
    at, lost, cut = [], 0, 0
    for table, column in sides:
        for messages, response in zip(table["messages"].to_pylist(), table[column].to_pylist(), strict=True):
            ids, turns, start = encode(tokenizer, messages, response, max_tokens)
            key = tuple(ids)
            if key not in places:
                lost, cut = lost + bool(turns), cut + start
            at.append(places.setdefault(key, len(places)))
    where = np.array(at, dtype=np.int64)
    n, m = len(rated), len(preferred)
    return Side(
        rated,
        preferred,
        [list(key) for key in places],
        where[:n],
        np.stack([where[n : n + m], where[n + m :]], axis=1),
        lost,
        cut,
    )


def _predictions(side: Side, outputs: Sequence[str], predictions: npt.NDArray[np.float64]) -> tuple[pa.Table, pa.Table]:
    """Tables of schemas PREDICTIONS and PREFERENCE_PREDICTIONS."""

    def columns(rows: npt.NDArray[np.int64], prefix: str = "") -> dict[str, Any]:
        found = {f"{prefix}{name}": predictions[rows, n] for n, name in enumerate(outputs)}
        empty = pa.nulls(len(rows), pa.float64())
        return {f"{prefix}{name}": found.get(f"{prefix}{name}", empty) for name in OUTPUTS}

    rated = {name: side.rated[name] for name in ("prompt_id", "response_id", "position")} | columns(side.rated_at)
    rated |= {f"{a}_label": side.rated[a] for a in ATTRIBUTES}
    preferred = {name: side.preferred[name] for name in ("prompt_id", "strength")}
    for n, prefix in enumerate(("chosen_", "rejected_")):
        preferred |= columns(side.preferred_at[:, n], prefix)
    return pa.table(rated, schema=PREDICTIONS), pa.table(preferred, schema=PREFERENCE_PREDICTIONS)


def _prompts(side: Side) -> pa.Table:
    prompts = pd.unique(
        pd.Series([*side.rated["prompt_id"].to_pylist(), *side.preferred["prompt_id"].to_pylist()], dtype=str)
    )
    return pa.table({"prompt_id": sorted(prompts)}, schema=TRAINING_PROMPTS)


def _remove_others(place: Path) -> None:
    """Remove what runs on other data or settings left beside a folder: nobody goes on from it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for other in place.parent.iterdir():
        if other != place:
            shutil.rmtree(other)


# ------------------------------------------------------------------------------------------------------------------ several processes


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _join() -> int:
    """Join the other processes of this training, if there are any; this one's rank."""
    if "RANK" in os.environ:
        import torch
        from torch import distributed

        if not distributed.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return _rank()


def _silent(message: str) -> None:
    del message


def _together(spec: Spec, log: Log) -> dict[str, Any]:
    """Train in several processes of this machine, started by torchrun. Raises RuntimeError with the end of what they said."""
    place = Path(spec["work"])
    place.mkdir(parents=True, exist_ok=True)
    given, found = place.with_name(f"{place.name}.spec.json"), place.with_name(f"{place.name}.figures.json")
    given.write_text(json.dumps({**spec, "out": str(spec["out"])}))
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(spec["processes"])]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "-m", "pipeline.reward_model.process", str(given), str(found)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    for line in process.stdout or ():
        said.append(line.rstrip())
        if line.startswith("| "):
            log(line[2:].rstrip())
    if process.wait():
        reasons = [line[2:] for line in said if line.startswith("! ")] or said[-40:]
        raise RuntimeError(f"training in {spec['processes']} processes failed:\n" + "\n".join(reasons))
    figures: dict[str, Any] = json.loads(found.read_text())
    given.unlink()
    found.unlink()
    return figures


def _card(
    spec: Spec,
    base: Checkpoint,
    recipe: Recipe,
    train: Side,
    development: Side,
    chosen: dict[str, Any],
    made: Made,
) -> str:
    import jinja2

    template = jinja2.Template((Path(__file__).parent / "card.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    card: str = template.render(
        name=spec["recipe_name"],
        rated_by=spec["rated_by"],
        ratings_note=spec["ratings_note"],
        licence=base.licence,
        base=" ".join(identity(base)),
        ratings=len(train.rated),
        preferences=len(train.preferred),
        prompts=len(_prompts(train)),
        data_version=spec["data_version"],
        recipe=recipe,
        figures=made.figures,
        step=chosen["step"],
        loss=chosen["development_loss"],
        pair_accuracy=chosen["pair_accuracy"],
        baseline=made.baseline["loss"],
        development=len(development.encoded),
        attributes=[
            {"attribute": a, "pearson": chosen[f"{a}_pearson"], "mse": chosen[f"{a}_mse"]}
            for a in recipe.outputs
            if a in ATTRIBUTES
        ],
    )
    return card


if __name__ == "__main__":
    run_worker(work)
