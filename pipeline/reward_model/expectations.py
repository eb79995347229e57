"""What must hold of training data, and of a reward model, before they are published."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule
from pipeline.texts.words import keys_of, prompt_texts
from pipeline.vocabulary import ATTRIBUTES

NONE = {"value_set": [0]}

TRAINING_DATA = (
    *(Rule(f"{a}_in_range", f"Every target of {a} lies between 0 and 4.", "ExpectColumnValuesToBeBetween",
           {"column": a, "min_value": 0, "max_value": 4}) for a in ATTRIBUTES),
    Rule("response_once", "Each rated response appears exactly once.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("split_named", "Every rating and preference is for training or for development.", "ExpectColumnValuesToBeInSet",
         {"column": "split", "value_set": ["train", "development"]}, view="prompts"),
    Rule("one_side", "No prompt is both trained on and held out for development, in ratings and preferences together.",
         "ExpectColumnValuesToBeUnique", {"column": "prompt_id"}, view="prompts"),
    Rule("enough", "Both train and development have at least one row of each kind, ratings or preferences, that the objective learns from.",
         "ExpectColumnValuesToBeBetween", {"column": "rows", "min_value": 1}, view="needs"),
    Rule("unseen_validation", "No prompt of the data set's validation split is in the training data, neither by its id nor by its words.",
         "ExpectColumnValuesToBeInSet", {"column": "validation_seen", "value_set": [0]}, view="totals"),
    Rule("decontaminated", "No prompt that was dropped for a benchmark is in the training data.", "ExpectColumnValuesToBeInSet",
         {"column": "dropped_seen", "value_set": [0]}, view="totals"),
    Rule("preferred", "Every strength of a preference is above 0.", "ExpectColumnValuesToBeBetween",
         {"column": "strength", "min_value": 0, "strict_min": True}, view="pairs"),
    Rule("preference_known", "Every preference has a strength.", "ExpectColumnValuesToNotBeNull", {"column": "strength"}, view="pairs"),
    Rule("two_responses", "The chosen response of every preference differs from the rejected one.", "ExpectColumnValuesToBeInSet",
         {"column": "different", "value_set": [True]}, view="pairs"),
    Rule("little_dropped", "At most one prompt in ten overlaps with a benchmark. If more do, read `dropped.parquet`.",
         "ExpectColumnValuesToBeBetween", {"column": "dropped_share", "max_value": 0.1}, gating=False, view="totals"),
)  # fmt: skip

REWARD_MODEL = (
    Rule("evaluated", "Every stage of training has an evaluation before it and one after it; a probe has one evaluation.",
         "ExpectColumnValuesToBeInSet", {"column": "evaluations_missing", **NONE}, view="totals"),
    Rule("loss_finite", "Every evaluation has a finite development loss. If one has none, the training diverged: lower the learning rate.",
         "ExpectColumnValuesToNotBeNull", {"column": "development_loss"}, view="curve"),
    Rule("one_checkpoint", "Every stage of training chooses exactly one checkpoint.",
         "ExpectColumnValuesToBeInSet", {"column": "stages_without_one", **NONE},
         view="totals"),
    Rule("lowest_loss", "The chosen checkpoint has the lowest development loss of all evaluations of its stage.", "ExpectColumnValuesToBeBetween",
         {"column": "above_lowest", "min_value": 0, "max_value": 0}, view="totals"),
    Rule("same_model", "The published weights have the development loss of those that training ended with, to rounding in bfloat16.",
         "ExpectColumnValuesToBeBetween", {"column": "loss_ratio", "min_value": 0.97, "max_value": 1.03}, view="totals"),
    Rule("outputs", "The weights are safetensors, and their head has as many outputs as the recipe.", "ExpectColumnValuesToBeInSet",
         {"column": "outputs_off", **NONE}, view="totals"),
    Rule("unseen_development", "No development prompt was trained on.", "ExpectColumnValuesToBeInSet",
         {"column": "development_trained_on", **NONE}, view="totals"),
    Rule("unseen_validation", "No prompt of the data set's validation split was trained on or picked the checkpoint.", "ExpectColumnValuesToBeInSet",
         {"column": "validation_seen", **NONE}, view="totals"),
    Rule("within_reach", "Every predicted rating lies between -20 and 24; the scale goes from 0 to 4.", "ExpectColumnValuesToBeInSet",
         {"column": "out_of_reach", **NONE}, view="totals"),
    Rule("predicted", "Every development response has a finite prediction of every output.", "ExpectColumnValuesToBeInSet",
         {"column": "predictions_missing", **NONE}, view="totals"),
    Rule("better_than_nothing", "The development loss is at most that of predicting the training mean, or of equal rewards.",
         "ExpectColumnValuesToBeBetween", {"column": "loss_over_baseline", "max_value": 1.0}, gating=False, view="totals"),
)  # fmt: skip

EXPORTED_MODEL = (
    Rule("one_output", "The model has one output.", "ExpectColumnValuesToBeInSet", {"column": "outputs", "value_set": [1]}, view="totals"),
    Rule("same_scores", "The scores equal the weighted sum of the original model's outputs, to 1e-4.", "ExpectColumnValuesToBeBetween",
         {"column": "largest_difference", "max_value": 1e-4}, view="totals"),
    Rule("compared", "At least one conversation was scored by both models.", "ExpectColumnValuesToBeBetween",
         {"column": "compared", "min_value": 1}, view="totals"),
)  # fmt: skip


def training_views(
    rated: pa.Table, preferred: pa.Table, dropped: pa.Table, data: pa.Table, ratings: bool, pairs: bool
) -> dict[str, pa.Table]:
    """Views `prompts` (each with each split that it is in), `needs` (rows of what the objective needs), `pairs` and `totals`, a row.

    rated, preferred, dropped: schemas RATED, PREFERRED, DROPPED; data: the data set (split, prompt_id, messages); ratings, pairs: whether
    the recipe's objective learns from them.
    """
    kinds = [("ratings", rated)] * ratings + [("pairs", preferred)] * pairs
    needs = [
        {"what": what, "split": split, "rows": len(table.filter(pc.equal(table["split"], split)))}
        for what, table in kinds
        for split in ("train", "development")
    ]
    columns = ["prompt_id", "split", "messages"]
    prompts = pa.concat_tables([rated.select(columns), preferred.select(columns)])
    once = prompts.select(columns[:2]).group_by(columns[:2]).aggregate([])
    held_out = data.filter(pc.equal(data["split"], "validation"))
    same_id = pc.is_in(prompts["prompt_id"], pc.unique(held_out["prompt_id"]))
    same_words = pc.is_in(keys_of(prompt_texts(prompts["messages"])), keys_of(prompt_texts(held_out["messages"])))
    out = pc.unique(dropped["prompt_id"])
    kept = len(pc.unique(prompts["prompt_id"]))
    return {
        "prompts": once,
        "needs": pa.Table.from_pylist(needs),
        "pairs": pa.table(
            {"strength": preferred["strength"], "different": pc.not_equal(preferred["chosen"], preferred["rejected"])}
        ),
        "totals": pa.table(
            {
                "validation_seen": [pc.sum(pc.or_(same_id, same_words), min_count=0).as_py()],
                "dropped_seen": [pc.sum(pc.is_in(prompts["prompt_id"], out), min_count=0).as_py()],
                "dropped_share": [len(out) / max(len(out) + kept, 1)],
            }
        ),
    }


def model_views(
    tables: Mapping[str, pa.Table], data: pa.Table, outputs: Sequence[str], head: int, figures: Mapping[str, Any]
) -> dict[str, pa.Table]:
    """Views `curve` (NaN counts as missing) and `totals`, a row.

    tables: the model's, by name: training_curve, development_predictions, development_preferences, training_prompts; data: the data set
    (split, prompt_id); outputs: the recipe's; head: outputs of the weights; figures: the worker's.
    """
    curve, seen = tables["training_curve"].to_pandas(), set(tables["training_prompts"]["prompt_id"].to_pylist())
    predictions = [tables["development_predictions"], tables["development_preferences"]]
    development = {prompt for table in predictions for prompt in table["prompt_id"].to_pylist()}
    validation = set(data.filter(pc.equal(data["split"], "validation"))["prompt_id"].to_pylist())
    stages = [stage for _, stage in curve.groupby("stage", sort=False)]
    chosen = [stage.loc[stage["chosen"], "development_loss"] for stage in stages]
    values = {n: _values(predictions, n) for n in outputs}
    reach = [v for n, v in values.items() if n in ATTRIBUTES]
    totals = {
        "evaluations_missing": sum(
            figures["steps"] > 0 and len(s) < 2 and s["stage"].iloc[0] != "extrapolated" for s in stages
        )
        + (not stages),
        "stages_without_one": sum(len(c) != 1 for c in chosen),
        "above_lowest": max(
            (float(c.iloc[0] - s["development_loss"].min()) for c, s in zip(chosen, stages, strict=True) if len(c)),
            default=float("nan"),
        ),
        "loss_ratio": figures["published_loss"] / figures["written_loss"],
        "outputs_off": abs(head - len(outputs)),
        "development_trained_on": len(development & seen),
        "validation_seen": len(validation & (development | seen)),
        "out_of_reach": sum(int(((v < -20) | (v > 24)).sum()) for v in reach),
        "predictions_missing": sum(int((~np.isfinite(v)).sum()) for v in values.values()),
        "loss_over_baseline": figures["development_loss"] / figures["baseline_loss"],
    }
    return {
        "curve": pa.Table.from_pandas(curve[["step", "development_loss"]], preserve_index=False),
        "totals": pa.table({name: [value] for name, value in totals.items()}),
    }


def _values(tables: Sequence[pa.Table], output: str) -> Any:
    columns = [
        t[name] for t in tables for name in (output, f"chosen_{output}", f"rejected_{output}") if name in t.column_names
    ]
    return np.concatenate([np.asarray(c, dtype=np.float64) for c in columns])
