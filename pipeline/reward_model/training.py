"""Training of reward models on ratings or preferences, over transformers' Trainer. Imported only by workers."""

import time
from collections.abc import Sequence
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
from upath import UPath

from pipeline.models.batching import plan_steps
from pipeline.models.scoring import autocast, pad, score
from pipeline.models.speed import matmul_rate, training_flops
from pipeline.reward_model.examples import Examples, Trained
from pipeline.reward_model.figures import curve_of, figures_of, steps_of
from pipeline.reward_model.objectives import masked_squares, preference_losses
from pipeline.settings import Recipe
from pipeline.store import replacing
from pipeline.worker import Log, Progress


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
        units = [np.concatenate([u for passes in step for u in passes]) for step in self._plan]
        self.pace = Pace([int(train.lengths[train.units[u]].sum()) for u in units])
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
            self.pace.stepped(busy, self._tokens)
            self._tokens, self._flops, self._begun = 0, 0.0, 0.0
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Figures on the development examples, in the recipe's precision; the best weights so far are kept."""
        step, history = self.state.global_step, [h for h in self.state.log_history if "eval_loss" in h]
        known = next((h for h in history if h["step"] == step), None)
        if known:
            return dict(known)
        shared, begun = self._processes > 1, time.perf_counter()
        precision = self._recipe.precision
        outputs = score(self.model_wrapped, self._development.encoded, shared=shared, precision=precision)
        self.pace.evaluation = time.perf_counter() - begun
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
    values = state or model.state_dict()
    with replacing(UPath(path)) as unfinished:
        save_file({n: t.detach().cpu().contiguous() for n, t in values.items() if n in trained}, unfinished)


def restore(model: Any, path: Path) -> Any:
    """Put trained weights into a model of the same kind, in place. Raises ValueError where they are another's."""
    state = load_file(path)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    if wanted != set(state):
        raise ValueError(f"{path} doesn't hold the trained weights of this model: {sorted(wanted ^ set(state))[:3]}")
    model.load_state_dict(state, strict=False)
    return model


class Pace:
    """How long the rest of a training will take: the tokens of the steps ahead at the speed so far, and the evaluations ahead.

    tokens: of each step, without padding.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._ahead = np.append(np.cumsum(tokens[::-1])[::-1], 0)
        self._seconds, self._tokens = 0.0, 0
        self.evaluation = 0.0
        """Seconds of the last evaluation; one comes before the first step."""

    def stepped(self, seconds: float, tokens: int) -> None:
        """Take note of a step."""
        self._seconds, self._tokens = self._seconds + seconds, self._tokens + tokens

    def left(self, step: int, every: int) -> float:
        """Seconds ahead after `step` steps, one of them noted at least, with the evaluations of this step, of every so manieth and the last."""
        evaluations = -(-(len(self._ahead) - 1) // every) - (step - 1) // every
        return float(self._ahead[step]) * self._seconds / self._tokens + evaluations * self.evaluation


class Say(TrainerCallback):
    """Progress in the log, and curves in the tracker."""

    def __init__(self, log: Log, pace: Pace, tracker: Any = None) -> None:
        self._log, self._pace, self._tracker = log, pace, tracker
        self._progress: Progress | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Say where training is."""
        if not state.is_world_process_zero or not logs:
            return
        self._progress = self._progress or Progress(self._log, "training steps", state.max_steps)
        if "loss" in logs:
            left = self._pace.left(state.global_step, int(args.eval_steps))
            self._progress.update(state.global_step, note=f"loss {logs['loss']:.3f}", left=left)
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
    )
    trainer.add_callback(Say(log, trainer.pace, tracker))
    trainer.remove_callback(PrinterCallback)
    whole = [state.parent for state in work.glob("checkpoint-*/trainer_state.json")]  # the file that is written last
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    if last:
        log(f"Training goes on from {last.name}")
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
