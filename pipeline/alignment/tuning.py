"""What methods share that train with TRL: adapters, arguments, progress, the curve. Imported only by workers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipeline.alignment.resuming import Curve
from pipeline.models.precision import precision_of
from pipeline.settings import Lora
from pipeline.settings.alignment import Tuning
from pipeline.worker import Log, Progress

BETA_2 = 0.98
"""AdamW's second beta, NeMo-Aligner's (method F2)."""


def with_adapters(model: Any, lora: Lora | None) -> Any:
    """The policy with low-rank adapters on every linear layer but the one that gives logits; the policy itself where there is no `lora`."""
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
    )
    return get_peft_model(model, config)


def plain(model: Any) -> Any:
    """The policy with its adapters, if it has any, added to the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def arguments(
    method: Tuning, rows: int, longest: int, epochs: int, seed: int, work: Path, device: str
) -> dict[str, Any]:
    """Arguments of a TRL trainer: optimiser steps of `batch_size` rows, whatever number of them fits into a pass.

    rows: to train on; longest: tokens of the longest, which `micro_batch_tokens` is divided by. A step's loss is a mean over what it trains,
    however it is cut into passes. The last step of an epoch may have fewer rows.
    """
    a_pass = max(1, min(method.batch_size, method.micro_batch_tokens // max(longest, 1)))
    while method.batch_size % a_pass:
        a_pass -= 1
    steps = -(-rows // method.batch_size) * epochs
    every = -(-steps // method.evaluations)
    return {
        "output_dir": str(work),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": a_pass,
        "per_device_eval_batch_size": a_pass,
        "gradient_accumulation_steps": method.batch_size // a_pass,
        "learning_rate": method.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": method.warmup_steps,
        "weight_decay": method.weight_decay,
        "adam_beta2": BETA_2,
        "max_grad_norm": 1.0,
        "bf16": precision_of(method.precision, device) == "bfloat16",
        "use_cpu": device == "cpu",
        "gradient_checkpointing": False,
        "eval_strategy": "steps",
        "eval_steps": every,
        "eval_on_start": True,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,
        "dataloader_pin_memory": False,
    }


def run(trainer: Any, work: Path, log: Log, tracker: Any = None) -> Curve:
    """Train, from the last whole checkpoint of `work` where there is one; the curve: a row a step and a row an evaluation, as they came."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Say(log, tracker))
    whole = [state.parent for state in work.glob("checkpoint-*/trainer_state.json")]
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    if last:
        log(f"Training goes on from {last.name}")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    rows = [row_of(logs) for logs in trainer.state.log_history if "loss" in logs or "eval_loss" in logs]
    return list({(row["step"], row["part"]): row for row in reversed(rows)}.values())[
        ::-1
    ]  # it evaluates again where it goes on


def row_of(logs: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the curve: step, part (train or held_out), and figures under names without `eval_`."""
    held_out = "eval_loss" in logs
    figures = {
        n.removeprefix("eval_").replace("/", "_"): v
        for n, v in logs.items()
        if isinstance(v, int | float) and n != "step"
    }
    return {"step": logs["step"], "part": "held_out" if held_out else "train", **figures}


class Say(TrainerCallback):
    """Progress in the log, and curves in the tracker."""

    def __init__(self, log: Log, tracker: Any = None) -> None:
        self._log, self._tracker = log, tracker
        self._progress: Progress | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Say where training is."""
        if not logs:
            return
        self._progress = self._progress or Progress(self._log, "training steps", state.max_steps)
        if "loss" in logs:
            self._progress.update(state.global_step, note=f"loss {logs['loss']:.3f}")
        elif "eval_loss" in logs:
            self._log(f"step {state.global_step}: held-out loss {logs['eval_loss']:.4f}")
        if self._tracker:
            self._tracker.add(logs, state.global_step)
