"""Compute a consensus from ratings, measure their agreement, or convert files of ratings, without a pipeline.

Run: `python -m pipeline.annotations consensus | agreement | convert`.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.annotations import published
from pipeline.annotations.agreement import STAGES, agreement
from pipeline.annotations.consensus import Ratings, Totals, labels_of_stream
from pipeline.annotations.held import without_held
from pipeline.annotations.imported import Used, decisions
from pipeline.annotations.people import People, one_vote
from pipeline.annotations.schema import rated_by
from pipeline.commands import console, notes
from pipeline.forms import exports, label_studio
from pipeline.forms import ratings as formats
from pipeline.forms.ratings import FORMS, READ, Habits, Quarantine
from pipeline.forms.renamed import parsed_columns
from pipeline.forms.streams import in_whole_prompts
from pipeline.records import FileError, ending_of
from pipeline.vocabulary import ATTRIBUTES

IN_MEMORY = 1_000_000
"""Annotations that are read whole, so that they may be in any order; of more, a prompt's rows must stand together."""


class CommandError(Exception):
    """Why a command can't be done."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 where it was done, 1 with the reason on standard error where it was not, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (FileError, CommandError, ValueError, OSError) as error:
        notes.print(f"{error}", style="red", markup=False)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pipeline.annotations", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    forms = [*FORMS, label_studio.NAME]
    read = [*forms, *exports.TOOLS]

    def command(name: str, run: Callable[[argparse.Namespace], None], says: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=says, description=says)
        added.set_defaults(run=run)
        added.add_argument(
            "input", type=Path, metavar="IN", help=f"file to read, whose name ends in {', '.join(formats.ENDINGS)}"
        )
        added.add_argument("--form", choices=read, help="form of the rows in IN (default: recognised by their fields)")
        added.add_argument(
            "--columns",
            nargs="+",
            default=[],
            metavar="FIELD=COLUMN",
            help="fields that IN calls otherwise, and what it calls them: response_id=item",
        )
        added.add_argument(
            "--scale",
            nargs="+",
            default=[],
            metavar="SAID=LEVEL",
            help="what stands in IN for each level from 0 to 4: 1=0 2=1 3=2 4=3 5=4; for one attribute alone verbosity.short=0",
        )
        added.add_argument(
            "--quarantine",
            type=Path,
            metavar="FILE",
            help="JSONL file that takes the rows that can't be used (default: stop at the first of them)",
        )
        return added

    def selection(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--keep",
            type=int,
            default=3,
            metavar="N",
            help="number of ratings kept of each response, those that agree most (default: 3)",
        )
        added.add_argument(
            "--rule",
            choices=["per_attribute", "annotator"],
            default="per_attribute",
            help="whether ratings are kept for each attribute by itself, or all of an annotator's (default: per_attribute)",
        )
        added.add_argument(
            "--max-spread",
            type=int,
            default=2,
            metavar="N",
            help="largest spread of the kept helpfulness ratings that a task may have (default: 2)",
        )
        added.add_argument(
            "--responses",
            type=int,
            metavar="N",
            help="number of responses that a task must have, all of them agreed on (default: as many as it has, two or more)",
        )

    made = command(
        "consensus",
        _consensus,
        "Compute labels from ratings: remove outliers, drop tasks on which annotators disagree, and round the means.",
    )
    made.add_argument("output", type=Path, metavar="OUT", help="file to write the labels to")
    selection(made)
    shown = command(
        "agreement",
        _agreement,
        "Measure agreement by kappa and alpha, before and after ratings are selected, beside what the selection gives by chance.",
    )
    selection(shown)
    shown.add_argument(
        "--permutations",
        type=int,
        default=20,
        metavar="N",
        help="number of permutations that the chance level is the mean of (default: 20)",
    )
    shown.add_argument(
        "--draws",
        type=int,
        default=1000,
        metavar="N",
        help="number of bootstrap draws for the intervals (default: 1000)",
    )
    shown.add_argument("--seed", type=int, default=0, help="seed of the permutations and draws (default: 0)")
    shown.add_argument("--json", action="store_true", help="print JSON instead of tables")
    converted = command(
        "convert",
        _convert,
        "Write the same rows to another kind of file, or turn annotations into the form label_studio and back.",
    )
    converted.add_argument(
        "output", type=Path, metavar="OUT", help=f"file to write, whose name ends in {', '.join(formats.WRITTEN)}"
    )
    converted.add_argument(
        "--to",
        choices=forms,
        help="form of the rows in OUT (default: label_studio for a .json file, otherwise the form of IN)",
    )
    return parser


# ------------------------------------------------------------------------------------------------------------------------- commands


def _consensus(options: argparse.Namespace) -> None:
    habits, totals = _habits(options), Totals()
    form = options.form or formats.form_of(options.input, habits.columns)
    rules = (totals, options.keep, options.rule, options.max_spread)
    if form == "disagreements" and options.responses not in (None, 2):
        raise CommandError("--responses: a task of the form disagreements has two responses")
    with _reading(options, form, habits) as (tables, quarantine, people, used):
        if form == "disagreements":
            rows = formats.write(options.output, "helpsteer", published.helpsteer_rows(tables, *rules))
        elif form in READ:
            voted = one_vote(in_whole_prompts(_whole_first(tables)), people, options.input.name, quarantine)
            voted = map(used.note, without_held(voted, options.input.name, quarantine))
            rows = formats.write(options.output, "labels", labels_of_stream(voted, *rules, options.responses))
        else:
            raise CommandError(
                f"{options.input}: rows of the form {form} have no single ratings; a consensus needs a file of annotations or disagreements"
            )
    table = Table("", "in", "removed", "out")
    table.add_row("ratings", *_counts(totals.ratings, totals.kept))
    table.add_row("tasks", *_counts(totals.tasks, totals.tasks - totals.dropped))
    table.add_row("responses", *_counts(totals.responses, rows))
    console.print(table)
    console.print(f"{options.output}: {rows:,} rows", markup=False)


def _counts(before: int, after: int) -> list[str]:
    share = f" ({(before - after) / before:.1%})" if before else ""
    return [f"{before:,}", f"{before - after:,}{share}", f"{after:,}"]


def _agreement(options: argparse.Namespace) -> None:
    habits, raters = _habits(options), set[str]()
    form = options.form or formats.form_of(options.input, habits.columns)
    with _reading(options, form, habits) as (tables, quarantine, people, used):
        if form == "disagreements":
            levels, prompt = published.ratings_of_stream(tables)
        elif form in READ:
            parts, offset = [], 0
            voted = one_vote(in_whole_prompts(_whole_first(tables)), people, options.input.name, quarantine)
            for table in map(used.note, voted):
                ratings = Ratings.of(table)
                parts.append((ratings.levels, ratings.prompt + offset))
                offset += int(ratings.prompt.max(initial=-1)) + 1
                raters |= set(rated_by(table, elsewhere="people"))
            levels = published.stacked([part for part, _ in parts])
            prompt = np.concatenate([np.zeros(0, np.int64), *(numbers for _, numbers in parts)])
        else:
            raise CommandError(
                f"{options.input}: rows of the form {form} have no single ratings; agreement needs a file of annotations or disagreements"
            )
    selection, who = (options.keep, options.rule, options.max_spread), " and ".join(sorted(raters)) or "people"
    with notes.status("") as status:
        found = agreement(
            levels, prompt, *selection, options.seed, who,
            permutations=options.permutations, draws=options.draws, responses=options.responses, say=status.update,
        )  # fmt: skip
    if options.json:
        print(json.dumps(found.to_pylist()))
    else:
        _show(found.to_pylist(), who)


def _show(rows: list[dict[str, Any]], who: str) -> None:
    titles = {
        "kappa": "Weighted kappa",
        "alpha_interval": "Krippendorff's alpha, interval",
        "alpha_ordinal": "Krippendorff's alpha, ordinal",
    }
    by = {(r["stage"], r["attribute"]): r for r in rows}
    for figure, title in titles.items():
        table = Table("attribute", *STAGES, title=f"{title}, of {who}", title_justify="left")
        for attribute in ATTRIBUTES:
            table.add_row(attribute, *(_cell(by[stage, attribute], figure) for stage in STAGES))
        console.print(table)
    sizes = ", ".join(f"{stage} {by[stage, 'helpfulness']['responses']:,}" for stage in STAGES)
    console.print(
        f"Brackets hold 95 % intervals. `by chance` is what the same selection gives of ratings that don't agree. Numbers of responses: {sizes}.",
        markup=False,
    )


def _cell(row: dict[str, Any], figure: str) -> str:
    published_ = f"  HelpSteer2 {row['published']:.3f}" if figure == "kappa" else ""
    interval = f"\\[{row[f'{figure}_low']:.2f}, {row[f'{figure}_high']:.2f}]"
    return f"[bold]{row[figure]:.3f}[/] {interval}\nby chance {row[f'{figure}_null']:.3f}{published_}"


def _convert(options: argparse.Namespace) -> None:
    habits = _habits(options)
    form = options.form or formats.form_of(options.input, habits.columns)
    rows_of = "annotations" if form in READ else form
    to_json = ending_of(options.output, formats.WRITTEN) in (".json", ".json.gz")
    to = options.to or (label_studio.NAME if to_json else rows_of)
    if rows_of != ("annotations" if to == label_studio.NAME else to):
        more = (
            "; the command `consensus` makes them"
            if (form, to) in {("disagreements", "helpsteer"), ("annotations", "labels")}
            else ""
        )
        raise CommandError(f"{options.input}: rows of the form {form} can't be written in the form {to}{more}")
    with _reading(options, form, habits) as (tables, *_):
        whole = _whole_first(tables) if to == label_studio.NAME else tables
        rows = formats.write(options.output, to, whole)
    console.print(f"{options.output}: {rows:,} rows of {to}", markup=False)


# -------------------------------------------------------------------------------------------------------------------------- reading


def _habits(options: argparse.Namespace) -> Habits:
    """What IN calls fields, and its scales. Raises FileError where an argument can't be that."""
    scale: dict[str, dict[str, int]] = {}
    for part in options.scale:
        said, _, level = part.rpartition("=")
        attribute, dot, word = said.partition(".")
        if not said or level not in ("0", "1", "2", "3", "4"):
            raise FileError(f"--scale {part}: is not SAID=LEVEL with a level from 0 to 4")
        of = attribute if dot and attribute in ATTRIBUTES else "all"
        scale.setdefault(of, {})[said if of == "all" else word] = int(level)
    return Habits(parsed_columns(options.columns, {*FORMS["annotations"].schema.names, *exports.IDS}), scale)


