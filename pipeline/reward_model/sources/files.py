"""A team's files as training data, for profiles and for the commands: rated responses, pairs of which one is preferred, or both.

| fields | what they are |
|---|---|
| `prompt`, `response` | a text, with earlier turns as in nvidia/HelpSteer2's files, or a list of messages; the response, or a list that holds it |
| `messages` | a list of messages that ends with the response, or, beside `response`, before it |
| the attributes | a number from 0 to 4, whole or a mean; absent, empty or null: not rated |
| those of two responses | see `pipeline.forms.pairs` |
| `split` | a row of a validation or test split is left out, and its prompt kept to be looked for among the others; absent: to train on |
| `rated_by`, `simulated`, `desk` | who rated, as this project's own tables say it |

Each row says by its fields which form it has. Columns under other spellings ("Response ID" for response_id), or under names that a mapping
gives, are taken for the fields. In CSV a list is JSON. Other fields are left out.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.forms.conversations import Messages, asked, response_of
from pipeline.forms.pairs import Pair, number_of, pair_of, prompt_of
from pipeline.forms.ratings import FieldError, snake
from pipeline.forms.renamed import renamed
from pipeline.records import ENDINGS as TABLES
from pipeline.records import JSON_ENDINGS, USUAL, Dialect, Unreadable, any_records, dialect_of, ending_of
from pipeline.reward_model.sources.tables import (
    BATCH,
    BEYOND_LIMIT,
    PARTED,
    PREFERRED_ROWS,
    RATED_ROWS,
    TIES,
    VALIDATION_PAIRS,
    VALIDATION_ROWS,
    LabelKind,
    Prompts,
    Source,
    context_id,
    different,
    preferences_of,
    response_id,
)
from pipeline.settings import TRAINING_FIELDS, Recipe
from pipeline.vocabulary import ATTRIBUTES, MESSAGES, RatedBy

ENDINGS = tuple(dict.fromkeys((*JSON_ENDINGS, *TABLES)))
"""Of files that are read."""
HELD_OUT = ("val", "valid", "validation", "dev", "development", "eval", "test")
"""Values of `split`, in any case, whose rows are not trained on; `train` and nothing are trained on, and any other value is refused."""
LEAST_OF_PEOPLE: tuple[RatedBy, ...] = ("simulated annotators", "language models", "people")
"""Where rows say different things of who rated, the first of these is said of all."""

FORMS = {
    "prompt and response": ("prompt", "response"),
    "messages with the response at the end": ("messages",),
    "prompt, chosen and rejected": ("prompt", "chosen", "rejected"),
    "prompt, response_1, response_2 and preference_strength": (
        "prompt",
        "response_1",
        "response_2",
        "preference_strength",
    ),
    "context, response1, response2 and overall_preference": ("context", "response1", "response2", "overall_preference"),
}
"""Fields of each form, by what it is called where a row has none."""
UNPAIRED, STEPS = {"completion", "label"}, {"completions", "labels"}
"""Fields of TRL's unpaired preferences, and of its supervision by steps, which nothing here learns from."""


def fill(
    source: Source,
    rows: Path | None,
    preferences: Path | None,
    labels: LabelKind,
    limit: int | None,
    columns: Mapping[str, str],
) -> RatedBy | None:
    """Take files into a source, and say who rated: people's preferences where there are any, else those that the ratings give.

    rows: file of rated responses, pairs, or both; preferences: file of pairs alone; labels: `rounded` rounds ratings with fractions, half up;
    columns: the names in the files of fields that are called otherwise there. A row that can't be used is set aside.
    """
    reader = Reader(source, columns, limit)
    if rows:
        reader.read(rows)
    if preferences:
        reader.read(preferences, pairs_alone=True)
    means = reader.rated.table()
    source.rated = means if labels == "mean" else rounded(means, source)
    pairs = reader.preferred.table()
    source.preferred = (
        different(pairs, source.counts)
        if preferences or reader.pairs
        else preferences_of(source.rated, means["helpfulness"], source.counts)
    )
    source.validation = pa.array(reader.held_out, MESSAGES)
    return reader.rated_by


def rounded(rated: pa.Table, source: Source) -> pa.Table:
    """Rated responses with whole ratings, half up; those that had fractions are counted in the source."""
    for place, a in enumerate(rated.column_names):
        if a in ATTRIBUTES:
            whole = pc.floor(pc.add(rated[a], 0.5))
            if changed := pc.sum(pc.not_equal(rated[a], whole)).as_py():
                source.rounded[a] += changed
                rated = rated.set_column(place, RATED_ROWS.field(a), whole)
    return rated


