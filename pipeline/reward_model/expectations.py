"""What must hold of training data, and of a reward model, before they are published."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reward_model.decontamination import keys_of, prompt_texts
from pipeline.rules import Rule
from pipeline.settings import ATTRIBUTES

TRAINING_DATA = (
    *(Rule(f"{a}_in_range", f"{a.capitalize()} goes from 0 to 4.", "ExpectColumnValuesToBeBetween",
           {"column": a, "min_value": 0, "max_value": 4}) for a in ATTRIBUTES),
    Rule("response_once", "Every rated response stands once.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("split_named", "Every row and pair is in train or development.", "ExpectColumnValuesToBeInSet",
         {"column": "split", "value_set": ["train", "development"]}, view="prompts"),
    Rule("one_side", "No prompt is in both train and development, with its rows or its pairs.", "ExpectColumnValuesToBeUnique",
         {"column": "prompt_id"}, view="prompts"),
    Rule("enough", "There is something to train on and to pick the checkpoint by, of each kind that the objective learns from.",
         "ExpectColumnValuesToBeBetween", {"column": "rows", "min_value": 1}, view="needs"),
    Rule("unseen_validation", "No prompt of the data set's validation split is there, neither by its id nor by its words.",
         "ExpectColumnValuesToBeInSet", {"column": "validation_seen", "value_set": [0]}, view="totals"),
    Rule("decontaminated", "No prompt that was dropped for a benchmark is there.", "ExpectColumnValuesToBeInSet",
         {"column": "dropped_seen", "value_set": [0]}, view="totals"),
    Rule("preferred", "Every preference has a strength above 0.", "ExpectColumnValuesToBeBetween",
         {"column": "strength", "min_value": 0, "strict_min": True}, view="pairs"),
    Rule("preference_known", "No preference is without strength.", "ExpectColumnValuesToNotBeNull", {"column": "strength"}, view="pairs"),
    Rule("two_responses", "The chosen response is not the rejected one.", "ExpectColumnValuesToBeInSet",
         {"column": "different", "value_set": [True]}, view="pairs"),
    Rule("little_dropped", "Less than a tenth of the prompts overlaps with a benchmark: else look at dropped.parquet.",
         "ExpectColumnValuesToBeBetween", {"column": "dropped_share", "max_value": 0.1}, gating=False, view="totals"),
)  # fmt: skip

REWARD_MODEL = (
    Rule("evaluated", "The training curve has an evaluation before training and one after it.", "ExpectTableRowCountToBeBetween",
         {"min_value": 2}, view="curve"),
    Rule("loss_finite", "Every evaluation has a development loss: else training has diverged, and needs a lower learning rate.",
         "ExpectColumnValuesToNotBeNull", {"column": "development_loss"}, view="curve"),
    Rule("one_checkpoint", "One checkpoint is chosen.", "ExpectColumnValuesToBeInSet", {"column": "chosen", "value_set": [1]}, view="totals"),
    Rule("lowest_loss", "It has the lowest development loss of all evaluations.", "ExpectColumnValuesToBeBetween",
         {"column": "above_lowest", "min_value": 0, "max_value": 0}, view="totals"),
    Rule("same_model", "The published weights have the loss of the chosen checkpoint, to rounding.",
         "ExpectColumnValuesToBeBetween", {"column": "loss_ratio", "min_value": 0.99, "max_value": 1.01}, view="totals"),
    Rule("five_outputs", "The weights are safetensors, and the head has five outputs.", "ExpectColumnValuesToBeInSet",
         {"column": "outputs", "value_set": [len(ATTRIBUTES)]}, view="totals"),
    Rule("unseen_development", "No prompt that picks the checkpoint was trained on.", "ExpectColumnValuesToBeInSet",
         {"column": "development_trained_on", "value_set": [0]}, view="totals"),
    Rule("unseen_validation", "No prompt of the validation split was trained on, or picks the checkpoint.", "ExpectColumnValuesToBeInSet",
         {"column": "validation_seen", "value_set": [0]}, view="totals"),
    *(Rule(f"{a}_finite", f"Predictions of {a} are within reach of the scale, 0 to 4.", "ExpectColumnValuesToBeBetween",
           {"column": a, "min_value": -20, "max_value": 24}, view="predictions") for a in ATTRIBUTES),
    *(Rule(f"{a}_predicted", f"Every development response has a prediction of {a}.", "ExpectColumnValuesToNotBeNull", {"column": a},
           view="predictions") for a in ATTRIBUTES),
    Rule("better_than_the_mean", "Its development loss is lower than that of predicting the training mean.", "ExpectColumnValuesToBeBetween",
         {"column": "loss_over_baseline", "max_value": 1.0}, gating=False, view="totals"),
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
    curve: pa.Table, predictions: pa.Table, trained_on: pa.Table, data: pa.Table, outputs: int, baseline: float
) -> dict[str, pa.Table]:
    """Views `curve`, `predictions` (in both NaN counts as missing) and `totals`, a row.

    curve, predictions, trained_on: the model's tables (schemas CURVE, PREDICTIONS, TRAINING_PROMPTS); data: the data set (split,
    prompt_id); outputs: of the head; baseline: development loss of predicting the training mean.
    """
    rows, seen = curve.to_pandas(), set(trained_on["prompt_id"].to_pylist())
    development = set(predictions["prompt_id"].to_pylist())
    validation = set(data.filter(pc.equal(data["split"], "validation"))["prompt_id"].to_pylist())
    chosen = rows.loc[rows["chosen"], "development_loss"]
    loss = float(chosen.iloc[0]) if len(chosen) else float("nan")
    errors = [np.asarray(predictions[a]) - np.asarray(predictions[f"{a}_label"], dtype=float) for a in ATTRIBUTES]
    totals = {
        "chosen": int(rows["chosen"].sum()),
        "above_lowest": loss - float(rows["development_loss"].min()),
        "loss_ratio": float(np.nanmean(np.square(errors))) / loss,
        "outputs": outputs,
        "development_trained_on": len(development & seen),
        "validation_seen": len(validation & (development | seen)),
        "loss_over_baseline": loss / baseline,
    }
    return {
        "curve": _without_nan(curve.select(["step", "development_loss"])),
        "predictions": _without_nan(predictions.select(list(ATTRIBUTES))),
        "totals": pa.table({name: [value] for name, value in totals.items()}),
    }


def _without_nan(table: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(table.to_pandas(), preserve_index=False)
