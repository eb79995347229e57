"""What must hold of a reward model before it is published."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule
from pipeline.settings import ATTRIBUTES

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
