"""What must hold of the data set before it is published."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.deliveries import Collection
from pipeline.dataset.preference import STRONGEST
from pipeline.forms.helpsteer import whole
from pipeline.rules import Rule
from pipeline.vocabulary import ATTRIBUTES

DATASET = (
    *(
        Rule(f"{a}_in_range", f"Every label of {a} lies between 0 and 4.", "ExpectColumnValuesToBeBetween",
             {"column": a, "min_value": 0, "max_value": 4})
        for a in ATTRIBUTES
    ),
    Rule("response_once", "Each response appears exactly once over all deliveries.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("two_rows_a_prompt", "Each prompt has exactly two rows over all deliveries.", "ExpectColumnValuesToBeInSet",
         {"column": "rows", "value_set": [2]}, view="prompts"),
    Rule("one_split", "No prompt is in both the train and the validation split.", "ExpectColumnValuesToBeInSet",
         {"column": "splits", "value_set": [1]}, view="prompts"),
    Rule("split_named", "Every row belongs to the train or the validation split.", "ExpectColumnValuesToBeInSet",
         {"column": "split", "value_set": ["train", "validation"]}),
    Rule("both_splits", "Both the train and the validation split have at least one prompt.", "ExpectColumnValuesToBeBetween",
         {"column": "prompts", "min_value": 1}, view="splits"),
    Rule("text", "Every response has text.", "ExpectColumnValueLengthsToBeBetween", {"column": "response", "min_value": 1}),
    Rule("labelled", "Every row has a label of helpfulness.", "ExpectColumnValuesToNotBeNull", {"column": "helpfulness"}),
    Rule("by_people", "People gave all ratings.", "ExpectColumnValuesToBeInSet", {"column": "rated_by", "value_set": ["people"]}, gating=False),
    Rule("disagreements_in_pairs", "The rows of the disagreements come in pairs (1 and 2, 3 and 4, ...) that share a prompt.",
         "ExpectColumnValuesToBeInSet", {"column": "same_prompt", "value_set": [True]}, view="disagreement_pairs"),
    Rule("disagreements_once", "Each prompt of the disagreements has exactly two rows.", "ExpectColumnValuesToBeInSet",
         {"column": "rows", "value_set": [2]}, view="disagreement_prompts"),
    Rule("disagreements_complete", "The lists of a response in the disagreements hold every rating that was given to it.",
         "ExpectColumnValuesToBeInSet", {"column": "complete", "value_set": [True]}, view="disagreements"),
    Rule("disagreements_in_range", "Every rating in the disagreements lies between 0 and 4.", "ExpectColumnValuesToBeBetween",
         {"column": "rating", "min_value": 0, "max_value": 4}, view="disagreement_ratings"),
    Rule("preference_in_range", "Every overall preference strength lies between -3 and 3.", "ExpectColumnValuesToBeBetween",
         {"column": "preference_strength", "min_value": -STRONGEST, "max_value": STRONGEST}, view="preferences"),
    Rule("annotators_preference_in_range", "Every preference strength of an annotator lies between -3 and 3.", "ExpectColumnValuesToBeBetween",
         {"column": "strength", "min_value": -STRONGEST, "max_value": STRONGEST}, view="preference_strengths"),
    Rule("preference_split", "Every preference with split `train` has a prompt of the train file, "
         "and every one with split `val` a prompt of the validation file.",
         "ExpectColumnValuesToBeInSet", {"column": "right_split", "value_set": [True]}, view="preferences"),
    Rule("preference_once", "No prompt has more than one preference.", "ExpectColumnValuesToBeUnique", {"column": "prompt"}, view="preferences"),
    Rule("some_preferences", "At least half of the prompts have a preference. If fewer do, too few annotators rated both responses to a prompt.",
         "ExpectColumnValuesToBeBetween", {"column": "preference_share", "min_value": 0.5}, gating=False, view="totals"),
)  # fmt: skip

PUSHED = (
    Rule("at_a_commit", "The hub answered with the hash of the commit.", "ExpectColumnValueLengthsToBeBetween", {"column": "commit", "min_value": 1}),
)  # fmt: skip


def dataset_views(table: pa.Table) -> dict[str, pa.Table]:
    """Views `prompts` (rows and splits of each) and `splits` (prompts of each). table: schema DATASET."""
    prompts = table.group_by("prompt_id").aggregate([([], "count_all"), ("split", "count_distinct")])
    counts = [len(pc.unique(table["prompt_id"].filter(pc.equal(table["split"], s)))) for s in ("train", "validation")]
    return {"prompts": prompts.rename_columns(["prompt_id", "rows", "splits"]), "splits": pa.table({"prompts": counts})}


def disagreement_views(rows: pa.Table, annotations: pa.Table) -> dict[str, pa.Table]:
    """Views of the disagreements: pairs of rows, prompts, rows and ratings.

    `disagreement_pairs`: do rows 1 and 2, 3 and 4, ... share a prompt; `disagreement_prompts`: rows of each; `disagreements`: is every
    rating of a row there; `disagreement_ratings`: every rating, -1 for one that is null.

    rows: what `disagreement_rows` gives; annotations: the ratings that it was given.
    """
    prompts = np.asarray(rows["prompt"], dtype=object)
    same = prompts[: len(prompts) // 2 * 2 : 2] == prompts[1::2]
    counted = annotations.group_by("response_id").aggregate([([], "count_all"), *((a, "count") for a in ATTRIBUTES)])
    counted = counted.take(whole(pc.index_in(rows["response_id"], counted["response_id"])))
    complete = np.ones(len(rows), dtype=bool)
    for attribute in ATTRIBUTES:
        complete &= np.asarray(
            pc.equal(pc.list_value_length(rows[attribute]), pc.fill_null(counted[f"{attribute}_count"], 0))
        )
    ratings = [pc.fill_null(whole(rows[a]).flatten(), -1) for a in ATTRIBUTES]
    by_prompt = rows.group_by("prompt_id").aggregate([([], "count_all")]).rename_columns(["prompt_id", "rows"])
    return {
        "disagreement_pairs": pa.table(
            {"same_prompt": pa.array([*same.tolist(), *[False] * (len(rows) % 2)], pa.bool_())}
        ),
        "disagreement_prompts": by_prompt.select(["rows"]),
        "disagreements": pa.table({"complete": pa.array(complete)}),
        "disagreement_ratings": pa.table({"rating": pa.chunked_array(ratings, pa.int64())}),
    }


def preference_views(rows: pa.Table, files: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Views of the preferences: rows, strengths and totals.

    `preferences`: prompt, overall strength, is the prompt in its split's file; `preference_strengths`: each annotator's; `totals`: the
    share of prompts that have a preference.

    rows: schema PREFERENCE; files: of which the rows of `train` and `validation` are read.
    """
    train, validation = (
        whole(pc.is_in(rows["prompt"], whole(pc.unique(files[split]["prompt"])))) for split in ("train", "validation")
    )
    split = whole(rows["split"])
    right = pc.or_(pc.and_(pc.equal(split, "train"), train), pc.and_(pc.equal(split, "val"), validation))
    every = [
        pc.struct_field(whole(rows[name]).flatten(), "strength")
        for name in ("three_most_similar_preferences", "all_preferences_unprocessed")
    ]
    prompts = (len(files["train"]) + len(files["validation"])) // 2
    return {
        "preferences": rows.select(["prompt", "preference_strength"]).append_column("right_split", right),
        "preference_strengths": pa.table({"strength": pa.chunked_array(every, pa.int64())}),
        "totals": pa.table({"preference_share": [len(rows) / max(prompts, 1)]}),
    }


def collection_views(made: Collection) -> dict[str, pa.Table]:
    """All views of the data set."""
    return {
        **dataset_views(made.rows),
        **disagreement_views(made.disagreements, made.usable),
        **preference_views(made.files["preference/preference"], made.files),
    }
