"""Plan methods that align models with rewards, and train one on a file, without a pipeline.

Run: `python -m pipeline.alignment plan | train`.
Files have rated responses, pairs of which one is preferred, or both: see `pipeline.reward_model.sources.files`.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pyarrow as pa
from rich.table import Column, Table
from rich.text import Text
from upath import UPath

from pipeline.alignment import from_file
from pipeline.alignment.planning.command import add_plan
from pipeline.alignment.shown import PARTS
from pipeline.commands import add_columns, add_profile, console, ended, notes
from pipeline.forms.renamed import parsed_columns
from pipeline.processes import QUIET, threads
from pipeline.records import FileError
from pipeline.reward_model import rows
from pipeline.reward_model.shown import read_from
from pipeline.reward_model.sources import Source
from pipeline.settings import TRAINING_FIELDS, Method, load_profile
from pipeline.store import read_table, replacing
from pipeline.vocabulary import RatedBy

TOLD = ("loss", "policy_loss", "value_loss", "divergence", "reward", "kl", "accuracy", "tokens")
"""Figures of a curve that are printed, in this order."""
LEFT_OUT = {
    "turns_not_trained": "conversations have earlier turns that are not trained",
    "unscored": "responses are left out, as the reward model doesn't score them",
    "equal_texts": "pairs are left out, as both texts have the same tokens",
}
"""Counts of the worker that are told where they are not 0."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 where it was done, 1 with the reason on standard error where it was not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser("python -m pipeline.alignment", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_plan(commands)
    _add_train(commands)
    options = parser.parse_args(arguments)
    return ended(
        lambda: options.run(options), "Stopped. The same command goes on from what is finished, if anything is."
    )


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        help="train a method of a profile on a file",
        description="Train a method of a profile's section `alignment` on a file of rated responses, pairs, or both, and write the policy in "
        "Hugging Face form.",
    )
    command.set_defaults(run=_train)
    command.add_argument("method", metavar="METHOD", help="method of the profile, or its kind where no other is of it")
    command.add_argument(
        "input",
        type=Path,
        metavar="IN",
        help=f"file of rated responses, pairs, or both, whose name ends in {', '.join(rows.ENDINGS)}",
    )
    command.add_argument(
        "output", type=Path, metavar="FOLDER", help="folder to write the policy to; it must not exist yet"
    )
    add_profile(command)
    command.add_argument(
        "--start",
        metavar="FOLDER_OR_HUB_ID",
        help="model that the method starts from: the folder of another method's policy, any other language model's, or a hub id "
        "(organisation/name, or organisation/name@REVISION) (default: the profile's checkpoint, where the method names one)",
    )
    command.add_argument(
        "--reward-model",
        type=Path,
        metavar="FOLDER",
        help="folder of the reward model that gives the rewards; iterative_dpo, ppo, rloo, steerlm and steerlm2 need it",
    )
    command.add_argument(
        "--weights",
        metavar="NAME=NUMBER,...",
        help="weights of the reward model's outputs; an output that is not named counts nothing (not needed for a model of one output)",
    )
    command.add_argument(
        "--unconditional",
        type=Path,
        metavar="FOLDER",
        help="folder of the policy that is P(y|x), which steerlm2 needs",
    )
    add_columns(command, TRAINING_FIELDS)
    command.add_argument(
        "--rated-by",
        choices=get_args(RatedBy),
        help="who gave the ratings, for the policy's card: those of the reward model where there is one, else the file's (default: what its card, "
        "or the file's rated_by, simulated or desk say, else that nobody knows)",
    )
    command.add_argument(
        "--tensorboard",
        type=Path,
        metavar="FOLDER",
        help="folder for the curves, as TensorBoard files (default: no curves but the policy's own curve.parquet)",
    )


def _train(options: argparse.Namespace) -> None:
    if options.output.exists():
        raise FileError(f"{options.output}: exists already; name a folder that doesn't exist")
    profile, columns = load_profile(options.profile), parsed_columns(options.columns, TRAINING_FIELDS)
    models = (options.start, options.unconditional, options.reward_model, options.weights)
    wanted = from_file.wanted_of(profile, options.method, *models)
    file = rows.to_train(options.input, "mean", columns)
    _say(file.source)
    given = from_file.data_of(wanted, file.source, options.input)
    if wanted.alignment.origin_of(wanted.name) == "conversations":
        notes.print(
            f"The profile has conversations for {wanted.name}; here {options.input.name} alone is learned", markup=False
        )
    if n := len(given.dropped):
        notes.print(f"prompts dropped, as rows of the file's validation and test splits have them: {n}")
    known = wanted.reward.rated_by if wanted.reward else file.rated_by
    raters = from_file.note_of(wanted, options.input, options.rated_by or known)
    version = from_file.version_of(wanted, options.input, columns)
    # what is finished stays beside the folder until it stands: a run that was cut off goes on from it
    kept = options.output.with_name(f".{options.output.name}.checkpoints")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(UPath(options.output)) as staged, TemporaryDirectory() as folder:
        staged.mkdir()
        places = from_file.Places(UPath(folder), kept, staged)
        figures = from_file.train(
            wanted,
            given,
            version,
            places,
            raters,
            options.tensorboard,
            options.input,
            lambda said: notes.print(said, markup=False),
        )
    shutil.rmtree(kept)
    _show(wanted.name, wanted.method, figures, read_table(UPath(options.output) / "curve.parquet"))
    console.print(f"{options.output}", markup=False)


def _say(source: Source) -> None:
    """Print what was made of a file, before it is trained on."""
    shown = Table("", Column("rows", justify="right"), title=f"What was read of {source.name}")
    for line in read_from(source).to_pylist():
        shown.add_row(Text(line["what"]), f"{line['rows']:,}")
    console.print(shown)


def _show(name: str, method: Method, figures: Mapping[str, Any], curve: pa.Table) -> None:
    """Print what a training was of, and its figures at the beginning and in the end."""
    for count, what in LEFT_OUT.items():
        if n := figures.get(count):
            notes.print(f"{n} {what}")
    for count, n in figures.items():
        if count.startswith("no_pair: "):
            notes.print(f"{n} prompts have no pair: {count.removeprefix('no_pair: ')}")
    units = {"dpo": "pairs", "iterative_dpo": "pairs", "ppo": "prompts", "rloo": "prompts", "steerlm2": "samples"}
    given = round(figures["rows"] / figures["fitting_share"])
    on = f"{figures['rows']:,} of {given:,} {units.get(method.kind, 'conversations')}, those that fit"
    right = (Column(words, justify="right") for words in ("first", "last"))
    steps = f"{figures['steps']:,} step{'s' * (figures['steps'] != 1)}"
    shown = Table("", *right, title=f"{from_file.called(name, method)}: {steps} on {on}")
    known = curve.to_pylist()
    for figure in TOLD:
        for part, words in PARTS.items():
            values = [row[figure] for row in known if row["part"] == part and row.get(figure) is not None]
            if values:
                shown.add_row(f"{figure.replace('_', ' ')}, {words}", f"{values[0]:.4f}", f"{values[-1]:.4f}")
    console.print(shown)


if __name__ == "__main__":
    os.environ.update({**QUIET, **threads()})  # libraries read it as they are imported
    sys.exit(main())
