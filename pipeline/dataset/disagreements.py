"""The file `disagreements`: every rating of every annotated response, before any is removed."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.build import in_order, places
from pipeline.forms.helpsteer import DISAGREEMENTS, flatten, whole
from pipeline.vocabulary import ATTRIBUTES


def disagreement_rows(annotations: pa.Table, pairs: pa.Table) -> pa.Table:
    """All ratings of each response: prompt_id, response_id and the columns of DISAGREEMENTS, sorted by prompt_id and position.

    annotations: schema ANNOTATIONS; pairs: their responses, schema RESPONSE_PAIRS; prompts without annotations are left out. Ratings stand
    in the order of the annotators, by round, then annotator_id; one that is missing is left out of its list. Raises ValueError for an
    annotation without its response.
    """
    rows = in_order(pairs.filter(pc.is_in(pairs["prompt_id"], whole(pc.unique(annotations["prompt_id"])))))
    annotations = annotations.sort_by([(c, "ascending") for c in ("round", "annotator_id")])
    row = np.asarray(places(annotations["response_id"], rows["response_id"], "annotated responses"), dtype=np.int64)
    columns = {name: rows[name] for name in ("prompt_id", "response_id")}
    columns |= {"prompt": flatten(rows["messages"]), "response": rows["response"]}
    for attribute in ATTRIBUTES:
        rated = np.asarray(pc.is_valid(whole(annotations[attribute])))
        order = np.argsort(row[rated], kind="stable")
        values = whole(annotations[attribute].cast(pa.int64()).filter(pa.array(rated))).take(pa.array(order))
        columns[attribute] = lists(values, row[rated], len(rows))
    return pa.table(columns).cast(_ROWS)


_ROWS = pa.schema([("prompt_id", pa.string()), ("response_id", pa.string()), *DISAGREEMENTS])


def lists(values: pa.Array, row: np.ndarray[tuple[int], np.dtype[np.int64]], rows: int) -> pa.ListArray:
    """Values that are sorted by row as one list a row; `row`: the row of each, in any order, 0 to rows - 1."""
    ends = np.bincount(row, minlength=rows).cumsum()
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), values)
