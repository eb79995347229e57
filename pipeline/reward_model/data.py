"""What a recipe trains on: ratings and preferences, and the prompts among them that pick the checkpoint."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.reward_model.schema import PREFERRED, RATED
from pipeline.settings import ATTRIBUTES, Recipe

COLLECTED = [
    "split",
    "prompt_id",
    "response_id",
    "position",
    "messages",
    "response",
    *ATTRIBUTES,
    *(f"{a}_mean" for a in ATTRIBUTES),
]
"""Columns of the data set that are read."""


def collected(data: pa.Table, recipe: Recipe) -> tuple[pa.Table, pa.Table]:
    """Ratings and preferences of the data set's train split (columns COLLECTED), in the schemas RATED and PREFERRED.

    Ratings are labels, or the means of the kept ratings, as the recipe says; preferences come from the means.
    """
    train = data.filter(pc.equal(data["split"], "train"))
    rated = with_development(train, recipe.development_share)
    means = {a: rated[f"{a}_mean"].cast(pa.float64()) for a in ATTRIBUTES}
    soft = rated_table(rated, means)
    labels = soft if recipe.labels == "mean" else rated_table(rated, {a: rated[a] for a in ATTRIBUTES})
    return labels, preferences_of(soft)


def rated_table(table: pa.Table, labels: Mapping[Any, pa.ChunkedArray]) -> pa.Table:
    """A table in the schema RATED from one that has its columns, with labels of their own."""
    return pa.table({n: labels.get(n, table[n] if n in table.column_names else None) for n in RATED.names}).cast(RATED)


def with_development(table: pa.Table, share: float) -> pa.Table:
    """The table with its column `split`: train, or for a share of the prompts development, by a hash of the prompt: stable as data is added.

    Raises ValueError where either is empty.
    """
    prompts = table["prompt_id"].to_pylist()
    held = uniforms(prompts, "helpsteer/development")[:, 0] < share if prompts else np.zeros(0, dtype=bool)
    if held.all() or not held.any():
        raise ValueError(
            f"{int((~held).sum())} rows to train on and {int(held.sum())} to pick the checkpoint: both are needed. "
            "Collect more prompts, or change the recipe's development_share"
        )
    split = pa.array(np.where(held, "development", "train"))
    if "split" in table.column_names:
        return table.set_column(table.column_names.index("split"), "split", split)
    return table.append_column("split", split)


def preferences_of(rated: pa.Table) -> pa.Table:
    """Every two responses of a prompt of different helpfulness as a preference, in the schema PREFERRED: strength is the difference.

    Ties, and responses whose helpfulness nobody rated, give none.
    """
    rows = rated.select(["split", "prompt_id", "helpfulness", "response"]).to_pandas()
    rows["at"] = np.arange(len(rows))
    both = rows.merge(rows, on=["split", "prompt_id"], suffixes=("", "_other"))
    both = both[both["helpfulness"] > both["helpfulness_other"]].sort_values(["at", "at_other"])
    columns = {
        "split": both["split"].astype(str),
        "prompt_id": both["prompt_id"].astype(str),
        "messages": rated["messages"].take(pa.array(both["at"], pa.int64())),
        "chosen": both["response"].astype(str),
        "rejected": both["response_other"].astype(str),
        "strength": both["helpfulness"] - both["helpfulness_other"],
    }
    return pa.table(columns, schema=PREFERRED)


def ties_of(rated: pa.Table) -> int:
    """Pairs of responses to the same prompt with equal helpfulness."""
    counts = rated.select(["prompt_id", "helpfulness"]).to_pandas().groupby(["prompt_id", "helpfulness"]).size()
    return int((counts * (counts - 1) // 2).sum())
