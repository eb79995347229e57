"""The data set of this store as training data."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reward_model.sources.tables import RATED_ROWS, VALIDATION_ROWS, LabelKind, Source, preferences_of
from pipeline.settings import COLLECTED
from pipeline.vocabulary import ATTRIBUTES

COLUMNS = ["split", "prompt_id", "response_id", "position", "messages", "response", *ATTRIBUTES,
           *(f"{a}_mean" for a in ATTRIBUTES)]  # fmt: skip
"""Columns of our data set that training data are made of."""


def collected(data: pa.Table, labels: LabelKind, licence: str) -> Source:
    """Training data of this store's data set: its train split. data: schema DATASET (at least COLUMNS).

    labels: `rounded` takes the published labels, `mean` the means of the kept ratings. A preference is for the response with the higher
    mean helpfulness; its strength is the difference.
    """
    train = data.filter(pc.equal(data["split"], "train"))
    columns = {f.name: train[f.name].cast(f.type) for f in RATED_ROWS if f.name not in ATTRIBUTES}
    columns |= {a: train[a if labels == "rounded" else f"{a}_mean"].cast(pa.float64()) for a in ATTRIBUTES}
    held_out = data.filter(pc.equal(data["split"], "validation"))
    source = Source(COLLECTED, licence, pa.table(columns, schema=RATED_ROWS))
    source.counts[VALIDATION_ROWS] = len(held_out)
    means = train["helpfulness_mean"].cast(pa.float64())
    source.preferred = preferences_of(source.rated, means, source.counts)
    return source
