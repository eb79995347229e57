"""The stage's worker: scores both sides of every pair with a trained reward model, in float32.

Spec: model (local folder), input (URI of pairs), max_tokens. Writes `predictions.parquet`: `chosen_` and `rejected_` with the name of each output.
"""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from upath import UPath

from pipeline.reward_model.encoding import encode
from pipeline.reward_model.schema import OUTPUTS
from pipeline.store import read_table, write_table
from pipeline.worker import Log, Progress, Spec, run_worker


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Score; see the module's description."""
    from transformers import AutoTokenizer

    from pipeline.reward_model.model import outputs_of
    from pipeline.reward_model.scoring import load_scorer, score

    pairs = read_table(UPath(spec["input"]), ["messages", "chosen", "rejected"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model = load_scorer(Path(spec["model"]))
    outputs = outputs_of(model.config)
    if unknown := set(outputs) - set(OUTPUTS):
        raise ValueError(f"{spec['model']} has outputs {', '.join(sorted(unknown))}; known are {', '.join(OUTPUTS)}")
    messages = pairs["messages"].to_pylist()
    encoded = [
        encode(tokenizer, m, response, spec["max_tokens"])
        for side in ("chosen", "rejected")
        for m, response in zip(messages, pairs[side].to_pylist(), strict=True)
    ]
    begun = time.monotonic()
    scores = score(model, [ids for ids, _, _ in encoded], Progress(log, "scored", len(encoded)).update)
    seconds = time.monotonic() - begun
    columns = {
        f"{side}_{a}": scores[k * len(pairs) : (k + 1) * len(pairs), n]
        for k, side in enumerate(("chosen", "rejected"))
        for n, a in enumerate(outputs)
    }
    write_table(pa.table(columns), UPath(spec["out"]) / "predictions.parquet")
    return {
        "scored": len(encoded),
        "lost_oldest_turns": sum(bool(n) for _, n, _ in encoded),
        "start_cut": sum(cut for *_, cut in encoded),
        "tokens_per_second": round(sum(len(ids) for ids, _, _ in encoded) / seconds, 1),
    }


if __name__ == "__main__":
    run_worker(work)
