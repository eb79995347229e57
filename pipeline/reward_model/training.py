"""Five-attribute regression on the last token of the response. Imported only by the worker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_model as load_into
from safetensors.torch import save_model
from torch import nn
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from pipeline.reward_model.scoring import batches, pad
from pipeline.settings import ATTRIBUTES, Recipe
from pipeline.worker import Log, Progress

Labels = npt.NDArray[np.float64]
RIDGE = 10.0 ** np.arange(-7, 2)
"""Strengths of the head's ridge regression that are tried, in units of the largest squared singular value of the states."""


def masked_mse(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """sum(mask * (prediction - label)^2) / number of labels, over labels that are not NaN (NeMo-Aligner's regression loss; method.md F2)."""
    mask = ~torch.isnan(labels)
    squared = torch.where(mask, predictions - torch.nan_to_num(labels), torch.zeros_like(predictions)) ** 2
    return squared.sum() / mask.sum().clamp(min=1)


class FullPrecisionHead(nn.Linear):
    """A linear head that computes in float32 under autocast too: scores that differ by less than a bfloat16 step stay apart."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Outputs of hidden states."""
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(
                states.float(), self.weight.float(), None if self.bias is None else self.bias.float()
            )


def new_model(folder: Path, pad_token_id: int) -> Any:
    """The base model in float32 with a head of five outputs."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(ATTRIBUTES),
        id2label=dict(enumerate(ATTRIBUTES)),
        label2id={a: n for n, a in enumerate(ATTRIBUTES)},
        problem_type="regression",
        pad_token_id=pad_token_id,
        dtype=torch.float32,
        trust_remote_code=False,
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    head = FullPrecisionHead(model.score.in_features, len(ATTRIBUTES), bias=model.score.bias is not None)
    model.score = head.to(model.device)
    return model


def load_model(folder: Path) -> Any:
    """A trained model in float32, as anyone loads it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def set_head(model: Any, weights: npt.NDArray[np.float64]) -> None:
    """Give the head its weights: shape (outputs, width). A bias, where the architecture has one, starts at zero."""
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(weights, dtype=torch.float32))
        if model.score.bias is not None:
            model.score.bias.zero_()


@torch.no_grad()
def last_states(model: Any, encoded: Sequence[Sequence[int]], progress: Progress) -> npt.NDArray[np.float64]:
    """State of the last layer at the last token of each conversation: shape (conversations, width)."""
    model.eval()
    backbone = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    states, done = np.zeros((len(encoded), model.score.in_features)), 0
    for rows in batches([len(row) for row in encoded]):
        ids, mask = pad([encoded[row] for row in rows], model.config.pad_token_id)
        hidden = backbone(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).last_hidden_state
        ends = mask.sum(dim=1) - 1
        states[rows] = hidden[torch.arange(len(rows)), ends].float().cpu().numpy()
        done += len(rows)
        progress.update(done)
    return states


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


def development_figures(predictions: Labels, labels: Labels) -> dict[str, float]:
    """Masked loss, and error and Pearson correlation of each attribute (NaN where there is no variance)."""
    figures = {"loss": float(np.nanmean((predictions - labels) ** 2))}
    for n, attribute in enumerate(ATTRIBUTES):
        rated = np.isfinite(labels[:, n])
        p, y = predictions[rated, n], labels[rated, n]
        varied = len(y) > 1 and p.std() > 0 and y.std() > 0
        figures[f"{attribute}_mse"] = float(np.mean((p - y) ** 2)) if len(y) else float("nan")
        figures[f"{attribute}_pearson"] = float(np.corrcoef(p, y)[0, 1]) if varied else float("nan")
    return figures


def mean_baseline(train: Labels, labels: Labels) -> dict[str, float]:
    """Figures, as `development_figures` gives them, of predicting each attribute's mean of the training labels."""
    return development_figures(np.broadcast_to(np.nanmean(train, axis=0), labels.shape), labels)


