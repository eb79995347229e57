"""Reward-model recipes beside plain baselines, on rated responses that neither has seen.

`python -m measurements.reward_models FILE [--profile FILE --recipe NAME ... --cv NAME ... --work FOLDER]`. FILE has rows of nvidia/HelpSteer2's
train or validation file, two a prompt. Prompts in the order of the SHA-256 of their text make five folds: the first is held out, the
others train. Baselines, and recipes named with `--cv`, have each fold held out in turn. What stands in the work folder is taken: a
model's folder is named by a digest of recipe, base, seed and rows, but not of the code; remove it where that has changed.

Prints tables and, as its last line, one JSON object. `models`: `pearson` by attribute (of a `reward` with helpfulness alone) and
`pair_accuracy` (of helpfulness; equal predictions lose, equal labels don't count) as [value, low, high] with a 95 % bootstrap interval over
prompts; `seconds` and `peak_mib` of a recipe's training. `differences`: of each recipe to the baseline that is best on the held-out prompts, in
the same draws. `folds`: [mean, standard deviation] over five folds.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from pipeline.forms import ratings
from pipeline.forms.helpsteer import messages_of
from pipeline.reward_model.baseline import Text, features, predictions
from pipeline.settings import Profile, digest, load_profile
from pipeline.vocabulary import ATTRIBUTES

Floats = npt.NDArray[np.float64]
Measures = dict[str, Floats]
"""By attribute, and `pair_accuracy`: the value, then that of each bootstrap draw."""
Cost = dict[str, float]  # empty for a baseline, and where a run was cut off between training and writing it down
FOLDS = 5
DRAWS, SEED = 2000, 20240612
STRENGTHS = 10.0 ** np.arange(-1, 1.1, 0.5)
"""Ridge strengths that cross-validation on the training prompts chooses from."""

RUN = """
import sys
from pathlib import Path
from pipeline.reward_model.__main__ import main
status = main(sys.argv[1:])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
raise SystemExit(status)
"""


def rated(path: Path) -> pd.DataFrame:
    """Rows of a file in the order of their prompts' hashes, a prompt's two together: texts, labels, `prompt_hash`, `fold`."""
    quarantine = ratings.Quarantine()
    frame = pa.concat_tables(ratings.read(path, "helpsteer", quarantine)).to_pandas()
    if quarantine.rows:
        raise SystemExit(f"{path}: {len(quarantine.rows)} rows can't be used; the first: {quarantine.rows[0]}")
    frame["prompt_hash"] = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in frame["prompt"]]
    others = frame["prompt_hash"].value_counts().loc[lambda count: count != 2]
    if len(others):
        raise SystemExit(f"{path}: {len(others)} prompts don't have two responses, but {sorted(set(others))}")
    frame = frame.sort_values("prompt_hash", kind="stable", ignore_index=True)
    frame["fold"] = np.arange(len(frame)) // 2 * FOLDS // (len(frame) // 2)
    return frame


def bootstrap(prompts: int) -> Floats:
    """How often each prompt counts: once in the first row, as drawn with replacement in the others. Shape (1 + DRAWS, prompts)."""
    drawn = np.random.default_rng(SEED).multinomial(prompts, np.full(prompts, 1 / prompts), DRAWS)
    return np.vstack([np.ones(prompts), drawn])


def pearson(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    """Correlation of (prompts, 2) predictions and labels for each row of counts; NaN where either doesn't vary."""
    if not np.ptp(predictions) or not np.ptp(labels):  # centring would leave rounding errors
        return np.full(len(counts), np.nan)
    x, y = predictions - predictions.mean(), labels - labels.mean()
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1).sum(axis=1)
    n, x_sum, y_sum, xx, yy, xy = (counts @ moments).T
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (n * xy - x_sum * y_sum) / np.sqrt((n * xx - x_sum**2) * (n * yy - y_sum**2))
    return found


