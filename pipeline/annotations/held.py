"""Tasks that annotators have flagged: with personal data, or as not to be rated. They are not taken, however people agree on them."""

import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.forms.ratings import Quarantine
from pipeline.settings import HELD_BACK


def held_back(annotations: pa.Table, flags: Sequence[str]) -> pa.Array:
    """Ids of the prompts of which a rating of any response has one of the flags, in any case, with spaces, hyphens or underscores between words."""
    column = annotations["flags"].combine_chunks()
    if not len(column):
        return pa.array([], pa.string())
    said = pc.list_flatten(column).dictionary_encode()
    wanted = {_key(flag) for flag in flags}
    holding = pa.array([flag is not None and _key(flag) in wanted for flag in said.dictionary.to_pylist()], pa.bool_())
    rows = pc.list_parent_indices(column).filter(pc.fill_null(holding.take(said.indices), False))
    return pc.unique(annotations["prompt_id"].combine_chunks().take(rows))


def without_held(
    tables: Iterable[pa.Table], file: str, quarantine: Quarantine, flags: Sequence[str] = HELD_BACK
) -> Iterator[pa.Table]:
    """Annotations in whole prompts without those of flagged tasks, each of which is noted as left out."""
    for table in tables:
        held = held_back(table, flags)
        for prompt in held.to_pylist():
            quarantine.add(file, None, "flags", "a flag holds the task back", {"prompt_id": prompt}, fault=False)
        yield table.filter(pc.invert(pc.is_in(table["prompt_id"], held))) if len(held) else table


def _key(flag: str) -> str:
    return re.sub(r"[\s_-]+", " ", flag.strip().lower())