def check_rated(rated: pa.Table, recipe: Recipe) -> None:
    """Raise ValueError where no row of files has a rating of an attribute that a recipe learns from: its output would learn nothing."""
    wanted = recipe.attributes if recipe.ratings else ()
    if len(rated) and (missing := [a for a in wanted if rated[a].null_count == len(rated)]):
        raise ValueError(
            f"the file has no rating of {', '.join(missing)}; name those attributes alone in the recipe that it has (attributes: [...])"
        )


class Reader:
    """Reads the rows of files one by one; counts, and sets aside what can't be used.

    every_split: rows of validation and test splits are taken too.
    """

    def __init__(
        self, source: Source, columns: Mapping[str, str], limit: int | None = None, every_split: bool = False
    ) -> None:
        self.rated, self.preferred = _Rows(RATED_ROWS), _Rows(PREFERRED_ROWS)
        self.pairs = 0
        self.held_out: list[Messages] = []
        self.said: set[RatedBy] = set()
        self._source, self._columns, self._every_split = source, columns, every_split
        self._prompts = Prompts(limit)

    @property
    def rated_by(self) -> RatedBy | None:
        """Who rated, as far as the rows say it."""
        return next((who for who in LEAST_OF_PEOPLE if who in self.said), None)

    def read(self, path: Path, pairs_alone: bool = False) -> None:
        """Read a file. pairs_alone: it has no rated responses. Raises FileError where it can't be read at all."""
        source, ending = self._source, ending_of(path, ENDINGS)
        if ending.startswith((".csv", ".tsv")):
            dialect = dialect_of(path)
            if dialect not in (USUAL, Dialect("utf-8", "\t")):
                source.quarantine.add(path.name, None, None, dialect.said, None, fault=False)
        for line, given in any_records(path):
            source.read += 1
            if isinstance(given, Unreadable):
                source.quarantine.add(path.name, line, None, given.reason, given.text, fault=not given.left_out)
                continue
            try:
                self._take(given, pairs_alone)
            except FieldError as error:
                source.quarantine.add(path.name, line, error.name or None, str(error).strip(), given)

    def _take(self, given: Any, pairs_alone: bool) -> None:
        if not isinstance(given, Mapping):
            raise FieldError("", f"the row is a {type(given).__name__}, not a record")
        record, mapped = fields_of(given, self._columns)
        held_out = not self._every_split and _held_out(record.get("split"))
        try:
            pair = pair_of(record)
            form, row = _paired(pair) if pair else _rated(record)
        except FieldError as error:
            raise _explained(error, record, given) from None
        if pair is None and pairs_alone:
            raise FieldError("response", "is rated, and the file is one of pairs alone: name it as `path`")
        self._source.forms[form] += 1
        self._source.mapped.update(mapped)
        if by := _rated_by(record):
            self.said.add(by)
        if held_out:
            self._source.counts[VALIDATION_PAIRS if pair else VALIDATION_ROWS] += 1
            self.held_out.append(row["messages"])
        elif not self._prompts.take(row["prompt_id"]):
            self._source.counts[BEYOND_LIMIT] += 1
        elif pair is None:
            position = self._prompts.position(row["prompt_id"])
            self.rated.add(row | {"position": position, "response_id": response_id(row["prompt_id"], position)})
        else:
            self.pairs += 1
            self._source.counts[PARTED] += pair.parted
            self._source.counts[TIES] += not pair.strength
            if pair.strength:
                self.preferred.add(row)


class _Rows:
    """Rows that become a table, some thousands at a time."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._some, self._parts = schema, list[dict[str, Any]](), [schema.empty_table()]

    def add(self, row: dict[str, Any]) -> None:
        self._some.append(row)
        if len(self._some) == BATCH:
            self._close()

    def table(self) -> pa.Table:
        self._close()
        return pa.concat_tables(self._parts)

    def _close(self) -> None:
        self._parts.append(pa.Table.from_pylist(self._some, schema=self._schema))
        self._some = []


# ----------------------------------------------------------------------------------------------------------------------------- a row


def fields_of(given: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A record by the fields' names, without those that say nothing, and which of them have other names in the file ("COLUMN as FIELD")."""
    record = renamed(given, columns)
    mapped = [f"{theirs} as {ours}" for ours, theirs in columns.items() if ours in record and ours != theirs]
    spelled = _spelled(tuple(record))
    mapped += [f"{theirs} as {ours}" for theirs, ours in spelled.items()]
    named = {spelled.get(name, name): value for name, value in record.items()}
    return {name: value for name, value in named.items() if value is not None and value == value}, mapped


