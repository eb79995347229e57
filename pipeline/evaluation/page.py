"""Figures of models as a page that needs no network and no script, with the same as JSON and CSV. Strangers' text is escaped."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa

from pipeline.benchmarks.schema import TOTALS
from pipeline.evaluation.leaderboard import (
    RANKED,
    REWARDBENCH,
    Evaluated,
    board,
    forms_run,
    is_rewardbench,
    published_rows,
    unequal,
)
from pipeline.evaluation.published import OTHERS, PUBLISHED_SOURCE, TABLE_3
from pipeline.evaluation.summary import ACCURACY

HTML, JSON, CSV = "report.html", "summary.json", "summary.csv"
TABLES = ("summary", "length_bias", "contamination", "calibration", "calibration_bins", "history")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would evaluate."""


def write(
    folder: Path,
    title: str,
    models: Sequence[Evaluated],
    note: str = "",
    made: str = "",
    always: Sequence[str] = (TABLE_3,),
) -> Path:
    """Write the files of `files` into a folder; the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(title, models, note, made, always).items():
        (folder / name).write_bytes(content)
    return folder / HTML


def files(
    title: str,
    models: Sequence[Evaluated],
    note: str = "",
    made: str = "",
    always: Sequence[str] = (TABLE_3,),
) -> dict[str, bytes]:
    """The page, its figures as JSON, and every figure as CSV, by file name.

    models: at least one, in any order. note: what a reader must know first (who rated); made: when, for the reader; always: forms whose
    published scores are shown whether or not a benchmark of theirs was run. Raises ValueError without a model.
    """
    if not models:
        raise ValueError("no model to show: score one first")
    table, published = board(models, always), published_rows([*always, *forms_run(models)])
    return {
        HTML: _html(title, models, table, note, made, published).encode(),
        JSON: _json(title, models, note, made, published).encode(),
        CSV: _csv(table).encode(),
    }


# -------------------------------------------------------------------------------------------------------------------------- JSON and CSV


def _json(title: str, models: Sequence[Evaluated], note: str, made: str, published: Sequence[Mapping[str, Any]]) -> str:
    shown = [
        {
            "model": model.model,
            "rated_by": model.rated_by,
            "tuned_on": model.tuned_on,
            "compute": dict(model.compute),
            "provenance": dict(model.provenance),
            **{name: getattr(model, name).to_pylist() for name in TABLES},
        }
        for model in models
    ]
    document = {"title": title, "note": note, "made": made, "models": shown, "published": published}
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """A value with null for every number that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(table: pa.Table) -> str:
    """A table as CSV; a text that a spreadsheet would take for a formula has an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for v in row.values()])
    return out.getvalue()


# --------------------------------------------------------------------------------------------------------------------------------- page


def _html(
    title: str,
    models: Sequence[Evaluated],
    table: pa.Table,
    note: str,
    made: str,
    published: Sequence[Mapping[str, Any]],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    rows = [row for row in table.to_pylist() if row["origin"] == "ours"]
    return environment.get_template("page.html.jinja").render(
        title=title,
        note=note,
        made=made,
        models=models,
        benchmarks=[_benchmark(name, rows, models) for name in dict.fromkeys(row["benchmark"] for row in rows)],
        length=_length(models),
        contamination=[(model.model, row) for model in models for row in model.contamination.to_pylist()],
        calibration=[_calibration(model) for model in models if len(model.calibration)],
        history=[(model.model, row) for model in models for row in model.history.to_pylist()],
        compute=[model for model in models if any(value is not None for value in model.compute.values())],
        published=_published(rows, models, published) if any(r["level"] == "section" for r in published) else None,
        others=_others(rows, models, published),
        source=PUBLISHED_SOURCE,
    )


def _benchmark(name: str, rows: Sequence[Mapping[str, Any]], models: Sequence[Evaluated]) -> dict[str, Any]:
    """Overall bars, a table of sections and one of subsets, of one benchmark. rows: ours, of schema LEADERBOARD."""
    mine = [row for row in rows if row["benchmark"] == name]
    levels = {level: list(dict.fromkeys(row["name"] for row in mine if row["level"] == level)) for level in RANKED}
    cells = {(row["model"], row["measure"], row["level"], row["name"]): row for row in mine}
    bars = [row for row in mine if row["level"] in TOTALS]
    facts = [model.provenance["benchmarks"].get(name, {}) for model in models]
    return {
        "name": name,
        "unequal": name in unequal(models),
        "bars": bars,
        "whole": any(is_rewardbench(model.summary, name) for model in models),
        "lacks": next((found["lacks"] for found in facts if found.get("lacks")), ""),
        "dependent": any(row["independent"] not in (None, row["units"]) for row in bars),
        "tables": [
            {
                "level": level,
                "names": levels[level],
                "rows": [
                    (bar, [cells.get((bar["model"], bar["measure"], level, part)) for part in levels[level]])
                    for bar in bars
                ],
            }
            for level in ("section", "subset")
            if len(levels[level]) > 1
        ],
    }


def _length(models: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """A row a benchmark and model: each figure of LENGTH_BIAS by its name."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for model in models:
        for row in model.length_bias.to_pylist():
            at = rows.setdefault((row["benchmark"], model.model), {"benchmark": row["benchmark"], "model": model.model})
            at[row["figure"]] = row
    return [rows[key] for key in sorted(rows)]


def _calibration(model: Evaluated) -> dict[str, Any]:
    bins: dict[str, list[dict[str, Any]]] = {}
    for row in model.calibration_bins.to_pylist():
        bins.setdefault(row["attribute"], []).append(row)
    return {"model": model.model, "rows": model.calibration.to_pylist(), "bins": bins}


def _others(
    rows: Sequence[Mapping[str, Any]], models: Sequence[Evaluated], published: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Published scores on benchmarks other than RewardBench that were run, and ours where one is whole; the best first."""
    forms = {(m.model, name): facts.get("form") for m in models for name, facts in m.provenance["benchmarks"].items()}
    found = list[dict[str, Any]]()
    for form, name in OTHERS.items():
        ours = [row for row in rows if row["level"] == "overall" and row["measure"] == ACCURACY
                and forms[row["model"], row["benchmark"]] == form]  # fmt: skip
        theirs = [row for row in published if row["benchmark"] == name]
        if theirs:
            found.append({"name": name, "rows": sorted([*ours, *theirs], key=lambda row: -row["accuracy"])})
    return found


def _published(
    rows: Sequence[Mapping[str, Any]], models: Sequence[Evaluated], published: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The published models on RewardBench, and ours where a benchmark is RewardBench itself: figures by section."""
    published = [row for row in published if row["benchmark"] == REWARDBENCH]
    whole = {
        (m.model, name)
        for m in models
        for name in set(m.summary["benchmark"].to_pylist())
        if is_rewardbench(m.summary, name)
    }
    ours = [row for row in rows if (row["model"], row["benchmark"]) in whole and row["measure"] == ACCURACY]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in [*ours, *published]:
        of_model = {name: row.get(name) for name in ("model", "origin", "benchmark", "rated_by", "tuned_on")}
        of_model["compute"] = row["device"] if row["origin"] == "published" else None  # ours scored on its device
        at = found.setdefault((row["model"], row["origin"]), of_model)
        if row["level"] != "subset":
            at["Overall" if row["level"] in TOTALS else row["name"]] = row["accuracy"]
    sections = dict.fromkeys(row["name"] for row in published if row["level"] == "section")
    return {"columns": ["Overall", *sections], "rows": list(found.values())}
