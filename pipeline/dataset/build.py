"""From agreed tasks to the data set: splits, rows, and the form of nvidia/HelpSteer2's files."""

import gzip
import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.schema import DATASET, LEFT_OUT
from pipeline.draws import uniforms
from pipeline.forms.helpsteer import HELPSTEER, MARKUP, RECORDED, flatten, whole
from pipeline.vocabulary import ATTRIBUTES


def split_of(prompt_ids: Sequence[str], validation_share: float) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """`train` or `validation` of each prompt, by a hash of its id alone: it never changes as deliveries are added."""
    draw = uniforms(prompt_ids, "helpsteer/split")[:, 0] if prompt_ids else np.zeros(0)
    return np.where(draw < validation_share, "validation", "train").astype(object)


def rows_of(agreed: pa.Table, pairs: pa.Table, delivery: str, validation_share: float) -> tuple[pa.Table, pa.Table]:
    """A delivery's rows in the schema DATASET, and prompts left out in the schema LEFT_OUT.

    agreed: labels of agreed tasks; pairs: the responses that were annotated. A prompt whose texts contain the turn markup of the published
    format is left out, with both responses: in that format a stranger's text could forge a turn. Raises ValueError for a label without
    its response.
    """
    texts = pairs.take(
        places(agreed["response_id"], pairs["response_id"], f"labelled responses of delivery {delivery}")
    )
    bad = forged_prompts(pairs)
    columns = {name: agreed[name] for name in agreed.column_names if name in DATASET.names}
    columns |= {
        name: texts[name] for name in ("position", "messages", "generator", "model", "model_revision", "licence")
    }
    columns["response"] = texts["response"]
    turns = np.asarray(pc.list_value_length(whole(texts["messages"])))
    columns["n_turns"] = pa.array((turns + 1) // 2, pa.int16())
    keys = agreed["prompt_id"]
    recorded = pc.fill_null(pc.equal(texts["generator"], RECORDED), False)
    # ids of recorded tasks are of a prompt with its responses: a prompt in two tasks must not be in two splits
    if pc.any(recorded).as_py():
        keys = pc.if_else(recorded, pa.chunked_array([flatten(texts["messages"])]), keys)
    columns["split"] = pa.array(split_of(keys.to_pylist(), validation_share), pa.string())
    columns["delivery"] = pa.array([delivery] * len(agreed), pa.string())
    table = without(pa.table({name: columns[name] for name in DATASET.names}, schema=DATASET), bad)
    reason = f"its text contains the turn markup {MARKUP}n>"
    rows = [{"prompt_id": p, "delivery": delivery, "reason": reason} for p in bad.to_pylist()]
    return table, pa.Table.from_pylist(rows, schema=LEFT_OUT)


def forged_prompts(pairs: pa.Table) -> pa.Array:
    """Ids of the prompts that have the turn markup of the published format in a turn or a response. pairs: schema RESPONSE_PAIRS."""
    lists = whole(pairs["messages"])
    contents = pc.struct_field(lists.flatten(), "content")
    row = np.repeat(np.arange(len(lists)), np.asarray(pc.list_value_length(lists)))
    bad = _holds_markup(whole(pairs["response"])).copy()
    bad[row[_holds_markup(contents)]] = True
    return whole(pc.unique(pairs["prompt_id"].filter(pa.array(bad))))


def _holds_markup(texts: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    held: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.asarray(
        pc.fill_null(pc.match_substring(texts, MARKUP), False)
    )
    return held


def places(ids: pa.ChunkedArray, among: pa.ChunkedArray, what: str) -> pa.Array:
    """Where each id stands among others. Raises ValueError, with `what` in its message, where one is not there."""
    found = whole(pc.index_in(ids, among))
    if found.null_count:
        raise ValueError(f"{found.null_count} {what} are not among its response pairs")
    return found


def without(table: pa.Table, prompts: pa.Array) -> pa.Table:
    """The rows of other prompts."""
    return table.filter(pc.invert(pc.is_in(table["prompt_id"], prompts)))


def in_order(table: pa.Table) -> pa.Table:
    """Rows sorted by prompt and position: the two rows of a prompt stand together."""
    return table.sort_by([("prompt_id", "ascending"), ("position", "ascending")])


def helpsteer_rows(table: pa.Table, split: str) -> pa.Table:
    """A split in the schema of nvidia/HelpSteer2, two consecutive rows a prompt, multi-turn context flattened into `prompt`."""
    part = in_order(table.filter(pc.equal(table["split"], split)))
    columns = {"prompt": flatten(part["messages"]), "response": part["response"]}
    columns |= {a: part[a].cast(pa.int64()) for a in ATTRIBUTES}
    return pa.table(columns, schema=HELPSTEER)


def jsonl_gz(table: pa.Table) -> bytes:
    """Rows as gzipped JSON lines; the same bytes for the same rows."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        for batch in table.to_batches(max_chunksize=1000):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
            file.write(lines.encode())
    return packed.getvalue()
