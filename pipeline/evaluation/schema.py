"""Columns of the stage's tables. What those hold that are published under an asset's key: `pipeline.columns`."""

import pyarrow as pa

from pipeline.vocabulary import OUTPUTS

WEIGHTS = pa.schema(
    [
        ("attribute", pa.string()),
        ("weight", pa.float64()),
        ("published_70b", pa.float64()),
        ("published_340b", pa.float64()),
        ("tuned_on", pa.string()),
        ("penalty", pa.float64()),
        ("pairs", pa.int64()),
        ("rated_by", pa.string()),
    ]
)

WEIGHT_ACCURACY = pa.schema(
    [
        ("weights", pa.string()),  # fitted | published_70b | published_340b | helpfulness; or the one output
        ("pairs", pa.int64()),
        ("prompts", pa.int64()),
        ("accuracy", pa.float64()),  # of development preferences, a prompt counting once
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
"""How well sets of weights order preferences that they were not fitted on; `fitted` are cross-validated."""

SCORES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("item_id", pa.string()),
        ("response", pa.int32()),
        ("good", pa.bool_()),
        ("characters", pa.int64()),
        *(pa.field(name, pa.float64()) for name in OUTPUTS),
        ("goodness", pa.float64()),
    ]
)
"""A row a response of an item, in the order of the items and of their responses."""

SUMMARY = pa.schema(
    [
        ("benchmark", pa.string()),
        ("level", pa.string()),  # subset | section | one of TOTALS
        ("name", pa.string()),
        ("measure", pa.string()),
        ("units", pa.int64()),
        ("independent", pa.int64()),  # clusters that the units are of: what an interval draws
        ("accuracy", pa.float64()),
        ("low", pa.float64()),  # 95 % bootstrap interval
        ("high", pa.float64()),
        ("longest_accuracy", pa.float64()),  # of preferring the longer response
        ("random_accuracy", pa.float64()),  # expected of scores drawn at random
    ]
)

LENGTH_BIAS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("figure", pa.string()),  # accuracy where the good one is longer | shorter | equal; pearson | spearman
        ("comparisons", pa.int64()),  # of a good response of an item with another one
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)

CALIBRATION = pa.schema(
    [
        ("attribute", pa.string()),
        ("responses", pa.int64()),
        *(
            pa.field(f"{name}{end}", pa.float64())
            for name in ("slope", "intercept", "mse")
            for end in ("", "_low", "_high")
        ),
        ("mse_of_mean", pa.float64()),  # of predicting the training mean
        ("expected_error", pa.float64()),  # mean difference of ratings and predictions over bins
    ]
)
"""Predicted ratings beside people's."""

CALIBRATION_BINS = pa.schema(
    [
        ("attribute", pa.string()),
        ("bin", pa.int64()),  # from 1, by prediction
        ("low", pa.float64()),  # its least and greatest prediction
        ("high", pa.float64()),
        ("responses", pa.int64()),
        ("predicted", pa.float64()),  # mean
        ("rated", pa.float64()),  # mean
    ]
)

CONTAMINATED = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("item_id", pa.string()),
        ("overlap", pa.float64()),  # share of its prompt's words that one training prompt matches
    ]
)
"""Items of a benchmark with a prompt that is too close to one that was trained on."""

CONTAMINATION = pa.schema(
    [
        ("benchmark", pa.string()),
        ("items", pa.int64()),
        ("contaminated", pa.int64()),
        ("accuracy", pa.float64()),
        ("without", pa.float64()),  # accuracy on the other items; null where there are none
        ("without_low", pa.float64()),
        ("without_high", pa.float64()),
    ]
)

HISTORY = pa.schema(
    [
        ("benchmark", pa.string()),
        ("units", pa.int64()),
        ("paired", pa.bool_()),  # the same units with the same texts on both sides
        ("before", pa.float64()),
        ("after", pa.float64()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p_value", pa.float64()),  # two-sided; null where not paired
        ("regression", pa.bool_()),
        ("before_version", pa.string()),
    ]
)
"""Overall accuracy beside the run before."""

LEADERBOARD = pa.schema(
    [
        ("model", pa.string()),
        ("origin", pa.string()),
        ("source", pa.string()),
        ("benchmark", pa.string()),
        ("level", pa.string()),
        ("name", pa.string()),
        ("measure", pa.string()),
        ("units", pa.int64()),
        ("independent", pa.int64()),
        ("accuracy", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("longest", pa.float64()),
        ("random", pa.float64()),
        ("rated_by", pa.string()),
        ("tuned_on", pa.string()),
        ("train_seconds", pa.float64()),
        ("train_tokens", pa.int64()),
        ("score_seconds", pa.float64()),
        ("score_tokens", pa.int64()),
        ("device", pa.string()),
        ("model_version", pa.string()),
    ]
)
"""A row a model, benchmark, and overall figure or section. Every benchmark has sections of its own."""
