"""Columns of the stage's tables. What those hold that are published under an asset's key: `pipeline.columns`."""

from collections import Counter
from collections.abc import Collection

import pyarrow as pa

from pipeline.forms.rows import LABELS, RATING
from pipeline.settings import RATERS
from pipeline.vocabulary import MESSAGES, RatedBy

TASKS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("response_1_id", pa.string()),
        ("response_1", pa.string()),
        ("response_2_id", pa.string()),
        ("response_2", pa.string()),
    ]
)
"""A task as annotators see it: a prompt and its two responses, in order. No generator: they rate blind."""

WANTED = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("ratings", pa.int8()),
        ("seen_by", pa.list_(pa.string())),
        ("spread", pa.int8()),
    ]
)
"""Ratings that a desk is asked for."""

MODELS = "models"
"""Desk of the ratings that language models gave."""

QUESTIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("annotator_id", pa.string()),
        ("messages", MESSAGES),
        ("response", pa.string()),
    ]
)
"""What a language model is asked to rate, a row a rating."""

MODEL_RATINGS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("annotator_id", pa.string()),
        *RATING,
        ("answer", pa.string()),
        ("detail", pa.string()),  # why there is no rating
    ]
)

AGREED = LABELS.append(pa.field("rated_by", pa.string()))

AGREEMENT = pa.schema(
    [
        ("attribute", pa.string()),
        ("stage", pa.string()),
        *(
            pa.field(f"{figure}{part}", pa.float64())
            for figure in ("kappa", "alpha_interval", "alpha_ordinal")
            for part in (
                "",
                "_low",
                "_high",
                "_null",
            )
        ),
        ("ratings", pa.int64()),
        ("responses", pa.int64()),
        ("published", pa.float64()),
        ("rated_by", pa.string()),
    ]
)

ANNOTATOR_AGREEMENT = pa.schema(
    [
        ("annotator_id", pa.string()),
        ("attribute", pa.string()),
        ("responses", pa.int64()),  # that others rated too
        ("kappa", pa.float64()),
        ("bias", pa.float64()),
        ("rmse", pa.float64()),
        ("rated_by", pa.string()),
    ]
)

NO_PEOPLE: tuple[RatedBy, ...] = ("simulated annotators", "language models")


def said_of_all(found: Collection[str]) -> RatedBy:
    """What is said of ratings together, of those who gave some: people only where nobody else did."""
    return next((by for by in NO_PEOPLE if by in found), "people")


def rated_by(annotations: pa.Table, elsewhere: RatedBy | None = None) -> dict[RatedBy, float]:
    """Who gave the ratings, and the share of each, 0 to 1: simulated annotators where a row says so, else who rates at the row's desk.

    elsewhere: who rated where the row's desk is none of this project's, as in a file that it didn't write. Raises `ValueError` for such a
    row where that is None.
    """
    counts: Counter[RatedBy] = Counter()
    for row in annotations.group_by(["desk", "simulated"]).aggregate([([], "count_all")]).to_pylist():
        by: RatedBy | None = "simulated annotators" if row["simulated"] else RATERS.get(row["desk"], elsewhere)
        if by is None:
            raise ValueError(
                f"it is not known who gave the ratings of desk {row['desk']!r}; the desks here are {', '.join(RATERS)}"
            )
        counts[by] += row["count_all"]
    return {by: n / counts.total() for by, n in sorted(counts.items())}


def with_raters(labels: pa.Table, annotations: pa.Table) -> pa.Table:
    """Labels with the column `rated_by`: who gave the annotations that they were made of."""
    by = said_of_all(rated_by(annotations))
    return labels.append_column("rated_by", pa.array([by] * len(labels), pa.string()))