class RegressionTrainer(Trainer):
    """Trainer with the masked loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = (
            False  # the loss is a mean of its micro-batch: to be divided by the number of those
        )

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Masked loss of a micro-batch."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = masked_mse(outputs.logits.float(), labels)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Evaluate in float32, as the model is published: bfloat16 states move predictions by up to most of a level.

        accelerate wraps the model's forward in autocast for good; the forward that it wrapped is called.
        """
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        forward = getattr(model, "_original_forward", model.forward)
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            logits = forward(**inputs).logits.float()
        loss = masked_mse(logits, labels)
        return loss, (None if prediction_loss_only else logits), labels


class Say(TrainerCallback):
    """Progress in the log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._progress: Progress | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Say where training is."""
        self._progress = self._progress or Progress(self._log, "training steps", state.max_steps)
        if logs and "loss" in logs:
            self._progress.update(state.global_step, f"loss {logs['loss']:.3f}")
        elif logs and "eval_loss" in logs:
            self._log(f"step {state.global_step}: development loss {logs['eval_loss']:.4f}")


def train(
    model: Any,
    encoded: Sequence[Sequence[int]],
    labels: Labels,
    development: Sequence[Sequence[int]],
    wanted: Labels,
    recipe: Recipe,
    seed: int,
    work: Path,
    log: Log,
) -> tuple[list[dict[str, Any]], int]:
    """Train in place, and leave the model at the checkpoint with the least development loss; the curve, and the steps of this call.

    The curve has a row an evaluation. encoded, labels: training conversations and their ratings (NaN where missing); development,
    wanted: those that pick the checkpoint.
    Checkpoints are kept in `work`; a later call with the same arguments goes on from the last whole one.
    """
    work.mkdir(parents=True, exist_ok=True)
    steps = -(-len(encoded) // recipe.batch_size) * recipe.epochs
    every = -(-steps // recipe.evaluations)
    cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.micro_batch_size,
        per_device_eval_batch_size=recipe.micro_batch_size,
        gradient_accumulation_steps=max(1, recipe.batch_size // recipe.micro_batch_size),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=cpu,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        remove_unused_columns=False,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        logging_steps=1,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        eval_on_start=True,
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,
    )
    start = work / "start.safetensors"
    save_model(model, str(start))
    trainer = RegressionTrainer(
        model=model,
        args=arguments,
        train_dataset=_items(encoded, labels),
        eval_dataset=_items(development, wanted),
        data_collator=lambda items: collate(items, model.config.pad_token_id),
        compute_metrics=lambda e: development_figures(np.asarray(e.predictions), np.asarray(e.label_ids)),
        callbacks=[Say(log)],
    )
    whole = [state.parent for state in work.glob("checkpoint-*/trainer_state.json")]  # the file that is written last
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    if last:
        log(f"going on from {last.name}")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    curve = curve_of(trainer.state.log_history)
    best = min(curve, key=lambda row: row["development_loss"])
    if best["step"] == 0:
        load_into(model, str(start))  # the ridge start was never beaten
    for row in curve:
        row["chosen"] = row is best
    return curve, trainer.state.global_step - (int(last.name.rpartition("-")[2]) if last else 0)


def curve_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of CURVE from the trainer's log: an evaluation each, with the mean training loss since the one before."""
    curve: list[dict[str, Any]] = []
    losses: list[float] = []
    for entry in history:
        if "loss" in entry:
            losses.append(entry["loss"])
        elif "eval_loss" in entry and not any(row["step"] == entry["step"] for row in curve):
            figures = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            row = {
                "step": entry["step"],
                "train_loss": float(np.mean(losses)) if losses else None,
                "development_loss": figures["loss"],
            }
            row |= {f"{a}_{figure}": figures[f"{a}_{figure}"] for a in ATTRIBUTES for figure in ("mse", "pearson")}
            curve.append(row)
            losses = []
    return curve


def collate(items: Sequence[dict[str, Any]], padding: int) -> dict[str, torch.Tensor]:
    """A micro-batch."""
    ids, mask = pad([item["input_ids"] for item in items], padding)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.tensor(np.array([i["labels"] for i in items]), dtype=torch.float32),
    }


def _items(encoded: Sequence[Sequence[int]], labels: Labels) -> Any:
    import datasets

    rows = {
        "input_ids": [list(row) for row in encoded],
        "length": [len(row) for row in encoded],
        "labels": labels.tolist(),
    }
    return datasets.Dataset.from_dict(rows)
