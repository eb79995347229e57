"""What is in the store, as a table: a row an asset and partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from rich.table import Table

from pipeline.automation.jobs import stretches
from pipeline.operating.progress import console
from pipeline.settings import Profile
from pipeline.store import Manifest, Store

Seconds = Mapping[tuple[str, str | None], float]
"""What the step of an asset and partition took."""


@dataclass(frozen=True)
class Row:
    """What one asset (and partition) has published. rows_in: rows of its first dependency; seconds: of its step, None where it was kept."""

    stage: str
    asset: str
    partition: str | None
    rows_in: int | None
    rows_out: int | None
    seconds: float | None


def rows_made(
    store: Store,
    profile: Profile,
    specs: Sequence[dg.AssetSpec],
    plan: Sequence[tuple[str, str | None]],
    seconds: Seconds,
) -> list[Row]:
    """What is published of the jobs and partitions of a plan, in the order of the chain."""
    partitioned = {spec.key for spec in specs if spec.partitions_def}
    members = {stretch.job: found for stretch, found in stretches(profile, specs)}

    def published(key: dg.AssetKey, partition: str | None) -> Manifest | None:
        return store.manifest(key.to_user_string(), partition if key in partitioned else None)

    rows = dict[tuple[str, str | None], Row]()
    for job, partition in plan:
        for spec in members[job]:
            if made := published(spec.key, partition):
                source = next((published(dep.asset_key, partition) for dep in spec.deps), None)
                place = (made.asset, made.partition)
                rows.pop(place, None)  # of the leaderboard, made anew for every recipe, the last one stands
                rows[place] = Row(
                    str(spec.group_name), *place, source.rows if source else None, made.rows, seconds.get(place)
                )
    return list(rows.values())


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="What was made", title_justify="left")
    for name in ("stage", "asset", "partition"):
        table.add_column(name)
    for name in ("rows in", "rows out", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        took = "kept" if row.seconds is None else f"{row.seconds:.1f}"
        counts = ["" if n is None else f"{n:,}" for n in (row.rows_in, row.rows_out)]
        table.add_row(row.stage, row.asset, row.partition or "", *counts, took)
    if not console.is_terminal:
        console.width = 120  # a log's lines: Rich would take 80, and cut the names off
    console.print(table)
