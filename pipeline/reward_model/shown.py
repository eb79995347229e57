"""What people are shown of training data and reward models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots
from pipeline.reward_model import summary, training_data
from pipeline.reward_model.sources import Source
from pipeline.reward_model.training_data import Prepared
from pipeline.shown import Markdown, Rows, Shown, counts, labelled, whole
from pipeline.vocabulary import ATTRIBUTES

CUT = ("lost_oldest_turns", "shortened")
FIGURES = {
    "lost_oldest_turns": "conversations without their oldest turns",
    "shortened": "conversations that lost the middle of their texts",
    "tokens_cut": "tokens that these lost",
    "train_responses": "responses trained on",
    "train_ratings": "ratings trained on",
    "train_preferences": "preferences trained on",
    "chosen_step": "step of the chosen checkpoint",
    "development_loss": "development loss of the chosen checkpoint",
    "written_loss": "development loss of the weights that training ended with",
    "published_loss": "development loss of the published weights, read again",
    "baseline_loss": "development loss of a model that knows nothing of the response",
    "pair_accuracy": "share of development pairs in order",
    "text_pair_accuracy": "share of development pairs in order by words and surface alone",
    "steps": "training steps",
    "tokens": "tokens trained on, without padding",
    "flops": "floating-point operations",
    "train_seconds": "seconds of the training",
    "tokens_per_second": "tokens per second",
    "share_of_peak": "share of peak speed",
    "layers": "layers that the probe reads",
    "poolings": "states that the probe reads",
    "strength": "strength of the ridge penalty",
    "choices_tried": "choices of layers and states tried",
    "peak_memory_gib": "peak memory, GiB",
}
"""Labels of the training worker's figures."""
REASONS = 20
"""Reasons for which rows were set aside that are told one by one, the most frequent first."""


def data(made: Prepared, source: Source, aside: pa.Table, benchmarks: Sequence[str], rated_by: str) -> dict[str, Shown]:
    """Of a recipe's training data: how much there is, what was dropped and set aside, samples. aside: schema QUARANTINE."""
    return {
        **made.counts,
        "source of the data": source.name,
        "licence": source.licence,
        "rated by": rated_by,
        "what was read": whole(read_from(source)),
        "rows and prompts by split": training_data.counts_of(made),
        "prompts dropped by benchmark": Rows(training_data.dropped_by_benchmark(made.dropped, list(benchmarks)), 60),
        "records set aside by reason": counts(aside["reason"], "reason"),
        "samples of ratings": made.rated,
        "samples of preferences": made.preferred,
        "samples of dropped prompts": made.dropped,
    }


def read_from(source: Source) -> pa.Table:
    """What a source's files hold and what is used of it, as people may ask: columns what, rows. It is told before prompts are dropped."""
    aside, rated = source.quarantine, source.rated
    told = aside.counts.most_common(REASONS)
    others = aside.counts.total() - sum(n for _, n in told)
    unrated = [pc.is_null(rated[a]).to_numpy() for a in ATTRIBUTES]
    lines = {
        "rows read": source.read,
        **{f"of the form {form}": n for form, n in source.forms.items()},
        **{f"with the column {mapped}": n for mapped, n in source.mapped.items()},
        **{f"set aside: {reason}": n for reason, n in told},
        "set aside for other reasons": others,
        **aside.left_out,
        **source.counts,
        **{f"ratings of {a} rounded": n for a, n in source.rounded.items()},
        "rated responses": len(rated),
        "rated responses without any rating": int(np.logical_and.reduce(unrated).sum()),
        "pairs": len(source.preferred),
    }
    kept = {what: n for what, n in lines.items() if n}
    return pa.table({"what": pa.array(kept, pa.string()), "rows": pa.array(kept.values(), pa.int64())})


def model(
    tables: Mapping[str, pa.Table], figures: Mapping[str, Any], texts: pa.Table, rated_by: str, tracked: object
) -> dict[str, Shown]:
    """Of a reward model: figures, curves, and the responses with the highest and the lowest predictions.

    tables: the model's, by name; figures: the worker's; texts: response_id, messages and response of its training data; tracked: the folder of
    TensorBoard's files.
    """
    speed, baselines = figures.get("speed", {}), (figures["baseline_mse"], figures["text_pearson"])
    best = summary.best_and_worst(tables["development_predictions"], texts)
    return {
        **_labelled(figures),
        "rated by": rated_by,
        "TensorBoard": str(tracked or "No curves are tracked: the profile names no folder."),
        **_curves(tables["training_curve"], tables["training_steps"], speed),
        "figures on development responses": summary.attribute_figures(tables["training_curve"], *baselines),
        "responses with the highest and the lowest prediction": best,
    }


def _labelled(figures: Mapping[str, Any]) -> dict[str, Shown]:
    """The worker's figures under their labels; conversations that were cut, of all of them."""
    read = figures["train_responses"] + figures["development_responses"]
    given = {name: value for name, value in figures.items() if not isinstance(value, list | dict)}
    return labelled(given | {name: f"{figures[name]} of {read}" for name in CUT}, FIGURES)


def _curves(curve: pa.Table, steps: pa.Table, speed: Mapping[str, list[float]]) -> dict[str, Markdown]:
    """Plots over the steps of each stage; none for a probe, which has no steps."""
    plotted: dict[str, Markdown] = {}
    for stage in dict.fromkeys(steps["stage"].to_pylist()):
        evaluated, made = (t.filter(pc.equal(t["stage"], stage)).to_pandas() for t in (curve, steps))
        measured = [c for c in evaluated if c.endswith("_pearson") or c == "pair_accuracy"]
        figures = {
            name.removesuffix("_pearson").replace("_", " "): evaluated[name]
            for name in measured
            if evaluated[name].notna().any()
        }
        losses = {"development": evaluated["development_loss"], "training": evaluated["train_loss"]}
        at, rates = evaluated["step"].tolist(), {"learning rate": made["learning_rate"]}
        plotted |= {
            f"{stage}: loss": plots.line_chart(at, losses, f"Loss ({stage})", "step", "loss"),
            f"{stage}: development": plots.line_chart(
                at, figures, f"Development figures ({stage})", "step", "Pearson correlation or accuracy"
            ),
            f"{stage}: learning rate": plots.line_chart(
                made["step"].tolist(), rates, f"Learning rate ({stage})", "step", "learning rate"
            ),
        }
    if speed:
        at = list(range(1, len(speed["step"]) + 1))
        for name in ("tokens_per_second", "share_of_peak"):
            words = FIGURES[name]
            plotted[f"speed: {words}"] = plots.line_chart(at, {words: speed[name]}, words.capitalize(), "step", words)
    return plotted
