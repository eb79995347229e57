"""Speed of tuning policies on this machine's device: SFT, DPO and PPO on a model of any size.

`python -m measurements.policies MODEL [--rows N] [--tokens N] [--batch N] [--lora RANK] [--methods sft dpo ppo]`. MODEL is a folder in Hugging
Face format, or a hub id. Rows are made of random words: a prompt of a quarter of the tokens, and responses. PPO's reward is a response's
share of one letter, and its value model a classifier of the same size: what is measured is speed, no policy is any good.
Prints a table, and one JSON object as the last line: for each method tokens a second (real tokens of the rows that a step learns from, without
its first step), and the share of this device's own matrix product in the same precision that their operations make.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from pipeline.alignment import dpo, ppo, sft
from pipeline.alignment.encoding import encode_each
from pipeline.alignment.goodness import Standard
from pipeline.alignment.policies import load_policy
from pipeline.alignment.tuning import with_adapters
from pipeline.models.checkpoints import resolve
from pipeline.models.classifier import device, new_model
from pipeline.models.encoding import set_padding
from pipeline.models.precision import precision_of
from pipeline.models.speed import matmul_rate, training_flops
from pipeline.settings import Checkpoint
from pipeline.settings.alignment import Dpo, Ppo, Sft
from pipeline.settings.recipes import Lora

STEPS = 4
"""Optimiser steps of each method, of which the first is not counted."""
WORDS = "the of and to in is it you that he was for on are with as his they be at one have this from".split()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser("python -m measurements.policies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="folder in Hugging Face format, or hub id")
    parser.add_argument(
        "--tokens", type=int, default=512, metavar="N", help="tokens of a conversation, about (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=8,
        metavar="N",
        help="conversations, pairs or prompts in a step (default: %(default)s)",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=4096,
        metavar="N",
        help="largest number of tokens in a pass (default: %(default)s)",
    )
    parser.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank instead of all weights")
    parser.add_argument(
        "--methods", nargs="+", default=["sft", "dpo", "ppo"], choices=["sft", "dpo", "ppo"], help="what to measure"
    )
    options = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    local = Path(options.model).expanduser()
    checkpoint = (
        Checkpoint(folder=str(local), licence="") if local.is_dir() else Checkpoint(hub=options.model, licence="")
    )
    folder = resolve(checkpoint, Path())
    precision = precision_of("auto", device())
    ceiling = matmul_rate(getattr(torch, precision))
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    found: dict[str, dict[str, float]] = {}
    for method in options.methods:
        found[method] = _measured(method, folder, options, ceiling)
        if torch.cuda.is_available():
            found[method]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
    table = Table(
        "method",
        *next(iter(found.values())),
        title=f"{options.model} on {name}, {precision}, {ceiling / 1e12:.2f} teraFLOPS at most",
    )
    for method, figures in found.items():
        table.add_row(method, *(f"{value:,.4g}" for value in figures.values()))
    Console().print(table)
    json.dump(
        {"model": options.model, "device": name, "precision": precision, "teraflops": ceiling / 1e12, "methods": found},
        sys.stdout,
    )
    print()


def _measured(kind: str, folder: Path, options: argparse.Namespace, ceiling: float) -> dict[str, float]:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_policy(folder)
    lora = Lora(rank=options.lora, alpha=2 * options.lora) if options.lora else None
    flops_of = (
        training_flops(model, np.array([options.tokens])) / options.tokens
    )  # a token, with attention at this length
    if lora:
        model = with_adapters(model, lora)
        flops_of = training_flops(model, np.array([options.tokens])) / options.tokens
    shared: dict[str, Any] = {
        "learning_rate": 1e-6,
        "batch_size": options.batch,
        "micro_batch_tokens": options.passes,
        "max_tokens": 2 * options.tokens,
        "evaluations": 1,
        "lora": lora,
    }
    conversations = [_conversation(n, options.tokens) for n in range(options.batch * STEPS)]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        if kind == "sft":
            examples = list(encode_each(tokenizer, conversations, 2 * options.tokens).examples.values())
            tokens = float(np.mean([len(e.ids) for e in examples])) * options.batch
            curve = sft.train(
                model, tokenizer, examples, [], Sft(kind="sft", checkpoint="a", epochs=1, **shared), 0, work, _quiet
            )
        elif kind == "dpo":
            pairs = list(
                dpo.pairs_of(_pairs(conversations, options.tokens), tokenizer, 2 * options.tokens).pairs.values()
            )
            tokens = (
                float(np.mean([2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs])) * options.batch
            )
            curve = dpo.train(
                model, tokenizer, pairs, [], Dpo(kind="dpo", start="a", epochs=1, **shared), 0, work, _quiet
            )
        else:
            answer = options.tokens - options.tokens // 4
            method = Ppo(kind="ppo", start="a", steps=STEPS, max_new_tokens=answer, **shared)
            classifier = new_model(folder, tokenizer.pad_token_id or 0, ("reward",))
            set_padding(classifier.config, tokenizer, [])
            values = ppo.Values(classifier, None, Standard(0.0, 1.0))
            reference = None if lora else load_policy(folder)
            prompts = [conversation[:-1] for conversation in conversations]
            curve = ppo.train(model, reference, values, tokenizer, prompts, _letters, method, 0, work, _quiet)
            asked = float(np.mean([len(ids) for _, ids in ppo.fitting(tokenizer, prompts, 2 * options.tokens, _quiet)]))
            tokens = (asked + float(np.mean([row["tokens"] for row in curve]))) * options.batch
    seconds = float(np.mean([row["seconds"] for row in curve if row["part"] == "train" and row["step"] > 1]))
    return {
        "tokens_a_step": tokens,
        "seconds_a_step": seconds,
        "tokens_a_second": tokens / seconds,
        "share_of_ceiling": float(flops_of[0]) * tokens / seconds / ceiling,
    }


def _conversation(seed: int, tokens: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": _text(seed, tokens // 4)},
        {"role": "assistant", "content": _text(seed + 10**6, tokens - tokens // 4)},
    ]


def _text(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def _pairs(conversations: list[list[dict[str, str]]], tokens: int) -> Any:
    import pyarrow as pa

    rows = [
        {"messages": c[:-1], "chosen": c[-1]["content"], "rejected": _text(n + 2 * 10**6, tokens - tokens // 4)}
        for n, c in enumerate(conversations)
    ]
    return pa.Table.from_pylist(rows)


def _letters(_asked: Any, texts: Any) -> list[float]:
    return [text.count("e") / max(len(text), 1) for text in texts]


def _quiet(_message: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    main()
