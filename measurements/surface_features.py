"""What each figure of the surface adds to words, by cross-validation on the prompts that train.

`python -m measurements.surface_features FILE`. FILE has rows of nvidia/HelpSteer2's train or validation file, two a prompt. Folds are those of
`measurements/reward_models.py`; the one that it holds out is not looked at. Each of the other four is held out in turn, and the strength
of the ridge regression is chosen within the three that are left.

Prints a table and, as its last line, one JSON object: for words alone, the surface alone, both, both without each figure, and both at other
scales, the mean over the four folds of Pearson by attribute and of the share of pairs in order by helpfulness.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table

from measurements.reward_models import bootstrap, measure, plain, rated
from pipeline.forms.helpsteer import messages_of
from pipeline.reward_model.baseline import SURFACE, SURFACE_SCALE, Text, features, predictions
from pipeline.vocabulary import ATTRIBUTES

SCALES = (0.05, 0.2, 0.4)

Floats = npt.NDArray[np.float64]


def weightings() -> dict[str, tuple[float, Floats]]:
    """What words, and each figure of the surface, are multiplied by, by name."""
    both = np.ones(len(SURFACE))
    return {
        "words": (1.0, 0 * both),
        "surface": (0.0, both),
        "both": (1.0, both),
        **{f"without {name}": (1.0, both - (np.array(SURFACE) == name)) for name in SURFACE},
        **{f"both, scale {scale}": (1.0, both * scale / SURFACE_SCALE) for scale in SCALES},
    }


def means(frame: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """The measures of each weighting, as means over folds. frame: rows of the folds, as `rated` gives them."""
    texts = np.empty(len(frame), dtype=object)
    texts[:] = [Text(messages_of(p), r) for p, r in zip(frame["prompt"], frame["response"], strict=True)]
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in weightings()}
    for fold in frame["fold"].unique():
        held = (frame["fold"] == fold).to_numpy()
        train, new = frame[~held], frame[held]
        parts = features(texts[~held], texts[held])
        for name, (words, surface) in weightings().items():
            weights = np.concatenate([np.full(parts[0].shape[1] - len(SURFACE), words), surface])
            known, others = (part.multiply(weights).tocsr() for part in parts)
            labels, folds = train[list(ATTRIBUTES)].to_numpy(float), train["fold"].to_numpy()
            guesses = pd.DataFrame(predictions(known, labels, folds, others), columns=list(ATTRIBUTES))
            measures = measure(guesses, new, bootstrap(len(new) // 2)[:1])
            found[name].append({of: values[0] for of, values in measures.items()})
    return {name: dict(zip(rows[0], plain(pd.DataFrame(rows).mean()), strict=True)) for name, rows in found.items()}


def main() -> None:
    """Measure, print, JSON last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="file of rated responses in HelpSteer2's form, two for each prompt")
    frame = rated(parser.parse_args().file)
    found = means(frame[frame["fold"] != 0])
    table = Table("", *ATTRIBUTES, "pairs", title="Mean over four folds")
    for name, measures in found.items():
        table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in measures.values()))
    Console(width=max(Console().width, 132)).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
