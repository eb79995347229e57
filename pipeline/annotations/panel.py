"""Desk `models`: a panel of language models as annotators. No person rates: rows have the desk `models` and annotators `model:NAME`."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.annotations.schema import MODELS, QUESTIONS
from pipeline.annotations.tasks import drawn, texts_of
from pipeline.forms.rows import ANNOTATIONS, QUARANTINE
from pipeline.vocabulary import ATTRIBUTES

FEWEST = 2
"""Ratings that a response needs at first; a task with a response that has fewer is left out."""


def annotator_id(member: str) -> str:
    """A panel member as the annotator of a row."""
    return f"model:{member}"


def questions(tasks: pa.Table, wanted: pa.Table, panel: Sequence[str], seed: int) -> pa.Table:
    """Who of the panel is asked about which response, in the schema QUESTIONS: drawn by `tasks.drawn`."""
    texts, ids = texts_of(tasks), [annotator_id(member) for member in panel]
    rows = [
        dict(zip(QUESTIONS.names, (prompt, response, ids[n], texts[response][1], texts[response][0]), strict=True))
        for prompt, response, n in drawn(wanted, ids, seed)
    ]
    return pa.Table.from_pylist(rows, schema=QUESTIONS)


def collected(rated: pa.Table, round_: int) -> tuple[pa.Table, pa.Table]:
    """Annotations (schema ANNOTATIONS) and quarantine (schema QUARANTINE) of a round's MODEL_RATINGS.

    In round 1 a task whose responses don't both have two ratings is left out: its other ratings go to the quarantine too.
    Raises ValueError where there is no rating at all.
    """
    rows = rated.to_pylist()
    counts = Counter(row["response_id"] for row in rows if row["detail"] is None)
    short = {row["prompt_id"] for row in rows if round_ == 1 and counts[row["response_id"]] < FEWEST}
    why = f"a response of this task has fewer than {FEWEST} ratings"
    good, quarantine = list[dict[str, Any]](), list[dict[str, Any]]()
    for row in rows:
        ids = {c: row[c] for c in ("prompt_id", "response_id", "annotator_id")}
        if row["detail"] is None and row["prompt_id"] not in short:
            given = {a: row[a] for a in ATTRIBUTES}
            good.append(ids | given | {"round": round_, "flags": [], "desk": MODELS, "simulated": False})
        else:
            text = json.dumps({**ids, "answer": row["answer"][:500]}, ensure_ascii=False)
            quarantine.append({"reason": row["detail"] or why, "row": text})
    if round_ == 1 and not good:
        reasons = Counter(row["detail"] for row in rows if row["detail"]).most_common(1)
        raise ValueError(
            f"The language models gave no task ratings that can be used; the most frequent reason, with its count: {reasons}"
        )
    order = [(c, "ascending") for c in ("prompt_id", "annotator_id", "response_id")]
    annotations = pa.Table.from_pylist(good, schema=ANNOTATIONS).sort_by(order)
    return annotations, pa.Table.from_pylist(quarantine, schema=QUARANTINE)


def owed(wanted: pa.Table, quarantine: pa.Table) -> pa.Table:
    """WANTED without the ratings that are in quarantine: models are not asked again."""
    lost = Counter(json.loads(row)["response_id"] for row in quarantine["row"].to_pylist())
    left = [n - lost[r] for r, n in zip(*(wanted[c].to_pylist() for c in ("response_id", "ratings")), strict=True)]
    return wanted.set_column(
        wanted.column_names.index("ratings"), wanted.schema.field("ratings"), pa.array(left, pa.int8())
    )
