"""What must hold of a reward model before it is published."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule
from pipeline.settings import ATTRIBUTES, Recipe

NONE = {"value_set": [0]}

TRAINING_DATA = (
    Rule("scale", "Targets are 0 to 4.", "ExpectColumnValuesToBeInSet", {"column": "off_scale", **NONE}, view="totals"),
    Rule("sides_apart", "No prompt both is trained on and picks the checkpoint.", "ExpectColumnValuesToBeInSet",
         {"column": "on_both_sides", **NONE}, view="totals"),
    Rule("unseen_validation", "No prompt of the validation split is among them.", "ExpectColumnValuesToBeInSet",
         {"column": "validation_seen", **NONE}, view="totals"),
    Rule("enough", "Both sides have what the recipe learns from: ratings, preferences, or both.", "ExpectColumnValuesToBeInSet",
         {"column": "missing", **NONE}, view="totals"),
    Rule("real_preferences", "A preference has a strength above 0, and two different responses.", "ExpectColumnValuesToBeInSet",
         {"column": "no_preferences", **NONE}, view="totals"),
)  # fmt: skip

REWARD_MODEL = (
    Rule("evaluated", "Every stage of training has an evaluation before it and one after it; a probe has one.", "ExpectColumnValuesToBeInSet",
         {"column": "evaluations_missing", **NONE}, view="totals"),
    Rule("loss_finite", "Every evaluation has a development loss: else training has diverged, and needs a lower learning rate.",
         "ExpectColumnValuesToNotBeNull", {"column": "development_loss"}, view="curve"),
    Rule("one_checkpoint", "Every stage chooses one checkpoint.", "ExpectColumnValuesToBeInSet", {"column": "stages_without_one", **NONE},
         view="totals"),
    Rule("lowest_loss", "It has the lowest development loss of all evaluations of its stage.", "ExpectColumnValuesToBeBetween",
         {"column": "above_lowest", "min_value": 0, "max_value": 0}, view="totals"),
    Rule("same_model", "The published weights have the loss of the chosen checkpoint, to rounding.",
         "ExpectColumnValuesToBeBetween", {"column": "loss_ratio", "min_value": 0.99, "max_value": 1.01}, view="totals"),
    Rule("outputs", "The weights are safetensors, and the head has the recipe's outputs.", "ExpectColumnValuesToBeInSet",
         {"column": "outputs_off", **NONE}, view="totals"),
    Rule("unseen_development", "No prompt that picks the checkpoint was trained on.", "ExpectColumnValuesToBeInSet",
         {"column": "development_trained_on", **NONE}, view="totals"),
    Rule("unseen_validation", "No prompt of the validation split was trained on, or picks the checkpoint.", "ExpectColumnValuesToBeInSet",
         {"column": "validation_seen", **NONE}, view="totals"),
    Rule("within_reach", "Predicted ratings are within reach of the scale, 0 to 4.", "ExpectColumnValuesToBeInSet",
         {"column": "out_of_reach", **NONE}, view="totals"),
    Rule("predicted", "Every development response has every output.", "ExpectColumnValuesToBeInSet",
         {"column": "predictions_missing", **NONE}, view="totals"),
    Rule("better_than_nothing", "Its development loss is lower than that of the training mean, or of equal rewards.",
         "ExpectColumnValuesToBeBetween", {"column": "loss_over_baseline", "max_value": 1.0}, gating=False, view="totals"),
)  # fmt: skip


EXPORTED_MODEL = (
    Rule("one_output", "The model has one output.", "ExpectColumnValuesToBeInSet", {"column": "outputs", "value_set": [1]}, view="totals"),
    Rule("same_scores", "Its scores are weights times outputs, to 1e-4.", "ExpectColumnValuesToBeBetween",
         {"column": "largest_difference", "max_value": 1e-4}, view="totals"),
    Rule("compared", "At least one conversation was compared.", "ExpectColumnValuesToBeBetween",
         {"column": "compared", "min_value": 1}, view="totals"),
)  # fmt: skip


def data_views(rated: pa.Table, preferred: pa.Table, data: pa.Table, recipe: Recipe) -> dict[str, pa.Table]:
    """View `totals`, a row, of what a recipe trains on (schemas RATED, PREFERRED); data: the data set (split, prompt_id)."""
    labels = np.stack([np.asarray(rated[a], dtype=np.float64) for a in ATTRIBUTES])
    sides = {
        split: {p for t in (rated, preferred) for p in t.filter(pc.equal(t["split"], split))["prompt_id"].to_pylist()}
        for split in ("train", "development")
    }
    validation = set(data.filter(pc.equal(data["split"], "validation"))["prompt_id"].to_pylist())
    needed = [t for t, wanted in ((rated, recipe.ratings), (preferred, recipe.pairs)) if wanted]
    strength = np.asarray(preferred["strength"], dtype=np.float64)
    same = np.asarray(pc.equal(preferred["chosen"], preferred["rejected"]).combine_chunks().fill_null(True), dtype=bool)
    totals = {
        "off_scale": int(((labels < 0) | (labels > 4)).sum()),
        "on_both_sides": len(sides["train"] & sides["development"]),
        "validation_seen": len(validation & (sides["train"] | sides["development"])),
        "missing": sum(not pc.any(pc.equal(t["split"], split)).as_py() for t in needed for split in sides),
        "no_preferences": int((~(strength > 0) | same).sum()),
    }
    return {"totals": pa.table({name: [value] for name, value in totals.items()})}


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
        "loss_ratio": figures["published_loss"] / float(chosen[-1].iloc[0])
        if stages and len(chosen[-1])
        else float("nan"),
        "outputs_off": abs(head - len(outputs)),
        "development_trained_on": len(development & seen),
        "validation_seen": len(validation & (development | seen)),
        "out_of_reach": sum(int(((v < -20) | (v > 24)).sum()) for v in reach),
        "predictions_missing": sum(int((~np.isfinite(v)).sum()) for v in values.values()),
        "loss_over_baseline": figures["published_loss"] / figures["baseline_loss"],
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