@lru_cache(maxsize=1024)
def _spelled(names: tuple[str, ...]) -> dict[str, str]:
    """What columns that aren't called as a field are taken for, where that is plain: no other column may be meant."""
    meant = [snake(name) for name in names]
    return {n: m for n, m in zip(names, meant, strict=True) if n != m and m in TRAINING_FIELDS and meant.count(m) == 1}


def _rated(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a rated response's form is called, and its row."""
    form, messages, response = _answered(record)
    row: dict[str, Any] = {"prompt_id": context_id(messages), "messages": messages, "response": response}
    return form, row | {a: level_of(record.get(a), a) for a in ATTRIBUTES}


def _paired(pair: Pair) -> tuple[str, dict[str, Any]]:
    """What a pair's form is called, and its row."""
    row = {
        "prompt_id": context_id(pair.messages),
        "messages": pair.messages,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }
    return pair.form, row | {"strength": pair.strength}


def _answered(record: Mapping[str, Any]) -> tuple[str, Messages, str]:
    """What a record's form is called, its conversation and its response."""
    strange = next((fields for fields in (UNPAIRED, STEPS) if fields <= record.keys()), None)
    if strange and record.keys().isdisjoint(("response", "messages")):
        raise FieldError(min(strange), _REFUSED[min(strange)])
    given = prompt_of(record, "messages", "prompt")
    if given is None:
        raise FieldError("prompt", "is missing, and so is messages: a row has one of them")
    messages, before = given
    if record.get("response") is not None:
        return f"{before} and response", asked(messages, before), response_of(record["response"], "response")[1]
    if messages[-1]["role"] != "assistant":
        raise FieldError("response", f"is missing, and {before} does not end with the assistant's message")
    return f"{before} with the response at the end", asked(messages[:-1], before), messages[-1]["content"]


_REFUSED = {
    "completion": "is one response that is good or bad by its label (TRL's unpaired preferences), and nothing here learns from such labels: bring "
    "pairs of chosen and rejected, or ratings from 0 to 4",
    "completions": "are the steps of one response with a label each (TRL's supervision by steps), and nothing here learns from steps: bring whole "
    "responses in pairs of chosen and rejected, or with ratings from 0 to 4",
}


def level_of(value: Any, name: str) -> float | None:
    """A rating from 0 to 4, whole or a mean; None where there is none."""
    if isinstance(value, list) or str(value).startswith("["):
        raise FieldError(
            name, "is a list of ratings; make labels of them first: python -m pipeline.annotations consensus IN OUT"
        )
    level = number_of(value, name)
    if level is not None and not 0 <= level <= 4:
        raise FieldError(name, f"is {level:g}, not a number from 0 to 4")
    return level


def _held_out(split: Any) -> bool:
    """Whether a row is of a split that is not trained on."""
    said = str(split or "train").strip().lower()
    if said not in ("", "train", "training", *HELD_OUT):
        raise FieldError("split", f"is {str(split)[:40]!r}, neither train nor one of {', '.join(HELD_OUT)}")
    return said in HELD_OUT


def _rated_by(record: Mapping[str, Any]) -> RatedBy | None:
    said = record.get("rated_by")
    if said in get_args(RatedBy):
        return said
    if record.get("desk") == "simulated" or str(record.get("simulated")).lower() in ("true", "1"):
        return "simulated annotators"
    return "language models" if record.get("desk") == "models" else None


def _explained(error: FieldError, record: Mapping[str, Any], given: Mapping[str, Any]) -> FieldError:
    """An error with what the row has and which form comes nearest, where it is a field that the row lacks."""
    if record.get(error.name) is not None:
        return error
    share = {form: sum(name in record for name in fields) / len(fields) for form, fields in FORMS.items()}
    nearest = max(share, key=share.__getitem__)
    lacks = ", ".join(name for name in FORMS[nearest] if name not in record)
    near = f" The form that comes nearest is {nearest}; it lacks {lacks}." if 0 < share[nearest] < 1 else ""
    return FieldError(
        error.name,
        f"{str(error).removeprefix(error.name).strip()}. The row has the fields {_listed(given)}.{near} Forms: {'; '.join(FORMS)}. Columns under "
        "other names can be mapped (columns)",
    )


def _listed(names: Iterable[Any]) -> str:
    shown = [str(name)[:40] for name in names]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
