"""The file `preference`, derived from ratings: which of two responses an annotator rated as more helpful, and by how much.

HelpSteer2's own file was collected: annotators were asked for a preference and its reasons (HelpSteer2-Preference, arXiv 2410.01257). Here
nobody was asked, so strengths are differences of helpfulness ratings, and statements, elaborations and justifications are empty.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.consensus import MISSING, kept
from pipeline.dataset.disagreements import lists
from pipeline.forms.helpsteer import PREFERENCE, flatten, whole

STRONGEST, KEEP, MAX_SPREAD = 3, 3, 2
"""Largest strength; strengths kept a pair; their largest spread (HelpSteer2-Preference, section 2)."""

TOO_FEW, TOO_WIDE = "fewer than two annotators rated both responses", f"kept strengths differ by more than {MAX_SPREAD}"
"""Why a pair has no row."""


def preference_rows(table: pa.Table, annotations: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Preferences between the two responses of each prompt in the schema PREFERENCE, and pairs dropped: prompt_id, reason.

    table: schema DATASET, in order; annotations: all of its responses' ratings, schema ANNOTATIONS. A strength is -3 to 3, negative where
    response 1 is better. Of those of a pair the three that agree most are kept, as ratings are; the overall strength is their mean,
    rounded half away from zero; zeros stay. Pairs with fewer than two strengths, or with kept ones that differ by more than 2, are dropped.
    """
    first, second = (table.filter(pc.equal(table["position"], position)) for position in (1, 2))
    if not first["prompt_id"].equals(second["prompt_id"]):
        raise ValueError("every prompt needs exactly two responses, at positions 1 and 2")
    every = strengths(annotations, table)
    all_rows, said = _row(every["prompt_id"], first), np.asarray(every["strength"], dtype=np.int64)
    closest = _closest(all_rows, said)
    rows, values = all_rows[closest], said[closest]
    n, total = np.bincount(rows, minlength=len(first)), np.bincount(rows, values, minlength=len(first))
    low, high = np.full(len(first), STRONGEST), np.full(len(first), -STRONGEST)
    np.minimum.at(low, rows, values)
    np.maximum.at(high, rows, values)
    mean = total / np.maximum(n, 1)
    overall = np.sign(mean) * np.floor(np.abs(mean) + 0.5)
    good = (n >= 2) & (high - low <= MAX_SPREAD)
    empty = pa.array([""] * len(first))
    built = {
        "split": pc.if_else(pc.equal(first["split"], "validation"), "val", "train"),
        "prompt": flatten(first["messages"]),
        "response_1": first["response"],
        "response_2": second["response"],
        "preference_strength": pa.array(overall.astype(np.int64)),
        "preference_statement": empty,
        "preference_elaboration": empty,
        "three_most_similar_preferences": lists(
            _structs(values, ["statement", "elaboration", "strength"]), rows, len(first)
        ),
        "all_preferences_unprocessed": lists(
            _structs(said, ["strength", "justification"]),
            all_rows,
            len(first),
        ),
    }
    dropped = pa.table(
        {"prompt_id": first["prompt_id"], "reason": pa.array(np.where(n < 2, TOO_FEW, TOO_WIDE), pa.string())}
    )
    return pa.table(built, schema=PREFERENCE).filter(pa.array(good)), dropped.filter(pa.array(~good))


def strengths(annotations: pa.Table, table: pa.Table) -> pa.Table:
    """prompt_id and strength of each annotator who rated both responses, sorted by prompt_id, round, annotator_id.

    A strength is the helpfulness of response 2 minus that of response 1, clipped to -3 to 3.
    """
    place = pc.index_in(annotations["response_id"], table["response_id"])
    rated = annotations.append_column("place", place).select(
        ["prompt_id", "annotator_id", "round", "helpfulness", "place"]
    )
    rated = rated.filter(pc.and_(pc.is_valid(rated["place"]), pc.is_valid(rated["helpfulness"])))
    position = table["position"].take(whole(rated["place"]))
    first, second = (rated.filter(pc.equal(position, p)).drop_columns("place") for p in (1, 2))
    key = ["prompt_id", "annotator_id"]
    both = first.join(second, key, join_type="inner", right_suffix="_2").sort_by(
        [(c, "ascending") for c in ("prompt_id", "round", "annotator_id")]
    )
    difference = np.subtract(*(np.asarray(both[c], dtype=np.int64) for c in ("helpfulness_2", "helpfulness"))).clip(
        -STRONGEST, STRONGEST
    )
    return pa.table({"prompt_id": both["prompt_id"], "strength": pa.array(difference, pa.int8())})


def _row(prompts: pa.ChunkedArray, first: pa.Table) -> npt.NDArray[np.int64]:
    return np.asarray(whole(pc.index_in(prompts, first["prompt_id"])), dtype=np.int64)


def _closest(rows: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which strengths to keep: those of a pair that agree most. rows: the pair of each, in order."""
    begins = np.searchsorted(rows, rows)
    place = np.arange(len(rows)) - begins
    levels = np.full((int(rows.max(initial=-1)) + 1, int(place.max(initial=-1)) + 1, 1), MISSING, dtype=np.int8)
    levels[rows, place, 0] = values + STRONGEST  # from 0 up, as MISSING is below
    closest: npt.NDArray[np.bool_] = kept(levels, KEEP, "per_attribute")[rows, place, 0]
    return closest


def _structs(values: npt.NDArray[np.int64], names: list[str]) -> pa.StructArray:
    """Strengths with the texts that nobody wrote beside them."""
    strength, empty = pa.array(values), pa.array([""] * len(values), pa.string())
    return pa.StructArray.from_arrays([strength if name == "strength" else empty for name in names], names)
