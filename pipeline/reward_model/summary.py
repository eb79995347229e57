"""What a person looks for first in a reward model, as tables."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.vocabulary import ATTRIBUTES, OUTPUTS


def attribute_figures(curve: pa.Table, baseline: Sequence[float | None], text: Sequence[float | None]) -> pa.Table:
    """For each predicted attribute the published checkpoint's Pearson correlation and error on the development prompts.

    curve: schema CURVE; baseline: mean squared error of predicting the training mean, text: correlation of words and surface alone, both in
    the order of ATTRIBUTES. A model of preferences has no row.
    """
    best = [row for row in curve.to_pylist() if row["chosen"]][-1]
    rows = [
        {
            "attribute": a,
            "pearson": best[f"{a}_pearson"],
            "pearson of words and surface": of_text,
            "mse": best[f"{a}_mse"],
            "mse of the mean": mean,
        }
        for a, mean, of_text in zip(ATTRIBUTES, baseline, text, strict=True)
        if best[f"{a}_mse"] is not None
    ]
    figures = ("pearson", "pearson of words and surface", "mse", "mse of the mean")
    columns = {name: np.round(np.array([row[name] for row in rows], dtype=float), 3) for name in figures}
    return pa.table({"attribute": pa.array([row["attribute"] for row in rows], pa.string()), **columns})


def best_and_worst(predictions: pa.Table, data: pa.Table, each: int = 3) -> pa.Table:
    """The development responses with the highest and the lowest predicted helpfulness (or reward), with their labels, the highest first.

    predictions: schema PREDICTIONS; data: columns response_id, messages, response of what was trained on.
    """
    output = next((n for n in OUTPUTS if predictions[n].null_count < len(predictions)), OUTPUTS[0])
    ranked = predictions.sort_by([(output, "descending"), ("response_id", "ascending")])
    each = min(each, len(ranked) // 2)
    shown = pa.concat_tables([ranked.slice(0, each), ranked.slice(len(ranked) - each)])
    places = pc.index_in(shown["response_id"], value_set=data["response_id"].combine_chunks())
    texts = data.take(places)
    return pa.table(
        {
            f"predicted {output}": pc.round(shown[output], 2),
            "label": shown["helpfulness_label"],
            "conversation": texts["messages"],
            "response": texts["response"],
        }
    )
