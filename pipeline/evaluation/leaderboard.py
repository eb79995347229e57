"""Models on benchmarks, each benchmark with sections of its own; and published rows: HelpSteer2's, which are RewardBench's, and others'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks import pairs
from pipeline.benchmarks.schema import TOTALS
from pipeline.evaluation.history import ASSET
from pipeline.evaluation.published import (
    COMPUTE,
    OTHERS,
    PUBLISHED_OVERALL,
    PUBLISHED_SCORES,
    PUBLISHED_SOURCE,
    TABLE_3,
)
from pipeline.evaluation.schema import (
    CALIBRATION,
    CALIBRATION_BINS,
    CONTAMINATION,
    HISTORY,
    LEADERBOARD,
    LENGTH_BIAS,
)
from pipeline.evaluation.summary import ACCURACY
from pipeline.store import Store

REWARDBENCH = "RewardBench"
RANKED = (*TOTALS, "section", "subset")
FIRST = ("model", "measure", *TOTALS)
LAST = ("longest", "random", "units", "train_seconds", "score_seconds", "device", "rated_by", "tuned_on")
"""Columns of `wide` before and after the sections."""
COMPUTE_COLUMNS = ("train_seconds", "train_tokens", "score_seconds", "score_tokens", "device")
SIDE_TABLES = ("summary", "length_bias", "contamination", "calibration", "calibration_bins")
"""Tables beside a recipe's scores, each in a file of its name."""


@dataclass(frozen=True)
class Evaluated:
    """A model's figures.

    summary: schema SUMMARY; provenance: see `history.provenance`. rated_by: who gave the ratings that it learned from, where that is known.
    tuned_on: the benchmarks that its attribute weights were searched on, with commas. compute: any of COMPUTE_COLUMNS. The other tables have
    the schemas of their names.
    """

    model: str
    summary: pa.Table
    provenance: Mapping[str, Any]
    rated_by: str | None = None
    tuned_on: str | None = None
    compute: Mapping[str, Any] = field(default_factory=dict)
    length_bias: pa.Table = field(default_factory=LENGTH_BIAS.empty_table)
    contamination: pa.Table = field(default_factory=CONTAMINATION.empty_table)
    calibration: pa.Table = field(default_factory=CALIBRATION.empty_table)
    calibration_bins: pa.Table = field(default_factory=CALIBRATION_BINS.empty_table)
    history: pa.Table = field(default_factory=HISTORY.empty_table)


def of_recipe(store: Store, recipe: str, rated_by: str) -> Evaluated:
    """What is published of a recipe: its benchmark scores, and what its training took. Raises `NotPublishedError`.

    Beside the scores stand the tables of `Evaluated` by their names, but for the history, which is no content: it is in the manifest's
    info, as are `provenance` and of the scoring `seconds_of_all`, `tokens` and `device`.
    """
    tables = {name: store.read(ASSET, recipe, f"{name}.parquet") for name in SIDE_TABLES}
    scored, trained = (
        m.info if m else {} for m in (store.manifest(ASSET, recipe), store.manifest("reward_model", recipe))
    )
    figures = (
        trained.get("train_seconds"),
        trained.get("tokens"),
        scored.get("seconds_of_all"),
        scored.get("tokens"),
        scored.get("device"),
    )
    return Evaluated(
        recipe,
        provenance=scored["provenance"],
        rated_by=rated_by,
        compute=dict(zip(COMPUTE_COLUMNS, figures, strict=True)),
        history=pa.Table.from_pylist(scored["history"], schema=HISTORY),
        **tables,
    )


def unequal(models: Sequence[Evaluated]) -> list[str]:
    """Benchmarks whose items were not the same for all models that have figures on them: those figures can't be compared."""
    hashes: dict[str, set[str]] = {}
    for model in models:
        for name, facts in model.provenance["benchmarks"].items():
            hashes.setdefault(name, set()).add(facts["sha256"])
    return [name for name, found in hashes.items() if len(found) > 1]


def forms_run(models: Sequence[Evaluated]) -> list[str]:
    """Forms of published benchmarks that models were scored on, whole or a part; of pairs, where they are RewardBench's."""
    found = dict[str, None]()
    for model in models:
        for name, facts in model.provenance["benchmarks"].items():
            form = facts.get("form", "")
            if form in OTHERS or (form == TABLE_3 and (facts["lacks"] or is_rewardbench(model.summary, name))):
                found[form] = None
    return list(found)


