"""Plan, train, score and fold reward models on files, without a pipeline.

Run: `python -m pipeline.reward_model plan | train | score | fold`.
Files have rows of prompt, response and ratings, as nvidia/HelpSteer2's, or of messages, or pairs of responses in several forms: see
`pipeline.reward_model.sources.files`.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from rich.table import Column, Table
from rich.text import Text
from upath import UPath

from pipeline.commands import add_columns, add_profile, console, ended, notes
from pipeline.dataset.schema import DATASET
from pipeline.forms.renamed import parsed_columns
from pipeline.records import FileError
from pipeline.reward_model import rows
from pipeline.reward_model.planning import plan
from pipeline.reward_model.planning.options import add_characters_per_token, add_device, short
from pipeline.reward_model.planning.published import (
    CHARACTERS,
    CHARACTERS_A_TOKEN,
    GPUS_A_NODE,
    ROWS,
    Device,
    published,
)
from pipeline.reward_model.shown import read_from
from pipeline.reward_model.sources import Source
from pipeline.reward_model.sources.files import check_rated
from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.training_data import prepare
from pipeline.settings import TRAINING_FIELDS, Recipe, load_profile
from pipeline.store import replacing, write_table
from pipeline.vocabulary import ATTRIBUTES, RATINGS_NOTES, RatedBy
from pipeline.worker import Progress


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 where it was done, 1 with the reason on standard error where it was not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser("python -m pipeline.reward_model", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rated = f"file of rated responses, whose name ends in {', '.join(rows.ENDINGS)}"
    command = commands.add_parser(
        "plan",
        help="print the steps, operations, memory, GPUs and hours that a recipe takes, before it runs",
        description="Print the steps, operations, memory, GPUs and hours that recipes take, before they run. The data "
        "are FILE, or numbers: --rows or --pairs, and --mean-tokens.",
    )
    command.set_defaults(run=_plan)
    command.add_argument(
        "input",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="file of rated responses to plan for; without it, --rows or --pairs, and --mean-tokens are needed",
    )
    add_profile(command)
    command.add_argument("--recipe", metavar="NAME", help="recipe of the profile to plan (default: all of them)")
    command.add_argument(
        "--rows", type=int, default=0, metavar="N", help="number of rated responses in the train split"
    )
    command.add_argument("--pairs", type=int, default=0, metavar="N", help="number of preferences in the train split")
    command.add_argument(
        "--mean-tokens",
        type=float,
        default=0,
        metavar="T",
        help="mean number of tokens of a conversation with its response",
    )
    add_characters_per_token(command)
    add_device(command)
    command = commands.add_parser(
        "train",
        help="train a recipe of a profile on a file",
        description="Train a recipe of a profile on a file of rated responses.",
    )
    command.set_defaults(run=_train)
    add_columns(command, TRAINING_FIELDS)
    command.add_argument("input", type=Path, metavar="IN", help=rated)
    command.add_argument(
        "output", type=Path, metavar="FOLDER", help="folder to write the model to; it must not exist yet"
    )
    add_profile(command)
    command.add_argument("--recipe", metavar="NAME", help="recipe of the profile to train (default: its first)")
    command.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="number of processes that train together, one for each accelerator (FSDP; default: 1)",
    )
    command.add_argument(
        "--rated-by",
        choices=get_args(RatedBy),
        help="who gave the ratings, for the model's card (default: what the file's rated_by, simulated or desk say, else that nobody knows)",
    )
    command.add_argument(
        "--tensorboard",
        type=Path,
        metavar="FOLDER",
        help="folder for the curves, as TensorBoard files (default: no curves are kept)",
    )
    command = commands.add_parser(
        "score",
        help="write a trained model's predictions for the responses of a file",
        description="Write a trained model's predictions for the responses of a file, and print how they agree with its ratings.",
    )
    command.set_defaults(run=_score)
    add_columns(command, TRAINING_FIELDS)
    command.add_argument("model", type=Path, metavar="MODEL", help="folder of the trained model")
    command.add_argument("input", type=Path, metavar="IN", help=rated)
    command.add_argument(
        "output",
        type=Path,
        metavar="OUT",
        help="file to write the predictions to, .parquet, .jsonl or .csv: a row for each response, in the order of IN",
    )
    command.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="largest number of tokens of a conversation; longer ones lose their oldest turns, then the middle of their texts (default: what the "
        "model was trained with)",
    )
    command = commands.add_parser(
        "fold",
        help="make a model with one output, the weighted sum of a trained model's outputs",
        description="Make a model with one output, the weighted sum of a trained model's outputs.",
    )
    command.set_defaults(run=_fold)
    command.add_argument("model", type=Path, metavar="MODEL", help="folder of the trained model")
    command.add_argument(
        "output", type=Path, metavar="FOLDER", help="folder to write the new model to; it must not exist yet"
    )
    command.add_argument(
        "--weights",
        required=True,
        metavar="NAME=NUMBER,...",
        help="weights of the outputs; an output that is not named counts nothing",
    )
    options = parser.parse_args(arguments)
    return ended(
        lambda: options.run(options), "Stopped. The same command goes on from the last checkpoint, if there is one."
    )


def _plan(options: argparse.Namespace) -> None:
    if options.input and (options.rows or options.pairs or options.mean_tokens):
        raise ValueError("plan: give either a file or numbers (--rows, --pairs, --mean-tokens), not both")
    if not options.characters_per_token > 0:
        raise ValueError("--characters-per-token: must be above 0")
    profile = load_profile(options.profile)
    if options.input:
        table = rows.read(options.input).rated
        if not len(table):
            raise FileError(
                f"{options.input}: holds preferences alone; give their number with --pairs, and --mean-tokens"
            )
        characters = [
            sum(len(m["content"]) for m in messages) + len(response)
            for messages, response in zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
        ]
        data = plan.Data.of_rows(
            table["prompt_id"].to_pylist(), characters, table["helpfulness"].to_pylist(), options.characters_per_token
        )
    else:
        data = plan.Data.of_counts(options.rows, options.pairs, options.mean_tokens)
    device = plan.device_of(options.device, options.peak_tflops, options.float32_tflops, options.memory_gb)
    names = [options.recipe] if options.recipe else list(profile.recipes)
    stages = plan.plan(profile, names, data, device, options.share)
    if options.json:
        print(json.dumps(plan.reported(stages, device, options.share, data)))
    else:
        _show(stages, device, options.share, [profile.checkpoints[profile.recipes[name].base].hub for name in names])


def _show(stages: list[plan.Stage], device: Device, share: float, hubs: list[str | None]) -> None:
    def table(title: str, *columns: str) -> Table:
        return Table(
            Column("recipe", no_wrap=True), *(Column(c, overflow="fold") for c in ("stage", *columns)), title=title
        )

    work = table("Work", "trained on", "steps", "parameters", "tokens", "padded")
    costs = table("Operations", "training", "again", "head's start", "evaluations")
    needs = table("Memory of a GPU, on the fewest that hold it", "GPUs", "states", "whole", "activations")
    hours = table("Time", "GPU-hours", "node-hours")
    for s in stages:
        of = (s.recipe, s.objective)
        size = short(s.parameters) + (f", {short(s.trained)} trained" if s.trained < s.parameters else "")
        padded = "not known" if s.padded is None else short(s.padded)
        work.add_row(*of, f"{s.units:,} {s.unit}", f"{s.steps:,}", size, short(s.tokens), padded)
        costs.add_row(
            *of,
            *(f"{n:.2e}" if n else "0" for n in (s.training, s.recomputed, s.head_start, s.evaluation)),
        )
        m = s.memory
        gpus = "no number holds it" if m.gpus is None else f"{m.gpus:,}"
        needs.add_row(*of, gpus, *(f"{part / 1e9:,.1f} GB" for part in (m.states, m.whole, m.activations)))
        hours.add_row(*of, *(f"{h:,.2f}" for h in (s.gpu_hours, s.node_hours)))
    for shown in (work, costs, needs, hours):
        console.print(shown)
    console.print(
        f"{device.name}: {device.bfloat16 / 1e12:g} teraFLOPS in bfloat16, {device.float32 / 1e12:g} in float32, "
        f"{device.memory / 1e9:g} GB, of which {plan.HEADROOM:.0%} stay free; {share:.0%} of peak is assumed. A node has {GPUS_A_NODE} devices."
    )
    if any(s.memory.gpus is None for s in stages):
        console.print(
            "No number of GPUs holds the training: what doesn't shrink with their number (whole, activations) is too "
            "large. Turn on gradient_checkpointing, or lower micro_batch_tokens or max_tokens."
        )
    if any(hub in p.hubs for hub in hubs for p in published()):
        _show_published()


def _show_published() -> None:
    shown = Table(
        "model",
        "node-hours",
        "GPU-hours",
        "operations",
        "share of peak",
        "all padded to 4,096",
        "share of peak",
        title="HelpSteer2's own reward models, by their stated hours (H100-equivalents)",
    )
    for p in published():
        hours = (f"{p.node_hours:,.0f}", f"{p.gpu_hours:,.0f}")
        shown.add_row(
            p.model, *hours, f"{p.training:.2e}", f"{p.share:.2%}", f"{p.padded:.2e}", f"{p.padded_share:.1%}"
        )
    console.print(shown)
    console.print(
        f"Operations are of two epochs over {ROWS:,} rows of {CHARACTERS / CHARACTERS_A_TOKEN:.0f} tokens, the mean, and no more. "
        "What else the hours hold is not stated (the search over five learning rates, validation, padding, starting, saving), so these shares "
        "are the least that the GPUs did: neither a speed to plan by, nor a check of this plan."
    )


def _train(options: argparse.Namespace) -> None:
    from pipeline.reward_model.worker import work

    profile = load_profile(options.profile)
    name = options.recipe or next(iter(profile.recipes))
    if name not in profile.recipes:
        raise ValueError(f"profile {profile.name} has no recipe {name}; it has: {', '.join(profile.recipes)}")
    if options.output.exists():
        raise FileError(f"{options.output}: exists already; name a folder that doesn't exist")
    recipe, columns = profile.recipes[name], parsed_columns(options.columns, TRAINING_FIELDS)
    given = rows.to_train(options.input, recipe.labels, columns)
    _say(given.source)
    recipe = _of_rated(recipe, given.rated)
    rated_by = options.rated_by or given.rated_by
    made = prepare(given.source, recipe, DATASET.empty_table(), {}, profile.decontamination)
    if n := len(made.dropped):
        notes.print(f"prompts dropped, as rows of the file's validation and test splits have them: {n}")
    # checkpoints stay beside the folder until it stands: a run that was cut off goes on from them
    kept = options.output.with_name(f".{options.output.name}.checkpoints")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(UPath(options.output)) as staged, TemporaryDirectory() as folder:
        rated, preferred = UPath(folder) / "rated.parquet", UPath(folder) / "preferred.parquet"
        staged.mkdir()
        write_table(made.rated, rated)
        write_table(made.preferred, preferred)
        spec = TrainingSpec(
            rated=rated,
            preferred=preferred,
            processes=options.processes,
            tracking=options.tensorboard,
            data_version=_version(options.input, columns),
            work=kept,
            cache=Path(profile.store) / ".cache",
            checkpoint=profile.checkpoints[recipe.base],
            recipe=recipe,
            recipe_name=name,
            seed=profile.seed,
            rated_by=rated_by,
            ratings_note=RATINGS_NOTES[rated_by]
            if rated_by
            else f"Trained on the file {options.input.name}, which does not say who gave its ratings.",
            out=staged,
        )
        figures = work(spec, lambda message: notes.print(message, markup=False))
    shutil.rmtree(kept)
    headings = (f"step {figures['chosen_step']} of {figures['steps']}, published", "words and surface", "no look at it")
    shown = Table("", *headings, title="Development responses: loss, pairs in order, Pearson of each attribute")
    shown.add_row("loss", f"{figures['development_loss']:.4f}", "", f"{figures['baseline_loss']:.4f}")
    for name, *values in _against_text(figures):
        shown.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))
    console.print(shown)
    console.print(f"{options.output}", markup=False)


def _of_rated(recipe: Recipe, rated: pa.Table) -> Recipe:
    """A recipe that doesn't say which attributes it predicts, with those that some row rates, which is told.

    Raises ValueError where a recipe says it and no row rates one of them.
    """
    if "attributes" in recipe.model_fields_set or not recipe.ratings or not len(rated):
        check_rated(rated, recipe)
        return recipe
    there = [a for a in recipe.attributes if rated[a].null_count < len(rated)]
    if there and len(there) < len(recipe.attributes):
        missing = ", ".join(a for a in recipe.attributes if a not in there)
        notes.print(f"No row rates {missing}: the model predicts {', '.join(there)} alone")
        return Recipe.model_validate(recipe.model_dump(exclude_unset=True) | {"attributes": there})
    check_rated(rated, recipe)
    return recipe


def _say(source: Source) -> None:
    """Print what was made of a file, before it is trained on."""
    shown = Table("", Column("rows", justify="right"), title=f"What was read of {source.name}")
    for line in read_from(source).to_pylist():
        shown.add_row(Text(line["what"]), f"{line['rows']:,}")
    console.print(shown)
    if source.rounded:
        notes.print(
            f"{', '.join(source.rounded)}: has means, which the recipe rounds (labels: rounded); labels: mean takes them as they are"
        )


def _version(file: Path, columns: Mapping[str, str]) -> str:
    """Hash of a file, and of the names that its columns are taken for: 12 hex digits."""
    said = json.dumps(columns, sort_keys=True).encode() if columns else b""
    return hashlib.sha256(file.read_bytes() + said).hexdigest()[:12]


def _against_text(figures: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Name and value of a training's figures on development responses, and the same by words and surface alone."""
    values = ([figures[f"{of}pair_accuracy"], *figures[f"{of}pearson"]] for of in ("", "text_"))
    return list(zip(["pairs in order", *ATTRIBUTES], *values, strict=True))


