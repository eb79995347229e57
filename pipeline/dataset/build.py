"""From agreed tasks to the data set: splits, rows, and the form of nvidia/HelpSteer2's files."""

import gzip
import json
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.schema import DATASET, HELPSTEER, LEFT_OUT
from pipeline.draws import uniforms
from pipeline.settings import ATTRIBUTES

USER_MARK, ASSISTANT_MARK = "\n<extra_id_1>User\n", "\n<extra_id_1>Assistant\n"
"""Turn headers within the `prompt` field of HelpSteer2's files; the first user turn has none (method.md E)."""
MARKUP = "<extra_id_"
_MARKS = re.compile(r"\n<extra_id_1>(User|Assistant)\n")


def split_of(prompt_ids: Sequence[str], validation_share: float) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """`train` or `validation` of each prompt, by a hash of its id alone: it never changes as deliveries are added."""
    draw = uniforms(prompt_ids, "helpsteer/split")[:, 0] if prompt_ids else np.zeros(0)
    return np.where(draw < validation_share, "validation", "train").astype(object)


def rows_of(agreed: pa.Table, pairs: pa.Table, delivery: str, validation_share: float) -> tuple[pa.Table, pa.Table]:
    """A delivery's rows in the schema DATASET, and prompts left out in the schema LEFT_OUT.

    agreed: labels of agreed tasks; pairs: their responses. A prompt whose texts contain the turn markup of the published format is left
    out, with both responses: in that format a stranger's text could forge a turn.
    """
    found = pc.index_in(agreed["response_id"], pairs["response_id"])
    if found.null_count:
        raise ValueError(
            f"{found.null_count} labelled responses of delivery {delivery} are not among its response pairs"
        )
    texts = pairs.take(found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found)
    both = zip(texts["messages"].to_pylist(), texts["text"].to_pylist(), strict=True)
    forged = np.array(
        [any(MARKUP in part for part in (text, *(m["content"] for m in messages))) for messages, text in both],
        dtype=bool,
    )
    bad = pc.unique(agreed["prompt_id"].filter(pa.array(forged)))
    columns = {name: agreed[name] for name in agreed.column_names if name in DATASET.names}
    columns |= {
        name: texts[name] for name in ("position", "messages", "generator", "model", "model_revision", "licence")
    }
    columns["response"] = texts["text"]
    columns["n_turns"] = pa.array([(len(m) + 1) // 2 for m in texts["messages"].to_pylist()], pa.int16())
    columns["split"] = pa.array(split_of(agreed["prompt_id"].to_pylist(), validation_share), pa.string())
    columns["delivery"] = pa.array([delivery] * len(agreed), pa.string())
    table = pa.table({name: columns[name] for name in DATASET.names}, schema=DATASET)
    table = table.filter(
        pc.invert(pc.is_in(table["prompt_id"], bad.combine_chunks() if isinstance(bad, pa.ChunkedArray) else bad))
    )
    reason = f"its text contains the turn markup {MARKUP}n>"
    rows = [{"prompt_id": p, "delivery": delivery, "reason": reason} for p in bad.to_pylist()]
    return table, pa.Table.from_pylist(rows, schema=LEFT_OUT)


def in_order(table: pa.Table) -> pa.Table:
    """Rows sorted by prompt and position: the two rows of a prompt stand together."""
    return table.sort_by([("prompt_id", "ascending"), ("position", "ascending")])


def helpsteer_rows(table: pa.Table, split: str) -> pa.Table:
    """A split in the schema of nvidia/HelpSteer2, two consecutive rows a prompt, multi-turn context flattened into `prompt`."""
    part = in_order(table.filter(pc.equal(table["split"], split)))
    columns = {
        "prompt": pa.array([flatten(m) for m in part["messages"].to_pylist()], pa.string()),
        "response": part["response"],
    }
    columns |= {a: part[a].cast(pa.int64()) for a in ATTRIBUTES}
    return pa.table(columns, schema=HELPSTEER)


def flatten(messages: Sequence[dict[str, str]]) -> str:
    """A context as HelpSteer2's `prompt` field: turns divided by their headers, the first without one."""
    marks = {"user": USER_MARK, "assistant": ASSISTANT_MARK}
    return "".join(m["content"] if n == 0 else marks[m["role"]] + m["content"] for n, m in enumerate(messages))


def messages_of(prompt: str) -> list[dict[str, str]]:
    """HelpSteer2's `prompt` field as a conversation: the inverse of `flatten`."""
    roles, contents = ["user"], [""]
    for n, part in enumerate(_MARKS.split(prompt)):
        if n % 2:
            roles.append(part.lower())
        elif n:
            contents.append(part)
        else:
            contents[0] = part
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def jsonl_gz(table: pa.Table) -> bytes:
    """Rows as gzipped JSON lines; the same bytes for the same rows."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    return gzip.compress(lines.encode(), mtime=0)
