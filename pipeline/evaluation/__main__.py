"""Evaluate any reward model on any benchmark, without a pipeline.

Run: `python -m pipeline.evaluation MODEL --benchmark FILE_OR_NAME --out DIR`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Column, Table
from upath import UPath

from pipeline.benchmarks import loading
from pipeline.benchmarks.loading import Form, Loaded
from pipeline.benchmarks.loading import prompts as read_prompts
from pipeline.benchmarks.schema import TOTALS
from pipeline.commands import console, notes
from pipeline.dataset.schema import DATASET
from pipeline.evaluation import history, page, schema, summary, weights
from pipeline.evaluation.doubt.contamination import contaminated
from pipeline.evaluation.leaderboard import Evaluated
from pipeline.evaluation.scorers.scorer import Scorer
from pipeline.evaluation.scorers.specs import ModelSpec, spec_of
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.evaluation.scoring import in_processes, reweighed, score
from pipeline.models.outputs import parse_weights
from pipeline.records import FileError
from pipeline.settings import Decontamination
from pipeline.store import read_table, write_table
from pipeline.texts.decontamination import NGRAM, SEEN_PROMPTS, fingerprints

KEPT = ".scores"
"""Folder in DIR of what is scored already."""
PREFERENCES = "development_preferences.parquet"
"""What a model of this project brings along to fit its weights on."""
RULE = Decontamination()
"""When a prompt counts as one that was trained on: the profiles' rule as it comes."""
UNCHECKED = "Nothing says which prompts the model was trained on, so nobody has looked whether items are among them (--trained-on FILE)."


