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
from pipeline.shown import Rows, Shown, counts, first_of_each, whole
from pipeline.texts import personal_data


def conversations(
    reports: Sequence[ReadReport], rejected: pa.Table, shape: Description, licences: Mapping[str, str]
) -> dict[str, Shown]:
    """What was read of each source, and what was set aside. rejected: schema REJECTED_RECORDS; licences: of the sources, by name."""
    read = [
        {"source": r.source, "licence": licences[r.source], "records": r.records, "kept": r.kept, "end": r.end} for r in reports
    ]  # fmt: skip
    return {
        "read": whole(pa.Table.from_pylist(read)),
        "set aside by reason": counts(rejected["reason"], "reason"),
        "set aside, samples": Rows(first_of_each(rejected, "reason"), 30),
        "flags of the sources": counts(shape.flags, "flag"),
        "user turns": plots.histogram(shape.lengths, "User turns a conversation", "user turns"),
        "samples": shape.samples,
    }


def candidates(kept: pa.Table, samples: pa.Table, made: Written, compared: Mapping[str, pa.Array]) -> dict[str, Shown]:
    """What was rejected and why, and what the candidates are like.

    kept: columns n_turns, n_characters and source of CANDIDATES; samples: the first few candidates; compared: benchmarks' texts by name.
    """
    columns = ["reason", "language", "flags", "n_characters", "turns"]
    return {
        "rejected": made.rejected.total(),
        "rejected by reason": counts(made.rejected, "reason"),
        "rejected, samples": Rows(made.samples.sort_by("reason").select(columns), 60),
        "flags": counts(made.flags, "flag"),
        "by source": counts(kept["source"], "source"),
        "compared with": ", ".join(f"{name} ({len(t)} prompts)" for name, t in compared.items()) or "no benchmark",
        "samples": personal_data.shown(samples).select(["n_turns", "flags", "turns"]),
        "turns": plots.histogram(kept["n_turns"], "User turns a candidate", "user turns"),
        "lengths": plots.histogram(kept["n_characters"], "Length of a candidate", "characters"),
    }


def topics(
    table: pa.Table, map_: pa.Table, places: npt.ArrayLike, figures: Mapping[str, Any], method: str, count: int
) -> dict[str, Shown]:
    """The largest topics, their sizes, and a map. map_: schema TOPIC_MAP; places: of its topics, shape (topics, 2); count: asked for."""
    samples = personal_data.shown(first_of_each(table, "topic_name").slice(0, 30))
    sizes = np.asarray(map_["prompts"])
    return {
        "method": method,
        "topics asked for": count,
        **figures,
        "largest": counts(table["topic_name"], "topic", most=50),
        "sizes": plots.histogram(sizes, "Size of a topic", "prompts in it"),
        "map": plots.bubbles(places, sizes, map_["topic_name"].to_pylist(), "Topics"),
        "samples": Rows(samples.select(["topic_name", "turns"]), 30),
    }


def complexity(table: pa.Table, rater: str, rated: Mapping[str, Shown]) -> dict[str, Shown]:
    """Levels of the pool, and samples of each. rated: what a model that rated adds."""
    samples = personal_data.shown(first_of_each(table, "complexity")).select(["complexity", "turns"])
    levels = delivery_figures.by_level({"pool": table})
    return {"rater": rater, **rated, "levels": levels, "samples": Rows(samples, 10)}


def rated(figures: Mapping[str, Any], agreed: Mapping[str, float | None], confusion: pa.Table) -> dict[str, Shown]:
    """Of a model's levels: figures of its run, and how they agree with the heuristic's."""
    return {
        **figures,
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
        **figures,
        "against the original": delivery_figures.against_original(table),
        "levels": levels,
        "user turns": Rows(delivery_figures.by_turns(table, pool), 50),
        "turns": plots.histogram(table["n_turns"], "User turns a prompt", "user turns"),
        "lengths": plots.histogram(table["n_characters"], "Length of a prompt's user turns", "characters"),
        "topics": delivery_figures.by_topic(table, figures["topics in the pool"]),
        "topics, by prompts": counts(table["topic_name"], "topic", most=50),
        "topics that gave less than their share": Rows(short, 50),
        "samples": samples,
    }


def licences(wanted: Prompts) -> dict[str, str]:
    """The licence of each source, by its name."""
    return {name: source.licence for name, source in wanted.sources.items()}
