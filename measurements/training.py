"""Speed of training a reward model, against transformers' Trainer as it comes, in turns, on the same data, model and precision.

`python -m measurements.training FILE [--rows N] [--rounds N] [--layers N] [--model FOLDER]`. FILE has rated responses in HelpSteer2's form.
Steps have 32 rows. The peer is `Trainer` with five labels: passes of 8 random rows, its default, each padded to its longest row.
Prints a table and, as its last line, one JSON object: `ratio` (real tokens a second of ours over the peer's: without padding, with the
optimiser, without the first step), `lowest` (of a round), `share_of_ceiling` (operations that our tokens need a second over the rate of
this machine's own matrix product in the same precision, measured between the rounds).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from pipeline.models.checkpoints import resolve
from pipeline.models.classifier import new_model
from pipeline.models.encoding import encode, prepare_tokenizer
from pipeline.models.speed import matmul_rate
from pipeline.reward_model.examples import Examples
from pipeline.reward_model.rows import read
from pipeline.reward_model.sides import labels_of
from pipeline.reward_model.training import train
from pipeline.settings import Recipe, load_profile
from pipeline.vocabulary import ATTRIBUTES

BATCH, PEERS_PASS = 32, 8
"""Rows of an optimiser step, of both; of the peer's forward pass, its default."""
MAX_TOKENS = 1024


class Clock(TrainerCallback):
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._begun)


class Counted(DataCollatorWithPadding):
    """The usual collator, which counts the real tokens of each batch."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch."""
        batch = super().__call__(features)
        self.tokens.append(int(batch["attention_mask"].sum()))
        return batch


def ours(
    folder: Path, tokenizer: Any, encoded: list[list[int]], labels: Any, layers: int | None
) -> tuple[float, float]:
    """Real tokens a second of ours, and operations a second."""
    recipe = Recipe(
        base="b", epochs=1, batch_size=BATCH, micro_batch_tokens=4096, learning_rate=1e-5, warmup_steps=1, evaluations=1
    )
    rows = np.arange(len(encoded))[:, None]
    few = Examples(encoded[:1], rows[:1], labels[:1], np.empty((0, 2), np.int64))
    model = new_model(folder, tokenizer.pad_token_id, ATTRIBUTES, layers)
    with tempfile.TemporaryDirectory() as place:
        examples = Examples(encoded, rows, labels, np.empty((0, 2), np.int64))
        done = train(model, recipe, examples, few, 0, Path(place), lambda message: None)
    steps = done.steps[1:]
    seconds = sum(step["tokens"] / step["tokens_per_second"] for step in steps)
    return sum(step["tokens"] for step in steps) / seconds, sum(step["flops"] for step in steps) / seconds


def peers(folder: Path, tokenizer: Any, encoded: list[list[int]], labels: Any, layers: int | None) -> float:
    """Real tokens a second of a plain Trainer."""
    model, clock, collator = new_model(folder, tokenizer.pad_token_id, ATTRIBUTES, layers), Clock(), Counted(tokenizer)
    collator.tokens = []
    data = [
        {"input_ids": ids, "labels": row} for ids, row in zip(encoded, labels.astype(np.float32).tolist(), strict=True)
    ]
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, num_train_epochs=1, per_device_train_batch_size=PEERS_PASS,
            gradient_accumulation_steps=BATCH // PEERS_PASS, learning_rate=1e-5, bf16=True,
            use_cpu=not torch.cuda.is_available(), save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=[clock]).train()
    a_step = BATCH // PEERS_PASS
    return sum(collator.tokens[a_step : a_step * len(clock.seconds)]) / sum(clock.seconds[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="file of rated responses in HelpSteer2's form")
    parser.add_argument(
        "--rows", type=int, default=96, help="number of rated responses to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="number of times that each side runs (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, help="number of the model's first layers that are kept (default: all)")
    parser.add_argument(
        "--model", type=Path, help="folder of the model, in Hugging Face format (default: SmolLM2-135M-Instruct)"
    )
    options = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    profile = load_profile("tiny")
    folder = options.model or resolve(profile.checkpoints["smollm2_135m_instruct"], Path(profile.store) / ".cache")
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folder))
    table = read(options.file).rated
    table = table.take(np.random.default_rng(0).permutation(len(table))[: options.rows])
    texts = zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
    encoded = [encode(tokenizer, messages, response, MAX_TOKENS).ids for messages, response in texts]
    given = (folder, tokenizer, encoded, labels_of(table, ATTRIBUTES), options.layers)
    mine, theirs, shares = [], [], []
    for _ in range(options.rounds):
        speed, flops = ours(*given)
        mine.append(speed)
        shares.append(flops / matmul_rate(torch.bfloat16))
        theirs.append(peers(*given))
    shown = Table("", *(f"round {n + 1}" for n in range(options.rounds)), title="Real tokens a second")
    shown.add_row("ours", *(f"{v:.0f}" for v in mine))
    shown.add_row("Trainer, padded", *(f"{v:.0f}" for v in theirs))
    Console().print(shown)
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    print(
        json.dumps(
            {
                "ratio": round(float(np.mean(ratios)), 3),
                "lowest": round(min(ratios), 3),
                "share_of_ceiling": round(float(np.mean(shares)), 3),
                "tokens_per_second": round(float(np.mean(mine)), 1),
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            }
        )
    )


if __name__ == "__main__":
    main()
