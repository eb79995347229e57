"""`make demo`: the whole chain on the profile, as runs that the UI shows, with progress, a table and a report at the end.

Only what is missing or out of date is run: by the same reckoning that marks an asset as stale in the UI.
"""

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from rich.markup import escape
from rich.table import Table

from pipeline.automation import jobs as automation
from pipeline.operating.location import console, definitions
from pipeline.operating.progress import peak_memory, progress
from pipeline.operating.report import write_report
from pipeline.operating.stale import out_of_date
from pipeline.partitions import DELIVERIES
from pipeline.settings import ProfileError, load_profile
from pipeline.store import Store

Seconds = dict[tuple[str, str | None], float]
"""What the step of an asset and partition took."""
DEMO_DELIVERY = "demo"


@dataclass
class Row:
    """A line of the table at the end."""

    stage: str
    asset: str
    partition: str | None
    rows_in: int | None
    rows_out: int | None
    seconds: float | None


def main() -> int:
    """Run the chain; 0 where everything is published."""
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)  # of Dagster's own parts, about each other
    profile = load_profile()
    store, instance = Store(profile.store), dg.DagsterInstance.get()
    begun, seconds = time.monotonic(), Seconds()
    console.print(f"Profile [bold]{profile.name}[/], store {profile.store}")
    if profile.ratings_note:
        console.print(f"[bold]{profile.ratings_note}[/]")
    instance.add_dynamic_partitions(str(DELIVERIES.name), [DEMO_DELIVERY])
    pool: list[tuple[str, str | None]] = [] if profile.recorded else [(automation.POOL, None)]
    recipes = [(automation.RECIPE, recipe) for recipe in profile.recipes]
    plan = [*pool, (automation.DELIVERY, DEMO_DELIVERY), *recipes]
    with peak_memory() as peak:
        for job, partition in plan:
            if not run(instance, store, job, partition, seconds):
                return 1
    rows = table_rows(store, plan, seconds)
    show(rows)
    report = write_report(store, profile, [vars(row) for row in rows])
    console.print(
        f"{time.monotonic() - begun:.0f} s, peak memory {peak[0] / 2**30:.2f} GiB (this process and its workers)"
    )
    console.print(f"Report: {report}\nThe same runs in the Dagster UI: make ui")
    return 0


def run(instance: dg.DagsterInstance, store: Store, job: str, partition: str | None, seconds: Seconds) -> bool:
    """Run what is out of date of a job; False where the run failed. Adds the seconds of each asset's step."""
    stale = out_of_date(instance, store, job, partition)
    title = escape(f"{job} [{partition}]" if partition else job)
    if not stale:
        console.print(f"[dim]{title}: up to date[/]")
        return True
    console.print(f"[bold]{title}[/]: {len(stale)} assets")
    pointer = dg.build_reconstructable_job("pipeline.operating.location", "resolve_job", reconstructable_args=(job,))
    with progress(instance) as tail:
        result = dg.execute_job(
            pointer,
            instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={"dagster/partition": partition} if partition else {},
            asset_selection=stale,
        )
    steps = {step.step_key: step for step in instance.get_run_step_stats(result.run_id)}
    for record in instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records:
        step = steps[str(record.event_log_entry.step_key)]
        if record.asset_key and step.start_time and step.end_time:
            seconds[record.asset_key.to_user_string(), record.partition_key] = step.end_time - step.start_time
    if not result.success:
        console.print(f"[bold red]{title} failed[/] (run {result.run_id})\n", style="red")
        console.print(tail.failure or "no reason was recorded: see the run in the UI, `make ui`", markup=False)
    return bool(result.success)


def table_rows(store: Store, plan: Sequence[tuple[str, str | None]], seconds: Seconds) -> list[Row]:
    """A row an asset and partition, in the order of the chain: rows read of its first dependency, rows published, seconds of its step in this run."""
    graph, rows = definitions().resolve_asset_graph(), dict[tuple[str, str | None], Row]()
    declared = {spec.key: spec for spec in definitions().resolve_all_asset_specs()}
    jobs = {job.name: job.selection.resolve(graph) for job in automation.jobs(load_profile())}

    def own(key: dg.AssetKey, partition: str | None) -> str | None:
        return partition if graph.get(key).is_partitioned else None

    def count(key: dg.AssetKey, partition: str | None) -> int | None:
        manifest = store.manifest(key.to_user_string(), own(key, partition))
        return manifest.rows if manifest else None

    for job, partition in plan:
        for key in graph.toposorted_asset_keys:
            if key in jobs[job]:
                place = (key.to_user_string(), own(key, partition))
                first = next((count(d.asset_key, partition) for d in declared[key].deps), None)
                rows.pop(place, None)  # of the leaderboard, made anew for every recipe, the last one stands
                rows[place] = Row(
                    str(declared[key].group_name), *place, first, count(key, partition), seconds.get(place)
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProfileError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(2)
