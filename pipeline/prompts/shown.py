"""What people are shown of prompts: what was read, what was rejected and why, topics, levels, and a delivery beside the original."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import plots
from pipeline.prompts import delivery_figures
from pipeline.prompts.pool import Description, Written
from pipeline.prompts.sources import ReadReport
from pipeline.settings import Prompts, Sample
from pipeline.shown import ENGINE, Rows, Shown, counts, first_of_each, labelled, whole
from pipeline.texts import personal_data

DRAW = {
    "asked for": "prompts asked for",
    "drawn": "prompts drawn",
    "kept of an earlier draw": "prompts kept from an earlier draw",
    "free in the pool": "prompts free in the pool",
    "multi-turn asked for": "multi-turn prompts asked for",
    "multi-turn drawn": "multi-turn prompts drawn",
    "multi-turn free in the pool": "multi-turn prompts free in the pool",
    "prompts that they lack": "prompts lacking in these topics",
}
"""Labels of a draw's figures."""


def conversations(
    reports: Sequence[ReadReport], rejected: pa.Table, shape: Description, licences: Mapping[str, str]
) -> dict[str, Shown]:
    """What was read of each source, and what was set aside. rejected: schema REJECTED_RECORDS; licences: of the sources, by name."""
    read = [
        {"source": r.source, "licence": licences[r.source], "records": r.records, "kept": r.kept, "end": r.end} for r in reports
    ]  # fmt: skip
    return {
        "records read by source": whole(pa.Table.from_pylist(read)),
        "what was decided of them": whole(decisions(reports)),
        "records set aside by reason": counts(rejected["reason"], "reason"),
        "samples of records set aside": Rows(first_of_each(rejected, "reason"), 30),
        "flags set by sources": counts(shape.flags, "flag"),
        "user turns": plots.histogram(
            shape.lengths, "User turns per conversation", "user turns", ylabel="conversations"
        ),
        "samples": shape.samples,
    }


def decisions(reports: Sequence[ReadReport]) -> pa.Table:
    """What the reader decided: a row a source and decision, with how many records (of HTML: turns) it concerns; null for a mapping."""
    rows: list[tuple[str, str, int | None]] = []
    for r in reports:
        rows += [(r.source, f"`{ours}` is the field {theirs}", None) for ours, theirs in r.columns.items()]
        rows += [(r.source, "records read", r.records), (r.source, "conversations kept", r.kept)]
        rows += [(r.source, f"kept, in the shape {shape}", n) for shape, n in r.shapes.most_common()]
        rows += [(r.source, f"set aside: {reason}", n) for reason, n in r.reasons.most_common()]
        rows += [(r.source, "turns made text from a scraper's HTML", r.html)] if r.html else []
    columns = [
        pa.array([row[n] for row in rows], type_) for n, type_ in enumerate((pa.string(), pa.string(), pa.int64()))
    ]
    return pa.table(columns, ["source", "decision", "records"])


def candidates(kept: pa.Table, samples: pa.Table, made: Written, compared: Mapping[str, pa.Array]) -> dict[str, Shown]:
    """What was rejected and why, and what the candidates are like.

    kept: columns n_turns, n_characters and source of CANDIDATES; samples: the first few candidates; compared: benchmarks' texts by name.
    """
    columns = ["reason", "language", "flags", "n_characters", "turns"]
    return {
        "conversations rejected": made.rejected.total(),
        "conversations rejected by reason": counts(made.rejected, "reason"),
        "samples of rejected conversations": Rows(made.samples.sort_by("reason").select(columns), 60),
        "flags of candidates": counts(made.flags, "flag"),
        "candidates by source": counts(kept["source"], "source"),
        "benchmarks compared with": ", ".join(f"{name} ({len(t)} prompts)" for name, t in compared.items())
        or "no benchmark",
        "samples": personal_data.shown(samples).select(["n_turns", "flags", "turns"]),
        "user turns": plots.histogram(kept["n_turns"], "User turns per candidate", "user turns", ylabel="candidates"),
        "lengths": plots.histogram(kept["n_characters"], "Length of candidates", "characters", ylabel="candidates"),
    }


def topics(
    table: pa.Table, map_: pa.Table, places: npt.ArrayLike, figures: Mapping[str, Any], method: str, count: int
) -> dict[str, Shown]:
    """The largest topics, their sizes, and a map. map_: schema TOPIC_MAP; places: of its topics, shape (topics, 2); count: asked for."""
    samples = personal_data.shown(first_of_each(table, "topic_name").slice(0, 30))
    sizes = np.asarray(map_["prompts"])
    return {
        "method of clustering": method,
        "topics asked for": count,
        **labelled(
            figures, {"dimensions": "dimensions of the embeddings", "embedded anew": "prompts embedded in this run"}
        ),
        "largest topics": counts(table["topic_name"], "topic", most=50),
        "sizes of topics": plots.histogram(sizes, "Sizes of topics", "prompts per topic", ylabel="topics"),
        "map": plots.bubbles(places, sizes, map_["topic_name"].to_pylist(), "Topics", unit="prompts"),
        "samples": Rows(samples.select(["topic_name", "turns"]), 30),
    }


def complexity(table: pa.Table, rater: str, rated: Mapping[str, Shown]) -> dict[str, Shown]:
    """Levels of the pool, and samples of each. rated: what a model that rated adds."""
    samples = personal_data.shown(first_of_each(table, "complexity")).select(["complexity", "turns"])
    levels = delivery_figures.by_level({"pool": table})
    return {"rater": rater, **rated, "levels of complexity": levels, "samples": Rows(samples, 10)}


def rated(figures: Mapping[str, Any], agreed: Mapping[str, float | None], confusion: pa.Table) -> dict[str, Shown]:
    """Of a model's levels: figures of its run, and how they agree with the heuristic's."""
    return {
        **labelled(figures, ENGINE | {"unrated": "prompts without a rating"}),
        **{f"agreement with the heuristic: {name}": value for name, value in agreed.items()},
        "heuristic's level (rows) by the model's (columns)": confusion,
    }


def delivery(
    table: pa.Table, pool: pa.Table, short: pa.Table, figures: Mapping[str, int], sample: Sample
) -> dict[str, Shown]:
    """A delivery's prompts beside the pool and beside HelpSteer2's. short: schema SHORTFALL; figures: of the draw."""
    levels = delivery_figures.by_level({"delivery": table, "pool": pool}, sample.complexity_weights)
    samples = personal_data.shown(table.slice(0, 8)).select(["n_turns", "topic_name", "complexity", "turns"])
    return {
        **labelled(figures, DRAW),
        "comparison with HelpSteer2": delivery_figures.against_original(table),
        "levels of complexity": levels,
        "prompts by number of user turns": Rows(delivery_figures.by_turns(table, pool), 50),
        "user turns": plots.histogram(table["n_turns"], "User turns per prompt", "user turns", ylabel="prompts"),
        "lengths": plots.histogram(table["n_characters"], "Length of prompts", "characters", ylabel="prompts"),
        "prompts per topic": delivery_figures.by_topic(table, figures["topics in the pool"]),
        "largest topics": counts(table["topic_name"], "topic", most=50),
        "shortfall by topic": Rows(short, 50),
        "samples": samples,
    }


def licences(wanted: Prompts) -> dict[str, str]:
    """The licence of each source, by its name."""
    return {name: source.licence for name, source in wanted.sources.items()}
