"""A recipe's training data: a source, without prompts that overlap with what it is measured by, and with development prompts held out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.reward_model.schema import DROPPED, PREFERRED, RATED
from pipeline.reward_model.sources import Source
from pipeline.settings import Decontamination, Recipe
from pipeline.texts.decontamination import overlaps
from pipeline.texts.words import keys_of, prompt_texts

OURS, THEIRS = "validation split of the data set", "validation split of the source"
"""What stands for a benchmark in DROPPED where a training prompt is in a validation split."""


@dataclass(frozen=True)
class Prepared:
    """Training data: `rated` (schema RATED), `preferred` (PREFERRED), `dropped` (DROPPED), and what was left out on the way, counted."""

    rated: pa.Table
    preferred: pa.Table
    dropped: pa.Table
    counts: Mapping[str, int]


def prepare(
    source: Source, recipe: Recipe, data: pa.Table, benchmarks: Mapping[str, pa.ChunkedArray], rule: Decontamination
) -> Prepared:
    """A source as what the recipe trains on, and what picks its checkpoint.

    data: our data set (split, messages): its validation split is never trained on, whatever the source. benchmarks: the conversations of
    each benchmark that a prompt is compared with. Both tables go by prompt, in the order of the source. Raises ValueError where nothing is
    left to train on, or to pick the checkpoint by, of a kind that the objective learns from.
    """
    prompts = _prompts(source)
    held_out = data.filter(pc.equal(data["split"], "validation"))
    dropped = _dropped(source.name, prompts, prompt_texts(held_out["messages"]), prompt_texts(source.validation))
    texts = {name: prompt_texts(messages) for name, messages in benchmarks.items()}
    close = overlaps(prompts["text"].combine_chunks(), texts, rule)
    named = {"prompt_id": prompts["prompt_id"].take(close["prompt"]), "source": _repeated(source.name, len(close))}
    columns = named | {"benchmark": close["benchmark"], "overlap": close["overlap"]}
    dropped = pa.concat_tables([dropped, pa.table(columns, schema=DROPPED)])
    dropped = dropped.sort_by([("prompt_id", "ascending"), ("benchmark", "ascending")])
    out = pc.unique(dropped["prompt_id"])
    tables = [t.filter(pc.invert(pc.is_in(t["prompt_id"], out))) for t in (source.rated, source.preferred)]
    rated = with_split(tables[0], recipe.development_share).select(RATED.names)
    preferred = with_split(tables[1], recipe.development_share).select(PREFERRED.names)
    if recipe.ratings:
        _both_sides(rated, "responses", len(out))
    if recipe.pairs:
        _both_sides(preferred, "pairs", len(out))
    return Prepared(rated, preferred, dropped, {name: n for name, n in source.counts.items() if n})


def with_split(table: pa.Table, share: float) -> pa.Table:
    """A table with the column `split`: train, or development for a share of the prompts.

    These are chosen by a hash of the prompt's id, so that a prompt's rows and pairs are on one side, and stay there as data are added.
    """
    ids = table["prompt_id"].to_pylist()
    drawn = uniforms(ids, "helpsteer/development")[:, 0] < share if ids else np.zeros(0, dtype=bool)
    split = pc.if_else(pa.array(drawn), "development", "train").cast(pa.string())
    return table.add_column(0, pa.field("split", pa.string()), split)


def counts_of(prepared: Prepared) -> pa.Table:
    """Rows of what there is, for the UI: kind (responses, pairs), split, rows, prompts."""
    rows = []
    for kind, table in (("responses", prepared.rated), ("pairs", prepared.preferred)):
        for split in ("train", "development"):
            part = table.filter(pc.equal(table["split"], split))
            rows.append({"kind": kind, "split": split, "rows": len(part), "prompts": len(pc.unique(part["prompt_id"]))})
    return pa.Table.from_pylist(rows)


def dropped_by_benchmark(dropped: pa.Table, benchmarks: Sequence[str]) -> pa.Table:
    """Prompts dropped for each benchmark, and for the validation splits; a prompt may count for several. dropped: schema DROPPED."""
    counts = Counter(dropped["benchmark"].to_pylist())
    names = [*benchmarks, OURS, THEIRS]
    return pa.table(
        {"benchmark": pa.array(names, pa.string()), "prompts": pa.array([counts[n] for n in names], pa.int64())}
    )


def _prompts(source: Source) -> pa.Table:
    """prompt_id and text of every prompt of a source, once."""
    both = pa.concat_tables(t.select(["prompt_id", "messages"]) for t in (source.rated, source.preferred))
    ids = both["prompt_id"]
    first = np.sort(np.unique(np.asarray(pc.index_in(ids, pc.unique(ids)), dtype=np.int64), return_index=True)[1])
    once = both.take(pa.array(first))
    return pa.table({"prompt_id": once["prompt_id"], "text": prompt_texts(once["messages"])})


def _dropped(name: str, prompts: pa.Table, ours: pa.Array, theirs: pa.Array) -> pa.Table:
    """Training prompts that are equal to one of a validation split, in the schema DROPPED."""
    keys, parts = keys_of(prompts["text"].combine_chunks()), [DROPPED.empty_table()]
    for split, texts in ((OURS, ours), (THEIRS, theirs)):
        found = prompts["prompt_id"].filter(pc.is_in(keys, keys_of(texts)))
        columns = {"prompt_id": found, "source": _repeated(name, len(found)), "benchmark": _repeated(split, len(found))}
        parts.append(pa.table(columns | {"overlap": pa.array(np.ones(len(found)))}, schema=DROPPED))
    return pa.concat_tables(parts)


def _repeated(text: str, n: int) -> pa.Array:
    return pa.array([text] * n, pa.string())


def _both_sides(table: pa.Table, what: str, dropped: int) -> None:
    development = int(pc.sum(pc.equal(table["split"], "development"), min_count=0).as_py())
    if not development or development == len(table):
        out = f" ({dropped} prompts were dropped: they are in a benchmark or a validation split)" if dropped else ""
        raise ValueError(
            f"there are {len(table) - development} {what} to train on and {development} to pick the checkpoint{out}; both are needed. "
            "Collect more prompts, or change the recipe's development_share"
        )
