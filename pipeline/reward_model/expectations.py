"""What must hold of a reward model before it is published."""

import pyarrow as pa

from pipeline.rules import Rule
from pipeline.settings import ATTRIBUTES

REWARD_MODEL = (
    Rule("evaluated", "The training curve has an evaluation before training and one after it.", "ExpectTableRowCountToBeBetween",
         {"min_value": 2}, view="curve"),
    Rule("one_checkpoint", "One checkpoint is chosen.", "ExpectColumnValuesToBeInSet", {"column": "chosen", "value_set": [1]}, view="totals"),
    Rule("lowest_loss", "It has the lowest development loss of all evaluations.", "ExpectColumnValuesToBeBetween",
         {"column": "above_lowest", "min_value": 0, "max_value": 0}, view="totals"),
    Rule("loads", "The weights are safetensors, and the head has five outputs.", "ExpectColumnValuesToBeInSet",
         {"column": "outputs", "value_set": [len(ATTRIBUTES)]}, view="totals"),
    *(Rule(f"{a}_finite", f"Every development response has a finite prediction of {a}.", "ExpectColumnValuesToBeBetween",
           {"column": a, "min_value": -20, "max_value": 24}, view="predictions") for a in ATTRIBUTES),
    *(Rule(f"{a}_predicted", f"No prediction of {a} is missing.", "ExpectColumnValuesToNotBeNull", {"column": a}, view="predictions")
      for a in ATTRIBUTES),
    Rule("better_than_the_mean", "Its development loss is lower than that of predicting the training mean.", "ExpectColumnValuesToBeBetween",
         {"column": "loss_over_baseline", "max_value": 1.0}, gating=False, view="totals"),
)  # fmt: skip


def model_views(curve: pa.Table, predictions: pa.Table, outputs: int, baseline: float) -> dict[str, pa.Table]:
    """Views `curve`, `predictions` (NaN counts as missing) and `totals`."""
    rows = curve.to_pandas()
    chosen = rows.loc[rows["chosen"], "development_loss"]
    totals = {
        "chosen": [int(rows["chosen"].sum())],
        "above_lowest": [float(chosen.iloc[0] - rows["development_loss"].min()) if len(chosen) else None],
        "outputs": [outputs],
        "loss_over_baseline": [float(rows["development_loss"].min() / baseline)],
    }
    plain = predictions.select(list(ATTRIBUTES)).to_pandas()
    return {
        "curve": curve,
        "predictions": pa.Table.from_pandas(plain, preserve_index=False),
        "totals": pa.table(totals),
    }
