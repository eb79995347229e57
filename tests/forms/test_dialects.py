"""The same ratings in files of other habits: the same labels, people and counts, whatever program or person wrote them."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotations.consensus import consensus_labels, most_agreeing
from pipeline.annotations.people import RATED_AGAIN, People, one_vote
from pipeline.forms.ratings import Quarantine, form_of, read, snake
from pipeline.forms.streams import in_whole_prompts
from pipeline.records import Dialect, dialect_of
from pipeline.vocabulary import ATTRIBUTES

NAMES = ("prompt_id", "response_id", "annotator_id", *ATTRIBUTES, "safe", "flags", "comment", "annotated_at")
HEADERS = {
    "plain": lambda name: name,
    "spaced": lambda name: f" {name.replace('_', ' ').title()}",
    "upper": str.upper,
    "camel": lambda name: name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:]),
}
PEOPLE = {"plain": str, "padded": lambda n: f" {n} ", "real": lambda n: f"{n}.0", "number": int}
SAFE = {"words": ("safe", "Unsafe"), "python": ("True", "False"), "bits": ("1", "0"), "yes": ("yes", "no")}
FLAGS = {"json": json.dumps, "bars": "|".join}


def ratings(levels: list[list[int]]) -> list[dict[str, Any]]:
    """Ratings of two responses, A and B, to each of some prompts, by three people; all that people may write is there."""
    return [
        {
            "prompt_id": f"p{prompt}",
            "response_id": name,
            "annotator_id": who + 1,
            **{a: (level + n) % 5 for n, a in enumerate(ATTRIBUTES)},
            "safe": level > 0,
            "flags": ["pii", "code"] if level == 4 else [],
            "comment": 'très bien; "oui", n\'est-ce pas?',
            "annotated_at": f"2026-01-0{1 + who}T10:00:00Z",
        }
        for prompt, row in enumerate(levels)
        for (name, who), level in zip([(n, w) for n in "AB" for w in range(3)], row, strict=True)
    ]


def written(rows: list[dict[str, Any]], path: Path, how: dict[str, Any]) -> None:
    """Write rows into a file in a way."""
    called = HEADERS[how["header"]]
    yes, no = SAFE[how["safe"]]
    kind = path.name.partition(".")[2]
    if kind in ("csv", "tsv"):
        cells = [
            row
            | {"annotator_id": PEOPLE[how["people"]](row["annotator_id"]), "safe": yes if row["safe"] else no}
            | {"flags": FLAGS[how["flags"]](row["flags"]) if row["flags"] else ""}
            for row in rows
        ]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, NAMES, delimiter="\t" if kind == "tsv" else how["delimiter"], lineterminator=how["end"]
        )
        writer.writerow({name: called(name) for name in NAMES})
        writer.writerows(cells)
        path.write_bytes(text.getvalue().encode(how["encoding"]))
        return
    people = str if kind == "parquet" else PEOPLE[how["people"]]
    records = [{called(k): v for k, v in (row | {"annotator_id": people(row["annotator_id"])}).items()} for row in rows]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif how["listed"]:
        path.write_text(json.dumps(records, indent=how["indent"], ensure_ascii=how["ascii"]), encoding=how["bom"])
    else:
        lines = "".join(json.dumps(r, ensure_ascii=how["ascii"]) + "\n" for r in records)
        path.with_suffix(".jsonl").write_text(lines, encoding=how["bom"])


def outcome(path: Path) -> tuple[list[dict[str, Any]], int, int, list[Any]]:
    """Labels, people, ratings set aside because their annotators replaced them, and what was said of safety and flags."""
    aside, people = Quarantine(), People()
    tables = list(read(path, form_of(path), aside))
    whole = pa.concat_tables(tables).sort_by("prompt_id")
    kept = pa.concat_tables(one_vote(in_whole_prompts([whole]), people, path.name, aside))
    assert aside.counts.total() == 0, aside.rows
    assert not aside.ignored
    order = [(n, "ascending") for n in ("prompt_id", "response_id", "annotator_id")]
    said = [(r["safe"], r["flags"] or [], r["comment"], r["annotated_at"]) for r in kept.sort_by(order).to_pylist()]
    return consensus_labels(most_agreeing(kept)).to_pylist(), people.count, aside.left_out[RATED_AGAIN], said


WAYS = st.fixed_dictionaries(
    {
        "header": st.sampled_from(sorted(HEADERS)),
        "people": st.sampled_from(sorted(PEOPLE)),
        "safe": st.sampled_from(sorted(SAFE)),
        "flags": st.sampled_from(sorted(FLAGS)),
        "delimiter": st.sampled_from(",;\t|"),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "listed": st.booleans(),
        "indent": st.sampled_from([None, 1]),
        "ascii": st.booleans(),
        "bom": st.sampled_from(["utf-8", "utf-8-sig"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    levels=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=3),
    kind=st.sampled_from(["csv", "csv", "tsv", "json", "jsonl", "parquet"]),
    how=WAYS,
    seed=st.integers(0, 99),
    copies=st.integers(0, 3),
)
def test_the_same_ratings_in_any_dress_say_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    levels: list[list[int]],
    kind: str,
    how: dict[str, Any],
    seed: int,
    copies: int,
) -> None:
    place, rows = tmp_path_factory.mktemp("dress"), ratings(levels)
    plain = place / "plain.jsonl"
    plain.write_text("".join(json.dumps(r | {"annotator_id": str(r["annotator_id"])}) + "\n" for r in rows))
    wanted = outcome(plain)
    draw = random.Random(seed)
    replaced = [
        r | {"annotated_at": "2025-12-31T10:00:00Z"} | dict.fromkeys(ATTRIBUTES, 0)
        for r in draw.choices(rows, k=copies)
    ]
    given_ = [*rows, *replaced]
    draw.shuffle(given_)
    path = place / f"a.{kind}"
    if kind == "json" and not how["listed"]:
        path = place / "a.jsonl"
    written(given_, path, how)
    labels, people, again, said = outcome(path)
    assert (labels, people, said) == (wanted[0], wanted[1], wanted[3])
    assert again == copies


@pytest.mark.parametrize(
    ("content", "dialect"),
    [
        (b"a,b\n1,2\n", Dialect("utf-8", ",")),
        (b"a;b\n1,5;2\n", Dialect("utf-8", ";")),
        ("a|b\né|ü\n".encode(), Dialect("utf-8", "|")),
        ("a,b\né,ü\n".encode("cp1252"), Dialect("cp1252", ",")),
        ("a,b\né,".encode() + b"\xff\n", Dialect("utf-8", ",")),  # one broken letter of a UTF-8 file
        ("a\tb\n1\t2\n".encode("utf-16"), Dialect("utf-16", "\t")),
        ("a;b\n1;2\n".encode("utf-16-le"), Dialect("utf-16-le", ";")),
        (b"only\n1\n", Dialect("utf-8", ",")),
        (b"", Dialect("utf-8", ",")),
    ],
)
def test_a_files_encoding_and_what_parts_its_cells_are_seen(tmp_path: Path, content: bytes, dialect: Dialect) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert dialect_of(tmp_path / "a.csv") == dialect


@pytest.mark.parametrize("name", ["Response ID", " response-id ", "responseId", "RESPONSE_ID", "response__id"])
def test_a_columns_name_is_known_in_any_dress(name: str) -> None:
    assert snake(name) == "response_id"