@contextmanager
def _reading(
    options: argparse.Namespace, form: str, habits: Habits
) -> Iterator[tuple[Iterator[pa.Table], Quarantine, People, Used]]:
    """The rows of IN, with a progress bar, and what takes note of rows set aside, people and ratings; an error where nobody asked for that.

    At the end, what was decided, and who is one person.
    """
    people, used = People(), Used()
    with ExitStack() as stack:
        part = options.quarantine and options.quarantine.with_name(f".{options.quarantine.name}.{os.getpid()}")
        if part:
            file = stack.enter_context(part.open("w", encoding="utf-8"))
            stack.callback(part.unlink, missing_ok=True)
            quarantine = Quarantine(lambda row: print(json.dumps(row, ensure_ascii=False), file=file))
        else:
            quarantine = Quarantine(_first_only(), faults_alone=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        progress = stack.enter_context(Progress(*columns, console=notes, transient=True))
        bar = progress.add_task(options.input.name, total=options.input.stat().st_size)
        tables = formats.read(options.input, form, quarantine, lambda n: progress.advance(bar, n), habits)
        yield _unless_bad(tables, quarantine, options), quarantine, people, used
        if part:
            file.flush()
            part.replace(options.quarantine)
    if quarantine.ignored:
        notes.print(
            f"The form {form} has no such fields, so they are left out: {', '.join(quarantine.ignored)}", markup=False
        )
    where = f"; rows set aside are in {options.quarantine}" if part and quarantine.counts else ""
    aside = quarantine.counts + quarantine.left_out
    table = Table("what was decided", "rows", title=f"{options.input.name} as {form}{where}", title_justify="left")
    for decided in decisions(quarantine.read, aside, used, habits).to_pylist():
        table.add_row(escape(decided["what"]), f"{decided['rows']:,}")
    notes.print(table)
    for note in quarantine.notes:
        notes.print(f"Noted: {note}", markup=False)
    for name, spelled in people.spelled.items():
        notes.print(f"One person is taken for all of these ids: {', '.join(spelled)}; called {name}", markup=False)


def _first_only() -> Callable[[dict[str, Any]], None]:
    def refuse(row: dict[str, Any]) -> None:
        line = "" if row["line"] is None else f":{row['line']}"
        raise CommandError(
            f"{row['file']}{line}: {row['reason']}\nGive --quarantine FILE to set such rows aside and go on."
        )

    return refuse


def _unless_bad(tables: Iterable[pa.Table], quarantine: Quarantine, options: argparse.Namespace) -> Iterator[pa.Table]:
    rows = 0
    for table in tables:
        rows += len(table)
        yield table
    if not rows:
        bad = f"; {quarantine.counts.total():,} rows were set aside" if quarantine.counts else ""
        raise CommandError(f"{options.input}: has no row that can be used{bad}")


def _whole_first(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Annotations sorted by prompt where there are few enough, else as they come."""
    first, rows = list[pa.Table](), 0
    for table in tables:
        first.append(table)
        rows += len(table)
        if rows > IN_MEMORY:
            yield from first
            yield from tables
            return
    if first:
        yield pa.concat_tables(first).sort_by("prompt_id")  # a stable sort: a response's ratings keep their order


if __name__ == "__main__":
    sys.exit(main())
