"""The two sides of a recipe's data, training and development, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.models.encoding import encode_each
from pipeline.reward_model.examples import Examples
from pipeline.reward_model.schema import TRAINING_PROMPTS
from pipeline.settings import Decontamination, Recipe
from pipeline.texts.decontamination import fingerprints
from pipeline.texts.words import prompt_texts

FOLDS = 5
"""Folds of prompts that choose the strength of a ridge regression."""


@dataclass(frozen=True)
class Side:
    """Data of one side, training or development: tables, their conversations as tokens (each once), and where each row's are."""

    rated: pa.Table
    preferred: pa.Table
    encoded: list[list[int]]
    rated_at: npt.NDArray[np.int64]  # (rated,)
    preferred_at: npt.NDArray[np.int64]  # (preferred, 2): chosen, rejected
    lost_oldest_turns: int
    shortened: int
    """How many conversations lost the middle of their texts, being too long with their last turn alone."""
    tokens_cut: int
    """How many tokens they lost in all."""
    refused: dict[str, int]
    """How many conversations the chat template refuses, by its reason; their rows are left out."""

    def examples(self, stage: Recipe) -> Examples:
        """What a stage of training takes."""
        if stage.pairs:
            strength = np.asarray(self.preferred["strength"], dtype=np.float64)[:, None]
            return Examples(self.encoded, self.preferred_at, strength, self.preferred_at)
        return Examples(
            self.encoded, self.rated_at[:, None], labels_of(self.rated, stage.attributes), self.preferred_at
        )

    def folds(self, stage: Recipe) -> npt.NDArray[np.int64]:
        """A fold for each unit of a stage, by a hash of its prompt."""
        prompts = (self.preferred if stage.pairs else self.rated)["prompt_id"].to_pylist()
        return (FOLDS * uniforms(prompts, "helpsteer/folds")[:, 0]).astype(np.int64)


def enough(stage: Recipe, train: Side, development: Side) -> None:
    """Raise ValueError where a side has nothing that a stage learns from, or picks its checkpoint by."""
    for side, what in ((train, "to train on"), (development, "to pick the checkpoint")):
        if stage.pairs and not len(side.preferred):
            raise ValueError(
                f"there is no preference {what}; objective {stage.objective} needs preferences, or ratings that differ"
            )
        if not stage.pairs and not np.isfinite(labels_of(side.rated, stage.attributes)).any():
            raise ValueError(
                f"there is no rating of {', '.join(stage.attributes)} {what}; objective {stage.objective} needs ratings"
            )


def labels_of(table: pa.Table, attributes: Sequence[str]) -> npt.NDArray[np.float64]:
    """Targets of rated responses: shape (rows, attributes), NaN where not rated."""
    columns = [pc.fill_null(table[a], float("nan")) for a in attributes]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def side_of(tokenizer: Any, rated: pa.Table, preferred: pa.Table, split: str, max_tokens: int) -> Side:
    """A side's rows, with every conversation encoded once, wherever it stands; without those that the chat template refuses."""
    rated, preferred = (table.filter(pc.equal(table["split"], split)) for table in (rated, preferred))
    sides = [(rated, "response"), (preferred, "chosen"), (preferred, "rejected")]
    places: dict[tuple[int, ...], int] = {}
    texts = [
        row
        for table, column in sides
        for row in zip(table["messages"].to_pylist(), table[column].to_pylist(), strict=True)
    ]
    found, refused = encode_each(tokenizer, texts, max_tokens)
    where, lost, cut = np.full(len(texts), -1), 0, list[int]()
    for n, encoded in found.items():
        key = tuple(encoded.ids)
        if key not in places:
            lost += bool(encoded.dropped)
            cut += [encoded.cut] if encoded.cut else []
        where[n] = places.setdefault(key, len(places))
    rated_at, pairs_at = where[: len(rated)], where[len(rated) :].reshape(2, -1).T
    whole, both = rated_at >= 0, (pairs_at >= 0).all(axis=1)
    return Side(
        rated.filter(pa.array(whole)),
        preferred.filter(pa.array(both)),
        [list(key) for key in places],
        rated_at[whole],
        pairs_at[both],
        lost,
        len(cut),
        sum(cut),
        {reason: len(rows) for reason, rows in refused.items()},
    )


def seen_prompts(*sides: Side) -> pa.Table:
    """Every prompt of some sides, once, as its hashes alone (schema FINGERPRINTS): whether a benchmark has one of them can be found out."""
    texts = [prompt_texts(table["messages"]) for side in sides for table in (side.rated, side.preferred)]
    return fingerprints(pc.unique(pa.concat_arrays(texts)), Decontamination().ngram)


def prompts_of(side: Side) -> pa.Table:
    """The prompts of a side, each once, in the schema TRAINING_PROMPTS."""
    prompts = pd.unique(
        pd.Series([*side.rated["prompt_id"].to_pylist(), *side.preferred["prompt_id"].to_pylist()], dtype=str)
    )
    return pa.table({"prompt_id": sorted(prompts)}, schema=TRAINING_PROMPTS)
