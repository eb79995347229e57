"""What people are shown of contexts, plan, responses and pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots
from pipeline.responses.accounts import account
from pipeline.settings import Checkpoint
from pipeline.shown import Rows, Shown, counts


def contexts(
    table: pa.Table, rejected: pa.Table, candidates: pa.Table, figures: Mapping[str, Any], each: int
) -> dict[str, Shown]:
    """Of CONTEXTS: how many were rewritten and rejected, and samples. candidates: schema CANDIDATES, `each` a turn."""
    written = table.filter(pc.greater(table["n_turns"], 1))
    return {
        **speeds(figures),
        "conversations with assistant turns written anew": len(written),
        "candidates per assistant turn": each,
        "samples of candidates": Rows(candidates, 2 * each),
        "prompts rejected": len(rejected),
        "user turns": plots.histogram(table["n_turns"], "User turns per prompt", "user turns", ylabel="prompts"),
        "samples": written.select(["prompt_id", "messages"]),
    }


def plan(planned: pa.Table, shares: Mapping[str, float]) -> dict[str, Shown]:
    """Of PLAN: each generator's share beside the profile's."""
    found = {c["values"]: c["counts"] for c in pc.value_counts(planned["generator"]).to_pylist()}
    series = {
        "planned": [found.get(name, 0) / max(len(planned), 1) for name in shares],
        "profile": [share / sum(shares.values()) for share in shares.values()],
    }
    return {"shares": plots.grouped_bars(list(shares), series, "Share of responses by generator", "share of responses")}


def pairs(table: pa.Table, left_out: pa.Table, generators: Sequence[str]) -> dict[str, Shown]:
    """Of RESPONSE_PAIRS: how many prompts have both responses, and how long these are."""
    means = table.to_pandas().groupby("generator")["output_tokens"].mean().reindex(list(generators)).fillna(0)
    return {
        "prompts": len(table) // 2,
        "prompts left out": len(pc.unique(left_out["prompt_id"])),
        "mean length": plots.bar_chart(
            list(means.index), list(means), "Mean length of responses by generator", "tokens"
        ),
        "samples": table.select(["generator", "finish_reason", "response"]),
    }


def recorded_pairs(table: pa.Table, left_out: pa.Table) -> dict[str, Shown]:
    """Of RESPONSE_PAIRS that were recorded elsewhere."""
    return {
        "prompts": len(table) // 2,
        "prompts left out": len(left_out),
        "samples": table.select(["messages", "response"]),
    }


def responses(
    name: str, mine: pa.Table, together: pa.Table, figures: Mapping[str, Any], checkpoint: Checkpoint
) -> dict[str, Shown]:
    """Of one generator's RESPONSES: speed, cost, what was not answered, lengths. together: of all generators that shared its engine."""
    reasons = sorted(pc.unique(mine["finish_reason"]).to_pylist())
    lengths = {r: mine.filter(pc.equal(mine["finish_reason"], r))["output_tokens"] for r in reasons}
    return {
        **speeds(figures),
        **account(mine, together, figures["seconds"], checkpoint),
        "refused requests by reason": counts(mine["detail"].drop_null(), "reason"),
        "lengths by finish reason": plots.histogram(
            lengths, f"Length of responses, {name}", "tokens", ylabel="responses"
        ),
        "responses after a thought": len(mine) - mine["reasoning"].null_count,
        "samples": mine.select(["prompt_id", "finish_reason", "response"]),
    }


def speeds(figures: Mapping[str, Any]) -> dict[str, Shown]:
    """Figures of an engine's run; of all generators that shared it."""
    rate = figures["output_tokens"] / figures["seconds"] if figures["seconds"] else 0.0
    return {
        "requests answered in this run": figures["answered"],
        "requests answered in earlier runs": figures["reused"],
        "output tokens per second": round(rate, 1),
        "seconds until the engine was ready": figures["start_seconds"],
        "model": f"{figures['model']} ({figures['model_revision']})",
        **({"precision": figures["precision"]} if figures["precision"] else {}),
        **({"peak memory, GiB": figures["peak_memory_gib"]} if "peak_memory_gib" in figures else {}),
    }
