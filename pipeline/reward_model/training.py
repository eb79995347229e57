"""Training of reward models on ratings or preferences, over transformers' Trainer. Imported only by workers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.reward_model.batching import plan_steps
from pipeline.reward_model.objectives import masked_squares, preference_losses
from pipeline.reward_model.scoring import autocast, pad, score
from pipeline.settings import ATTRIBUTES, Recipe
from pipeline.worker import Log, Progress

Labels = npt.NDArray[np.float64]
RIDGE = 10.0 ** np.arange(-7, 2)
"""Strengths of the head's ridge regression that are tried, in units of the largest squared singular value of the states."""


@dataclass(frozen=True)
class Examples:
    """What is trained on, or picks the checkpoint.

    encoded: conversations as token ids; units: rows of `encoded` that a loss needs at once, shape (units, 1) for rated responses,
    (units, 2), the chosen first, for preferences; targets: labels (units, outputs; NaN: not rated), or strengths (units, 1);
    pairs: rows of `encoded`, the better response first, shape (pairs, 2), by which order is judged.
    """

    encoded: Sequence[Sequence[int]]
    units: npt.NDArray[np.int64]
    targets: Labels
    pairs: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each conversation."""
        return np.array([len(row) for row in self.encoded], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Tokens that an epoch sees."""
        return int(self.lengths[self.units].sum())


@dataclass(frozen=True)
class Trained:
    """A training: its curve (a row an evaluation), its log (a row a step), the trained weights of the chosen checkpoint, seconds of this run."""

    curve: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    best: Path
    seconds: float