def pair_accuracy(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    """Share of prompts with different labels whose responses the prediction puts in order, for each row of counts."""
    order = np.sign(labels[:, 0] - labels[:, 1])
    right = (order != 0) & (np.sign(predictions[:, 0] - predictions[:, 1]) == order)
    with np.errstate(invalid="ignore"):
        found: Floats = (counts @ right) / (counts @ (order != 0))
    return found


def measure(predictions: pd.DataFrame, held: pd.DataFrame, counts: Floats) -> Measures:
    """All measures of predictions for the held-out rows. A lone output `reward` is measured by helpfulness."""
    predictions = predictions.rename(columns={"reward": "helpfulness"})
    if not {"helpfulness"} <= set(predictions) <= set(ATTRIBUTES) or len(predictions) != len(held):
        raise SystemExit(
            f"there are {len(predictions)} predictions of {', '.join(predictions)}; there must be {len(held)}, and helpfulness among them"
        )
    pairs = {a: [frame[a].to_numpy(float).reshape(-1, 2) for frame in (predictions, held)] for a in predictions}
    return {a: pearson(*pairs[a], counts) for a in pairs} | {
        "pair_accuracy": pair_accuracy(*pairs["helpfulness"], counts)
    }


def train_mean(train: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """The mean of the training labels for every response."""
    return pd.DataFrame({a: np.full(len(held), train[a].mean()) for a in ATTRIBUTES})


def response_length(train: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """The logarithm of the response's characters, with the sign of its correlation with the training labels."""
    known, new = (np.log1p(rows["response"].str.len().to_numpy(float)) for rows in (train, held))
    return pd.DataFrame({a: np.sign(np.corrcoef(known, train[a])[0, 1]) * new for a in ATTRIBUTES})


def tfidf_ridge(train: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """Ridge regression on the TF-IDF of the prompt's last turn with the response; for each attribute the best strength within `train`."""
    errors = np.zeros((len(STRENGTHS), len(ATTRIBUTES)))
    for fit, test in GroupKFold(5).split(train, groups=train["prompt_hash"]):
        tried = ridge_predictions(train.iloc[fit], train.iloc[test], list(STRENGTHS))
        errors += ((np.stack(tried) - train.iloc[test][list(ATTRIBUTES)].to_numpy()) ** 2).sum(axis=1)
    (found,) = ridge_predictions(train, held, [STRENGTHS[errors.argmin(axis=0)]])
    return pd.DataFrame(found, columns=list(ATTRIBUTES))


def ridge_predictions(train: pd.DataFrame, held: pd.DataFrame, strengths: list[Floats]) -> list[Floats]:
    """Predictions (rows, attributes) for each of the strengths, which are one for all attributes or one for each."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    last_turns = [rows["prompt"].map(lambda prompt: messages_of(prompt)[-1]["content"]) for rows in (train, held)]
    known, new = (turns + "\n" + rows["response"] for turns, rows in zip(last_turns, (train, held), strict=True))
    features, wanted = vectorizer.fit_transform(known), vectorizer.transform(new)
    return [Ridge(alpha=s).fit(features, train[list(ATTRIBUTES)]).predict(wanted) for s in strengths]


def words_and_surface(train: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """The baseline beside every reward model of the pipeline: TF-IDF and figures of the surface; strengths are chosen over the folds of `train`."""
    texts = [
        [Text(messages_of(p), r) for p, r in zip(rows["prompt"], rows["response"], strict=True)]
        for rows in (train, held)
    ]
    known, new = features(*texts)
    found = predictions(known, train[list(ATTRIBUTES)].to_numpy(float), train["fold"].to_numpy(), new)
    return pd.DataFrame(found, columns=list(ATTRIBUTES))


BASELINES = {
    "train_mean": train_mean,
    "response_length": response_length,
    "tfidf_ridge": tfidf_ridge,
    "words_and_surface": words_and_surface,
}


def command(*arguments: object) -> float:
    """Run `python -m pipeline.reward_model` in a process of its own; its peak memory in MiB."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode:  # the reason stands on standard error
        raise SystemExit(f"{arguments[0]} failed")
    return int(done.stdout.split()[-1]) / 1024


def trained(
    name: str, profile: Profile, source: Path, train: pd.DataFrame, held: pd.DataFrame, work: Path
) -> tuple[pd.DataFrame, Cost, Path]:
    """What a recipe predicts for held-out rows, what training cost, and the model's folder; a model and predictions that stand are taken."""
    recipe = profile.recipes[name]
    fields, form = ["prompt", "response", *ATTRIBUTES], {"orient": "records", "lines": True, "force_ascii": False}
    parts = {"train": train[fields].to_json(**form), "held_out": held[fields].to_json(**form)}
    base = profile.checkpoints[recipe.base].core
    folder = work / f"{name}-{digest([recipe, base, profile.seed, parts])}"
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in parts.items():
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")
    model, cost, predictions = folder / "model", folder / "cost.json", folder / "predictions.parquet"
    if not model.exists():
        predictions.unlink(missing_ok=True)
        begun = time.perf_counter()
        peak = command("train", folder / "train.jsonl", model, "--profile", source, "--recipe", name)
        cost.write_text(json.dumps({"seconds": round(time.perf_counter() - begun, 1), "peak_mib": round(peak)}))
    if not predictions.exists():
        command("score", model, folder / "held_out.jsonl", predictions, "--max-tokens", recipe.max_tokens)
    return pd.read_parquet(predictions), json.loads(cost.read_text()) if cost.exists() else {}, model


def plain(values: Iterable[float]) -> list[float | None]:
    """To four places; null for NaN, which JSON doesn't have."""
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


def interval(draws: Floats) -> list[float | None]:
    """The value with its 95 % interval."""
    return plain([draws[0], *np.percentile(draws[1:], [2.5, 97.5])])


def shown(value: list[float | None] | None) -> str:
    """A value with its interval as text, in two lines."""
    return "-" if value is None or None in value else f"{value[0]:.3f}\n\\[{value[1]:.2f}, {value[2]:.2f}]"


def differences(found: Mapping[str, Measures]) -> dict[str, dict[str, Any]]:
    """Of each recipe to the baseline that is best on the held-out prompts, by measure, in the same draws."""
    result: dict[str, dict[str, Any]] = {name: {} for name in found if name not in BASELINES}
    for which in ("helpfulness", "pair_accuracy"):
        best = max((b for b in BASELINES if np.isfinite(found[b][which][0])), key=lambda b: found[b][which][0])
        for name, by in result.items():
            by[which] = {"baseline": best, "difference": interval(found[name][which] - found[best][which])}
    return result


def report(frame: pd.DataFrame, runs: Mapping[str, list[Measures]], costs: Mapping[str, Cost]) -> None:
    """Print the tables, and the figures as JSON. runs: the measures of each fold that was held out."""
    console = Console(width=max(Console().width, 132))
    labels = frame.loc[frame["fold"] == 0, "helpfulness"].to_numpy().reshape(-1, 2)
    ties, train = int((labels[:, 0] == labels[:, 1]).sum()), len(frame) // 2 - len(labels)
    title = f"Pearson, and pairs in order \\[95 % interval]: {train} prompts to train, {len(labels)} held out"
    table = Table("", *ATTRIBUTES, "pairs", "seconds", "MiB", title=title)
    models: dict[str, dict[str, Any]] = {}
    for name, folds in runs.items():
        by = {k: interval(v) for k, v in folds[0].items()}
        pairs = by.pop("pair_accuracy")
        models[name] = {"pearson": by, "pair_accuracy": pairs, **costs[name]}
        order = pairs if by["helpfulness"][0] is not None else None  # who says the same of all responses orders none
        cells = [*(shown(by.get(a)) for a in ATTRIBUTES), shown(order)]
        table.add_row(name, *cells, *(f"{c:,.0f}" for c in costs[name].values()))
    console.print(table)
    console.print(f"{len(labels) - ties} pairs; {ties} more have equal labels. A coin puts half of the pairs in order.")
    against = differences({name: folds[0] for name, folds in runs.items()})
    if against:
        table = Table("", "helpfulness", "pairs", title="Difference to the best baseline \\[95 % interval]")
        for name, to in against.items():
            table.add_row(name, *(f"{shown(d['difference'])} to {d['baseline']}" for d in to.values()))
        console.print(table)
    spreads: dict[str, dict[str, list[float | None]]] = {}
    table = Table("", *ATTRIBUTES, "pairs", title=f"Mean of {FOLDS} folds ± their standard deviation")
    for name, folds in runs.items():
        if len(folds) == FOLDS:
            values = {k: np.array([fold[k][0] for fold in folds]) for k in folds[0]}
            spreads[name] = {k: plain([v.mean(), v.std(ddof=1)]) for k, v in values.items()}
            means = (spreads[name].get(k, [None]) for k in (*ATTRIBUTES, "pair_accuracy"))
            table.add_row(name, *("-" if None in m or not m[0] else f"{m[0]:.3f} ±{m[1]:.3f}" for m in means))
    console.print(table)
    counts = {"train": train, "held_out": len(labels), "pairs": len(labels) - ties, "equal_labels": ties}
    print(json.dumps({"prompts": counts, "models": models, "differences": against, "folds": spreads}))


def profile_of(parser: argparse.ArgumentParser, path: Path | None, recipes: list[str]) -> Profile | None:
    """The profile that has these recipes, where there are any; wrong arguments where there is none, or it lacks one."""
    if recipes and not path:
        parser.error("--profile is missing; recipes are those of a profile")
    profile = load_profile(path) if recipes else None
    missing = [name for name in recipes if name not in profile.recipes]
    if missing:
        parser.error(f"{path} has no recipe {', '.join(missing)}; it has: {', '.join(profile.recipes)}")
    return profile


def main() -> None:
    """Train, measure, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="file of rated responses in HelpSteer2's form, two for each prompt")
    parser.add_argument("--profile", type=Path, help="path of the profile that has the recipes")
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME",
        help="recipe to train with the first fold held out; may be given several times",
    )
    parser.add_argument(
        "--cv",
        action="append",
        default=[],
        metavar="NAME",
        help="recipe to train with each fold held out in turn; may be given several times",
    )
    parser.add_argument("--work", type=Path, help="folder that keeps the models (default: they are removed at the end)")
    options = parser.parse_args()
    recipes = list(dict.fromkeys([*options.recipe, *options.cv]))
    profile = profile_of(parser, options.profile, recipes)
    frame, runs, costs = rated(options.file), dict[str, list[Measures]](), dict[str, Cost]()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name in [*BASELINES, *recipes]:
            for fold in range(FOLDS if name in BASELINES or name in options.cv else 1):
                train, held = frame[frame["fold"] != fold], frame[frame["fold"] == fold]
                if name in BASELINES:
                    predictions, cost = BASELINES[name](train, held), Cost()
                else:
                    predictions, cost, _ = trained(name, profile, options.profile, train, held, work)
                runs.setdefault(name, []).append(measure(predictions, held, bootstrap(len(held) // 2)))
                costs.setdefault(name, cost)  # of the first fold
    report(frame, runs, costs)


if __name__ == "__main__":
    main()
