"""A trained model's folder: tables of predictions and a card beside the weights."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from pipeline.models.checkpoints import identity
from pipeline.models.templates import DATE, writes_date
from pipeline.reward_model.made import Made
from pipeline.reward_model.schema import CURVE, PREDICTIONS, PREFERENCE_PREDICTIONS, STEPS
from pipeline.reward_model.sides import Side, prompts_of, seen_prompts
from pipeline.reward_model.spec import TrainingSpec
from pipeline.store import write_table
from pipeline.texts.decontamination import SEEN_PROMPTS
from pipeline.vocabulary import ATTRIBUTES, OUTPUTS
from pipeline.worker import Figures, Log, Progress


def publish(spec: TrainingSpec, train: Side, development: Side, made: Made, out: Path, log: Log) -> Figures:
    """Tables and card beside the model, with predictions of the model as it was written, in the precision of training; the run's figures.

    Of weights that were fitted again on the development rows, the predictions are those of the fit before.
    """
    from pipeline.models.loading import load_scorer
    from pipeline.models.scoring import score
    from pipeline.reward_model.baseline import text_outputs
    from pipeline.reward_model.figures import figures_of

    published, recipe = load_scorer(out), spec.recipe
    lengths = list(map(len, development.encoded))
    progress = Progress(log, "development conversations predicted", len(lengths), lengths=lengths)
    predictions = score(published, development.encoded, progress.update, precision=recipe.precision)
    last = recipe.stages[-1]
    published_loss = figures_of(last, predictions, development.examples(last))["loss"]
    chosen = [row for row in made.curve if row["chosen"]][-1]
    written_loss = chosen["development_loss"]
    if made.refitted:
        predictions, written_loss = made.refitted.predictions, made.refitted.loss
    write_table(pa.Table.from_pylist(made.curve, schema=CURVE), UPath(out / "training_curve.parquet"))
    write_table(
        pa.Table.from_pylist([{n: row[n] for n in STEPS.names} for row in made.steps], schema=STEPS),
        UPath(out / "training_steps.parquet"),
    )
    rated, preferred = _predictions(development, recipe.outputs, predictions)
    write_table(rated, UPath(out / "development_predictions.parquet"))
    write_table(preferred, UPath(out / "development_preferences.parquet"))
    write_table(prompts_of(train), UPath(out / "training_prompts.parquet"))
    write_table(seen_prompts(train, development), UPath(out / SEEN_PROMPTS))
    text = figures_of(last, text_outputs(last, train, development), development.examples(last))
    (out / "README.md").write_text(_card(spec, train, development, chosen, made, text, out))
    return {
        "lost_oldest_turns": train.lost_oldest_turns + development.lost_oldest_turns,
        "shortened": train.shortened + development.shortened,
        "tokens_cut": train.tokens_cut + development.tokens_cut,
        "refused": sum(train.refused.values()) + sum(development.refused.values()),
        "train_responses": len(train.encoded),
        "train_ratings": len(train.rated),
        "train_preferences": len(train.preferred),
        "development_responses": len(development.encoded),
        "chosen_step": chosen["step"],
        "development_loss": chosen["development_loss"],
        "written_loss": written_loss,
        "published_loss": published_loss,
        "baseline_loss": made.baseline["loss"],
        "baseline_mse": [made.baseline.get(f"{a}_mse") for a in ATTRIBUTES],
        "pair_accuracy": _known(chosen["pair_accuracy"]),
        "pearson": [_known(chosen[f"{a}_pearson"]) for a in ATTRIBUTES],
        "text_pair_accuracy": _known(text["pair_accuracy"]),
        "text_pearson": [_known(text.get(f"{a}_pearson")) for a in ATTRIBUTES],
        **made.figures,
    }


def _known(value: float | None) -> float | None:
    """A figure; None where there is nothing to take it of."""
    return None if value is None or math.isnan(value) else value


def _predictions(side: Side, outputs: Sequence[str], predictions: npt.NDArray[np.float64]) -> tuple[pa.Table, pa.Table]:
    """Tables of schemas PREDICTIONS and PREFERENCE_PREDICTIONS."""

    def columns(rows: npt.NDArray[np.int64], prefix: str = "") -> dict[str, Any]:
        found = {f"{prefix}{name}": predictions[rows, n] for n, name in enumerate(outputs)}
        empty = pa.nulls(len(rows), pa.float64())
        return {f"{prefix}{name}": found.get(f"{prefix}{name}", empty) for name in OUTPUTS}

    rated = {name: side.rated[name] for name in ("prompt_id", "response_id", "position")} | columns(side.rated_at)
    rated |= {f"{a}_label": side.rated[a] for a in ATTRIBUTES}
    preferred = {name: side.preferred[name] for name in ("prompt_id", "strength")}
    for n, prefix in enumerate(("chosen_", "rejected_")):
        preferred |= columns(side.preferred_at[:, n], prefix)
    return pa.table(rated, schema=PREDICTIONS), pa.table(preferred, schema=PREFERENCE_PREDICTIONS)


def _card(
    spec: TrainingSpec,
    train: Side,
    development: Side,
    chosen: dict[str, Any],
    made: Made,
    text: dict[str, float],
    out: Path,
) -> str:
    import jinja2

    template = jinja2.Template((Path(__file__).parent / "card.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    card: str = template.render(
        name=spec.recipe_name,
        rated_by=spec.rated_by,
        ratings_note=spec.ratings_note,
        licence=spec.checkpoint.licence,
        base=" ".join(identity(spec.checkpoint)),
        ratings=len(train.rated),
        preferences=len(train.preferred),
        prompts=len(prompts_of(train)),
        data_version=spec.data_version,
        recipe=spec.recipe,
        figures=made.figures,
        step=chosen["step"],
        loss=chosen["development_loss"],
        pair_accuracy=chosen["pair_accuracy"],
        text_pair_accuracy=text["pair_accuracy"],
        baseline=made.baseline["loss"],
        development=len(development.encoded),
        date=DATE if writes_date((out / "chat_template.jinja").read_text()) else "",
        attributes=[
            {
                "attribute": a,
                "pearson": chosen[f"{a}_pearson"],
                "text": text[f"{a}_pearson"],
                "mse": chosen[f"{a}_mse"],
            }
            for a in spec.recipe.outputs
            if a in ATTRIBUTES
        ],
    )
    return card
