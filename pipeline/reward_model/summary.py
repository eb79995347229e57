"""What a person looks for first in a reward model, as tables."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import ATTRIBUTES


def attribute_figures(curve: pa.Table, mean_baseline: Sequence[float]) -> pa.Table:
    """For each attribute the chosen checkpoint's Pearson correlation and error on the development prompts, beside predicting the mean.

    curve: schema CURVE; mean_baseline: mean squared error of predicting the training mean, in the order of ATTRIBUTES.
    """
    best = curve.filter(curve["chosen"])
    figures = {f: [best[f"{a}_{f}"][0].as_py() for a in ATTRIBUTES] for f in ("pearson", "mse")}
    columns = {"pearson": figures["pearson"], "mse": figures["mse"], "mse of the mean": list(mean_baseline)}
    return pa.table({"attribute": list(ATTRIBUTES), **{name: np.round(v, 3) for name, v in columns.items()}})


def best_and_worst(predictions: pa.Table, data: pa.Table, each: int = 3) -> pa.Table:
    """The development responses with the highest and the lowest predicted helpfulness, with their labels, the highest first.

    predictions: schema PREDICTIONS; data: columns response_id, messages, response of the data set.
    """
    ranked = predictions.sort_by([("helpfulness", "descending"), ("response_id", "ascending")])
    each = min(each, len(ranked) // 2)
    shown = pa.concat_tables([ranked.slice(0, each), ranked.slice(len(ranked) - each)])
    places = pc.index_in(shown["response_id"], value_set=data["response_id"].combine_chunks())
    texts = data.take(places)
    return pa.table(
        {
            "predicted helpfulness": pc.round(shown["helpfulness"], 2),
            "label": shown["helpfulness_label"],
            "conversation": texts["messages"],
            "response": texts["response"],
        }
    )
