"""What annotators are asked: a task a prompt, and more ratings where the first ones disagree."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.consensus import spreads
from pipeline.annotations.schema import TASKS, WANTED
from pipeline.draws import uniforms


def tasks_of(pairs: pa.Table) -> pa.Table:
    """A task a prompt, in the schema TASKS, from the pairs of responses (schema RESPONSE_PAIRS), sorted by prompt_id."""
    order = [("prompt_id", "ascending"), ("position", "ascending")]
    pairs = pairs.sort_by(order)
    first, second = (pairs.filter(pc.equal(pairs["position"], position)) for position in (1, 2))
    if not first["prompt_id"].equals(second["prompt_id"]):
        raise ValueError("every prompt needs exactly two responses, at positions 1 and 2")
    columns = {"prompt_id": first["prompt_id"], "messages": first["messages"]}
    for position, responses in ((1, first), (2, second)):
        columns |= {f"response_{position}_id": responses["response_id"], f"response_{position}": responses["response"]}
    return pa.table({name: columns[name] for name in TASKS.names}, schema=TASKS)


def wanted_at_first(tasks: pa.Table, annotators: int) -> pa.Table:
    """The first round: so many annotators for both responses of every task; schema WANTED."""
    rows = [
        {"prompt_id": prompt, "response_id": response, "ratings": annotators, "seen_by": [], "spread": None}
        for prompt, *both in zip(
            *(tasks[c].to_pylist() for c in ("prompt_id", "response_1_id", "response_2_id")), strict=True
        )
        for response in both
    ]
    return pa.Table.from_pylist(rows, schema=WANTED)


def texts_of(tasks: pa.Table) -> dict[str, tuple[str, list[dict[str, str]]]]:
    """Text and messages of every response, by its id."""
    return {
        response: (text, messages)
        for n in (1, 2)
        for response, text, messages in zip(
            *(tasks[c].to_pylist() for c in (f"response_{n}_id", f"response_{n}", "messages")), strict=True
        )
    }


class Drawn(NamedTuple):
    """Who rates what: the ids of prompt and response, and the annotator's place in the panel."""

    prompt: str
    response: str
    annotator: int


def drawn(wanted: pa.Table, panel: Sequence[str], seed: int) -> list[Drawn]:
    """Who of a panel rates what, as many as WANTED asks for.

    Drawn from the seed and the prompt: the same annotators for both of its responses; those who have seen a response are passed over.
    """
    preference = np.stack([uniforms(wanted["prompt_id"].to_pylist(), f"{seed}/turn/{a}")[:, 0] for a in panel], axis=1)
    found = list[Drawn]()
    asked = (wanted[c].to_pylist() for c in ("prompt_id", "response_id", "ratings", "seen_by"))
    for prompt, response, count, seen, row in zip(*asked, preference, strict=True):
        free = [int(n) for n in row.argsort() if panel[n] not in seen]
        if len(free) < count:
            raise ValueError(
                f"{count} more annotators are asked for, but the panel of {len(panel)} has only {len(free)} left"
            )
        found += [Drawn(prompt, response, n) for n in free[:count]]
    return found


def in_order(annotations: pa.Table) -> pa.Table:
    """Annotations sorted by prompt, response, round and annotator."""
    return annotations.sort_by([(c, "ascending") for c in ("prompt_id", "response_id", "round", "annotator_id")])


def escalated(annotations: pa.Table, above: int, extra: int) -> pa.Table:
    """The second round: `extra` more annotators for each response whose helpfulness ratings so far differ by more than `above`.

    Schema WANTED, sorted by prompt and response. Both responses of the prompt are shown to them; only those listed are rated.
    """
    by_response = spreads(annotations)
    wide = (
        by_response.filter(pc.fill_null(pc.greater(by_response["spread"], above), False))
        if extra
        else by_response.slice(0, 0)
    )
    seen = annotations.group_by("response_id", use_threads=False).aggregate([("annotator_id", "list")])
    found = pc.index_in(wide["response_id"], seen["response_id"])
    return pa.table(
        {
            "prompt_id": wide["prompt_id"],
            "response_id": wide["response_id"],
            "ratings": pa.array([extra] * len(wide), pa.int8()),
            "seen_by": seen["annotator_id_list"].take(found),
            "spread": wide["spread"],
        },
        schema=WANTED,
    ).sort_by([("prompt_id", "ascending"), ("response_id", "ascending")])
