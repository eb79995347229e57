"""How predicted ratings stand to the given ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.doubt.bootstrap import Floats, drawn_units, generator_of, interval, number, ratio
from pipeline.evaluation.schema import CALIBRATION, CALIBRATION_BINS
from pipeline.vocabulary import ATTRIBUTES

BINS = 10
ROUNDING = 1e-9
"""Share of their mean square below which predictions are taken not to vary."""


def calibration(predictions: pa.Table, train_means: Mapping[str, float], seed: int) -> tuple[pa.Table, pa.Table]:
    """How predicted ratings stand to the given ones: schemas CALIBRATION, a row an attribute, and CALIBRATION_BINS.

    predictions: schema PREDICTIONS; an attribute that isn't predicted has no row. train_means: mean rating of each attribute
    in the training data, NaN where nothing is rated.
    slope, intercept: of the least-squares line of ratings on predictions; 1 and 0 are calibrated, a slope below 1 is a model that says too
    much. expected_error: mean absolute difference of a bin's ratings and predictions, bins of equal counts by prediction, weighted by
    their size (Guo et al. 2017, On Calibration of Modern Neural Networks, for a mean instead of a probability). It isn't 0 for a calibrated
    model either, as bins have few responses. mse_of_mean: of predicting the training mean. Prompts are drawn anew.
    """
    rows: list[dict[str, Any]] = []
    binned: list[dict[str, Any]] = []
    for attribute in ATTRIBUTES:
        predicted, label = (
            np.asarray(predictions[name], dtype=np.float64) for name in (attribute, f"{attribute}_label")
        )
        known = np.isfinite(predicted) & np.isfinite(label)
        if not known.any():
            continue
        p, y = predicted[known], label[known]
        encoded = pc.dictionary_encode(predictions["prompt_id"].combine_chunks())
        prompt = np.unique(np.asarray(encoded.indices)[known], return_inverse=True)[1]
        powers = np.stack([np.ones(len(p)), p, y, p * p, p * y, (p - y) ** 2])
        sums = np.stack([np.bincount(prompt, weights=power) for power in powers], axis=1)
        strata = np.zeros(len(sums), dtype=np.int64)
        drawn = np.concatenate(
            [w @ sums for w in drawn_units(strata, generator_of(seed, attribute, "calibration"), len(sums))]
        )
        line, lines = _line(sums.sum(axis=0)[None]), _line(drawn)
        bins = _bins(p, y)
        row = {
            "attribute": attribute,
            "responses": len(p),
            "expected_error": sum(b["responses"] * abs(b["rated"] - b["predicted"]) for b in bins) / len(p),
            "mse_of_mean": number(((train_means[attribute] - y) ** 2).mean()),
        }
        for name, value, draws in zip(Line._fields, line, lines, strict=True):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), (number(value[0]), *interval(draws)), strict=True))
        rows.append(row)
        binned += [{"attribute": attribute, "bin": n, **b} for n, b in enumerate(bins, start=1)]
    return pa.Table.from_pylist(rows, schema=CALIBRATION), pa.Table.from_pylist(binned, schema=CALIBRATION_BINS)


class Line(NamedTuple):
    """Slope, intercept and mean squared error of each row of sums."""

    slope: Floats
    intercept: Floats
    mse: Floats


def _line(sums: Floats) -> Line:
    """Lines from rows of sums of 1, p, y, pp, py and squared error."""
    n, p, y, pp, py, error = sums.T
    varied = n * pp - p * p
    slope = ratio(n * py - p * y, np.where(varied > ROUNDING * n * pp, varied, 0))
    return Line(slope, (y - slope * p) / n, error / n)


def _bins(predicted: Floats, label: Floats) -> list[dict[str, Any]]:
    """Bins of equal counts by prediction, as near as equal predictions allow: their edges, size and means."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, BINS + 1)))
    place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for n in np.unique(place):
        mine = place == n
        found.append(
            {
                "low": float(predicted[mine].min()),
                "high": float(predicted[mine].max()),
                "responses": int(mine.sum()),
                "predicted": float(predicted[mine].mean()),
                "rated": float(label[mine].mean()),
            }
        )
    return found
