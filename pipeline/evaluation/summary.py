"""Scores of pairs, their accuracy with its doubt, and the leaderboard."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.schema import LEADERBOARD, SCORES, SUMMARY
from pipeline.evaluation.sections import PUBLISHED, PUBLISHED_SOURCE, overall, section_of, section_scores
from pipeline.reward_model.schema import OUTPUTS
from pipeline.settings import ATTRIBUTES

BOOTSTRAPS = 2000


def score_table(
    pairs: pa.Table,
    chosen: npt.NDArray[np.float64],
    rejected: npt.NDArray[np.float64],
    weights: npt.ArrayLike,
    outputs: Sequence[str] = ATTRIBUTES,
) -> pa.Table:
    """Predictions of both sides (pairs, outputs) and their goodness, in the schema SCORES. A win is strictly greater: a tie loses."""
    goodness = [side @ np.asarray(weights, dtype=np.float64) for side in (chosen, rejected)]
    columns: dict[str, Any] = {name: pairs[name] for name in ("benchmark", "subset", "pair_id")}
    columns["section"] = [section_of(s) for s in pairs["subset"].to_pylist()]
    for side, values in (("chosen", chosen), ("rejected", rejected)):
        columns |= {f"{side}_{name}": pa.nulls(len(pairs), pa.float64()) for name in OUTPUTS}
        columns |= {f"{side}_{name}": values[:, n] for n, name in enumerate(outputs)}
        columns[f"{side}_characters"] = pc.utf8_length(pairs[side]).cast(pa.int64())
    columns |= {"chosen_goodness": goodness[0], "rejected_goodness": goodness[1], "win": goodness[0] > goodness[1]}
    return pa.table({name: columns[name] for name in SCORES.names}, schema=SCORES)


def summarise(scores: pa.Table, seed: int) -> pa.Table:
    """Accuracy of every subset, section and benchmark with a 95 % bootstrap interval over pairs, in the schema SUMMARY.

    Pairs are drawn anew within each subset, so that the weights of subsets hold in every draw.
    """
    rows: list[dict[str, Any]] = []
    for benchmark in pc.unique(scores["benchmark"]).to_pylist():
        part = scores.filter(pc.equal(scores["benchmark"], benchmark)).to_pandas()
        longer = (part["chosen_characters"] > part["rejected_characters"]).to_numpy()
        subsets = {s: np.flatnonzero(part["subset"] == s) for s in dict.fromkeys(part["subset"])}
        counts = {s: len(index) for s, index in subsets.items()}
        wins = part["win"].to_numpy()
        drawn = _resampled(wins, subsets, np.random.default_rng(seed))
        point = {s: float(wins[index].mean()) for s, index in subsets.items()}
        by_length = {s: float(longer[index].mean()) for s, index in subsets.items()}
        draws = section_scores(drawn, counts)
        sections, length_sections = section_scores(point, counts), section_scores(by_length, counts)
        sizes = {s: sum(n for subset, n in counts.items() if section_of(subset) == s) for s in sections}
        rows += [_row(benchmark, "subset", s, counts[s], point[s], drawn[s], by_length[s]) for s in subsets]
        rows += [_row(benchmark, "section", s, sizes[s], sections[s], draws[s], length_sections[s]) for s in sections]
        rows.append(
            _row(
                benchmark, "overall", benchmark, len(part), overall(sections), overall(draws), overall(length_sections)
            )
        )
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _resampled(
    wins: npt.NDArray[np.bool_], subsets: Mapping[str, npt.NDArray[np.int64]], generator: np.random.Generator
) -> dict[str, npt.NDArray[np.float64]]:
    """Bootstrap accuracies of each subset: shape (BOOTSTRAPS,). Wins of n drawn pairs are binomial with the observed rate."""
    return {
        s: generator.binomial(len(index), wins[index].mean(), BOOTSTRAPS) / len(index) for s, index in subsets.items()
    }


def _row(
    benchmark: str, level: str, name: str, pairs: int, accuracy: float, draws: Any, longest: float
) -> dict[str, Any]:
    low, high = np.quantile(draws, [0.025, 0.975])
    row = {"benchmark": benchmark, "level": level, "name": name, "pairs": pairs, "accuracy": accuracy}
    return row | {"low": float(low), "high": float(high), "longest_accuracy": longest}


def leaderboard(summaries: Mapping[str, pa.Table], rated_by: str) -> pa.Table:
    """Our recipes (recipe -> schema SUMMARY) beside the published rows, in the schema LEADERBOARD.

    Published figures are RewardBench's; ours stand under the benchmark that they were measured on, and are no RewardBench scores
    unless that benchmark is.
    """
    rows: list[dict[str, Any]] = []
    for recipe, summary in summaries.items():
        records = summary.to_pylist()
        for total in (r for r in records if r["level"] == "overall"):
            sections = {
                r["name"]: 100 * r["accuracy"]
                for r in records
                if r["level"] == "section" and r["benchmark"] == total["benchmark"]
            }
            rows.append(
                {
                    "model": recipe,
                    "origin": "ours",
                    "source": "this store",
                    "benchmark": total["benchmark"],
                    "overall": 100 * total["accuracy"],
                    "low": 100 * total["low"],
                    "high": 100 * total["high"],
                    "chat": sections.get("Chat"),
                    "chat_hard": sections.get("Chat Hard"),
                    "safety": sections.get("Safety"),
                    "reasoning": sections.get("Reasoning"),
                    "pairs": total["pairs"],
                    "rated_by": rated_by,
                }
            )
    for model, total, chat, hard, safety, reasoning, prior in PUBLISHED:
        figures = {
            "overall": total,
            "chat": chat,
            "chat_hard": hard,
            "safety": safety,
            "reasoning": reasoning,
            "prior_sets": prior,
        }
        rows.append(
            {
                "model": model,
                "origin": "published",
                "source": PUBLISHED_SOURCE,
                "benchmark": "RewardBench",
                **figures,
                "rated_by": "people",
            }
        )
    return pa.Table.from_pylist(rows, schema=LEADERBOARD)
