"""What the methods have in common that train with TRL: adapters, optimiser steps cut into passes, checkpoints, curves. Imported only by workers.

TRL's trainers average a loss over a pass, and passes over a step. Where passes differ in size, that is not the mean over the step; here it is:
a pass counts by its share of what a step is a mean over.
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from pipeline.alignment.resuming import Curve
from pipeline.alignment.watching import Watch
from pipeline.models.batching import Units, batches, plan_steps
from pipeline.models.classifier import experts_of, merged
from pipeline.models.precision import precision_of
from pipeline.settings.alignment import Dpo, IterativeDpo, Sft, SteerLm, Tuning
from pipeline.settings.recipes import Lora
from pipeline.worker import Log, Progress

Method = Sft | SteerLm | Dpo | IterativeDpo
"""A method that trains for so many epochs on rows that there are before."""

BETAS, LARGEST_NORM = (0.9, 0.98), 1.0
"""AdamW's betas, and the norm that gradients are cut down to: NeMo-Aligner's, see method F2."""
EVERY_ROW = {"loss": "loss", "grad_norm": "gradient_norm", "learning_rate": "learning_rate", "seconds": "seconds"}
"""Figures of a row of every curve, by what the trainer calls them."""
WATCHED = "watched/"
"""Before the names of a watch's figures in a trainer's log."""
KEPT = ("pad_token_id", "eos_token_id", "bos_token_id", "use_cache")
"""What trainers change in a model's configuration."""


# ------------------------------------------------------------------------------------------------------------------------------ adapters


def with_adapters(model: Any, lora: Lora) -> Any:
    """The policy with low-rank adapters on every linear layer of its blocks, and on the matrices of all experts; they alone are trained.

    The language-model head and the embeddings stay as they are: TRL computes log-probabilities from the head's own weights. New adapters
    change nothing yet. Raises ValueError for dropout before the adapters of experts.
    """
    from peft import LoraConfig, get_peft_model

    inside, head = f"{model.base_model_prefix}.", model.get_output_embeddings()
    matrices = experts_of(model)
    if matrices and lora.dropout:
        raise ValueError("lora.dropout: adapters on experts take none; set it to 0")
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(inside) and module is not head
    ]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=layers,
        target_parameters=matrices or None,
    )
    return get_peft_model(model, config)


def plain(model: Any) -> Any:
    """The policy with its adapters, if it has any, added to the weights, in evaluation mode."""
    return merged(model).eval()


# --------------------------------------------------------------------------------------------------------------------------------- steps


class Rows(NamedTuple):
    """What is trained on: what TRL's collator takes of each row, its tokens in a pass with padding, and how much it counts in a mean."""

    rows: Sequence[dict[str, list[int]]]
    lengths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]

    def dataset(self) -> Any:
        """The rows in the form that TRL takes; None where there are none."""
        from datasets import Dataset

        return Dataset.from_list(list(self.rows)) if self.rows else None