def _writer(path: Path) -> Callable[[pa.Table, Path], None]:
    """What writes a table in the format of a file's name. Raises FileError where it has none."""
    writers = {
        ".parquet": lambda table, to: write_table(table, UPath(to)),
        ".jsonl": lambda table, to: table.to_pandas().to_json(to, orient="records", lines=True),
        ".csv": lambda table, to: table.to_pandas().to_csv(to, index=False),
    }
    if path.suffix not in writers:
        raise FileError(f"{path}: scores are written as {', '.join(writers)}; end the name with one of them")
    return writers[path.suffix]


def _score(options: argparse.Namespace) -> None:
    from transformers import AutoTokenizer

    from pipeline.models.classifier import outputs_of
    from pipeline.models.encoding import encode_each, longest_read
    from pipeline.models.loading import load_scorer
    from pipeline.models.scoring import score
    from pipeline.reward_model.figures import rating_figures
    from pipeline.reward_model.sides import labels_of

    write = _writer(options.output)
    table = rows.read(options.input, parsed_columns(options.columns, TRAINING_FIELDS), every_split=True).rated
    if not len(table):
        raise FileError(f"{options.input}: holds preferences alone; score takes rows with one response each")
    model = load_scorer(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    names = outputs_of(model.config)
    texts = zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
    encoded, refused = encode_each(tokenizer, texts, options.max_tokens or longest_read(tokenizer, model.config))
    lengths = [len(conversation.ids) for conversation in encoded.values()]
    tell = partial(notes.print, markup=False)
    say = Progress(tell, "conversations scored", len(encoded), lengths=lengths)
    places, scores = list(encoded), np.full((len(table), len(names)), np.nan)
    scores[places] = score(model, [conversation.ids for conversation in encoded.values()], say.update)
    for reason, those in refused.items():
        notes.print(f"{len(those)} responses have no scores: the chat template refuses them: {reason}", markup=False)
    write(pa.table({name: scores[:, n] for n, name in enumerate(names)}), options.output)
    shown = Table("", "Pearson", "error (MSE)", title=f"{len(table)} responses")
    for n, name in enumerate(names):
        attribute = name if name in ATTRIBUTES else "helpfulness"  # a reward is held against helpfulness
        if table[attribute].null_count == len(table):
            continue
        figures = rating_figures(scores[places][:, [n]], labels_of(table, [attribute])[places], [attribute])
        error = f"{figures[f'{attribute}_mse']:.3f}" if name == attribute else "-"
        shown.add_row(name, f"{figures[f'{attribute}_pearson']:.3f}", error)
    if shown.row_count:
        console.print(shown)
    else:
        console.print("The file has no ratings that the scores could be held against.")
    dropped, cut = (sum(bool(c[n]) for c in encoded.values()) for n in (1, 2))
    console.print(
        f"{options.output} has a row for each response, in their order. {dropped} conversations were too long and lost their oldest turns, "
        f"{cut} the middle of their texts.",
        markup=False,
    )


def _fold(options: argparse.Namespace) -> None:
    from transformers import AutoConfig

    from pipeline.models.classifier import outputs_of
    from pipeline.models.outputs import parse_weights
    from pipeline.reward_model.export import fold

    if options.output.exists():
        raise FileError(f"{options.output}: exists already; name a folder that doesn't exist")
    weights = parse_weights(options.weights, outputs_of(AutoConfig.from_pretrained(options.model)))
    with replacing(UPath(options.output)) as staged:
        fold(options.model, Path(staged), weights)
    console.print(f"{options.output}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
