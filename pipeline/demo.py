"""`make demo`: the whole chain on the profile, as runs that the UI shows, with progress, a table and a report at the end.

Only what is missing or out of date is run: by the same reckoning that marks an asset as stale in the UI.
"""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import psutil
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.temporal_context import TemporalContext
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assets import DELIVERIES
from pipeline import automation
from pipeline.report import write_report
from pipeline.settings import ProfileError, load_profile
from pipeline.store import Store

Seconds = dict[tuple[str, str | None], float]
"""What the step of an asset and partition took."""
DEMO_DELIVERY = "demo"
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Row:
    """A line of the table at the end."""

    stage: str
    asset: str
    partition: str | None
    rows_in: int | None
    rows_out: int | None
    seconds: float | None


def resolve_job(name: str) -> dg.JobDefinition:
    """A job of the code location, found again by the run."""
    return _defs().resolve_job_def(name)


def _defs() -> dg.Definitions:
    """The profile's definitions. Loaded at their first use: a profile that can't be used is told by `main` before."""
    from pipeline.definitions import defs

    return defs


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
    pointer = dg.build_reconstructable_job("pipeline.demo", "resolve_job", reconstructable_args=(job,))
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


def out_of_date(instance: dg.DagsterInstance, store: Store, job: str, partition: str | None) -> list[dg.AssetKey]:
    """Assets of a job that are missing from the store or stale, and those of the job that depend on them, parents first."""
    graph = _defs().resolve_asset_graph()
    now = TemporalContext(effective_dt=datetime.now(UTC), last_event_id=None)
    resolver = CachingStaleStatusResolver(
        instance, graph, AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
    )
    members = next(j for j in automation.jobs(load_profile()) if j.name == job).selection.resolve(graph)
    stale: set[dg.AssetKey] = set()
    for key in graph.toposorted_asset_keys:
        if key in members:
            own = partition if graph.get(key).is_partitioned else None
            missing = store.manifest(key.to_user_string(), own) is None
            if missing or graph.get(key).parent_keys & stale or resolver.get_status(key, own) != StaleStatus.FRESH:
                stale.add(key)
    return [key for key in graph.toposorted_asset_keys if key in stale]


@contextmanager
def progress(instance: dg.DagsterInstance) -> Iterator["Tail"]:
    """Print what a run that starts now does, as it happens."""
    tail, stop = Tail(instance), threading.Event()

    def follow() -> None:
        while not stop.wait(0.7):
            tail.print_news()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield tail
    finally:
        stop.set()
        thread.join()
        tail.print_news()


class Tail:
    """The events of the newest run, from where it was last looked at."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance, self._since = instance, datetime.now(UTC)
        self._run: str | None = None
        self._cursor: str | None = None
        self._started = dict[str, float]()
        self.failure: str | None = None

    def print_news(self) -> None:
        """Print what is new: steps that end, what workers say, checks that fail."""
        if self._run is None:
            newest = self._instance.get_run_records(dg.RunsFilter(created_after=self._since), limit=1)
            if not newest:
                return
            self._run = newest[0].dagster_run.run_id
        page = self._instance.get_records_for_run(self._run, self._cursor)
        self._cursor = page.cursor
        for record in page.records:
            self._print(record.event_log_entry)

    def _print(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if int(entry.level) >= logging.INFO and not entry.user_message.startswith("[pipes]"):
                console.print(f"    [dim]{escape(entry.user_message)}[/]")
        elif event.event_type == dg.DagsterEventType.STEP_START:
            self._started[str(event.step_key)] = entry.timestamp
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            rows = event.materialization.metadata.get("dagster/row_count")
            note = f"{rows.value} rows" if rows else "published"
            taken = entry.timestamp - self._started[str(event.step_key)]
            console.print(
                f"  [green]✓[/] {event.materialization.asset_key.to_user_string():<28} {note:>12}  {taken:6.1f} s"
            )
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                colour, word = (
                    ("red", "failed") if check.severity == dg.AssetCheckSeverity.ERROR else ("yellow", "warns")
                )
                console.print(
                    f"  [{colour}]![/] {check.asset_key.to_user_string()}: check {check.check_name} {word}: {escape(check.description or '')}"
                )
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            reason = event.step_failure_data.user_failure_data
            error = event.step_failure_data.error
            self.failure = (reason.description if reason else None) or (error.to_string() if error else None)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Peak resident memory of this process and its children, in bytes, sampled twice a second."""
    peak, stop, me = [0], threading.Event(), psutil.Process()

    def sample() -> None:
        while not stop.wait(0.5):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def table_rows(store: Store, plan: Sequence[tuple[str, str | None]], seconds: Seconds) -> list[Row]:
    """A row an asset and partition, in the order of the chain: rows read of its first dependency, rows published, seconds of its step in this run."""
    graph, rows = _defs().resolve_asset_graph(), dict[tuple[str, str | None], Row]()
    declared = {spec.key: spec for spec in _defs().resolve_all_asset_specs()}
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
