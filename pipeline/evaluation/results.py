"""All that a recipe's scores come to: accuracy with its doubt, length bias, contamination, calibration, the run before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks import loading
from pipeline.benchmarks.loading import Loaded
from pipeline.evaluation import history, summary
from pipeline.evaluation.doubt.calibration import calibration
from pipeline.evaluation.doubt.contamination import contaminated
from pipeline.settings import Profile
from pipeline.store import Store
from pipeline.vocabulary import ATTRIBUTES

SCORED_AS = ("template", "max_tokens", "precision")
"""What the provenance says of how conversations were scored, as far as the scorer tells."""


@dataclass(frozen=True)
class Results:
    """What is published of a recipe's scores, in tables by their files' names, and what must be known of them.

    items, rejected: of all benchmarks, schemas ITEMS and REJECTED; ties: pairs that were left out as ties; compared: schema HISTORY;
    provenance: see `history.provenance`.
    """

    items: pa.Table
    rejected: pa.Table
    ties: int
    tables: Mapping[str, pa.Table]
    compared: pa.Table
    provenance: Mapping[str, Any]


def load_all(store: Store, profile: Profile) -> list[Loaded]:
    """The benchmarks of a profile, in its order; the collected one is of the data set that is published now."""
    data = store.read("helpsteer_dataset", columns=loading.COLLECTED)
    return [loading.load(name, benchmark, data) for name, benchmark in profile.benchmarks.items()]


def results_of(
    store: Store,
    profile: Profile,
    recipe: str,
    loaded: Sequence[Loaded],
    scores: pa.Table,
    facts: Mapping[str, Any],
    weights: Mapping[str, float],
) -> Results:
    """The results of a recipe's scores. scores: schema SCORES; facts: what the scoring worker said; weights: of the model's outputs."""
    items = pa.concat_tables(b.items for b in loaded)
    forms = {name: loading.form(benchmark) for name, benchmark in profile.benchmarks.items()}
    figures = summary.figures(items, scores, forms, profile.seed)
    found = contaminated(items, _trained_on(store, recipe), profile.decontamination)
    rated = calibration(
        store.read("reward_model", recipe, "development_predictions.parquet"),
        _means(store.read("training_data", recipe)),
        profile.seed,
    )
    scored_as = {name: value for name, value in facts["scored_as"].items() if name in SCORED_AS}
    made = history.provenance(
        items, figures["outcomes.parquet"], forms, recipe, facts["model_version"], weights, profile.seed, **scored_as
    )
    now = history.Run("", figures["outcomes.parquet"], made["benchmarks"])
    before = history.last_published(store, recipe)
    rejected = pa.concat_tables(b.rejected for b in loaded)
    return Results(
        items,
        rejected,
        sum(b.ties for b in loaded),
        {
            **figures,
            "rejected.parquet": rejected,
            "contaminated.parquet": found,
            "contamination.parquet": summary.contamination(items, scores, forms, found, profile.seed),
            "calibration.parquet": rated[0],
            "calibration_bins.parquet": rated[1],
        },
        history.compare(before, now, forms, profile.seed, profile.evaluation.most_lost),
        made,
    )


def _trained_on(store: Store, recipe: str) -> list[pa.ChunkedArray]:
    """Conversations that a recipe was trained on, or its checkpoint picked by, as columns of messages."""
    return [
        store.read("training_data", recipe, columns=["messages"])["messages"],
        store.read("training_data", recipe, "preferred.parquet", columns=["messages"])["messages"],
    ]


def _means(rated: pa.Table) -> dict[str, float]:
    """Mean rating of each attribute in the training split (schema RATED); NaN where nothing is rated."""
    train = rated.filter(pc.equal(rated["split"], "train"))
    return {a: np.nan if (mean := pc.mean(train[a]).as_py()) is None else mean for a in ATTRIBUTES}
