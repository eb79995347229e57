"""The whole chain on a profile, as runs that the UI shows, with progress, a table and a report at the end. `make demo` is this.

Only what is missing or out of date is run: see `pipeline.operating.stale`.
"""

import time
import warnings

import dagster as dg
from rich.markup import escape

from pipeline import partitions
from pipeline.automation.jobs import plan, stretches
from pipeline.operating.location import definitions
from pipeline.operating.made import rows_made, show
from pipeline.operating.progress import console, peak_memory, progress
from pipeline.operating.report import write_report
from pipeline.operating.stale import out_of_date
from pipeline.settings import Profile
from pipeline.store import Store

DEMO = "demo"
"""The partition that the demo makes of assets with dynamic partitions: the key of its delivery."""


def run_chain(profile: Profile) -> int:
    """Run every job of the profile's chain, in order; 0 where everything is published, 1 where a run failed.

    The profile has to be the one that `PIPELINE_PROFILE` names: the definitions are loaded by it.
    """
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)  # of Dagster's own parts, about each other
    store, instance = Store(profile.store), dg.DagsterInstance.get()
    begun, seconds = time.monotonic(), dict[tuple[str, str | None], float]()
    console.print(f"Running the profile [bold]{escape(profile.name)}[/]. Its store is {escape(profile.store)}.")
    if profile.ratings_note:
        console.print(f"[bold]{escape(profile.ratings_note)}[/]")
    for stretch in partitions.chain(profile):
        if isinstance(stretch.partitions, dg.DynamicPartitionsDefinition):
            instance.add_dynamic_partitions(str(stretch.partitions.name), [DEMO])
    specs = definitions().resolve_all_asset_specs()
    members = {stretch.job: found for stretch, found in stretches(profile, specs)}
    steps = plan(profile, specs, [DEMO])
    with peak_memory() as peak:
        for job, partition in steps:
            title = escape(f"{job} [{partition}]" if partition else job)
            stale = [s.key for s in out_of_date(instance, definitions(), store, members[job], partition)]
            if not stale:
                console.print(f"[dim]{title} is up to date.[/]")
                continue
            console.print(f"[bold]{title}[/] makes {len(stale)} asset{'s' if len(stale) > 1 else ''}.")
            made = run_job(instance, job, partition, stale)
            if made is None:
                return 1
            seconds |= made
    rows = rows_made(store, profile, specs, steps, seconds)
    show(rows)
    report = write_report(store, profile, rows)
    console.print(
        f"The chain took {time.monotonic() - begun:.0f} s. This process and its workers held at most "
        f"{peak[0] / 2**30:.2f} GiB of memory."
    )
    console.print(f"The report is {report}.\n`make ui` shows the same runs in the Dagster UI.", markup=False)
    return 0


def run_job(
    instance: dg.DagsterInstance, job: str, partition: str | None, assets: list[dg.AssetKey]
) -> dict[tuple[str, str | None], float] | None:
    """Run some assets of a job, printing what it does: seconds of each asset's step, or None where the run failed."""
    pointer = dg.build_reconstructable_job("pipeline.operating.location", "resolve_job", reconstructable_args=(job,))
    with progress(instance) as tail:
        result = dg.execute_job(
            pointer,
            instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={"dagster/partition": partition} if partition else {},
            asset_selection=assets,
        )
    if not result.success:
        console.print(f"The run {result.run_id} failed.", style="bold red")
        console.print(tail.failure or "It recorded no reason. `make ui` shows the run in the Dagster UI.", markup=False)
        return None
    steps = {step.step_key: step for step in instance.get_run_step_stats(result.run_id)}
    seconds = dict[tuple[str, str | None], float]()
    for record in instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records:
        step = steps[str(record.event_log_entry.step_key)]
        if record.asset_key and step.start_time and step.end_time:
            seconds[record.asset_key.to_user_string(), record.partition_key] = step.end_time - step.start_time
    return seconds
