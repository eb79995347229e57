"""`python -m pipeline.operating COMMAND`: run the chain, or write the report of what it has made."""

import argparse
import os
import sys
from collections.abc import Sequence

from pipeline.automation.jobs import plan
from pipeline.operating.location import definitions
from pipeline.operating.made import rows_made
from pipeline.operating.progress import console
from pipeline.operating.report import write_report
from pipeline.operating.run import run_chain
from pipeline.settings import Profile, ProfileError, load_profile
from pipeline.store import NotPublishedError, Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command; 0 where it is done, 1 where it failed, 2 where the profile or the command can't be used."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.operating", description="Run the pipeline, or write the report of what it has made."
    )
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--profile",
        metavar="NAME_OR_PATH",
        help="profile to use, by its name or the path of its file (default: the profile that PIPELINE_PROFILE names, otherwise tiny)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, do, says in (
        ("run", run, "run what is missing or out of date in the whole chain, and write the report"),
        ("report", report, "write the report of what the profile's store holds, and print its path"),
    ):
        commands.add_parser(name, parents=[which], help=says, description=says.capitalize() + ".").set_defaults(do=do)
    given = parser.parse_args(arguments)
    if given.profile:
        os.environ["PIPELINE_PROFILE"] = given.profile  # the code location and its processes read it there
    try:
        return int(given.do(load_profile()))
    except ProfileError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    except NotPublishedError as error:
        console.print(str(error), style="red", markup=False)
        return 1


def run(profile: Profile) -> int:
    """The command `run`."""
    if not os.environ.get("DAGSTER_HOME"):
        console.print(
            "The environment variable DAGSTER_HOME names no folder to record runs in: set it, or run `make demo`, which does.",
            style="red",
            markup=False,
        )
        return 2
    return run_chain(profile)


def report(profile: Profile) -> int:
    """The command `report`: of every delivery that is in the store."""
    store, specs = Store(profile.store), definitions().resolve_all_asset_specs()
    steps = plan(profile, specs, store.partitions("response_pairs"))
    console.print(str(write_report(store, profile, rows_made(store, profile, specs, steps, {}))), markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