def main(arguments: list[str] | None = None) -> int:
    """Evaluate; 0 where it was done, 1 with the reason on standard error where it was not, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        _evaluate(options)
    except (FileError, ValueError, OSError, RuntimeError) as error:
        notes.print(f"{error}", style="red", markup=False)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pipeline.evaluation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="reward model to evaluate: a folder in Hugging Face format, a hub id (organisation/name, or organisation/name@REVISION), the "
        "http(s):// address of a server that classifies, or one of the baselines longest and random",
    )
    parser.add_argument(
        "--benchmark",
        action="append",
        required=True,
        metavar="FILE_OR_NAME",
        help=f"benchmark to score, by its name ({', '.join(loading.NAMED)}) or as a file, written FORM:FILE where its "
        f"form isn't pairs; FILE may be a folder of files, or a pattern in quotes ('rm_bench:data/*_filtered.json'); may be given several times",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the report, the tables and the scores; a second run goes on from the scores in it",
    )
    parser.add_argument(
        "--weights", help="weights of the model's outputs, NAME=NUMBER,...; an output that is not named counts nothing"
    )
    parser.add_argument(
        "--as-published",
        action="store_true",
        help="search the weights on each benchmark itself, as HelpSteer2 did; the result is then tuned on the test set, and marked so",
    )
    parser.add_argument(
        "--outputs",
        help="names of the model's outputs in their order, where its own names say nothing; - leaves an output out",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="largest number of tokens of a conversation; longer ones lose their oldest turns, then their beginning (default: 4096)",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "auto"],
        help="floating-point type of a model that is loaded here; auto: bfloat16 where the device has it (default: float32, in which no score "
        "depends on its batch)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="number of processes that score side by side, one for each accelerator (default: 1)",
    )
    parser.add_argument("--served-model", metavar="NAME", help="name of the model at a server that has several")
    parser.add_argument("--key-env", metavar="VARIABLE", help="environment variable with the server's API key")
    parser.add_argument(
        "--trained-on",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="file of prompts that the model was trained on, with a field prompt or messages, to count the benchmark's items among them; may be "
        "given several times; a model that this project trained says it by itself",
    )
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="--out of an earlier evaluation, to compare this one with"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the intervals, and of the baseline random (default: 0)"
    )
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    loaded, forms = _load(options.benchmark)
    items = pa.concat_tables(one.items for one in loaded.values())
    rejected = pa.concat_tables(one.rejected for one in loaded.values())
    _say_rejected(rejected)
    names = options.outputs.split(",") if options.outputs else None
    settings = spec_of(
        options.model,
        max_tokens=options.max_tokens,
        precision=options.precision,
        outputs=names,
        served_model=options.served_model,
        key_env=options.key_env,
        seed=options.seed if options.model == "random" else None,
    )
    before = _read(options.against) if options.against else None
    trained = _trained_on(options)

    def log(message: str) -> None:
        notes.print(message, markup=False)

    scorer = scorer_of(settings, log)
    factors, tuned_on = _weights(options, scorer)
    several = (
        in_processes(settings, options.processes) if options.processes > 1 and isinstance(settings, ModelSpec) else None
    )
    scores, facts = score(scorer, items, UPath(options.out) / KEPT, log, factors, several)
    used = dict(factors or {scorer.outputs[0]: 1.0})
    if options.as_published:
        best = _searched(items, scores, forms)
        scores, tuned_on = reweighed(scores, best), ", ".join(loaded)
        used = {f"{name}: {output}": weight for name, of in best.items() for output, weight in of.items()}
    tables = summary.figures(items, scores, forms, options.seed)
    given = {
        name: value
        for name, value in scorer.identity.items()
        if name != "model" and isinstance(value, str | int | float)
    }
    made = history.provenance(
        items,
        tables["outcomes.parquet"],
        forms,
        scorer.name,
        scorer.version,
        used,
        options.seed,
        **given,
        weights_from=tuned_on,
    )
    after = history.Run(made["code"], tables["outcomes.parquet"], made["benchmarks"])
    mine = Evaluated(
        scorer.name,
        tables["summary.parquet"],
        made,
        tuned_on=tuned_on if options.as_published else None,
        compute={
            "score_seconds": facts["seconds_of_all"],
            "score_tokens": facts["tokens"] or None,
            "device": scorer.device,
        },
        length_bias=tables["length_bias.parquet"],
        contamination=_contamination(items, scores, forms, trained, options.seed),
        history=history.compare(before[1] if before else None, after, forms, options.seed),
    )
    models = [mine] + ([_told_apart(before[0], mine.model)] if before else [])
    write_table(scores, UPath(options.out) / "scores.parquet")
    write_table(tables["outcomes.parquet"], UPath(options.out) / history.OUTCOMES_FILE)
    write_table(rejected, UPath(options.out) / "rejected.parquet")
    title = f"{scorer.name} on {', '.join(loaded)}"
    unchecked = "" if trained is not None else UNCHECKED
    path = page.write(
        options.out,
        title,
        models,
        " ".join(part for part in (_note(facts, options.model), unchecked) if part),
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        always=(),
    )
    _show(mine, before)
    notes.print(unchecked or _seen(mine), markup=False)
    log(_cost(facts))
    console.print(f"{path}", markup=False)


def _trained_on(options: argparse.Namespace) -> pa.Table | None:
    """Fingerprints of the prompts that the model was trained on: what its folder says, and the files that are named; None where nobody says it.

    Raises FileError where the n-grams of the folder's are of another size than those of files.
    """
    found = [read_prompts(path) for path in options.trained_on]
    hashed = [fingerprints(pc.unique(pa.concat_arrays(found)), RULE.ngram)] if found else []
    own = Path(options.model).expanduser() / SEEN_PROMPTS
    if own.is_file():
        hashed.append(read_table(UPath(own)))
    if len({table.schema.metadata[NGRAM] for table in hashed}) > 1:
        raise FileError(
            f"{own}: its n-grams are not of {RULE.ngram} words, so --trained-on can't be counted with them; leave it out"
        )
    return pa.concat_tables(hashed) if hashed else None


def _contamination(
    items: pa.Table, scores: pa.Table, forms: Mapping[str, Form], trained: pa.Table | None, seed: int
) -> pa.Table:
    """Accuracies without the items that the model was trained on, in the schema CONTAMINATION; empty where nobody says what these are."""
    if trained is None:
        return schema.CONTAMINATION.empty_table()
    return summary.contamination(items, scores, forms, contaminated(items, trained, RULE), seed)


def _seen(mine: Evaluated) -> str:
    """How many items the model was trained on."""
    rows = mine.contamination.to_pylist()
    said = (f"{row['contaminated']} of {row['items']} items of {row['benchmark']}" for row in rows)
    return f"Prompts that the model was trained on: {', '.join(said)}."


def _load(wanted: Sequence[str]) -> tuple[dict[str, Loaded], dict[str, Form]]:
    """Benchmarks and their forms, by name: that of a benchmark, of a file without its endings, or of the form where a pattern names several."""
    loaded, forms = dict[str, Loaded](), dict[str, Form]()
    for text in wanted:
        benchmark = loading.named(text)
        name = text if text in loading.NAMED else Path(text.partition(":")[2] or text).name.split(".")[0]
        name = benchmark.form if {"*", "?"} & set(name) else name
        if name in loaded:
            raise ValueError(
                f"--benchmark {text}: there are two benchmarks of the name {name}; rename one of the files"
            )
        loaded[name] = loading.load(name, benchmark, DATASET.empty_table())
        forms[name] = loading.form(benchmark)
    return loaded, forms


def _say_rejected(rejected: pa.Table) -> None:
    if not len(rejected):
        return
    table = Table("benchmark", "line", "reason", title=f"Records set aside: {len(rejected)}", title_justify="left")
    for row in rejected.slice(0, 10).to_pylist():
        table.add_row(escape(row["benchmark"]), str(row["line"]), escape(row["reason"]))
    notes.print(table)


def _weights(options: argparse.Namespace, scorer: Scorer) -> tuple[dict[str, float] | None, str | None]:
    """Weights of the scorer's outputs, and where they come from: what was given, or fitted on preferences that the model brings along."""
    if options.weights and options.as_published:
        raise ValueError("--weights and --as-published exclude each other; give only one of them")
    if options.as_published:
        return dict.fromkeys(scorer.outputs, 1.0), None
    if options.weights:
        return parse_weights(options.weights, scorer.outputs), "the command line"
    preferences = Path(options.model).expanduser() / PREFERENCES
    kept = read_table(UPath(preferences)) if len(scorer.outputs) > 1 and preferences.is_file() else ()
    if len(kept):
        fitted = weights.weights_of(kept, "")
        found = dict(zip(fitted["attribute"].to_pylist(), fitted["weight"].to_pylist(), strict=True))
        notes.print(
            f"The weights are fitted on {len(kept)} {weights.HELD_OUT}: "
            + ", ".join(f"{n}={w:.3f}" for n, w in found.items()),
            markup=False,
        )
        return found, weights.HELD_OUT
    return None, None