class StepTrainer(Trainer):
    """A trainer of TRL's, which is the other base class, whose batches are whole optimiser steps, cut into passes within a budget of tokens.

    The loss of a pass, a mean over its rows by weight, counts by the pass' share of the step's weights: the step has the gradient of the
    mean over all that it sees. An evaluation is such a mean over the development rows.
    """

    names: ClassVar[Mapping[str, str]]
    """Figures of a row of the curve beside EVERY_ROW, by what TRL calls them."""
    lr_scheduler: Any

    def __init__(self, train: Rows, development: Rows, method: Method, seed: int, **arguments: Any) -> None:
        self._of = {"train": train, "eval": development}
        self._tokens = method.micro_batch_tokens
        self._plan = plan_steps(train.lengths, method.batch_size, method.epochs, self._tokens, seed)
        super().__init__(train_dataset=train.dataset(), eval_dataset=development.dataset(), **arguments)

    def get_train_dataloader(self) -> Any:
        """The planned steps, in their order."""
        return DataLoader(self._plan, batch_size=1, shuffle=False, collate_fn=lambda steps: steps[0])

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate of each step: a step's share of the warm-up, then all of it. transformers' own begins with a step at 0."""
        if self.lr_scheduler is None:
            warmup = max(1, self.args.warmup_steps)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda done: min(1.0, (done + 1) / warmup))
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """All passes of an optimiser step; the step's loss."""
        model.train()
        return self._over(model, inputs[0], "train")

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Figures on the development rows; those of a step that has them are not computed again."""
        step = self.state.global_step
        known = next((h for h in self.state.log_history if "eval_loss" in h and h["step"] == step), None)
        if known:
            return dict(known)
        self.model.eval()
        passes = list(batches(self._of["eval"].lengths, self._tokens))
        metrics = {"eval_loss": float(self._over(self.model_wrapped, passes, "eval"))}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _over(self, model: Any, passes: Sequence[Units], mode: str) -> Any:
        """Loss over passes, with gradients in training; TRL's figures of the passes are averaged likewise."""
        begun, told = time.perf_counter(), self._metrics[mode]
        rows, weights = self.train_dataset if mode == "train" else self.eval_dataset, self._of[mode].weights
        whole, total = weights[np.concatenate(passes)].sum(), torch.zeros((), device=self.args.device)
        means = dict.fromkeys(self.names, 0.0)
        for units in passes:
            share = float(weights[units].sum() / whole)
            inputs = self._prepare_inputs(self.data_collator([rows[int(n)] for n in units]))
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs) * share
            if mode == "train":
                self.accelerator.backward(loss)
            total += loss.detach()
            means = {name: value + share * told[name][-1] for name, value in means.items()}
        told.clear()
        for name, value in (means | {"seconds": time.perf_counter() - begun}).items():
            told[name].append(value)  # is logged with the step
        return total

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Checkpoints need no card."""

    def _send_telemetry(self) -> None:
        """Nobody is told that there is a training."""


def arguments_of(method: Tuning, seed: int, steps: int, evaluated: bool, work: Path) -> dict[str, Any]:
    """Settings of TRL's trainers that all methods share, for so many optimiser steps. evaluated: whether there are development rows."""
    every = -(-steps // method.evaluations)
    on = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "output_dir": str(work),
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "learning_rate": method.learning_rate,
        "warmup_steps": method.warmup_steps,
        "weight_decay": method.weight_decay,
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "max_grad_norm": LARGEST_NORM,
        "gradient_checkpointing": method.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": precision_of(method.precision, on) == "bfloat16",
        "use_cpu": on == "cpu",
        "max_length": None,  # what is too long has been left out, and nothing is cut
        "remove_unused_columns": False,
        "eval_strategy": "steps" if evaluated else "no",
        "eval_on_start": evaluated,
        "save_strategy": "steps",
        "eval_steps": every,
        "save_steps": every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def steps_in(rows: int, method: Method) -> int:
    """How many optimiser steps a training has."""
    return -(-rows // method.batch_size) * method.epochs


# -------------------------------------------------------------------------------------------------------------------------------- running


class Say(TrainerCallback):
    """Progress in the log, and the curve's rows for a tracker."""

    def __init__(self, names: Mapping[str, str], log: Log, tracker: Any = None) -> None:
        self._names, self._log, self._tracker = names, log, tracker
        self._progress: Progress | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Say where training is."""
        row = row_of({**(logs or {}), "step": state.global_step}, self._names)
        if row is None:
            return
        self._progress = self._progress or Progress(self._log, "training steps", state.max_steps)
        if row["part"] == "train":
            self._progress.update(row["step"], note=f"loss {row['loss']:.3f}")
        else:
            self._log(f"step {row['step']}: development loss {row['loss']:.4f}")
        if self._tracker:
            figures = {f"{row['part']}_{name}": v for name, v in row.items() if name not in ("step", "part")}
            self._tracker.add(figures, row["step"])


class Look(TrainerCallback):
    """Looks at the policy before the first step, whenever there is an evaluation, and in the end."""

    def __init__(self, watch: Watch, every: int, tracker: Any = None) -> None:
        self._watch, self._every, self._tracker = watch, every, tracker

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the policy that training starts from."""
        if not state.global_step:
            self._look(state, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the policy where it is evaluated."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._look(state, model)

    def _look(self, state: Any, model: Any) -> None:
        figures = self._watch.look(state.global_step, model)
        if not figures:
            return
        state.log_history.append(
            {WATCHED + name: value for name, value in figures.items()} | {"step": state.global_step}
        )
        if self._tracker:
            self._tracker.add({f"watched_{name}": value for name, value in figures.items()}, state.global_step)


def row_of(logged: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    """A row of the curve from what a trainer logs: step, part (train, development or watched), and figures; None for what is none's."""
    watched = {n.removeprefix(WATCHED): value for n, value in logged.items() if n.startswith(WATCHED)}
    if watched:
        return {"step": logged["step"], "part": "watched", **watched}
    part = "train" if "loss" in logged else "development" if "eval_loss" in logged else None
    if part is None:
        return None
    before = "" if part == "train" else "eval_"
    figures = {ours: logged[before + its] for its, ours in (EVERY_ROW | dict(names)).items() if before + its in logged}
    return {"step": logged["step"], "part": part, **figures}


def run(trainer: Any, work: Path, log: Log, tracker: Any = None, watch: Watch | None = None) -> Curve:
    """Train, in place, from the last whole checkpoint in `work` on, where there is one: the curve.

    watch: looks at the policy before the first step, and as often as it is kept.
    """
    trainer.add_callback(Say(trainer.names, log, tracker))
    if watch:
        trainer.add_callback(Look(watch, trainer.args.save_steps, tracker))
    trainer.remove_callback(PrinterCallback)
    whole = [state.parent for state in work.glob("checkpoint-*/trainer_state.json")]  # the file that is written last
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    if last:
        log(f"Training goes on from step {last.name.rpartition('-')[2]}")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    rows = [row_of(logged, trainer.names) for logged in trainer.state.log_history]
    return [row for row in rows if row]


@contextmanager
def borrowed(model: Any) -> Iterator[None]:
    """Where a trainer has the model: afterwards it is in evaluation mode, and has its own forward pass, special tokens and cache again.

    Trainers put other forward passes into a model, one over the other, and write their tokenizer's special tokens into its configuration;
    a padding token there has embeddings that aren't trained when the model is read again, and without a cache all is computed anew at each token.
    """
    configurations = [model.config.get_text_config(), model.generation_config]
    kept = [{name: copy.copy(getattr(of, name)) for name in KEPT if hasattr(of, name)} for of in configurations]
    try:
        yield
    finally:
        for module in {model, model.get_base_model() if hasattr(model, "get_base_model") else model}:
            for patch in ("forward", "_original_forward"):
                module.__dict__.pop(patch, None)
        for of, its in zip(configurations, kept, strict=True):
            for name, value in its.items():
                setattr(of, name, value)
        model.eval()
