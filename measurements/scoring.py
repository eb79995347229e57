"""Speed of scoring, against a plain loop of fixed batches in the order of the file, in turns, with the same model, precision and conversations.

`python -m measurements.scoring FILE [--conversations N] [--rounds N] [--precision P] [--batches N ...]
[--model FOLDER]`. FILE has rated responses in HelpSteer2's form.
The peer is the loop of rewardbench 0.1.4: of a batch of pairs first the chosen responses, then the rejected ones, each time padded to the
longest, by the tokenizer and the model as they come. Its batches are of 8, its default; the runs for its leaderboard have 64 (`--batches 8 64`).
Ours is the whole of `scoring.score`: encoding, look-up of what is scored already, passes, keeping. Neither loads the model in its time.
Prints a table and, as its last line, one JSON object: `ratio` (real tokens a second of ours over those of the fastest peer), `lowest` (of a
round), `share_of_ceiling` (operations that our tokens need a second over the rate of this machine's own matrix product in the same precision,
measured in every round), `largest_difference` of a score.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error
from upath import UPath

from pipeline.benchmarks.schema import ITEMS
from pipeline.evaluation import scoring
from pipeline.evaluation.scorers.scorer import Conversation
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.models.checkpoints import resolve
from pipeline.models.classifier import device, new_model, set_head
from pipeline.models.encoding import encode, prepare_tokenizer
from pipeline.models.speed import matmul_rate, training_flops
from pipeline.reward_model.rows import read
from pipeline.settings import load_profile
from pipeline.vocabulary import ATTRIBUTES

MAX_TOKENS = 2048
PEERS_BATCH = 8


def a_model(base: Path, folder: Path) -> None:
    """A regression model of five outputs with a drawn head, as a folder that both load."""
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(base))
    model = new_model(base, tokenizer.pad_token_id, ATTRIBUTES)
    set_head(model, np.random.default_rng(0).normal(size=(len(ATTRIBUTES), model.config.hidden_size)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def items_of(file: Path, count: int) -> pa.Table:
    """So many conversations of a file, as pairs: the two responses of a prompt."""
    rows = read(file).rated.to_pylist()
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    pairs = [two for two in by_prompt.values() if len(two) == 2]
    drawn = np.random.default_rng(0).permutation(len(pairs))[: count // 2]
    return pa.Table.from_pylist(
        [
            {
                "benchmark": "speed",
                "subset": "speed",
                "item_id": pairs[n][0]["prompt_id"],
                "messages": pairs[n][0]["messages"],
                "responses": [row["response"] for row in pairs[n]],
                "good": [True, False],
            }
            for n in drawn
        ],
        schema=ITEMS,
    )


def peer(model: Any, tokenizer: Any, items: list[dict[str, Any]], batch: int) -> tuple[np.ndarray, int, float]:
    """Scores (items, 2, outputs), real tokens, and seconds of the plain loop."""
    begun, found, tokens = time.perf_counter(), [], 0
    for start in range(0, len(items), batch):
        sides = []
        for side in (0, 1):
            turns = [
                [*i["messages"], {"role": "assistant", "content": i["responses"][side]}]
                for i in items[start : start + batch]
            ]
            texts = [tokenizer.apply_chat_template(t, tokenize=False) for t in turns]
            inputs = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt").to(
                device()
            )
            with torch.no_grad():
                sides.append(model(**inputs).logits.float().cpu().numpy())
            tokens += int(inputs["attention_mask"].sum())
        found.append(np.stack(sides, axis=1))
    return np.concatenate(found), tokens, time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="file of rated responses in HelpSteer2's form")
    parser.add_argument(
        "--conversations", type=int, default=400, help="number of conversations to score (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="number of times that each side runs (default: %(default)s)"
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=[PEERS_BATCH],
        help="numbers of pairs in a batch of the peer (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="floating-point type of both sides (default: %(default)s)",
    )
    parser.add_argument(
        "--model", type=Path, help="folder of the model, in Hugging Face format (default: SmolLM2-135M-Instruct)"
    )
    options = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    profile = load_profile("tiny")
    base = options.model or resolve(profile.checkpoints["smollm2_135m_instruct"], Path(profile.store) / ".cache")
    items = items_of(options.file, options.conversations)
    weights = dict.fromkeys(ATTRIBUTES, 0.2)
    speeds: dict[str, list[float]] = {"ours": []} | {f"batches of {b}": [] for b in options.batches}
    shares, differences = [], []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        a_model(base, folder)
        dtype = getattr(torch, options.precision)
        plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval().to(device())
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.truncation_side = "left"
        scorer = scorer_of(
            ModelSpec(model=str(folder), max_tokens=MAX_TOKENS, precision=options.precision), lambda message: None
        )
        list(scorer.score([Conversation([{"role": "user", "content": "a"}], "b")]))  # loads it
        rows = items.to_pylist()
        lengths = np.array(
            [len(encode(tokenizer, r["messages"], text, MAX_TOKENS).ids) for r in rows for text in r["responses"]]
        )
        operations = training_flops(plain, lengths).sum() / 3  # the forward pass is a third
        for number in range(options.rounds):
            begun = time.perf_counter()
            table, figures = scoring.score(scorer, items, UPath(place) / f"kept{number}", lambda message: None, weights)
            seconds = time.perf_counter() - begun
            speeds["ours"].append(figures["tokens"] / seconds)
            shares.append(operations / seconds / matmul_rate(dtype))
            ours = np.stack([table[a].to_numpy() for a in ATTRIBUTES], axis=1).reshape(len(rows), 2, -1)
            for batch in options.batches:
                theirs, tokens, seconds = peer(plain, tokenizer, rows, batch)
                speeds[f"batches of {batch}"].append(tokens / seconds)
                differences.append(float(np.abs(theirs - ours).max()))
    shown = Table("", *(f"round {n + 1}" for n in range(options.rounds)), title="Real tokens a second")
    for name, values in speeds.items():
        shown.add_row(name, *(f"{v:.0f}" for v in values))
    Console().print(shown)
    best = np.max([values for name, values in speeds.items() if name != "ours"], axis=0)
    ratios = np.array(speeds["ours"]) / best
    print(
        json.dumps(
            {
                "ratio": round(float(ratios.mean()), 3),
                "lowest": round(float(ratios.min()), 3),
                "share_of_ceiling": round(float(np.mean(shares)), 3),
                "tokens_per_second": {name: round(float(np.mean(values)), 1) for name, values in speeds.items()},
                "largest_difference": round(max(differences), 6),
                "conversations": len(lengths),
                "tokens": int(lengths.sum()),
                "precision": options.precision,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            }
        )
    )


if __name__ == "__main__":
    main()