def _searched(items: pa.Table, scores: pa.Table, forms: Mapping[str, Form]) -> dict[str, dict[str, float]]:
    """Weights that do best on each benchmark itself."""
    found = {}
    for name, form in forms.items():
        given, mine = (t.filter(pc.equal(t["benchmark"], name)) for t in (items, scores))
        table = weights.searched(given, mine, form)
        found[name] = dict(zip(table["attribute"].to_pylist(), table["weight"].to_pylist(), strict=True))
    return found


def _read(folder: Path) -> tuple[Evaluated, history.Run]:
    """What an earlier run left in its folder. Raises FileError where that is no such folder."""
    try:
        document = json.loads((folder / page.JSON).read_text())["models"][0]
        tables = {
            name: pa.Table.from_pylist(document[name], schema=getattr(schema, name.upper())) for name in page.TABLES
        }
        made = document["provenance"]
        more = {name: document[name] for name in ("model", "rated_by", "tuned_on", "compute")}
        outcomes = read_table(UPath(folder) / history.OUTCOMES_FILE)
        return Evaluated(provenance=made, **more, **tables), history.Run(
            made["model_version"], outcomes, made["benchmarks"]
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise FileError(f"--against {folder}: holds no finished evaluation ({type(error).__name__}: {error})") from None


def _told_apart(before: Evaluated, name: str) -> Evaluated:
    """The earlier model under a name that is not `name`: the page tells models by theirs."""
    return replace(before, model=f"{before.model} (before)") if before.model == name else before


def _note(facts: Mapping[str, Any], model: str) -> str:
    """What a reader must know of the scores."""
    parts = []
    if facts["cut"]:
        parts.append(
            f"{facts['cut']} of {facts['conversations']} conversations were too long and lost their beginning."
        )
    if facts["empty"]:
        parts.append(f"{facts['empty']} responses are empty; they are scored as empty answers.")
    if facts["not_scored"]:
        parts.append(
            f"{facts['not_scored']} conversations have no score (refused, or not finite): their responses lose."
        )
    if (Path(model).expanduser() / "README.md").is_file():
        parts.append("Who gave the ratings that the model learned from stands in its own card.")
    return " ".join(parts)


def _show(mine: Evaluated, before: tuple[Evaluated, history.Run] | None) -> None:
    rows = mine.summary.to_pylist()
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        lacks = mine.provenance["benchmarks"][benchmark]["lacks"]
        figures = [row for row in rows if row["benchmark"] == benchmark]
        counted = ["units", *(["independent"] if any(r["independent"] != r["units"] for r in figures) else [])]
        names = (*counted, "accuracy", "95 % interval", "longest", "random")
        columns = (Column(name, no_wrap=True, justify="right") for name in names)
        table = Table(
            Column("", overflow="fold"),
            *columns,
            title=f"{escape(mine.model)} on {escape(benchmark)}",
            title_justify="left",
        )
        subsets = {row["name"] for row in figures if row["level"] == "subset"}
        for row in figures:
            if row["level"] == "section" and row["name"] in subsets:
                continue  # of one subset: the same figure again
            levels = {"overall": "overall", "part": "part", "section": f"section {row['name']}"}
            name = levels.get(row["level"], row["name"])
            measure = "" if row["measure"] == summary.ACCURACY else f", {row['measure']}"
            shown = (
                "" if row[n] is None else f"{100 * row[n]:.1f}"
                for n in ("accuracy", "low", "high", "longest_accuracy", "random_accuracy")
            )
            accuracy, low, high, *baselines = shown
            style = "bold" if row["level"] in TOTALS else ""
            units = (f"{row[column]:,}" for column in counted)
            table.add_row(escape(name + measure), *units, accuracy, f"{low} to {high}", *baselines, style=style)
        console.print(table)
        if lacks:
            console.print(f"This is {lacks}: no score of the published benchmark.", style="yellow", markup=False)
    if mine.tuned_on:
        console.print(
            f"The weights were searched on {mine.tuned_on}: they are tuned on the test set, so this is no result to report.",
            style="yellow",
        )
    if before and len(mine.history):
        compared = Table(
            "benchmark",
            "before",
            "after",
            "difference",
            "95 % interval",
            "p",
            title=f"Beside {escape(before[0].model)}",
            title_justify="left",
        )
        for row in mine.history.to_pylist():
            ends = (f"{100 * row[n]:.1f}" for n in ("before", "after"))
            p = "not paired" if row["p_value"] is None else f"{row['p_value']:.4f}"
            interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
            compared.add_row(escape(row["benchmark"]), *ends, f"{100 * row['difference']:+.1f}", interval, p)
        console.print(compared)


def _cost(facts: Mapping[str, Any]) -> str:
    speed = f", {facts['tokens_per_second']:.0f} tokens/s" if facts["tokens_per_second"] else ""
    return (
        f"{facts['scored']} conversations were scored in {facts['seconds']:.0f} s{speed}; {facts['scored_before']} had been scored before. "
        f"{facts['cut']} conversations lost their beginning."
    )


if __name__ == "__main__":
    sys.exit(main())
