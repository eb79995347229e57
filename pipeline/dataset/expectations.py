"""What must hold of the data set before it is published."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule
from pipeline.settings import ATTRIBUTES

DATASET = (
    *(
        Rule(f"{a}_in_range", f"{a.capitalize()} goes from 0 to 4.", "ExpectColumnValuesToBeBetween",
             {"column": a, "min_value": 0, "max_value": 4})
        for a in ATTRIBUTES
    ),
    Rule("response_once", "Every response stands once, over all deliveries.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("two_rows_a_prompt", "Every prompt has two rows, over all deliveries.", "ExpectColumnValuesToBeInSet",
         {"column": "rows", "value_set": [2]}, view="prompts"),
    Rule("one_split", "No prompt is in both train and validation.", "ExpectColumnValuesToBeInSet",
         {"column": "splits", "value_set": [1]}, view="prompts"),
    Rule("split_named", "Every row is in train or validation.", "ExpectColumnValuesToBeInSet",
         {"column": "split", "value_set": ["train", "validation"]}),
    Rule("both_splits", "There are prompts in train and in validation.", "ExpectColumnValuesToBeBetween",
         {"column": "prompts", "min_value": 1}, view="splits"),
    Rule("text", "Every response has text.", "ExpectColumnValueLengthsToBeBetween", {"column": "response", "min_value": 1}),
    Rule("labelled", "Every row has a helpfulness label.", "ExpectColumnValuesToNotBeNull", {"column": "helpfulness"}),
    Rule("by_people", "Ratings come from people.", "ExpectColumnValuesToBeInSet", {"column": "simulated", "value_set": [False]}, gating=False),
)  # fmt: skip


def dataset_views(table: pa.Table) -> dict[str, pa.Table]:
    """Views `prompts` (rows and splits of each) and `splits` (prompts of each)."""
    prompts = table.group_by("prompt_id").aggregate([([], "count_all"), ("split", "count_distinct")])
    counts = [len(pc.unique(table["prompt_id"].filter(pc.equal(table["split"], s)))) for s in ("train", "validation")]
    return {"prompts": prompts.rename_columns(["prompt_id", "rows", "splits"]), "splits": pa.table({"prompts": counts})}
