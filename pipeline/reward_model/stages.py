"""The stages of a recipe, trained one after the other. Imported only by workers."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.processes import rank
from pipeline.reward_model.figures import SPEED, baseline_of, curve_of, figures_of
from pipeline.reward_model.made import Made
from pipeline.reward_model.sides import Side
from pipeline.reward_model.spec import TrainingSpec
from pipeline.settings import Recipe
from pipeline.worker import Log, Progress


def train_stages(
    spec: TrainingSpec,
    folder: Path,
    tokenizer: Any,
    train: Side,
    development: Side,
    place: Path,
    log: Log,
) -> Made:
    """The stages of a recipe, one after the other, each from the checkpoint that the one before ended with."""
    import torch

    from pipeline.models import classifier as models
    from pipeline.models.scoring import score
    from pipeline.reward_model import training
    from pipeline.reward_model.tracking import TensorBoard

    recipe = spec.recipe

    def new(stage: Recipe) -> Any:
        torch.manual_seed(spec.seed)
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
        tracked = TensorBoard(spec.tracking, name) if spec.tracking and not rank() else nullcontext()
        examples, held_out = train.examples(stage), development.examples(stage)
        with tracked as tracker:
            done = training.train(model, stage, examples, held_out, spec.seed, place / name, log, tracker)
        if "RANK" in os.environ:
            model = _again(new, stage, recipe, start)
        model = models.merged(training.restore(model, done.best))
        curve += [{"stage": name, **row} for row in done.curve]
        steps += [{"stage": name, **row} for row in done.steps]
        baseline, seconds = baseline_of(stage, examples, held_out), seconds + done.seconds
    if start and recipe.preference and recipe.preference.extrapolation != 1:
        alpha = recipe.preference.extrapolation
        model.load_state_dict({n: start[n] + alpha * (p - start[n]) for n, p in model.state_dict().items()})
        outputs = score(model, held_out.encoded, precision=recipe.precision)
        figures = figures_of(recipe.stages[-1], outputs, held_out)
        (row,) = curve_of([{"step": curve[-1]["step"], **{f"eval_{n}": v for n, v in figures.items()}}])
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
        "speed": {name: [row[name] for row in _some(steps)] for name in ("step", *SPEED)},
    }
    return Made(model.save_pretrained, curve, steps, baseline, compute)


def _some(rows: Sequence[dict[str, Any]], most: int = 200) -> list[dict[str, Any]]:
    """At most so many rows, evenly."""
    return list(rows[:: -(-len(rows) // most)])


def _again(new: Callable[[Recipe], Any], stage: Recipe, recipe: Recipe, start: dict[str, Any] | None) -> Any:
    """A model of the same kind, whole, after a sharded training. start: the weights that it began with, where they aren't the base's."""
    from pipeline.models.classifier import with_adapters

    model = new(stage)
    if start:
        model.load_state_dict(start)
    return with_adapters(model, recipe.lora) if recipe.lora else model


def _ridge_start(model: Any, stage: Recipe, train: Side, log: Log) -> Any:
    """Head weights by ridge regression on the frozen states: of labels, or for preferences of strengths on differences of states."""
    from pipeline.models.scoring import last_states
    from pipeline.reward_model.ridge import ridge_head

    say = Progress(
        log, "conversations read for the head's start", len(train.encoded), lengths=list(map(len, train.encoded))
    )
    states = last_states(model, train.encoded, say.update, stage.precision, shared="RANK" in os.environ)
    examples, folds = train.examples(stage), train.folds(stage)
    if not stage.pairs:
        return ridge_head(states[examples.units[:, 0]], examples.targets, folds)
    differences = states[examples.units[:, 0]] - states[examples.units[:, 1]]
    return ridge_head(differences, examples.targets, folds)
