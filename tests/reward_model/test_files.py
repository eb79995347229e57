"""A team's files as training data: the forms in which rows and pairs come, columns under other names, splits, and what is told of them."""

import csv
import gzip
import json
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.forms.helpsteer import flatten
from pipeline.records import FileError
from pipeline.reward_model import rows, sources
from pipeline.reward_model.shown import read_from
from pipeline.reward_model.sources import Source, source_of
from pipeline.settings import FileData, HelpSteer2Data, ProfileError, Recipe, digest, load_profile
from pipeline.vocabulary import ATTRIBUTES, MESSAGES

HI = [{"role": "user", "content": "Hi"}]
Record = dict[str, Any]


def said(content: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": content}]


def written(path: Path, records: list[Record]) -> Path:
    """Records in the format of a file's name; a field that one lacks is null where the format has columns."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    ending = path.name.split(".", 1)[1]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([dict.fromkeys(columns) | record for record in records]), path)
        return path
    text = "".join(json.dumps(record) + "\n" for record in records)
    if ending == "json":
        text = json.dumps(records)
    elif ending.startswith(("csv", "tsv")):
        file = StringIO()
        writer = csv.DictWriter(file, columns, delimiter="," if ending.startswith("csv") else "\t")
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in records)
        text = file.getvalue()
    content = text.encode()
    match path.suffix:
        case ".gz":
            content = gzip.compress(content)
        case ".zst":
            content = pa.Codec("zstd").compress(content, asbytes=True)
    path.write_bytes(content)
    return path


def read(path: Path | None, labels: Any = "rounded", **more: Any) -> Source:
    given = FileData(kind="file", path=path and str(path), licence="none", **more)
    return sources.read("mine", given, labels)


def pairs(source: Source) -> list[tuple[str, str, float]]:
    return [(r["chosen"], r["rejected"], r["strength"]) for r in source.preferred.to_pylist()]


def reasons(source: Source) -> list[tuple[int | None, str | None, str]]:
    return [(r["line"], r["field"], r["reason"]) for r in source.quarantine.rows]


# --------------------------------------------------------------------------------------------------------------------- ratings, pairs


def test_some_attributes_means_and_nulls_are_read(tmp_path: Path) -> None:
    records = [
        {"prompt": "p", "response": "a", "helpfulness": 3},
        {"prompt": "p", "response": "b", "helpfulness": 1.5, "correctness": None},
        {"prompt": "p", "response": "c", "helpfulness": 1.25, "verbosity": 3},
    ]
    path = written(tmp_path / "rows.jsonl", records)
    source = read(path)
    assert source.rated["helpfulness"].to_pylist() == [3, 2, 1]
    assert source.rated["verbosity"].to_pylist() == [None, None, 3]
    assert source.rated["correctness"].null_count == 3
    assert dict(source.rounded) == {"helpfulness": 2}
    means = read(path, "mean")
    assert means.rated["helpfulness"].to_pylist() == [3, 1.5, 1.25]
    assert not means.rounded
    wanted = [("a", "b", 1.5), ("a", "c", 1.75), ("b", "c", 0.25)]
    assert pairs(source) == pairs(means) == wanted, "preferences are from ratings before rounding"
    assert reasons(source) == []


def test_a_pair_in_seven_forms_is_one(tmp_path: Path) -> None:
    records = [
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"chosen": [*HI, *said("a")], "rejected": [*HI, *said("b")], "score_chosen": 8.0, "score_rejected": 3.0},
        {"context": HI, "response1": "a", "response2": "b", "overall_preference": -2},
        {"prompt": "Hi", "response_1": "b", "response_2": "a", "preference_strength": 1},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"},
        {"prompt": HI, "chosen": said("a"), "rejected": said("b"), "strength": 3},
        {"prompt": "Hi", "chosen": [*HI, *said("a")], "rejected": [*HI, *said("b")], "messages": [*HI, *said("a")]},
    ]
    path = written(tmp_path / "pairs.jsonl", records)
    wanted = [("a", "b", strength) for strength in (1, 5, 2, 1, 1, 3, 1)]
    for source in (read(path), read(None, preferences=str(path)), rows.to_train(path, "rounded").source):
        assert pairs(source) == wanted
        assert source.preferred["messages"].to_pylist() == [HI] * 7
        assert len(set(source.preferred["prompt_id"].to_pylist())) == 1
        assert source.forms.total() == source.read == 7


@pytest.mark.parametrize(
    ("record", "strength"),
    [
        ({"score_chosen": 7, "score_rejected": 7}, None),
        ({"score_chosen": "7.5", "score_rejected": "7"}, 0.5),
        ({"score_chosen": 1, "score_rejected": 0, "strength": 2}, 2),
        ({"score_chosen": None, "score_rejected": None}, 1),
        ({"strength": float("nan")}, 1),
        ({"strength": ""}, 1),
    ],
)
def test_scores_say_how_strong_a_preference_is_and_ties_are_dropped(
    tmp_path: Path, record: Record, strength: float | None
) -> None:
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    source = read(written(tmp_path / "pairs.parquet", [pair, pair | record]))  # which has NaN where a number is missing
    assert [s for _, _, s in pairs(source)] == [1.0] + ([] if strength is None else [strength])
    assert source.counts[sources.TIES] == (strength is None)


def test_people_who_have_no_preference_are_not_asked_again_of_the_ratings(tmp_path: Path) -> None:
    rated = [{"prompt": "p", "response": name, "helpfulness": n} for n, name in enumerate("ab")]
    tie = {"context": HI, "response1": "a", "response2": "b", "overall_preference": 0}
    assert pairs(read(written(tmp_path / "both.jsonl", [*rated, tie]))) == []
    assert pairs(read(written(tmp_path / "rated.jsonl", rated))) == [("b", "a", 1.0)]


def test_whole_conversations_that_part_early_give_the_answers_at_which_they_part(tmp_path: Path) -> None:
    chosen = [*HI, *said("a"), {"role": "user", "content": "More"}, *said("c")]
    source = read(written(tmp_path / "pairs.jsonl", [{"chosen": chosen, "rejected": [*HI, *said("b")]}]))
    assert pairs(source) == [("a", "b", 1.0)]
    assert source.counts[sources.PARTED] == 1


def test_one_bad_row_is_set_aside_by_a_profile_and_refuses_the_file_of_a_command(tmp_path: Path) -> None:
    records = [{"prompt": "p", "response": "a", "helpfulness": n} for n in (1, 9, 2)]
    path = written(tmp_path / "rows.jsonl", records)
    source = read(path)
    assert source.rated["helpfulness"].to_pylist() == [1, 2]
    assert reasons(source) == [(2, "helpfulness", "helpfulness is 9, not a number from 0 to 4")]
    with pytest.raises(FileError, match=r"rows\.jsonl:2: helpfulness is 9, not a number from 0 to 4\. Rows that can't"):
        rows.to_train(path, "rounded")


@pytest.mark.parametrize(
    ("record", "field", "words"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2}, "score_chosen", "not the better one"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1}, "score_rejected", "is missing beside the other"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "strength": "inf"}, "strength", "is inf, not a number"),
        ({"context": HI, "response1": "a", "response2": "b", "overall_preference": 4}, "overall_preference", "from -3 to 3"),
        ({"context": HI, "response1": "a", "response2": "b"}, "overall_preference", "is missing"),
        ({"context": said("x"), "response1": "a", "response2": "b", "overall_preference": 1}, "context", "has no user's message"),
        ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "prompt", "nearest is prompt, chosen and rejected; it lacks prompt"),
        ({"prompt": "p", "completion": "a", "label": True}, "completion", "TRL's unpaired preferences"),
        ({"prompt": "p", "completions": ["a"], "labels": [True]}, "completions", "supervision by steps"),
        ({"prompt": "p", "answer": "a"}, "response", "prompt, answer. The form that comes nearest is prompt and response; it lacks response"),
        ({"text": "a"}, "prompt", "The row has the fields text. Forms: prompt and response; messages"),
        ({"prompt": "p", "response": "a", "split": "fold 3"}, "split", "is 'fold 3', neither train nor one of val"),
        (["a"], None, "the row is a list, not a record"),
    ],
)  # fmt: skip
def test_a_row_of_no_form_says_what_it_has_what_it_lacks_and_what_would_fit(
    tmp_path: Path, record: Any, field: str | None, words: str
) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (good, record)))
    ((line, name, reason),) = reasons(read(path))
    assert (line, name) == (2, field)
    assert words in reason


def test_rated_responses_have_no_place_in_a_file_of_preferences(tmp_path: Path) -> None:
    records = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "response": "a", "helpfulness": 1}]
    source = read(None, preferences=str(written(tmp_path / "pairs.jsonl", records)))
    assert len(source.rated) == 0
    assert [reason for *_, reason in reasons(source)] == [
        "response is rated, and the file is one of pairs alone: name it as `path`"
    ]


def test_published_rows_are_read_as_the_published_data_set_is(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "helpsteer2" / "labelled_1000.jsonl"
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    theirs = sources.read("theirs", HelpSteer2Data(kind="helpsteer2", folder=str(tmp_path)), "rounded")
    ours = read(path)
    assert same(ours, theirs)
    assert (len(ours.rated), ours.read, theirs.read) == (1000, 1000, 1000)


def test_real_pairs_are_read_whole(shared_data: Path) -> None:
    source = read(None, preferences=str(shared_data / "eval" / "rewardbench_part.jsonl"))
    assert (len(source.preferred), source.quarantine.rows) == (747, [])


# ----------------------------------------------------------------------------------------------------------- splits, limits, attributes


@pytest.mark.parametrize("split", ["val", "validation", "Test", "dev"])
def test_rows_of_other_splits_are_left_out_counted_and_kept_to_be_looked_for(tmp_path: Path, split: str) -> None:
    rated = {"prompt": "p", "response": "a", "helpfulness": 1}
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    records = [
        rated,
        rated | {"split": "train"},
        rated | {"split": split},
        pair | {"split": ""},
        pair | {"split": split},
    ]
    path = written(tmp_path / "rows.jsonl", records)
    for source in (read(path), rows.to_train(path, "rounded").source):
        assert (len(source.rated), len(source.preferred)) == (2, 1)
        assert (source.counts[sources.VALIDATION_ROWS], source.counts[sources.VALIDATION_PAIRS]) == (1, 1)
        assert [m[0]["content"] for m in source.validation.to_pylist()] == ["p", "q"]
    assert len(rows.read(path, every_split=True).rated) == 3, "a response of any split is scored"
    alone = written(tmp_path / "alone.jsonl", records[2:3])
    with pytest.raises(FileError, match=r"holds no row that can be used \(validation rows left out: 1\)"):
        rows.to_train(alone, "rounded")


def test_a_limit_takes_the_first_prompts_of_both_files(tmp_path: Path) -> None:
    rated = [{"prompt": p, "response": "a", "helpfulness": 1} for p in "xyx"]
    paired = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in "yx"]
    both = str(written(tmp_path / "pairs.jsonl", paired))
    source = read(written(tmp_path / "rows.jsonl", rated), preferences=both, limit=1)
    assert (len(source.rated), len(source.preferred)) == (2, 1)
    assert source.counts[sources.BEYOND_LIMIT] == 2


def test_an_attribute_that_no_row_has_is_refused_for_a_recipe_that_learns_from_it(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "a", "helpfulness": 1}])
    profile = load_profile("tiny")
    data = {"mine": FileData(kind="file", path=str(path), licence="none")}
    profile = profile.model_copy(update={"training_data": data})
    recipe = Recipe(base="small", data="mine")
    with pytest.raises(ValueError, match="no rating of correctness, coherence, complexity, verbosity; name those"):
        source_of(recipe, profile, pa.table({}))
    alone = recipe.model_copy(update={"attributes": ("helpfulness",)})
    assert len(source_of(alone, profile, pa.table({})).rated) == 1


# ---------------------------------------------------------------------------------------------------------- columns under other names


def test_columns_under_other_names_are_mapped_and_told(tmp_path: Path) -> None:
    records = [
        {"Prompt": "p", "out": {"text": "a"}, "stars": 3, "response": "not this"},
        {"Prompt": "p", "out": {"text": "b"}, "stars": 1, "response": "nor this"},
    ]
    path = written(tmp_path / "rows.jsonl", records)
    columns = {"response": "out.text", "helpfulness": "stars"}
    for source in (read(path, columns=columns), rows.to_train(path, "rounded", columns).source):
        assert source.rated["response"].to_pylist() == ["a", "b"]
        assert pairs(source) == [("a", "b", 2.0)]
        assert dict(source.mapped) == {"out.text as response": 2, "stars as helpfulness": 2, "Prompt as prompt": 2}


def test_columns_of_fields_that_there_are_not_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "extends: tiny\ntraining_data:\n  a: {kind: file, path: a.csv, licence: x, columns: {reply: out}}\n"
    )
    with pytest.raises(
        ProfileError, match=r"training_data\.a\.columns: there is no field reply; there are: prompt, mess"
    ):
        load_profile(mine)
    plain, mapped = (FileData(kind="file", path="a", licence="x", columns=c) for c in ({}, {"response": "out"}))
    assert digest(plain) == digest(FileData(kind="file", path="a", licence="x")) != digest(mapped)


# ------------------------------------------------------------------------------------------------------------------------ what is told


def test_what_was_read_is_told_row_for_row(tmp_path: Path) -> None:
    records = [
        {"prompt": "p", "response": "a", "Helpfulness": 1.5},
        {"prompt": "p", "response": "b"},
        {"prompt": "p", "response": "b", "Helpfulness": 7},
        {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 1},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "split": "val"},
    ]
    told = read_from(read(written(tmp_path / "rows.jsonl", records)))
    assert [tuple(row.values()) for row in told.to_pylist()] == [
        ("rows read", 6),
        ("of the form prompt and response", 2),
        ("of the form prompt, chosen and rejected", 3),
        ("with the column Helpfulness as helpfulness", 1),
        ("set aside: helpfulness is 7, not a number from 0 to 4", 1),
        ("ties dropped", 1),
        ("validation pairs left out", 1),
        ("ratings of helpfulness rounded", 1),
        ("rated responses", 2),
        ("rated responses without any rating", 1),
        ("pairs", 1),
    ]


# ---------------------------------------------------------------------------------------------------------- one content, in any dress

TEXTS = st.text("ab,;|'\"\n\té{]", min_size=1, max_size=8).map(str.strip).filter(bool)
PROMPTS = st.sampled_from([1, 3]).flatmap(lambda turns: st.lists(TEXTS, min_size=turns, max_size=turns)).map(
    lambda texts: [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
)  # fmt: skip
SPLITS = st.sampled_from([{}, {}, {"split": "train"}, {"split": "validation"}])
CONTAINERS = st.sampled_from(
    ["jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "csv.gz", "csv.zst", "tsv", "tsv.gz", "parquet"]
)


def flat(messages: list[Record]) -> str:
    return str(flatten(pa.array([messages], MESSAGES))[0].as_py())


def transcript(messages: list[Record]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)


RATED_FORMS = {
    "texts": lambda p, r: {"prompt": flat(p), "response": r},
    "a prompt of messages": lambda p, r: {"prompt": p, "response": r},
    "a response in a list": lambda p, r: {"prompt": p, "response": said(r)},
    "one conversation": lambda p, r: {"messages": [*p, *said(r)]},
    "messages before": lambda p, r: {"messages": p, "response": r},
    "other spellings": lambda p, r: {"Prompt": flat(p), " Response ": r},
    "other names": lambda p, r: {"frage": flat(p), "antwort": r},
}
SCORED = {n: {"score_chosen": 1 + n, "score_rejected": 1} for n in range(4)}
PAIR_FORMS = {
    "texts": lambda p, c, r, n: {"prompt": flat(p), "chosen": c, "rejected": r} | SCORED[n],
    "messages": lambda p, c, r, n: {"prompt": p, "chosen": said(c), "rejected": said(r)} | SCORED[n],
    "conversations": lambda p, c, r, n: {"chosen": [*p, *said(c)], "rejected": [*p, *said(r)]} | SCORED[n],
    "both": lambda p, c, r, n: {"prompt": p, "chosen": [*p, *said(c)], "rejected": [*p, *said(r)]} | SCORED[n],
    "transcripts": lambda p, c, r, n: {"chosen": transcript([*p, *said(c)]), "rejected": transcript([*p, *said(r)])} | SCORED[n],
    "HelpSteer2": lambda p, c, r, n: {"prompt": flat(p), "response_1": c, "response_2": r, "preference_strength": -n},
    "HelpSteer2, turned": lambda p, c, r, n: {"prompt": flat(p), "response_1": r, "response_2": c, "preference_strength": n},
    "HelpSteer3": lambda p, c, r, n: {"context": p, "response1": c, "response2": r, "overall_preference": -n},
    "other names": lambda p, c, r, n: {"frage": p, "chosen": c, "rejected": r} | SCORED[n],
}  # fmt: skip


def same(one: Source, other: Source) -> bool:
    tables = (one.rated.equals(other.rated), one.preferred.equals(other.preferred))
    return all(tables) and one.validation.equals(other.validation) and +one.counts == +other.counts


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(PROMPTS, TEXTS, st.lists(st.sampled_from([None, 0, 2.5, 4]), min_size=5, max_size=5), SPLITS), min_size=1, max_size=5),
    st.sampled_from(sorted(RATED_FORMS)),
    CONTAINERS,
)  # fmt: skip
def test_the_same_rated_rows_in_any_form_and_file_are_the_same(rated: list[Any], form: str, container: str) -> None:
    def records(form: str) -> list[Record]:
        return [
            RATED_FORMS[form](prompt, response) | dict(zip(ATTRIBUTES, levels, strict=True)) | split
            for prompt, response, levels, split in [*rated, ([*HI], "x", [1] * 5, {})]
        ]

    with TemporaryDirectory() as folder:
        plain = read(written(Path(folder, "plain.jsonl"), records("texts")), "mean")
        path = written(Path(folder, f"other.{container}"), records(form))
        other = read(path, "mean", columns={"prompt": "frage", "response": "antwort"} if form == "other names" else {})
    assert reasons(other) == []
    assert same(plain, other)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(PROMPTS, TEXTS, TEXTS, st.integers(0, 3), SPLITS), min_size=1, max_size=5),
    st.lists(st.sampled_from(sorted(PAIR_FORMS)), min_size=1, max_size=3),
    CONTAINERS,
)
def test_the_same_pairs_in_any_forms_and_file_are_the_same(paired: list[Any], forms: list[str], container: str) -> None:
    def records(forms: list[str]) -> list[Record]:
        given = [*paired, ([*HI], "x", "y", 1, {})]
        return [PAIR_FORMS[forms[n % len(forms)]](*pair) | split for n, (*pair, split) in enumerate(given)]

    if container == "parquet" or "other names" in forms:
        forms = forms[:1]  # a column is of texts or of lists; a mapping holds for all rows
    with TemporaryDirectory() as folder:
        plain = read(written(Path(folder, "plain.jsonl"), records(["texts"])))
        path = written(Path(folder, f"other.{container}"), records(forms))
        other = read(None, preferences=str(path), columns={"prompt": "frage"} if "other names" in forms else {})
    assert reasons(other) == []
    assert same(plain, other)
