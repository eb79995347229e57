"""Where a score comes from, and how it stands to the one that was published before."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.loading import FORMS, Form
from pipeline.evaluation.doubt import bootstrap
from pipeline.evaluation.schema import HISTORY
from pipeline.evaluation.summary import ACCURACY
from pipeline.store import Store

ASSET = "benchmark_scores"
OUTCOMES_FILE = "outcomes.parquet"


# -------------------------------------------------------------------------------------------------------------------------- provenance


def provenance(
    items: pa.Table,
    outcomes: pa.Table,
    forms: Mapping[str, Form],
    model: str,
    model_version: str,
    weights: Mapping[str, float],
    seed: int,
    /,
    **settings: str | int | float | None,
) -> dict[str, Any]:
    """What scores depend on, as JSON takes it: model, weights of its outputs, hash of each benchmark's items, hash of our code, seed, time.

    Of each benchmark it also says the form, and what its units lack to be the published one. outcomes: schema OUTCOMES;
    forms: of each benchmark. model_version: hash of its files, or the revision of a hub commit. settings: what else the scores depend
    on (precision, tokens).
    """
    facts = {
        "model": model,
        "model_version": model_version,
        "weights": dict(weights),
        "benchmarks": {name: found | _kind(outcomes, name, forms[name]) for name, found in fingerprints(items).items()},
        "code": code_hash(),
        "seed": seed,
        "scored_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return facts | settings | facts


def _kind(outcomes: pa.Table, benchmark: str, form: Form) -> dict[str, str]:
    """The form of a benchmark, and what it lacks to be the published one."""
    mine = pc.and_(pc.equal(outcomes["benchmark"], benchmark), pc.equal(outcomes["measure"], ACCURACY))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(outcomes.filter(mine)["subset"]).to_pylist()}
    return {"form": next(name for name, known in FORMS.items() if known is form), "lacks": form.lacks(counts)}


def fingerprints(items: pa.Table) -> dict[str, dict[str, Any]]:
    """Number, and sha256 of the content, of each benchmark's items (schema ITEMS, but for benchmark and cluster) in their order."""
    found = {}
    for benchmark in pc.unique(items["benchmark"]).to_pylist():
        mine, sha = (
            items.filter(pc.equal(items["benchmark"], benchmark)).drop_columns(["benchmark", "cluster"]),
            hashlib.sha256(),
        )
        for batch in mine.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                sha.update(json.dumps(row, sort_keys=True).encode())
        found[benchmark] = {"items": len(mine), "sha256": sha.hexdigest()}
    return found


def code_hash() -> str:
    """Hash of the project's own source, `pipeline`: 16 hexadecimal digits."""
    root, sha = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return sha.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------------------------ the run before


@dataclass(frozen=True)
class Run:
    """Scores of a model: the version that they are published under, outcomes (schema OUTCOMES), and each benchmark's `fingerprints`."""

    version: str
    outcomes: pa.Table
    data: Mapping[str, Mapping[str, Any]]


def last_published(store: Store, recipe: str) -> Run | None:
    """The scores that are published of a recipe; None where there are none, or none with outcomes."""
    manifest = store.manifest(ASSET, recipe)
    if manifest is None or OUTCOMES_FILE not in {file.name for file in manifest.files}:
        return None
    return Run(manifest.version, store.read(ASSET, recipe, OUTCOMES_FILE), manifest.info["provenance"]["benchmarks"])


def compare(
    before: Run | None, after: Run, forms: Mapping[str, Form], seed: int, most_lost: float | None = None
) -> pa.Table:
    """Overall accuracy of each benchmark beside that of the run before, in the schema HISTORY; no row for a benchmark that it hadn't.

    Paired over the units where the benchmark's items are the same; else a difference of two independent samples. It is a regression where
    the interval of the difference lies below 0, or where more than `most_lost` (a share of 1) is lost.
    """
    rows = []
    for benchmark in pc.unique(after.outcomes["benchmark"]).to_pylist():
        sides = [_accuracies(run, benchmark) for run in (before, after) if run is not None]
        if before is None or not len(sides[0]):
            continue
        same = before.data[benchmark]["sha256"] == after.data[benchmark]["sha256"]
        found = (bootstrap.difference if same else bootstrap.apart)(sides[0], sides[1], forms[benchmark], seed)
        lost = found.high < 0 or (most_lost is not None and found.difference < -most_lost)
        rows.append({"benchmark": benchmark, **asdict(found), "regression": lost, "before_version": before.version})
    return pa.Table.from_pylist(rows, schema=HISTORY)


def _accuracies(run: Run, benchmark: str) -> pa.Table:
    chosen = pc.and_(pc.equal(run.outcomes["benchmark"], benchmark), pc.equal(run.outcomes["measure"], ACCURACY))
    found = run.outcomes.filter(chosen)
    if "cluster" in found.column_names:
        return found
    return found.append_column("cluster", pa.nulls(len(found), pa.string()))  # published before clusters were kept
