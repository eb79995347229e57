"""What a run does, printed as it happens, and the memory that it takes; the console that the commands print to."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import dagster as dg
import psutil
from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, soft_wrap=True, emoji=False)
"""What the commands here print to."""


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
                failed = check.severity == dg.AssetCheckSeverity.ERROR
                colour, word = ("red", "failed") if failed else ("yellow", "warns")
                console.print(
                    f"  [{colour}]![/] {check.asset_key.to_user_string()}: check {check.check_name} {word}. "
                    f"This does not hold: {escape(check.description or '')}"
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
