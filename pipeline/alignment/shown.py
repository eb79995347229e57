"""What people are shown of policies: what they were tuned on, their samples, their rewards beside length, and what tuning changed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots
from pipeline.alignment.data import TunedOn
from pipeline.alignment.goodness import best_of
from pipeline.evaluation.doubt.bootstrap import drawn_means, generator_of, interval
from pipeline.prompts.shown import decisions
from pipeline.shown import ENGINE, Markdown, Rows, Shown, counts, labelled, whole


def data(made: TunedOn, said: str) -> dict[str, Shown]:
    """Of TUNED_ON: how much there is on both sides, what was dropped, what was read of conversations, and samples of what is learned."""
    light = made.responses.select(["origin", "split", "prompt_id"])  # without texts, of which there may be much
    of = {origin: light.filter(pc.equal(light["origin"], origin)) for origin in ("data", "conversations")}
    kinds = {"responses": of["data"], "pairs": made.pairs} | (
        {"conversations": of["conversations"]} if made.reports else {}
    )
    rows = [
        {"kind": kind, "split": split, "rows": len(part), "prompts": len(pc.unique(part["prompt_id"]))}
        for kind, table in kinds.items()
        for split in ("train", "held_out")
        for part in [table.filter(pc.equal(table["split"], split))]
    ]
    told: dict[str, Shown] = {}
    if made.reports:
        told = {
            "licences of conversations": made.licences,
            "what was decided of conversations": whole(decisions(made.reports)),
            "conversations to learn": _learned(made.responses, "conversations"),
        }
    return {
        "what there is": whole(pa.Table.from_pylist(rows)),
        "dropped, as they overlap": counts(made.dropped["benchmark"], "benchmark or split"),
        "counted": counts(made.counts, "what"),
        "rated by": said,
        "responses to learn": _learned(made.responses, "data"),
        **told,
    }


def _learned(responses: pa.Table, origin: str) -> pa.Table:
    """The first responses of an origin that are learned, with what comes before them. responses: schema TUNED_ON."""
    mine = np.flatnonzero(np.asarray(pc.and_(responses["best"], pc.equal(responses["origin"], origin))))[:8]
    told = responses.select(["messages", "response"])
    return pa.concat_tables([told.slice(0, 0), *(told.slice(row, 1) for row in mine.tolist())])


def scores(table: pa.Table, mean: float, sd: float, said: str) -> dict[str, Shown]:
    """Of SCORED: by what rewards are standardised."""
    return {"mean of goodness": round(mean, 4), "standard deviation of goodness": round(sd, 4), "rated by": said}


def samples(table: pa.Table, refused: int, figures: Mapping[str, Any]) -> dict[str, Shown]:
    """Of SAMPLES: how many, how long, how they ended."""
    return {
        "samples": len(table),
        "refused": refused,
        "prompts": len(pc.unique(table["prompt_id"])),
        "tokens of a sample, in the mean": round(pc.mean(table["tokens"]).as_py() or 0.0, 1),
        "ended": int(pc.sum(table["ended"]).as_py() or 0),
        "engine": labelled(figures, ENGINE),
        "first samples": table.select(["messages", "response"]),
    }


def scored(table: pa.Table) -> dict[str, Shown]:
    """Of SCORED: the mean reward of the samples, and of the best of each prompt's; lengths beside them, since rewards like length."""
    best = best_of(table)
    rows = [
        {
            "of": of,
            **mean_of(np.array(list(by_prompt(part, "standardised").values()))),
            "characters": pc.mean(part["characters"]).as_py(),
        }
        for of, part in (("all samples", table), ("the best of each prompt", best))
    ]
    return {
        "rewards": whole(pa.Table.from_pylist(rows)),
        "the best": best.select(["messages", "response", "standardised"]),
    }


def rewards(table: pa.Table, before: pa.Table | None, said: str) -> dict[str, Shown]:
    """Of REWARDS: the means with their intervals, and, of the policy that it started from, the differences on the same prompts.

    Intervals are 95 % percentile bootstrap intervals over prompts. `length` stands beside rewards, since rewards like length.
    """
    measures = ("standardised", "second_goodness", "characters", "tokens", "verbosity")
    rows = []
    for name in measures:
        mine = by_prompt(table, name)
        row: dict[str, Any] = {"measure": name.replace("_", " "), **mean_of(np.array(list(mine.values())))}
        if before is not None:
            its = by_prompt(before, name)
            both = np.array([mine[p] - its[p] for p in mine if p in its])
            row |= {
                f"more than before{k and f', {k}'}": v
                for k, v in zip(("", "from", "to"), mean_of(both).values(), strict=True)
            }
        rows.append(row)
    more: dict[str, Shown] = {}
    if table["log_prob_before"].null_count < len(table):
        gap = pc.subtract(table["log_prob"], table["log_prob_before"])
        more["KL divergence from the policy before, of a response (nats, mean of its samples)"] = round(
            pc.mean(gap).as_py(), 3
        )
    ended = pc.mean(table["ended"].cast(pa.float64())).as_py()
    return {
        "rewards on held-out prompts": whole(pa.Table.from_pylist(rows)),
        **more,
        "share of samples that end": round(ended or 0.0, 3),
        "rewards are": f"goodness in standard deviations of the data's responses. {said}",
        "samples, by reward": Rows(
            table.sort_by([("standardised", "descending")]).select(["messages", "response", "standardised"]), 8
        ),
    }


