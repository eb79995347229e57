"""What policies are tuned on: responses and pairs of a source, and conversations, disjoint from benchmarks and validation splits.

Held-out prompts are apart: none of them is trained in either.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alignment import conversations
from pipeline.alignment.schema import TUNED_ON
from pipeline.prompts.sources import ReadReport
from pipeline.reward_model import sources, training_data
from pipeline.reward_model.schema import PREFERRED
from pipeline.settings import COLLECTED, Alignment, Decontamination, Profile, Recipe

TRAIN, HELD_OUT = "train", "held_out"


class TunedOn(NamedTuple):
    """Responses (schema TUNED_ON) and pairs (schema PREFERRED), both with `split` train or held_out; what was dropped, and what counted.

    licence: of the data; licences: of the conversations' sources, by name; reports: of the reading of these.
    """

    responses: pa.Table
    pairs: pa.Table
    dropped: pa.Table
    counts: Mapping[str, int]
    licence: str
    quarantine: pa.Table
    licences: Mapping[str, str] = {}
    reports: tuple[ReadReport, ...] = ()


def tuned_on(wanted: Alignment, profile: Profile, data: pa.Table, benchmarks: Mapping[str, pa.ChunkedArray]) -> TunedOn:
    """What a profile's methods are tuned on.

    data: our data set (with `sources.COLUMNS`); benchmarks: the conversations of each benchmark that prompts are compared with. The held-out
    prompts are drawn by a hash of their ids. Raises as `sources.read`, `training_data.prepare`, `conversations.read` and `conversations.sided` do.
    """
    rated = wanted.data == COLLECTED or profile.training_data[wanted.data].rated
    recipe = recipe_of(wanted, profile, rated)
    source, rule = sources.source_of(recipe, profile, data), profile.decontamination
    made = of_source(source, recipe, data, benchmarks, rule)
    if not wanted.conversations:
        return made
    validation = {
        training_data.OURS: data["messages"].filter(pc.equal(data["split"], "validation")),
        training_data.THEIRS: source.validation,
    }
    return with_conversations(made, wanted, validation, benchmarks, rule)


def with_conversations(
    made: TunedOn,
    wanted: Alignment,
    validation: Mapping[str, pa.ChunkedArray | pa.Array],
    benchmarks: Mapping[str, pa.ChunkedArray],
    rule: Decontamination,
) -> TunedOn:
    """What there is to tune on with a profile's conversations behind it; the data are as they were. validation: conversations by their split."""
    read = conversations.read(wanted.conversations)
    both = (made.responses, made.pairs)
    told = conversations.sided(read.table, both, wanted.held_out_share, validation, benchmarks, rule)
    return made._replace(
        responses=pa.concat_tables([made.responses, told.table]),
        dropped=pa.concat_tables([made.dropped, told.dropped]),
        counts={**made.counts, **{what: n for what, n in (read.counts + told.counts).items() if n}},
        licences={name: source.licence for name, source in wanted.conversations.items()},
        reports=tuple(read.reports),
    )


def recipe_of(wanted: Alignment, profile: Profile, rated: bool) -> Recipe:
    """A recipe of the data that methods are tuned on, for what it says of them. rated: whether their responses are, or else come in pairs."""
    return Recipe(
        base=profile.recipes[wanted.recipe].base,
        data=wanted.data,
        objective="regression" if rated else "bradley_terry",
        attributes=("helpfulness",),
        development_share=wanted.held_out_share,
    )


def of_source(
    source: sources.Source,
    recipe: Recipe,
    data: pa.Table,
    benchmarks: Mapping[str, pa.ChunkedArray],
    rule: Decontamination,
) -> TunedOn:
    """What policies are tuned on of a source that has been read: see `tuned_on`. recipe: see `recipe_of`."""
    made = training_data.prepare(source, recipe, data, benchmarks, rule)
    responses = responses_of_rated(made.rated) if recipe.ratings else responses_of_pairs(made.preferred)
    return TunedOn(
        _renamed(responses).select(TUNED_ON.names).cast(TUNED_ON),
        _renamed(made.preferred).select(PREFERRED.names),
        made.dropped,
        made.counts,
        source.licence,
        source.quarantine.table(),
    )


def _renamed(table: pa.Table) -> pa.Table:
    """A table whose development prompts are the held-out ones."""
    place = table.schema.get_field_index("split")
    split = pc.if_else(pc.equal(table["split"], "train"), TRAIN, HELD_OUT).cast(pa.string())
    return table.set_column(place, table.schema.field("split"), split)


def responses_of_rated(rated: pa.Table) -> pa.Table:
    """Rated responses with `best`: of a prompt the most helpful one, the first of equals; a prompt without any rating of it has none."""
    table = _together(rated)
    level = np.asarray(table["helpfulness"].to_numpy(zero_copy_only=False), dtype=np.float64)
    prompt = _numbered(table["prompt_id"]).to_numpy()
    order = np.lexsort((np.arange(len(level)), -np.nan_to_num(level, nan=-1.0), prompt))
    first = np.ones(len(order), dtype=bool)
    first[1:] = prompt[order][1:] != prompt[order][:-1]
    best = np.zeros(len(order), dtype=bool)
    best[order[first]] = True
    table = table.append_column("best", pa.array(best & np.isfinite(level)))
    return table.append_column("origin", pa.array(["data"] * len(table), pa.string()))


def responses_of_pairs(preferred: pa.Table) -> pa.Table:
    """Both responses of pairs, a text once a prompt; the chosen one of a prompt's first pair is learned."""
    rows, seen, begun = list[dict[str, object]](), set[tuple[str, str]](), set[str]()
    for row in _together(preferred).to_pylist():
        for side in ("chosen", "rejected"):
            if (row["prompt_id"], row[side]) in seen:
                continue
            seen.add((row["prompt_id"], row[side]))
            best = side == "chosen" and row["prompt_id"] not in begun
            begun |= {row["prompt_id"]} if best else set()
            named = {
                "response_id": f"{row['prompt_id'][:24]}-{len(seen)}",
                "origin": "data",
                "response": row[side],
                "best": best,
            }
            rows.append({name: row[name] for name in ("split", "prompt_id", "messages")} | named)
    return pa.Table.from_pylist(rows, schema=TUNED_ON)


def _together(table: pa.Table) -> pa.Table:
    """A table with the rows of each prompt one after another, in their order."""
    return table.take(pa.array(np.argsort(_numbered(table["prompt_id"]).to_numpy(), kind="stable")))


def _numbered(ids: pa.ChunkedArray) -> pa.Array:
    """Prompts as numbers, in the order in which they first come."""
    return pc.index_in(ids, pc.unique(ids)).combine_chunks()
