"""What a delivery looks like, beside what HelpSteer2 publishes of its own."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots

ORIGINAL = {
    "mean turns": 2.8348,
    "std of turns": 3.8221,
    "mean characters": 712.6,
    "std of characters": 877.8,
    "percent multi-turn": 29.0,
}
"""HelpSteer2 (arXiv 2406.08673), section 2.1 and Table 2. In its published rows, which give about these figures, the assistant's turns between
the user's count too, in turns and in characters; the share of multi-turn prompts is about 29 %."""
_NOTES = {
    "mean turns": "user's and assistant's",
    "std of turns": "user's and assistant's",
    "mean characters": "here the user's turns alone",
    "std of characters": "here the user's turns alone",
}
LEVELS = ("1", "2", "3", "4", "5")


def against_original(prompts: pa.Table) -> pa.Table:
    """Turns, lengths and share of multi-turn prompts (schema PROMPTS) beside the original's; columns figure, here, HelpSteer2, note."""
    turns = 2 * np.asarray(prompts["n_turns"], dtype=np.float64) - 1
    characters = np.asarray(prompts["n_characters"], dtype=np.float64)
    here = [turns.mean(), turns.std(), characters.mean(), characters.std(), 100 * (turns > 1).mean()]
    return pa.table(
        {
            "figure": list(ORIGINAL),
            "here": [round(float(value), 2) for value in here],
            "HelpSteer2": list(ORIGINAL.values()),
            "note": [_NOTES.get(figure, "") for figure in ORIGINAL],
        }
    )


def by_turns(prompts: pa.Table, pool: pa.Table) -> pa.Table:
    """Prompts of each number of user turns: in the delivery, in the pool, and percent of the multi-turn ones of either; null for single turns."""
    ours, theirs = (np.bincount(np.asarray(table["n_turns"], dtype=np.int64)) for table in (prompts, pool))
    ours = np.pad(ours, (0, max(len(theirs) - len(ours), 0)))
    used = np.flatnonzero(theirs)
    columns = {"user turns": used, "prompts": ours[used], "in the pool": theirs[used]}
    for name, counts in (("percent of multi-turn", ours), ("in the pool, percent", theirs)):
        share = 100 * counts[used] / max(counts[2:].sum(), 1)
        columns[name] = pa.array(share.round(1), mask=used < 2)
    return pa.table(columns)


def by_level(tables: dict[str, pa.Table], weights: Sequence[float] = ()) -> str:
    """A plot of the percent of each table's rows a level of complexity, beside the shares asked for."""
    counts = {name: np.bincount(np.asarray(table["complexity"]), minlength=6)[1:] for name, table in tables.items()}
    if weights:
        counts["asked for"] = np.array(weights)
    shares = {name: list(100 * c / max(c.sum(), 1)) for name, c in counts.items()}
    return plots.grouped_bars(LEVELS, shares, "Complexity of prompts, 1 to 5", "percent of prompts")


def by_topic(prompts: pa.Table, topics: int) -> str:
    """A plot of how many topics, of so many in the pool, gave how many prompts."""
    gave = np.asarray(pc.struct_field(pc.value_counts(prompts["topic"]), "counts"))
    topics_by_count = np.bincount(np.pad(gave, (0, max(topics - len(gave), 0))))
    labels = [str(n) for n in range(len(topics_by_count))]
    return plots.bar_chart(labels, list(topics_by_count), "Prompts per topic", "topics")