def ridge_head(
    states: npt.NDArray[np.float64], labels: Labels, folds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Head weights (attributes, width) by ridge regression of labels (rows, attributes; NaN: missing) on frozen states (rows, width).

    One strength for all attributes, the one with the least squared error in cross-validation over `folds` (a number a row; the responses
    of a prompt must share theirs). A strength for each attribute fits the noise of a few hundred ratings, and so does leaving out single
    rows, whose prompt stays. The development prompts have no say, so that the loss before training can be compared with the others
    of the curve. Training starts from here: from zero, the first hundreds of steps only find the mean. An attribute without labels
    gets zeros.
    """
    errors = np.zeros(len(RIDGE))
    for fold in np.unique(folds):
        held = folds == fold
        predicted = np.einsum("rw,saw->sra", states[held], _ridges(states[~held], labels[~held]))
        errors += np.nansum((predicted - labels[held]) ** 2, axis=(1, 2))
    weights: npt.NDArray[np.float64] = _ridges(states, labels)[int(errors.argmin())]
    return weights


def _ridges(states: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """Ridge solutions for every strength: shape (strengths, attributes, width). Attributes with the same rows rated share a decomposition."""
    weights = np.zeros((len(RIDGE), labels.shape[1], states.shape[1]))
    patterns, pattern_of = np.unique(np.isfinite(labels), axis=1, return_inverse=True)
    for number, rated in enumerate(patterns.T):
        if not rated.any():
            continue
        attributes = np.flatnonzero(pattern_of == number)
        left, scale, right = np.linalg.svd(states[rated], full_matrices=False)
        projected = left.T @ labels[rated][:, attributes]
        shrunk = scale / (scale**2 + RIDGE[:, None] * max(scale[0] ** 2, np.finfo(float).tiny))
        weights[:, attributes] = np.einsum("sk,ka,kw->saw", shrunk, projected, right, optimize=True)
    return weights


def rating_figures(predictions: Labels, labels: Labels, attributes: Sequence[str] = ATTRIBUTES) -> dict[str, float]:
    """Masked loss, and error and Pearson correlation of each attribute (NaN where there is no variance)."""
    figures = {"loss": float(np.nanmean((predictions - labels) ** 2))}
    for n, attribute in enumerate(attributes):
        rated = np.isfinite(labels[:, n])
        p, y = predictions[rated, n], labels[rated, n]
        varied = len(y) > 1 and p.std() > 0 and y.std() > 0
        figures[f"{attribute}_mse"] = float(np.mean((p - y) ** 2)) if len(y) else float("nan")
        figures[f"{attribute}_pearson"] = float(np.corrcoef(p, y)[0, 1]) if varied else float("nan")
    return figures


def figures_of(recipe: Recipe, outputs: Labels, examples: Examples) -> dict[str, float]:
    """Loss and metrics of a model's outputs for examples: `loss`, `pair_accuracy` (of the first output; a tie loses), and of each attribute."""
    if recipe.pairs:
        strength = torch.tensor(examples.targets[:, 0])
        chosen, rejected = (torch.tensor(outputs[examples.units[:, n], 0]) for n in (0, 1))
        figures = {"loss": float(preference_losses(recipe.objective, chosen, rejected, strength).mean())}  # type: ignore[arg-type]
    else:
        figures = rating_figures(outputs[examples.units[:, 0]], examples.targets, recipe.attributes)
    better, worse = outputs[examples.pairs].T[0] if len(examples.pairs) else np.empty((2, 0))
    figures["pair_accuracy"] = float((better > worse).mean()) if len(better) else float("nan")
    return figures


def baseline_of(recipe: Recipe, train: Examples, development: Examples) -> dict[str, float]:
    """Figures of knowing nothing of a response: each attribute's mean among the training labels; for preferences, equal rewards."""
    if recipe.pairs:
        outputs = np.zeros((len(development.encoded), 1))
    else:
        outputs = np.broadcast_to(np.nanmean(train.targets, axis=0), (len(development.encoded), len(recipe.attributes)))
    return figures_of(recipe, outputs, development)


def matmul_rate(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations a second that this process' device reaches in multiplying two square matrices of 2,048."""
    on = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(2048, 2048, device=on).to(dtype) for _ in range(2))
    wait = torch.cuda.synchronize if on == "cuda" else lambda: None
    for _ in range(2):
        left @ right
    wait()
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        left @ right
        wait()
        count += 1
    return 2 * 2048**3 * count / (time.perf_counter() - begun)


def training_flops(model: Any, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Floating-point operations of a training step's forward and backward pass for conversations of these lengths.

    6 for every weight that multiplies and token, 4 where it is frozen (no gradient of its own), and 12 layers x width x length for
    attention (PaLM, arXiv 2204.02311, appendix B). What gradient checkpointing computes again is not counted.
    """
    config = model.config
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    per_token = sum((6 if m.weight.requires_grad else 4) * m.weight.numel() for m in linear)
    attention = 12 * config.num_hidden_layers * config.hidden_size
    return lengths * (per_token + attention * lengths.astype(np.float64))


class RewardTrainer(Trainer):
    """Trainer whose batches are whole optimiser steps: the loss is a mean over all that a step sees, however it is cut into passes."""

    def __init__(
        self, recipe: Recipe, train: Examples, development: Examples, seed: int, work: Path, **arguments: Any
    ) -> None:
        self._recipe, self._train, self._development, self._work = recipe, train, development, work
        self._processes = distributed.get_world_size() if distributed.is_initialized() else 1
        self._rank = distributed.get_rank() if self._processes > 1 else 0
        per_unit = train.lengths[train.units].max(axis=1) * train.units.shape[1]
        self._plan = plan_steps(
            per_unit, recipe.batch_size, recipe.epochs, recipe.micro_batch_tokens, seed, self._processes
        )
        self._tokens, self._flops, self._begun = 0, 0.0, 0.0
        self._rate = matmul_rate(getattr(torch, recipe.precision))
        super().__init__(train_dataset=self._plan, **arguments)
        self._step_flops = training_flops(self.model, train.lengths)

    def create_accelerator_and_postprocess(self) -> None:
        """Shard on CPUs as on GPUs: accelerate has a plain data-parallel mode alone for several CPU processes."""
        super().create_accelerator_and_postprocess()
        if self._processes > 1 and self.accelerator.distributed_type != "FSDP":
            from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

            state = self.accelerator.state
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> Any:
        """The planned steps, in their order, the same in every process."""
        return DataLoader(self._plan, batch_size=1, shuffle=False, collate_fn=lambda steps: steps[0])

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """All passes of this process in one optimiser step; the step's loss, a mean over its units or labels."""
        self._begun = self._begun or time.perf_counter()
        model.train()
        units = np.concatenate([u for passes in inputs for u in passes])
        weight = len(units) if self._recipe.pairs else max(1, int(np.isfinite(self._train.targets[units]).sum()))
        scale = self._processes / weight  # gradients are averaged over processes
        total = torch.zeros((), device=self.args.device)
        for mine in inputs[self._rank]:
            loss = self._sum_of_losses(model, mine) * scale
            self.accelerator.backward(loss)
            total += loss.detach()
        rows = self._train.units[units].ravel()
        self._tokens += int(self._train.lengths[rows].sum())
        self._flops += float(self._step_flops[rows].sum())
        return total

    def _sum_of_losses(self, model: Any, units: npt.NDArray[np.int64]) -> Any:
        """Sum of a pass' losses. A process without units of its own computes a pass that counts nothing, as sharded training needs."""
        idle, units = len(units) == 0, units if len(units) else np.zeros(1, np.int64)
        rows = self._train.units[units].T.ravel()
        ids, mask = pad([self._train.encoded[int(row)] for row in rows], model.config.pad_token_id)
        on = self.args.device
        with autocast(on, self._recipe.precision, shared=self._processes > 1):
            outputs = model(input_ids=ids.to(on), attention_mask=mask.to(on)).logits.float()
        targets = torch.tensor(self._train.targets[units], dtype=torch.float32, device=on)
        if self._recipe.pairs:
            chosen, rejected = outputs[: len(units), 0], outputs[len(units) :, 0]
            loss = preference_losses(self._recipe.objective, chosen, rejected, targets[:, 0]).sum()  # type: ignore[arg-type]
        else:
            loss = masked_squares(outputs, targets)
        return loss * 0.0 if idle else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add speed to what is logged of a step: real tokens a second, and the share of this machine's measured matmul rate."""
        if "loss" in logs and self._begun:
            busy = time.perf_counter() - self._begun  # forward, backward, and the optimiser
            logs["tokens"], logs["flops"] = self._tokens, self._flops
            logs["tokens_per_second"] = self._tokens / busy
            logs["share_of_peak"] = self._flops / busy / (self._rate * self._processes)
            self._tokens, self._flops, self._begun = 0, 0.0, 0.0
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Figures on the development examples, in the recipe's precision; the best weights so far are kept."""
        step, history = self.state.global_step, [h for h in self.state.log_history if "eval_loss" in h]
        known = next((h for h in history if h["step"] == step), None)
        if known:
            return dict(known)
        shared = self._processes > 1
        precision = self._recipe.precision
        outputs = score(
            self.model_wrapped, self._development.encoded, lambda done: None, shared=shared, precision=precision
        )
        figures = figures_of(self._recipe, outputs, self._development)
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self._keep(step, history, metrics["eval_loss"])
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _keep(self, step: int, history: Sequence[dict[str, Any]], loss: float) -> None:
        """Keep the trained weights if they are the best; forget those that aren't any more.

        `history` is in the last checkpoint too: whatever a run that is cut off here had, the next one still has its best.
        """
        best = min(history, key=lambda h: h["eval_loss"], default=None)
        better = best is None or loss < best["eval_loss"]
        state = None
        if better and self._processes > 1:  # every process takes part, the first one gets all of it
            state = get_model_state_dict(
                self.model_wrapped, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
            )
        if self._rank:
            return
        for old in self._work.glob("best-*"):
            if best is None or old != best_path(self._work, best["step"]):
                old.unlink()
        if better:
            keep_trained(self.accelerator.unwrap_model(self.model), best_path(self._work, step), state)


def best_path(work: Path, step: int) -> Path:
    """Where the trained weights of a step are kept."""
    return work / f"best-{step}.safetensors"


def keep_trained(model: Any, path: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write a model's trained weights (of `state`, where these are not where the model has them) into a file, whole or not at all."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    values = state or model.state_dict()
    save_file({n: t.detach().cpu().contiguous() for n, t in values.items() if n in trained}, unfinished)
    unfinished.rename(path)


def restore(model: Any, path: Path) -> Any:
    """Put trained weights into a model of the same kind, in place. Raises ValueError where they are another's."""
    state = load_file(path)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    if wanted != set(state):
        raise ValueError(f"{path} doesn't hold the trained weights of this model: {sorted(wanted ^ set(state))[:3]}")
    model.load_state_dict(state, strict=False)
    return model


class Say(TrainerCallback):
    """Progress in the log, and curves in the tracker."""

    def __init__(self, log: Log, tracker: Any = None) -> None:
        self._log, self._tracker = log, tracker
        self._progress: Progress | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Say where training is."""
        if not state.is_world_process_zero or not logs:
            return
        self._progress = self._progress or Progress(self._log, "training steps", state.max_steps)
        if "loss" in logs:
            self._progress.update(state.global_step, f"loss {logs['loss']:.3f}")
        elif "eval_loss" in logs:
            self._log(f"step {state.global_step}: development loss {logs['eval_loss']:.4f}")
        if self._tracker:
            self._tracker.add(logs, state.global_step)


def train(
    model: Any,
    recipe: Recipe,
    examples: Examples,
    development: Examples,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
) -> Trained:
    """Train one stage of a recipe. The weights of the checkpoint with the least development loss are kept in a file, for `restore`.

    `development` picks the checkpoint. Checkpoints are kept in `work`; a later call with the same arguments goes on from the last whole
    one, and ends with the same curve and weights.
    """
    work.mkdir(parents=True, exist_ok=True)
    steps = -(-len(examples.units) // recipe.batch_size) * recipe.epochs
    every = -(-steps // recipe.evaluations)
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_total_limit=1,
        eval_on_start=True,
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,
        **sharding(),
    )
    trainer = RewardTrainer(
        recipe,
        examples,
        development,
        seed,
        work,
        model=model,
        args=arguments,
        eval_dataset=[0],
        callbacks=[Say(log, tracker)],
    )
    trainer.remove_callback(PrinterCallback)
    whole = [state.parent for state in work.glob("checkpoint-*/trainer_state.json")]  # the file that is written last
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    if last:
        log(f"going on from {last.name}")
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.monotonic() - begun
    curve = curve_of(trainer.state.log_history)
    best = min(curve, key=lambda row: row["development_loss"])
    for row in curve:
        row["chosen"] = row is best
    return Trained(curve, steps_of(trainer.state.log_history), best_path(work, best["step"]), seconds)


def sharding() -> dict[str, Any]:
    """Trainer's settings for several processes: weights, gradients and optimiser states are sharded over them (FSDP)."""
    if not (distributed.is_initialized() and distributed.get_world_size() > 1):
        return {}
    return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}}


def curve_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of CURVE from the trainer's log: an evaluation each, with the mean training loss since the one before."""
    curve: list[dict[str, Any]] = []
    losses: list[float] = []
    for entry in history:
        if "loss" in entry:
            losses.append(entry["loss"])
        elif "eval_loss" in entry and not any(row["step"] == entry["step"] for row in curve):
            figures = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            row = {"step": entry["step"], "train_loss": float(np.mean(losses)) if losses else None}
            row |= {"development_loss": figures["loss"], "pair_accuracy": figures["pair_accuracy"]}
            row |= {f"{a}_{f}": figures.get(f"{a}_{f}") for a in ATTRIBUTES for f in ("mse", "pearson")}
            curve.append(row)
            losses = []
    return curve


PUBLISHED = ("loss", "learning_rate", "grad_norm", "tokens", "flops")
SPEED = ("tokens_per_second", "share_of_peak")


def steps_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Optimiser steps of the trainer's log: a row each, with the columns of STEPS, and with its speed."""
    return [{"step": e["step"], **{name: e[name] for name in (*PUBLISHED, *SPEED)}} for e in history if "loss" in e]
