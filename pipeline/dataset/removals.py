"""What was removed on the way to the data set, and why, in numbers."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.schema import HELD, REMOVALS
from pipeline.settings import Annotations
from pipeline.vocabulary import ATTRIBUTES


def removals(
    annotations: pa.Table,
    kept_ratings: pa.Table,
    table: pa.Table,
    left_out: pa.Table,
    pairs: pa.Table,
    unanswered: int,
    dropped: pa.Table,
    rules: Annotations,
) -> pa.Table:
    """Removals in the schema REMOVALS, in their order.

    annotations: of all deliveries, before any removal; kept_ratings: without the outliers, as `consensus_annotations` has them; table: schema
    DATASET; left_out: schema LEFT_OUT; pairs: schema RESPONSE_PAIRS; unanswered: prompts that never got two responses; dropped: pairs
    without a preference row (`preference_rows`).
    """
    annotated, out, kept = _count(annotations["prompt_id"]), len(left_out), _count(table["prompt_id"])
    held = pc.sum(pc.equal(left_out["reason"], HELD), min_count=0).as_py()
    answered = _count(pairs["prompt_id"])
    steps = [
        (
            "prompts",
            answered + unanswered,
            unanswered,
            "a response is missing, was refused, or is blank; or the task stood there twice",
        ),
        ("annotated prompts", annotated, out - held, "a text contains the turn markup of this format; in no file"),
    ]
    if held:
        steps.append(("annotated prompts", annotated - out + held, held, f"{HELD}; in no file"))
    if answered > annotated:
        steps.insert(1, ("answered prompts", answered, answered - annotated, "a response could not be rated"))
    for attribute in ATTRIBUTES:
        all_, left = (len(t) - t[attribute].null_count for t in (annotations, kept_ratings))
        steps.append((f"ratings of {attribute}", all_, all_ - left, f"not among the {rules.keep} that agree most"))
    wide = f"kept helpfulness ratings of a response differ by more than {rules.max_spread}"
    steps.append(("tasks", annotated - out, annotated - out - kept, wide))
    left = kept
    for reason in sorted(set(dropped["reason"].to_pylist())):
        gone = pc.sum(pc.equal(dropped["reason"], reason)).as_py()
        steps.append(("preference pairs", left, gone, reason))
        left -= gone
    return pa.Table.from_pylist([dict(zip(REMOVALS.names, step, strict=True)) for step in steps], schema=REMOVALS)


def _count(ids: pa.ChunkedArray) -> int:
    return len(pc.unique(ids))