def steered(table: pa.Table) -> dict[str, Shown]:
    """Of STEERED: what is measured of each attribute at each level that was asked for, with the length, and a plot."""
    rows, plotted = [], dict[str, Shown]()
    for attribute in pc.unique(table["attribute"]).to_pylist():
        mine = table.filter(pc.equal(table["attribute"], attribute))
        levels = sorted(pc.unique(mine["asked"]).to_pylist())
        parts = [mine.filter(pc.equal(mine["asked"], level)) for level in levels]
        found = [mean_of(np.array(list(by_prompt(part, "measured").values()))) for part in parts]
        rows += [
            {"attribute": attribute, "asked": level, **figures, "characters": pc.mean(part["characters"]).as_py()}
            for level, part, figures in zip(levels, parts, found, strict=True)
        ]
        measured = {"measured": [f["mean"] if f["mean"] is not None else np.nan for f in found]}
        plotted[f"{attribute}: measured by asked"] = plots.line_chart(
            levels,
            measured,
            f"{attribute.capitalize()}: what the reward model measures by what is asked for",
            "level asked for",
            attribute,
        )
    return {"measured by asked (95 % intervals over prompts)": whole(pa.Table.from_pylist(rows)), **plotted}


def by_prompt(table: pa.Table, name: str) -> dict[str, float]:
    """The mean of a column over the samples to each prompt that have it."""
    known = table.filter(pc.is_valid(table[name]))
    grouped = known.group_by("prompt_id").aggregate([(name, "mean")])
    values = zip(grouped["prompt_id"].to_pylist(), grouped[f"{name}_mean"].to_pylist(), strict=True)
    return {prompt: value for prompt, value in values if np.isfinite(value)}


def mean_of(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Mean of prompts' values, and its 95 % percentile bootstrap interval over prompts; None where there are no values."""
    if not len(values):
        return {"mean": None, "from": None, "to": None}
    low, high = interval(drawn_means(values, generator_of(0, "policies")))
    return {"mean": round(float(values.mean()), 4), "from": number_of(low), "to": number_of(high)}


def number_of(value: float | None) -> float | None:
    """A figure as it is shown."""
    return None if value is None else round(value, 4)


FIGURES = {
    "loss": "loss",
    "policy_loss": "policy loss",
    "value_loss": "value loss",
    "reward": "reward (standard deviations of the data's responses)",
    "tokens": "length of a response (tokens)",
    "kl": "KL divergence from the reference, of a response (nats)",
    "divergence": "divergence of the policy from its target (nats)",
    "margin": "margin of the chosen response (beta times nats)",
    "accuracy": "share of pairs that are told right",
    "entropy": "entropy of a token (nats)",
    "clip_fraction": "share that is clipped",
    "unended": "share of responses that don't end",
    "explained_variance": "share of the returns' variance that values explain",
    "effective_samples": "effective samples of a prompt",
}
"""Figures of curves that are plotted, in this order, by what their axis says."""
PARTS = {"train": "training", "development": "held-out data", "watched": "samples to held-out prompts"}


def curves(curve: pa.Table) -> dict[str, Markdown]:
    """A plot of each figure of a curve that has several steps: in training, on held-out data, of samples to held-out prompts."""
    frame, plotted = curve.to_pandas(), dict[str, Markdown]()
    steps = sorted(frame["step"].unique().tolist())
    for name in (n for n in FIGURES if n in frame.columns):
        series = {
            words: frame[frame["part"] == part].groupby("step")[name].last().reindex(steps)
            for part, words in PARTS.items()
        }
        known = {words: values.tolist() for words, values in series.items() if values.notna().any()}
        if len(steps) > 1 and known:
            title = name.replace("_", " ").capitalize()
            plotted[f"curve: {title.lower()}"] = plots.line_chart(steps, known, title, "step", FIGURES[name])
    return plotted


def policy(figures: Mapping[str, Any], curve: pa.Table, watched: pa.Table, said: str) -> dict[str, Shown]:
    """Of a method's worker: its figures, its curves, and what the policy wrote at the first and the last evaluation (schema WATCHED)."""
    plain = {name.replace("_", " "): value for name, value in figures.items() if not isinstance(value, list | dict)}
    steps = watched["step"].unique().to_pylist()
    ends = watched.filter(pc.is_in(watched["step"], pa.array({min(steps), max(steps)}))) if steps else watched
    return {
        **plain,
        **curves(curve),
        "samples while it was trained, first and last": whole(ends),
        "curve": whole(curve),
        "rewards are of": said,
    }
