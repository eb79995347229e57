"""Which consensus is nearest the truth, under which kind of annotator: on simulated truth, so that there is one.

`python -m measurements.consensus_study [--prompts N] [--seeds N]`. Collection is HelpSteer2's: three annotators for both responses of a prompt, two
more for a response whose helpfulness ratings differ by more than 2. Compared are the mean, the median, HelpSteer2's rule (per attribute
and per annotator), the annotator model's posterior mean, and Dawid-Skene (crowd-kit) by the expected level. Prints a table a measure and, as
its last line, one JSON object: for each kind of annotator and consensus `rmse`, `exact` (share of labels), `pairs` (share of pairs put
in the right order; a tie counts half), each as mean and standard error over the seeds.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipeline.annotations.annotator_model import annotator_model
from pipeline.annotations.consensus import consensus_labels, most_agreeing
from pipeline.forms.rows import ANNOTATIONS
from pipeline.vocabulary import ATTRIBUTES

Floats = npt.NDArray[np.float64]
Rate = Callable[[Floats, npt.NDArray[np.int64], np.random.Generator], Floats]
"""True quality (ratings, attributes) and annotator of each rating -> what is felt, before rounding."""

PEOPLE = 100
NOISE = 0.7


def honest(truth: Floats, who: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """Noise alone, the same for all."""
    return truth + NOISE * draw.normal(size=truth.shape)


def biased(truth: Floats, who: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """Each leans to one side, in each attribute."""
    return honest(truth, who, draw) + 0.7 * draw.normal(size=(PEOPLE, truth.shape[1]))[who]


def careless(truth: Floats, who: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """One in five gives any level at all."""
    any_level = draw.integers(0, 5, truth.shape).astype(float)
    return np.where((draw.random(PEOPLE) < 0.2)[who, None], any_level, honest(truth, who, draw))


def drastic(truth: Floats, who: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """One rating in eight is the far end of the scale: the case that the rule is made for (poster: 0, 0, 0, 0, 4)."""
    far = np.where(truth < 2, 4.0, 0.0)
    return np.where(draw.random(len(truth))[:, None] < 0.125, far, honest(truth, who, draw))


def coarse(truth: Floats, who: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """Half see only good, middling and bad."""
    felt = honest(truth, who, draw)
    return np.where((draw.random(PEOPLE) < 0.5)[who, None], 2 * np.clip(np.round(felt / 2), 0, 2), felt)


def mixed(truth: Floats, who: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """Some of each: bias for all, scatter that differs, careless ones, a far end now and then."""
    scatter = draw.choice([0.4, 0.7, 1.2], PEOPLE)[who, None]
    felt = truth + scatter * draw.normal(size=truth.shape) + 0.4 * draw.normal(size=(PEOPLE, truth.shape[1]))[who]
    felt = np.where((draw.random(PEOPLE) < 0.1)[who, None], draw.integers(0, 5, truth.shape).astype(float), felt)
    return np.where(draw.random(len(truth))[:, None] < 0.04, np.where(truth < 2, 4.0, 0.0), felt)


KINDS: dict[str, tuple[Rate, bool]] = {
    "honest noise": (honest, True),
    "biased": (biased, True),
    "one in five careless": (careless, True),
    "drastic outliers": (drastic, True),
    "coarse scale": (coarse, True),
    "all of it": (mixed, True),
    "all of it, names unknown": (mixed, False),
}


def collected(prompts: int, rate: Rate, named: bool, seed: int) -> tuple[pa.Table, Floats]:
    """Annotations as HelpSteer2 collects them, and the true quality (responses, attributes): as skewed to the good as its labels."""
    draw = np.random.default_rng(seed)
    n = 2 * prompts
    common = 4 * draw.beta(1.6, 0.6, n)
    truth = np.clip(common[:, None] + 0.35 * draw.normal(size=(n, len(ATTRIBUTES))), 0, 4)
    truth[:, 0] = common
    panel = np.stack([draw.permutation(PEOPLE)[:7] for _ in range(prompts)])
    response = np.repeat(np.arange(n), 3)
    who = panel[response // 2, np.tile(np.arange(3), n)]
    more_response = np.repeat(np.arange(n), 2)
    more = panel[more_response // 2, 3 + 2 * (more_response % 2) + np.tile(np.arange(2), n)]
    everyone = rate(truth[np.concatenate([response, more_response])], np.concatenate([who, more]), draw)
    felt = np.clip(np.floor(everyone + 0.5), 0, 4).astype(np.int8)
    first = felt[: 3 * n, 0].reshape(n, 3)
    wide = first.max(axis=1) - first.min(axis=1) > 2
    use = np.concatenate([np.ones(3 * n, dtype=bool), wide[more_response]])
    response, who = np.concatenate([response, more_response])[use], np.concatenate([who, more])[use]
    names = [f"a{w}" for w in who] if named else [f"u{k}" for k in range(len(who))]
    rows = {
        "prompt_id": [f"p{r // 2}" for r in response],
        "response_id": [f"r{r}" for r in response],
        "annotator_id": names,
        **{a: pa.array(felt[use, k]) for k, a in enumerate(ATTRIBUTES)},
    }
    table = pa.table({f.name: rows.get(f.name, pa.nulls(len(who), f.type)) for f in ANNOTATIONS}, schema=ANNOTATIONS)
    return table, truth


def estimates(table: pa.Table, responses: int) -> dict[str, Floats]:
    """Helpfulness of every response by each consensus, on the scale of the ratings."""
    frame = table.select(["response_id", "annotator_id", "helpfulness"]).to_pandas()

    def placed(ids: pd.Series | list[str], values: npt.ArrayLike) -> Floats:
        found = np.full(responses, np.nan)
        found[[int(str(i)[1:]) for i in ids]] = np.asarray(values, dtype=float)
        return found

    grouped = frame.groupby("response_id", sort=False)["helpfulness"]
    found = {
        "mean": placed(list(grouped.groups), grouped.mean()),
        "median": placed(list(grouped.groups), grouped.median()),
    }
    for name, rule in (("HelpSteer2's rule", "per_attribute"), ("rule `annotator`", "annotator")):
        labels = consensus_labels(most_agreeing(table, 3, rule))  # type: ignore[arg-type]
        found[name] = placed(labels["response_id"].to_pylist(), labels["helpfulness_mean"].to_numpy())
    posterior = annotator_model(table, "helpfulness").posterior
    found["annotator model"] = placed(posterior["response_id"].to_pylist(), posterior["mean"].to_numpy())
    from crowdkit.aggregation import DawidSkene

    answers = frame.rename(columns={"response_id": "task", "annotator_id": "worker", "helpfulness": "label"})
    levels = DawidSkene(n_iter=50).fit_predict_proba(answers)
    found["Dawid-Skene"] = placed(list(levels.index), levels.to_numpy() @ levels.columns.to_numpy(dtype=float))
    return found


def measures(found: Floats, truth: Floats) -> dict[str, float]:
    """Distance from the truth, share of labels right, share of pairs in the right order."""
    label, right = np.floor(found + 0.5), np.floor(truth + 0.5)
    gap, true_gap = found[0::2] - found[1::2], truth[0::2] - truth[1::2]
    order = np.where(np.abs(gap) < 1e-9, 0.5, np.sign(gap) == np.sign(true_gap))
    return {
        "rmse": float(np.sqrt(np.mean((found - truth) ** 2))),
        "exact": float(np.mean(label == right)),
        "pairs": float(order.mean()),
    }


def main() -> None:
    """Run the study, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--prompts",
        type=int,
        default=1000,
        help="number of simulated prompts, with two responses each (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=6, help="number of seeds that figures are means over (default: %(default)s)"
    )
    options, console = parser.parse_args(), Console()
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for kind, (rate, named) in KINDS.items():
        for seed in range(options.seeds):
            table, truth = collected(options.prompts, rate, named, seed)
            for name, found in estimates(table, len(truth)).items():
                for measure, value in measures(found, truth[:, 0]).items():
                    results.setdefault(measure, {}).setdefault(kind, {}).setdefault(name, []).append(value)
    titles = {
        "rmse": "Distance from the truth (RMSE, levels; less is better)",
        "exact": "Labels right (more is better)",
        "pairs": "Pairs in the right order",
    }
    for measure, kinds in results.items():
        names = list(next(iter(kinds.values())))
        shown = Table(
            "annotators", *names, title=f"{titles[measure]}: mean over {options.seeds} seeds ± standard error"
        )
        for kind, by in kinds.items():
            best = (min if measure == "rmse" else max)(by, key=lambda n, by=by: np.mean(by[n]))
            cells = [f"{np.mean(by[n]):.3f} ±{np.std(by[n], ddof=1) / len(by[n]) ** 0.5:.3f}" for n in names]
            shown.add_row(kind, *(f"[bold]{c}[/]" if n == best else c for n, c in zip(names, cells, strict=True)))
        console.print(shown)
    figures = {
        measure: {
            kind: {
                n: [round(float(np.mean(v)), 4), round(float(np.std(v, ddof=1) / len(v) ** 0.5), 4)]
                for n, v in by.items()
            }
            for kind, by in kinds.items()
        }
        for measure, kinds in results.items()
    }
    print(json.dumps({"prompts": options.prompts, "seeds": options.seeds, **figures}))


if __name__ == "__main__":
    main()
