"""Items and scores for tests: small tables of any form of benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.benchmarks import pairs
from pipeline.evaluation.history import provenance
from pipeline.evaluation.leaderboard import Evaluated
from pipeline.evaluation.schema import LEADERBOARD, SCORES
from pipeline.evaluation.summary import figures
from pipeline.store import DATA, Store, write_table
from tests.helpers import items_of


def pairs_of(
    count: int, subset: str = "s", chosen: str = "a longer one", other: str = "short", benchmark: str = "b"
) -> pa.Table:
    """Pairs of the same texts."""
    return items_of(*((subset, str(n), (chosen, other), 1) for n in range(count)), benchmark=benchmark)


def scores_of(items: pa.Table, goodness: Sequence[float] | np.ndarray) -> pa.Table:
    """Scores of all responses of items, in order."""
    rows = [
        {key: item[key] for key in ("benchmark", "subset", "item_id")}
        | {"response": n, "good": good, "characters": len(text)}
        for item in items.to_pylist()
        for n, (text, good) in enumerate(zip(item["responses"], item["good"], strict=True))
    ]
    scored = [row | {"goodness": float(value)} for row, value in zip(rows, goodness, strict=True)]
    return pa.Table.from_pylist(scored, schema=SCORES)


def won(*wins: int) -> list[float]:
    """Goodness of pairs: 1 where the good one wins, 0 a tie, -1 a loss."""
    return [value for win in wins for value in (float(win), 0.0)]


def evaluated(model: str, items: pa.Table, form: Any = pairs, seed: int = 0, **more: Any) -> Evaluated:
    """A model that scores at random, and its figures."""
    names = items["benchmark"].unique().to_pylist()
    forms = form if isinstance(form, dict) else dict.fromkeys(names, form)
    responses = sum(map(len, items["responses"].to_pylist()))
    scores = scores_of(items, np.random.default_rng(seed).random(responses))
    found = figures(items, scores, forms, seed=1)
    facts = provenance(
        items,
        found["outcomes.parquet"],
        forms,
        model,
        f"{model}-version",
        {"helpfulness": 0.7, "verbosity": -0.3},
        seed,
    )
    return Evaluated(model, found["summary.parquet"], facts, length_bias=found["length_bias.parquet"], **more)


def publish_leaderboard(store: Store, rated_by: str) -> None:
    """A leaderboard of one model on one benchmark, `b`, in a store."""
    row = {"model": "m", "origin": "ours", "benchmark": "b", "level": "overall", "name": "b", "measure": "accuracy"}
    row |= {"units": 1, "accuracy": 50.0, "low": 40.0, "high": 60.0, "rated_by": rated_by}
    staged = store.staging("leaderboard")
    write_table(pa.Table.from_pylist([row], schema=LEADERBOARD), staged / DATA)
    store.publish("leaderboard", None, staged, rows=1)
