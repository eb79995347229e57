"""What the commands of stages have in common: where they write, options that they share, and how they end."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from pipeline.records import FileError

console = Console(highlight=False, soft_wrap=True, emoji=False)
notes = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def add_profile(command: argparse.ArgumentParser) -> None:
    """Add the option that names the profile."""
    command.add_argument(
        "--profile",
        metavar="NAME_OR_PATH",
        help="profile to use, by its name or the path of its file (default: the profile that PIPELINE_PROFILE names, otherwise tiny)",
    )


def add_columns(command: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Add the option by which a file's columns are taken for fields."""
    command.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="FIELD=COLUMN",
        help=f"what IN calls fields that it has under other names, such as response=output.text; fields are {', '.join(fields)}",
    )


def ended(run: Callable[[], Any], stopped: str = "Stopped.") -> int:
    """Run a command: 0 where it was done, 1 with the reason on standard error where it was not, 130 where somebody stopped it.

    stopped: what is said then. What is unfinished is removed on the way out, also where the process is told to end (SIGTERM: 143).
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run()
    except KeyboardInterrupt:
        notes.print(stopped)
        return 130
    except (FileError, ValueError, OSError, RuntimeError) as error:
        notes.print(f"{error}", style="red", markup=False)
        return 1
    return 0