def board(models: Sequence[Evaluated], always: Sequence[str] = (TABLE_3,)) -> pa.Table:
    """Models, the best of each benchmark first, then published rows, in the schema LEADERBOARD.

    Published are the scores on the benchmarks that were run, and those of the forms in `always`: HelpSteer2's Table 3.
    """
    rows = []
    for model in models:
        facts = {"model": model.model, "origin": "ours", "source": "measured here", "rated_by": model.rated_by}
        facts |= {"tuned_on": model.tuned_on, "model_version": model.provenance["model_version"]}
        facts |= {name: model.compute.get(name) for name in COMPUTE_COLUMNS}
        rows += [{**facts, **_percent(row)} for row in model.summary.to_pylist()]
    totals = [r for r in rows if r["level"] in TOTALS and r["measure"] == ACCURACY]
    rank = {(r["benchmark"], r["model"]): (-r["accuracy"], r["model"]) for r in totals}
    order = list(dict.fromkeys(r["benchmark"] for r in rows))

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        by_model = rank[row["benchmark"], row["model"]]
        return order.index(row["benchmark"]), by_model, row["measure"] != ACCURACY, RANKED.index(row["level"])

    rows.sort(key=place)
    return pa.Table.from_pylist(rows + published_rows([*always, *forms_run(models)]), schema=LEADERBOARD)


def _percent(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of SUMMARY in percent, with LEADERBOARD's names."""
    kept = {name: row[name] for name in ("benchmark", "level", "name", "measure", "units", "independent")}
    figures = {"accuracy": "", "low": "", "high": "", "longest": "_accuracy", "random": "_accuracy"}
    return kept | {name: 100 * row[name + end] for name, end in figures.items()}


def published_rows(forms: Sequence[str]) -> list[dict[str, Any]]:
    """What was published of benchmarks of some forms as rows of LEADERBOARD; of `pairs`, HelpSteer2's Table 3."""
    rows: list[dict[str, Any]] = []
    for form in dict.fromkeys(forms):
        rows += _table_3() if form == TABLE_3 else _published_overall(form)
    return rows


def _published_overall(form: str) -> list[dict[str, Any]]:
    name = OTHERS[form]
    row = {"origin": "published", "benchmark": name, "name": name, "level": "overall", "measure": ACCURACY}
    there = [published for published in PUBLISHED_OVERALL if form in published[2]]
    return [{**row, "model": model, "accuracy": scores[form], "source": source} for model, source, scores in there]


def _table_3() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for model, total, *sections in PUBLISHED_SCORES:
        named = zip((*pairs.REWARDBENCH, pairs.PRIOR_SETS), sections, strict=True)
        row: dict[str, Any] = {
            "model": model,
            "origin": "published",
            "source": PUBLISHED_SOURCE,
            "benchmark": REWARDBENCH,
        }
        row |= {"measure": ACCURACY, "device": COMPUTE.get(model)}
        rows.append({**row, "level": "overall", "name": REWARDBENCH, "accuracy": total})
        rows += [{**row, "level": "section", "name": name, "accuracy": v} for name, v in named if v is not None]
    return rows


def wide(table: pa.Table, benchmark: str, origin: str = "ours") -> pa.Table:
    """One benchmark's rows of a leaderboard for people: a row a model and measure, a column a section, in percent.

    The order of rows is the leaderboard's. A column that says nothing is left out. A section that has the name of another column is called
    `section ...`.
    """
    mine = table.filter(pc.and_(pc.equal(table["benchmark"], benchmark), pc.equal(table["origin"], origin))).to_pylist()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    named = {r["name"]: f"section {r['name']}" if r["name"] in FIRST + LAST else r["name"] for r in mine}
    for row in mine:
        at = rows.setdefault((row["model"], row["measure"]), {})
        if row["level"] in TOTALS:
            at |= {name: _rounded(row[name]) for name in (*FIRST, *LAST) if name in row} | {row["level"]: _shown(row)}
        elif row["level"] == "section":
            at[named[row["name"]]] = _shown(row)
    sections = dict.fromkeys(named[r["name"]] for r in mine if r["level"] == "section")
    columns = {name: [row.get(name) for row in rows.values()] for name in (*FIRST, *sections, *LAST)}
    silent = {"measure": {ACCURACY}}
    return pa.table(
        {name: values for name, values in columns.items() if set(values) - {None} - silent.get(name, set())}
    )


def _shown(row: Mapping[str, Any]) -> str:
    interval = f" ({row['low']:.1f} to {row['high']:.1f})" if row["low"] is not None else ""
    return f"{row['accuracy']:.1f}{interval}"


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value


def is_rewardbench(summary: pa.Table, benchmark: str) -> bool:
    """Whether a benchmark of a summary is RewardBench, whole: only then may its figures stand among the published ones."""
    mine = [r for r in summary.to_pylist() if (r["benchmark"], r["level"]) == (benchmark, "subset")]
    return pairs.is_rewardbench({row["name"]: row["units"] for row in mine})
