"""Published data sets in the form in which they are published, each a few made-up records, as training data; and the asset."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets import reward_model
from pipeline.dataset.schema import DATASET
from pipeline.draws import uniforms
from pipeline.records import FileError
from pipeline.reward_model import sources
from pipeline.reward_model.schema import RATED
from pipeline.reward_model.sources import PREFERRED_ROWS, RATED_ROWS, LabelKind, Source, collected, preferences_of, read
from pipeline.reward_model.training_data import OURS, THEIRS, Prepared, prepare
from pipeline.settings import (
    Decontamination,
    FileBenchmark,
    FileData,
    HelpSteer2Data,
    HelpSteerData,
    HHData,
    OasstData,
    Profile,
    ProfileError,
    Recipe,
    digest,
    load_profile,
)
from pipeline.store import DATA, Store, write_table
from pipeline.vocabulary import ATTRIBUTES, MESSAGES
from resources.compute import LocalCompute
from resources.storage import Storage
from resources.tracking import TensorBoard
from tests.helpers import metadata

RECIPE = Recipe(base="small", development_share=0.5)
TWO_TURNS = "Name a river.\n<extra_id_1>Assistant\nThe Elbe.\n<extra_id_1>User\nAnd a lake?"


def jsonl(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def row(prompt: str, response: str, *levels: int) -> dict[str, Any]:
    return {"prompt": prompt, "response": response} | dict(zip(ATTRIBUTES, levels, strict=True))


def preference(split: str, prompt: str, one: str, two: str, strength: int) -> dict[str, Any]:
    return {"split": split, "prompt": prompt, "response_1": one, "response_2": two, "preference_strength": strength}


def pairs(source: Source) -> list[tuple[str, str, float]]:
    return [(r["chosen"], r["rejected"], r["strength"]) for r in source.preferred.to_pylist()]


def reasons(source: Source) -> list[tuple[int | None, str | None, str]]:
    return [(r["line"], r["field"], r["reason"]) for r in source.quarantine.rows]


# ----------------------------------------------------------------------------------------------------------------------- HelpSteer2


@pytest.fixture
def helpsteer2(tmp_path: Path) -> Path:
    rows = [
        row("What is moss?", "A plant.", 3, 3, 4, 1, 1),
        row("What is moss?", "No idea.", 0, 0, 4, 0, 0),
        row(TWO_TURNS, "Lake Como.", 4, 4, 4, 1, 1),
        row(TWO_TURNS, "Loch Ness.", 4, 3, 4, 1, 1),
        "{broken",
        row("What is moss?", "Moss.", 5, 0, 0, 0, 0),
    ]
    jsonl(tmp_path / "train.jsonl.gz", rows)
    jsonl(tmp_path / "validation.jsonl.gz", [row("What is fern?", "A plant.", 3, 3, 4, 1, 1)] * 2)
    return tmp_path


def with_preferences(folder: Path) -> Path:
    strengths = [
        preference("train", "What is moss?", "A plant.", "No idea.", -3),
        preference("train", TWO_TURNS, "Lake Como.", "Loch Ness.", 0),
        preference("train", "Why rain?", "Because.", "Vapour condenses.", 2),
        preference("val", "What is fern?", "A plant.", "A fern.", 1),
        preference("test", "What is fern?", "A plant.", "A fern.", 1),
    ]
    jsonl(folder / "preference" / "preference.jsonl.gz", strengths)
    return folder


def test_helpsteer2_has_peoples_preferences_and_leaves_its_validation_out(helpsteer2: Path) -> None:
    source = read("hs2", HelpSteer2Data(kind="helpsteer2", folder=str(with_preferences(helpsteer2))), "rounded")
    assert source.rated.schema == RATED_ROWS
    assert source.preferred.schema == PREFERRED_ROWS
    assert source.rated["helpfulness"].to_pylist() == [3, 0, 4, 4]
    assert source.rated["position"].to_pylist() == [1, 2, 1, 2]
    assert [m["role"] for m in source.rated["messages"].to_pylist()[2]] == ["user", "assistant", "user"]
    assert pairs(source) == [("A plant.", "No idea.", 3.0), ("Vapour condenses.", "Because.", 2.0)]
    assert source.preferred["prompt_id"][0] == source.rated["prompt_id"][0]
    assert source.counts[sources.TIES] == 1
    assert source.counts[sources.VALIDATION_ROWS] == 2
    assert source.counts[sources.VALIDATION_PAIRS] == 1
    assert [m[0]["content"] for m in source.validation.to_pylist()] == ["What is fern?"] * 2
    assert [(line, name) for line, name, _ in reasons(source)] == [(5, None), (6, "helpfulness"), (5, "split")]


def test_helpsteer2_without_the_preference_file_has_those_of_its_ratings(helpsteer2: Path) -> None:
    source = read("hs2", HelpSteer2Data(kind="helpsteer2", folder=str(helpsteer2)), "rounded")
    assert pairs(source) == [("A plant.", "No idea.", 3.0)]
    assert source.counts[sources.TIES] == 1


def test_a_limit_takes_the_first_prompts_with_all_of_their_rows_and_pairs(helpsteer2: Path) -> None:
    folder = str(with_preferences(helpsteer2))
    source = read("hs2", HelpSteer2Data(kind="helpsteer2", folder=folder, limit=1), "rounded")
    assert source.rated["response"].to_pylist() == ["A plant.", "No idea."]
    assert pairs(source) == [("A plant.", "No idea.", 3.0)]


def test_means_are_refused_where_ratings_are_rounded_already(helpsteer2: Path) -> None:
    with pytest.raises(
        ValueError, match=r"hs2 \(helpsteer2\) has no ratings before rounding; set the recipe's labels to rounded"
    ):
        read("hs2", HelpSteer2Data(kind="helpsteer2", folder=str(helpsteer2)), "mean")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"train\.jsonl\.gz: there is no such file"):
        read("hs2", HelpSteer2Data(kind="helpsteer2", folder=str(tmp_path)), "rounded")
    with pytest.raises(FileError, match="there is no such folder"):
        read("hs2", HelpSteer2Data(kind="helpsteer2", folder=str(tmp_path / "gone")), "rounded")
    with pytest.raises(FileError, match="has neither data"):
        read("oa", OasstData(kind="oasst", folder=str(tmp_path)), "rounded")
    with pytest.raises(FileError, match="training data mine names it"):
        read("mine", FileData(kind="file", preferences=str(tmp_path / "p.jsonl"), licence="none"), "rounded")
    jsonl(tmp_path / "rows.jsonl", [row("?", "!", 9, 0, 0, 0, 0)])
    with pytest.raises(
        FileError, match="nothing in it can be trained on; the first record set aside: helpfulness is 9, not"
    ):
        read("mine", FileData(kind="file", path=str(tmp_path / "rows.jsonl"), licence="none"), "rounded")


# --------------------------------------------------------------------------------------------------------------- HelpSteer, own files


def test_helpsteer_pairs_every_two_of_a_prompts_responses(tmp_path: Path) -> None:
    levels = {"a": 0, "b": 2, "c": 2, "d": 4}
    rows = [row("Describe a kite.", text, level, 0, 0, 0, 0) for text, level in levels.items()]
    rows.insert(2, row("Describe a boat.", "It floats.", 1, 1, 1, 1, 1))
    jsonl(tmp_path / "train.jsonl.gz", rows)
    source = read("v1", HelpSteerData(kind="helpsteer", folder=str(tmp_path)), "rounded")
    wanted = [("b", "a", 2), ("c", "a", 2), ("d", "a", 4), ("d", "b", 2), ("d", "c", 2)]
    assert pairs(source) == wanted
    assert source.counts[sources.TIES] == 1
    assert source.rated["position"].to_pylist() == [1, 2, 1, 3, 4]


def test_own_files_may_be_rows_or_preferences_alone(tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", [row("Why?", "So.", 1, 1, 1, 1, 1), row("Why?", "Thus.", 2, 1, 1, 1, 1)])
    jsonl(
        tmp_path / "p.jsonl",
        [preference("train", "Why?", "So.", "Thus.", 1), preference("train", "Why?", "So.", "So.", 1)],
    )
    rows = FileData(kind="file", path=str(tmp_path / "rows.jsonl"), licence="none")
    alone = FileData(kind="file", preferences=str(tmp_path / "p.jsonl"), licence="none")
    assert pairs(read("mine", rows, "rounded")) == [("Thus.", "So.", 1.0)]
    source = read("mine", alone, "rounded")
    assert len(source.rated) == 0
    assert pairs(source) == [("Thus.", "So.", 1.0)]
    assert source.counts[sources.SAME_TEXT] == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 4))), max_size=14))
def test_pairs_are_those_of_a_plain_double_loop(rows: list[tuple[int, int | None]]) -> None:
    table = pa.Table.from_pylist(
        [{"prompt_id": str(p), "response": str(n), "messages": []} for n, (p, _) in enumerate(rows)], schema=RATED_ROWS
    )
    levels, counts = pa.chunked_array([pa.array([level for _, level in rows], pa.float64())]), Counter[str]()
    made = preferences_of(table, levels, counts)
    wanted, ties, unrated = [], 0, 0
    for i, (p, one) in enumerate(rows):
        for j, (q, two) in enumerate(rows[i + 1 :], start=i + 1):
            if p == q and (one is None or two is None):
                unrated += 1
            elif p == q and one == two:
                ties += 1
            elif p == q:
                wanted.append((str(i), str(j), one - two) if one > two else (str(j), str(i), two - one))
    got = [(r["chosen"], r["rejected"], r["strength"]) for r in made.to_pylist()]
    assert sorted(got) == sorted(wanted)
    assert (counts[sources.TIES], counts[sources.UNRATED]) == (ties, unrated)


# ------------------------------------------------------------------------------------------------------------------- Open Assistant


def message(key: str, parent: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"message_id": key, "parent_id": parent, "role": role, "text": text, "lang": "en", **more}


def labelled(**values: float) -> dict[str, Any]:
    return {"labels": {name: {"value": value, "count": 3} for name, value in values.items()}}


TREE = [
    message("r", None, "prompter", "How do bees dance?"),
    message("a1", "r", "assistant", "In eights.", rank=0, **labelled(quality=0.625, humor=0.1)),
    message("a2", "r", "assistant", "They do.", rank=1, **labelled(quality=0.1)),
    message("a3", "r", "assistant", "No.", rank=1, **labelled(spam=1.0)),
    message("p2", "a1", "prompter", "Why?"),
    message("a4", "p2", "assistant", "To show the way.", **labelled(quality=1)),
]


def oasst(folder: Path, rows: list[Any], target: LabelKind = "rounded", **more: Any) -> Source:
    jsonl(folder / "2023_ready.messages.jsonl.gz", rows)
    return read("oa", OasstData(kind="oasst", folder=str(folder), **more), target)


def test_oasst_trees_give_ratings_by_label_and_pairs_by_rank(tmp_path: Path) -> None:
    source = oasst(tmp_path, TREE)
    assert source.rated["helpfulness"].to_pylist() == [
        2.0,
        0.0,
        4.0,
    ]  # 2.5 goes to the even side, as Python's round does
    assert source.rated["coherence"].null_count == 3
    assert source.rated["messages"].to_pylist()[2] == [
        {"role": "user", "content": "How do bees dance?"},
        {"role": "assistant", "content": "In eights."},
        {"role": "user", "content": "Why?"},
    ]
    assert pairs(source) == [("In eights.", "They do.", 1.0)]
    assert source.counts == {sources.SPAM: 1, sources.SAME_TEXT: 0}
    assert (source.read, dict(source.forms)) == (6, {"messages of trees": 6})
    assert reasons(source) == []


def test_oasst_with_everything_has_what_is_otherwise_left_out(tmp_path: Path) -> None:
    source = oasst(tmp_path, TREE, leave_out=())
    assert pairs(source) == [("In eights.", "They do.", 1.0), ("In eights.", "No.", 1.0)]
    assert source.counts[sources.TIES] == 1


UNWANTED = [
    message("u0", "r", "assistant", "Reviewed well.", review_result=True, synthetic=False, deleted=False),
    message("u1", "r", "assistant", "Refused.", review_result=False),
    message("u2", "r", "assistant", "Spam.", **labelled(spam=0.75)),
    message("u3", "r", "assistant", "Half spam.", **labelled(spam=0.5, quality=0.5)),
    message("u4", "r", "assistant", "By a model.", synthetic=True),
    message("u5", "r", "assistant", "Deleted.", deleted=True),
    message("u6", "u1", "prompter", "An answer to what was refused?"),
    message("u7", "u6", "assistant", "Goes with it.", **labelled(quality=1)),
    message("u8", None, "prompter", "Buy this!", **labelled(spam=1)),
    message("u9", "u8", "assistant", "No.", **labelled(quality=1)),
]


def test_oasst_messages_that_are_refused_spam_synthetic_or_deleted_are_left_out_with_their_replies(
    tmp_path: Path,
) -> None:
    source = oasst(tmp_path, [*TREE, *UNWANTED])
    left_out = {sources.REFUSED: 1, sources.SPAM: 3, sources.SYNTHETIC: 1, sources.DELETED: 1, sources.REPLIES: 2}
    assert {what: n for what, n in source.counts.items() if n} == left_out
    assert reasons(source) == [], "what is left out is at no fault, nor are replies to it"
    assert source.rated["response"].to_pylist() == ["In eights.", "They do.", "Half spam.", "To show the way."]


@pytest.mark.parametrize(
    ("more", "responses"),
    [
        ({"leave_out": ("deleted", "refused", "synthetic")}, {"No."}),
        ({"leave_out": ("deleted", "spam", "synthetic")}, {"Goes with it."}),
        ({"spam_above": 0.8}, set()),
        ({"spam_above": 1}, {"No."}),
        ({"spam_above": 0.4}, None),
    ],
)
def test_a_profile_says_which_oasst_messages_are_left_out(
    tmp_path: Path, more: dict[str, Any], responses: set[str] | None
) -> None:
    found = set(oasst(tmp_path, [*TREE, *UNWANTED], **more).rated["response"].to_pylist())
    usual = {"In eights.", "They do.", "Half spam.", "To show the way."}
    assert found == (usual - {"Half spam."} if responses is None else usual | responses)


def test_the_defaults_of_oasst_change_no_digest() -> None:
    stated = OasstData(kind="oasst", leave_out=("deleted", "refused", "spam", "synthetic"), spam_above=0.5)
    assert digest(stated) == digest(OasstData(kind="oasst")) != digest(OasstData(kind="oasst", leave_out=()))


def test_oasst_labels_are_means_and_the_profile_says_which_stands_for_what(tmp_path: Path) -> None:
    source = oasst(tmp_path, TREE, "mean", labels={"helpfulness": "quality", "verbosity": "humor"})
    assert source.rated["helpfulness"].to_pylist() == pytest.approx([2.5, 0.4, 4.0])
    assert source.rated["verbosity"].to_pylist() == [pytest.approx(0.4), None, None]


def test_oasst_records_that_cannot_be_used_are_set_aside(tmp_path: Path) -> None:
    bad = [
        message("x1", "gone", "assistant", "Alone."),
        message("x2", "a1", "assistant", "Twice in a row."),
        message("x3", "r", "system", "Be brief."),
        message("x4", "r", "assistant", "  "),
        message("x5", "r", "assistant", "Too good.", **labelled(quality=1.2)),
        message("x6", "r", "assistant", "Odd rank.", rank=-1),
        message("r", None, "prompter", "Again."),
        message("x7", "x8", "prompter", "Round"),
        message("x8", "x7", "assistant", "and round."),
        message("x9", None, "assistant", "Nobody asked."),
        [1],
        "{",
    ]
    out = [message("d", "r", "assistant", "Gone.", deleted=True), message("f", None, "prompter", "Qui?", lang="fr")]
    source = oasst(tmp_path, [*TREE, *out, *bad], language="en")
    assert len(source.rated) == 3
    assert (source.counts[sources.DELETED], source.counts[sources.OTHER_LANGUAGE]) == (1, 1)
    assert sorted((line, name) for line, name, _ in reasons(source) if name) == [
        (9, "parent_id"), (10, "role"), (11, "role"), (12, "text"), (13, "labels"), (14, "rank"), (15, "message_id"), (17, "parent_id"),
        (18, "parent_id"),
    ]  # fmt: skip
    assert sorted(line for line, name, _ in reasons(source) if not name) == [19, 20]


def test_oasst_in_parquet_has_the_published_validation_split(tmp_path: Path) -> None:
    listed = {"name": ["quality"], "value": [0.75], "count": [3]}
    (tmp_path / "data").mkdir()
    for name, n in (("train-0", 0), ("validation-0", 1)):
        rows = [message(f"p{n}", None, "prompter", f"Say {n}.", rank=None, labels=None)]
        rows.append(message(f"a{n}", f"p{n}", "assistant", str(n), rank=0, labels=listed))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"{name}.parquet")
    source = read("oa", OasstData(kind="oasst", folder=str(tmp_path)), "rounded")
    assert source.rated["helpfulness"].to_pylist() == [3.0]
    assert source.counts[sources.VALIDATION_ROWS] == 1
    assert source.validation.to_pylist() == [[{"role": "user", "content": "Say 1."}]]


# --------------------------------------------------------------------------------------------------------------------------- HH-RLHF

ASKED = "\n\nHuman: Is it safe to climb?\n\nAssistant: What?\n\nHuman: A tree."


def test_hh_rlhf_transcripts_give_pairs_alone(tmp_path: Path) -> None:
    good = {"chosen": f"{ASKED}\n\nAssistant: Mostly, with care.", "rejected": f"{ASKED}\n\nAssistant: Jump."}
    rows = [
        good,
        good | {"rejected": "\n\nHuman: Is it?\n\nAssistant: Jump."},
        good | {"chosen": f"{ASKED}\n\nAssistant:"},
        good | {"chosen": ASKED},
        good | {"chosen": f"Hi.{ASKED}"},
        {"chosen": "x"},
        good | {"rejected": good["chosen"]},
    ]
    jsonl(tmp_path / "helpful-base" / "train.jsonl.gz", rows)
    jsonl(tmp_path / "helpful-base" / "test.jsonl.gz", [good])
    source = read("hh", HHData(kind="hh_rlhf", folder=str(tmp_path), subsets=("helpful-base",)), "rounded")
    assert len(source.rated) == 0
    assert pairs(source) == [("Mostly, with care.", "Jump.", 1.0)]
    assert [m["content"] for m in source.preferred["messages"].to_pylist()[0]] == [
        "Is it safe to climb?",
        "What?",
        "A tree.",
    ]
    assert [(line, name) for line, name, _ in reasons(source)] == [
        (2, "rejected"), (3, "chosen"), (4, "chosen"), (5, "chosen"), (6, "chosen"),
    ]  # fmt: skip
    assert source.counts[sources.SAME_TEXT] == 1
    assert source.counts[sources.VALIDATION_PAIRS] == 1
    with pytest.raises(
        ValueError, match="0 pairs to train on and 0 to pick the checkpoint"
    ):  # its prompt is in the test split, too
        prepared(source, Recipe(base="small", objective="bradley_terry"))


HUMAN, ANSWER = "\n\nHuman: ", "\n\nAssistant: "
ONE, OTHER = f"{HUMAN}Is it safe?{ANSWER}Yes.", f"{HUMAN}Is it safe?{ANSWER}No."
ASKS = [{"role": "user", "content": "Is it safe?"}]


@pytest.mark.parametrize(
    ("chosen", "rejected", "messages", "answers", "parted"),
    [
        (ONE, OTHER, ASKS, ("Yes.", "No."), 0),
        (f"{ONE}{HUMAN}Sure?{ANSWER}I am.", f"{OTHER}{HUMAN}Why?{ANSWER}It is deep.", ASKS, ("Yes.", "No."), 1),
        (ONE, f"{OTHER}{HUMAN}Why?{ANSWER}It is deep.", ASKS, ("Yes.", "No."), 1),
        (f"{ONE}{HUMAN}Sure?", f"{OTHER}{HUMAN}Why?", ASKS, ("Yes.", "No."), 1),
        (f"{HUMAN}Is it{HUMAN}safe?{ANSWER}Yes.", f"{HUMAN}Is it{HUMAN}safe?{ANSWER}No.{ANSWER}Go.",
         [{"role": "user", "content": "Is it\n\nsafe?"}], ("Yes.", "No.\n\nGo."), 0),
    ],
)  # fmt: skip
def test_hh_rlhf_pairs_are_the_answers_at_which_two_transcripts_part(
    tmp_path: Path, chosen: str, rejected: str, messages: list[Any], answers: tuple[str, str], parted: int
) -> None:
    jsonl(tmp_path / "helpful-base" / "train.jsonl.gz", [{"chosen": chosen, "rejected": rejected}])
    source = read("hh", HHData(kind="hh_rlhf", folder=str(tmp_path), subsets=("helpful-base",)), "rounded")
    assert pairs(source) == [(*answers, 1.0)]
    assert source.preferred["messages"].to_pylist() == [messages]
    assert source.counts[sources.PARTED] == parted


@pytest.mark.parametrize(
    ("chosen", "rejected", "name", "said"),
    [
        (f"{ONE}{HUMAN}Sure?{ANSWER}Yes.", f"{ONE}{HUMAN}Why?{ANSWER}Yes.", "rejected", "parts from chosen at a turn that is not the"),
        (ONE, f"{ONE}{HUMAN}Why?{ANSWER}Because.", "rejected", "parts from chosen at a turn that is not the assistant's"),
        (f"{HUMAN}Is it?{ANSWER}Yes.", OTHER, "rejected", "parts from chosen"),
        (f"{HUMAN}Is it safe?", OTHER, "chosen", "has no answer of the assistant after"),
        (ONE, f"{ANSWER}No.", "rejected", "does not begin with Human:"),
        (ONE, f"{HUMAN}Is it safe?{ANSWER} {ANSWER}", "rejected", "has a blank turn"),
    ],
)  # fmt: skip
def test_hh_rlhf_pairs_that_answer_different_turns_are_set_aside(
    tmp_path: Path, chosen: str, rejected: str, name: str, said: str
) -> None:
    jsonl(
        tmp_path / "helpful-base" / "train.jsonl.gz",
        [{"chosen": chosen, "rejected": rejected}, {"chosen": ONE, "rejected": OTHER}],
    )
    source = read("hh", HHData(kind="hh_rlhf", folder=str(tmp_path), subsets=("helpful-base",)), "rounded")
    ((line, field, reason),) = reasons(source)
    assert (line, field) == (1, name)
    assert said in reason
    assert len(source.preferred) == 1


# ------------------------------------------------------------------------------------------------------------- our data set, the split


def dataset(prompts: int = 40, validation: int = 5) -> pa.Table:
    """Two responses a prompt; the second is better by the number of the prompt modulo 3, a third."""
    rows = []
    for p in range(prompts):
        for position in (1, 2):
            mean = 1.0 + (position - 1) * (p % 3) / 3
            rows.append(
                {"split": "validation" if p < validation else "train", "prompt_id": f"p{p}", "response_id": f"p{p}-{position}",
                 "position": position, "messages": [{"role": "user", "content": f"Question number {p} about the harbour?"}],
                 "response": f"Answer {position}.", **dict.fromkeys(ATTRIBUTES, round(mean)), **{f"{a}_mean": mean for a in ATTRIBUTES}}
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=DATASET)


def prepared(
    source: Source,
    recipe: Recipe = RECIPE,
    data: pa.Table | None = None,
    benchmarks: dict[str, list[str]] | None = None,
) -> Prepared:
    lists = {
        name: pa.chunked_array([pa.array([[{"role": "user", "content": t}] for t in texts], MESSAGES)])
        for name, texts in (benchmarks or {}).items()
    }
    return prepare(source, recipe, DATASET.empty_table() if data is None else data, lists, Decontamination())


def test_our_own_data_give_labels_or_means_of_the_train_split() -> None:
    rounded, mean = (collected(dataset(), labels, "none") for labels in ("rounded", "mean"))
    assert len(rounded.rated) == 70
    assert set(rounded.rated["helpfulness"].to_pylist()) == {1.0, 2.0}
    assert set(np.round(mean.rated["helpfulness"].to_pylist(), 3)) == {1.0, 1.333, 1.667}
    assert rounded.preferred.equals(mean.preferred)
    assert {(c, r) for c, r, _ in pairs(mean)} == {("Answer 2.", "Answer 1.")}
    assert sorted({round(s, 3) for _, _, s in pairs(mean)}) == [0.333, 0.667]
    assert mean.counts == {sources.VALIDATION_ROWS: 10, sources.TIES: 12, sources.UNRATED: 0, sources.SAME_TEXT: 0}


def test_a_prompts_rows_and_pairs_are_on_one_side_which_its_id_decides() -> None:
    made = prepared(collected(dataset(), "rounded", "none"), data=dataset())
    assert made.rated.schema == RATED
    for table in (made.rated, made.preferred):
        held_out = np.asarray(table["split"]) == "development"
        assert (held_out == (uniforms(table["prompt_id"].to_pylist(), "helpsteer/development")[:, 0] < 0.5)).all()
        assert 0 < held_out.sum() < len(table)


def test_one_side_without_anything_is_refused() -> None:
    nobody = Recipe(base="small", development_share=0)
    with pytest.raises(ValueError, match="70 responses to train on and 0 to pick the checkpoint; both are needed"):
        prepared(collected(dataset(), "rounded", "none"), nobody, dataset())
    all_pairs = Recipe(base="small", objective="bradley_terry", development_share=1)
    with pytest.raises(ValueError, match="0 pairs to train on and 23 to pick the checkpoint"):
        prepared(collected(dataset(), "rounded", "none"), all_pairs, dataset())


def test_prompts_of_benchmarks_and_of_validation_splits_are_dropped_and_listed() -> None:
    data = dataset()
    same = {"role": "user", "content": "Question  number 0, about the HARBOUR?"}
    source = collected(data, "rounded", "none")
    messages = [
        [same] if i == "p20" else m
        for i, m in zip(source.rated["prompt_id"].to_pylist(), source.rated["messages"].to_pylist(), strict=True)
    ]
    source.rated = source.rated.set_column(
        3, RATED_ROWS.field("messages"), pa.array(messages, RATED_ROWS.field("messages").type)
    )
    source.validation = pa.array([[{"role": "user", "content": "Question number 30 about the harbour?"}]])
    made = prepared(
        source, data=data, benchmarks={"smoke": ["Question number 31 about the harbour?", "Who?"], "other": []}
    )
    assert [tuple(r.values()) for r in made.dropped.to_pylist()] == [
        ("p20", "collected", OURS, 1.0),
        ("p30", "collected", THEIRS, 1.0),
        ("p31", "collected", "smoke", 1.0),
    ]
    for table in (made.rated, made.preferred):
        assert not {"p20", "p30", "p31"} & set(table["prompt_id"].to_pylist())


# ------------------------------------------------------------------------------------------------------------------------ the asset


def profile(tmp_path: Path, **changes: Any) -> Profile:
    jsonl(tmp_path / "bench.jsonl", [
        {"id": "1", "subset": "s", "prompt": "Question number 30 about the harbour?", "chosen": "a", "rejected": "b"}
    ])  # fmt: skip
    base = load_profile("tiny")
    recipe = next(iter(base.recipes.values())).model_copy(update={"development_share": 0.4})
    recipes = {"ours": recipe, "theirs": recipe.model_copy(update={"data": "hh", "objective": "bradley_terry"})}
    data = {"hh": HHData(kind="hh_rlhf", folder=str(tmp_path / "hh"), subsets=("helpful-base",))}
    benchmarks = {**base.benchmarks, "mine": FileBenchmark(kind="file", path=str(tmp_path / "bench.jsonl"))}
    return base.model_copy(update={"recipes": recipes, "training_data": data, "benchmarks": benchmarks} | changes)


def materialized(tmp_path: Path, recipe: str, wanted: Profile) -> tuple[Store, dg.ExecuteInProcessResult]:
    store = Store(str(tmp_path / "store"))
    staged = store.staging("helpsteer_dataset")
    write_table(dataset(), staged / DATA)
    store.publish("helpsteer_dataset", None, staged)
    result = dg.materialize(
        reward_model.build(wanted),
        selection=["training_data"],
        partition_key=recipe,
        instance=dg.DagsterInstance.ephemeral(),
        resources={"storage": Storage(uri=store.uri), "compute": LocalCompute(), "tracking": TensorBoard()},
        raise_on_error=False,
    )
    return store, result


def test_the_asset_publishes_a_recipes_training_data_with_what_was_dropped(tmp_path: Path) -> None:
    store, result = materialized(tmp_path, "ours", profile(tmp_path))
    assert result.success
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations() if not e.passed} == {}
    rated, preferred = (store.read("training_data", "ours", name) for name in (DATA, "preferred.parquet"))
    assert (len(rated), len(preferred)) == (68, 23)
    assert store.read("training_data", "ours", "dropped.parquet")["benchmark"].to_pylist() == ["mine"]
    assert len(store.read("training_data", "ours", "quarantine.parquet")) == 0
    shown = metadata(result, "training_data")
    assert shown["ties dropped"].value == 12
    assert "what was read" in shown
    assert {"rows and prompts by split", "prompts dropped by benchmark", "samples of ratings", "licence"} <= set(shown)


def test_pairs_alone_are_enough_for_an_objective_that_learns_from_them(tmp_path: Path) -> None:
    asked = [f"\n\nHuman: Question {n}?\n\nAssistant: " for n in range(20)]
    jsonl(
        tmp_path / "hh" / "helpful-base" / "train.jsonl.gz",
        [{"chosen": a + "Yes.", "rejected": a + "No."} for a in asked],
    )
    store, result = materialized(tmp_path, "theirs", profile(tmp_path))
    assert result.success
    assert len(store.read("training_data", "theirs")) == 0
    assert len(store.read("training_data", "theirs", "preferred.parquet")) == 20


def test_a_teams_file_is_published_with_what_was_read_of_it(tmp_path: Path) -> None:
    asked = [[{"role": "user", "content": f"Question {n}?"}] for n in range(20)]
    rows = [
        {"context": a, "response1": "Yes.", "response2": "No.", "overall_preference": n % 7 - 3}
        for n, a in enumerate(asked)
    ]
    jsonl(tmp_path / "pairs.jsonl", [*rows, rows[0] | {"overall_preference": 7}])
    wanted = profile(
        tmp_path, training_data={"hh": FileData(kind="file", path=str(tmp_path / "pairs.jsonl"), licence="none")}
    )
    store, result = materialized(tmp_path, "theirs", wanted)
    assert result.success
    assert len(store.read("training_data", "theirs", "preferred.parquet")) == 17
    (aside,) = store.read("training_data", "theirs", "quarantine.parquet").to_pylist()
    assert (aside["line"], aside["field"]) == (21, "overall_preference")
    told = {r.data["what"]: r.data["rows"] for r in metadata(result, "training_data")["what was read"].value.records}
    assert told == {
        "rows read": 21,
        "of the form context, response1, response2 and overall_preference": 20,
        "set aside: overall_preference is 7, not a number from -3 to 3": 1,
        "ties dropped": 3,
        "pairs": 17,
    }


def test_only_what_a_recipe_trains_on_makes_its_data_stale(tmp_path: Path) -> None:
    def version(**changes: Any) -> str | None:
        (made,) = [a for a in reward_model.build(profile(tmp_path, **changes)) if a.key.path == ["training_data"]]
        return made.code_versions_by_key[made.key]

    def recipes(**changes: Any) -> dict[str, Recipe]:
        return {name: recipe.model_copy(update=changes) for name, recipe in profile(tmp_path).recipes.items()}

    hh = profile(tmp_path).training_data["hh"]
    assert version() == version(recipes=recipes(epochs=9))
    changed = [
        {"recipes": recipes(labels="mean")},
        {"recipes": recipes(development_share=0.3)},
        {"training_data": {"hh": hh.model_copy(update={"limit": 3})}},
        {"decontamination": Decontamination(ngram=13)},
        {"benchmarks": load_profile("tiny").benchmarks},
    ]
    assert len({version(), *(version(**c) for c in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipes: {smollm2_regression: {data: gone}}", "recipes.smollm2_regression.data: there is no training data 'gone'; there are: collected"),
        ("recipes: {smollm2_regression: {data: hh}}", "recipes.smollm2_regression.objective: regression learns from ratings, but hh has"),
        ("recipes: {smollm2_regression: {data: hs, labels: mean}}", "recipes.smollm2_regression.labels: mean needs ratings before rounding"),
        ("training_data: {collected: {kind: helpsteer}}", "training_data.collected: is the name of this store's data set"),
        ("training_data: {hs: {lmit: 1}}", "training_data.hs.lmit: unknown key; allowed here: revision, folder, limit, kind, hub, licence"),
        ("training_data: {hh: {kind: file, licence: none, hub: null}}", "training_data.hh.hub: unknown key; allowed here: kind, path"),
    ],
)  # fmt: skip
def test_a_profile_whose_training_data_cannot_serve_is_refused(tmp_path: Path, text: str, said: str) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("extends: tiny\ntraining_data: {hh: {kind: hh_rlhf}, hs: {kind: helpsteer}}\n")
    mine.write_text(f"extends: {base}\n{text}\n")
    with pytest.raises(ProfileError) as refused:
        load_profile(mine)
    assert said in str(refused.value)


def test_rows_in_the_published_form_are_read_whole(tmp_path: Path) -> None:
    prompts = [
        f"Question {n}" + ("\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nGo on." if n % 4 == 0 else "")
        for n in range(50)
    ]
    rows = [row(prompt, f"answer {k}", *[(n + k) % 5] * 5) for n, prompt in enumerate(prompts) for k in (0, 1)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    source = read("sample", FileData(kind="file", path=str(tmp_path / "rows.jsonl"), licence="CC-BY-4.0"), "rounded")
    assert len(source.rated) == 100
    assert len(pc.unique(source.rated["prompt_id"])) == 50
