"""Conversations to tune on: how they are read, on which side each stands, what is left out, and who learns from them."""

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from assets import alignment
from pipeline.alignment import conversations as told
from pipeline.alignment import data, samples
from pipeline.alignment.conversations import READ, Prompts, sided
from pipeline.alignment.expectations import data_views
from pipeline.alignment.schema import SCORED_DATA, TUNED_ON
from pipeline.evaluation.schema import WEIGHTS
from pipeline.prompts.sources import SourceError
from pipeline.settings import (
    Alignment,
    Checkpoint,
    Decontamination,
    FilesSource,
    HubSource,
    Origin,
    Samples,
    load_profile,
)
from pipeline.store import DATA, Store, write_table
from pipeline.texts.words import keys_of
from pipeline.vocabulary import ATTRIBUTES, MESSAGES
from resources.storage import Storage
from resources.tracking import TensorBoard
from tests.doubles import ComputeDouble
from tests.evaluation.models import save_reward_model
from tests.reward_model.small import save_small_model
from tests.reward_model.test_training import RECIPE
from tests.reward_model.test_training import data as dataset

Message = dict[str, str]
Talk = list[Message]
RULE = Decontamination()


def asks(*users: str) -> Talk:
    """A conversation that ends with the user's turn; every turn before has an answer."""
    said = [[{"role": "user", "content": user}, {"role": "assistant", "content": f"to {user}"}] for user in users]
    return [message for turn in said for message in turn][:-1]


def answered(*users: str, answer: str = "an answer") -> Talk:
    return [*asks(*users), {"role": "assistant", "content": answer}]


def written(path: Path, talks: list[Any]) -> dict[str, FilesSource]:
    """A source, `ours`, of conversations as messages, or of records as they are."""
    records = [{"messages": talk} if isinstance(talk, list) else talk for talk in talks]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"ours": FilesSource(kind="files", path=str(path), licence="MIT")}


def rows(read: told.Read) -> list[tuple[Talk, str]]:
    return list(zip(read.table["messages"].to_pylist(), read.table["response"].to_pylist(), strict=True))


# --------------------------------------------------------------------------------------------------------------------------- reading


DARING_ANTEATER: dict[str, Any] = {
    "system": "You are terse.",
    "mask": "User",
    "dataset": "synthetic_conv",
    "conversations": [
        {"from": "User", "value": "Which tea has no caffeine?", "label": None},
        {"from": "Assistant", "value": "Rooibos.", "label": "quality:4,helpfulness:4"},
        {"from": "User", "value": "And which has most?", "label": None},
        {"from": "Assistant", "value": "Matcha.", "label": None},
    ],
}
"""A row in the form of nvidia/Daring-Anteater."""


def test_the_last_answer_is_the_response_and_all_before_it_the_messages(tmp_path: Path) -> None:
    read = told.read(written(tmp_path / "a.jsonl", [DARING_ANTEATER, {**DARING_ANTEATER, "system": ""}]))
    talk = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Which tea has no caffeine?"},
        {"role": "assistant", "content": "Rooibos."},
        {"role": "user", "content": "And which has most?"},
    ]
    assert rows(read) == [(talk, "Matcha."), (talk[1:], "Matcha.")]
    assert read.table.schema == READ
    assert set(read.table["source"].to_pylist()) == {"ours"}
    assert not +read.counts
    assert dict(read.reports[0].shapes) == {"conversations: from, value": 2}
    own = [{"from": "System", "value": "Be kind."}, *DARING_ANTEATER["conversations"]]
    ((first, *others),) = (
        talk for talk, _ in rows(told.read(written(tmp_path / "b.jsonl", [DARING_ANTEATER | {"conversations": own}])))
    )
    assert (first, others) == ({"role": "system", "content": "Be kind."}, talk[1:])


def test_a_hub_data_set_is_read_and_a_source_is_taken_as_far_as_its_limit(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([DARING_ANTEATER, {**DARING_ANTEATER, "system": ""}]), tmp_path / "a.parquet")
    source = HubSource(kind="hub", id=str(tmp_path), licence="CC-BY-4.0")
    assert [len(talk) for talk, _ in rows(told.read({"daring": source}))] == [4, 3]
    assert len(told.read({"daring": source.model_copy(update={"limit": 1})}).table) == 1


def test_every_path_of_a_tree_is_a_conversation_but_for_what_was_deleted_or_refused(tmp_path: Path) -> None:
    def row(name: str, parent: str | None, role: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
        return {"message_id": name, "parent_id": parent, "role": role, "text": name, "rank": rank, **more}

    tree = [
        row("ask", None, "prompter"),
        row("worse", "ask", "assistant", 1),
        row("better", "ask", "assistant", 0),
        row("gone", "ask", "assistant", 2, deleted=True),
        row("bad", "ask", "assistant", 3, review_result=False),
        row("then", "better", "prompter"),
        row("end", "then", "assistant", 0),
        row("thanks", "worse", "prompter"),
        row("bye", "worse", "prompter"),
    ]
    read = told.read(written(tmp_path / "a.jsonl", tree))
    assert [([m["content"] for m in talk], last) for talk, last in rows(read)] == [
        (["ask", "better", "then"], "end"),
        (["ask"], "worse"),
    ]
    assert +read.counts == Counter({told.SHORTENED: 2, told.REPEATED: 1})


def test_an_answer_may_stand_beside_its_prompt_and_what_has_none_is_left_out_and_counted(tmp_path: Path) -> None:
    records = [
        {"instruction": "Sort these.", "input": "b, a", "output": "a, b"},
        {"query": "And then?", "response": "Nothing.", "history": [["First?", "This."]]},
        {"system_prompt": "Be brief.", "question": "Why?", "response": "So."},
        {"prompt": [{"role": "user", "content": "Who?"}], "completion": [{"role": "assistant", "content": "Ann."}]},
        {"prompt": "When?"},
        {"turns": ["One?", "Two?"]},
        {"prompt": "Where?", "answer": 7},
    ]
    read = told.read(written(tmp_path / "a.jsonl", records))
    assert [([m["content"] for m in talk], last) for talk, last in rows(read)] == [
        (["Sort these.\n\nb, a"], "a, b"),
        (["First?", "This.", "And then?"], "Nothing."),
        (["Be brief.", "Why?"], "So."),
        (["Who?"], "Ann."),
    ]
    assert rows(read)[2][0][0]["role"] == "system"
    assert +read.counts == Counter({told.UNANSWERED: 2, "records of conversations set aside: bad_turn": 1})
    with pytest.raises(SourceError, match="none of the 1 conversations of ours has an answer of the assistant"):
        told.read(written(tmp_path / "b.jsonl", [{"prompt": "When?"}]))
    with pytest.raises(SourceError, match="none of the 1 records of the source ours holds a conversation"):
        told.read(written(tmp_path / "c.jsonl", [{"words": "When?"}]))


def test_what_a_policy_must_not_learn_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    user, call = (
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]},
    )
    assistant, tool = {"role": "assistant", "content": "Rain."}, {"role": "tool", "content": "{}"}
    system, blank = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": " \n"}
    bad = {
        "tool_turn": [
            [user, call, tool, assistant],
            [user, tool, assistant],
            [user, {"role": "function-call", "content": "f"}],
        ],
        "starts_mid_conversation": [[assistant, user, assistant], [system, assistant]],
        "blank_turn": [[user, blank], [user, assistant, {"role": "user", "content": ""}, assistant]],
        "later_system_turn": [[user, system, assistant]],
        "no_user_turn": [[system]],
    }
    talks = [
        *(talk for several in bad.values() for talk in several),
        [{"role": "system", "content": " "}, user, assistant],
    ]
    read = told.read(written(tmp_path / "a.jsonl", talks))
    assert rows(read) == [([user], "Rain.")]
    assert read.reports[0].reasons == Counter({reason: len(several) for reason, several in bad.items()})
    assert read.counts["records of conversations set aside: tool_turn"] == 3


def test_turns_of_one_side_are_joined_and_a_scrapers_html_is_made_text(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "One"},
        {"role": "user", "content": "more?"},
        {"role": "assistant", "content": "<p>Yes,</p><p>two.</p>"},
        {"role": "assistant", "content": "Three."},
    ]
    read = told.read(written(tmp_path / "a.jsonl", [talk]))
    assert rows(read) == [([{"role": "user", "content": "One\n\nmore?"}], "Yes,\n\ntwo.\n\nThree.")]
    assert (read.counts[told.JOINED], read.reports[0].html) == (1, 1)


TURNS = st.lists(
    st.sampled_from(["user", "assistant"]).flatmap(lambda role: st.sampled_from("ab").map(lambda text: (role, text))),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=8))
def test_every_conversation_ends_with_its_last_answer_stands_once_and_all_are_counted(
    tmp_path_factory: pytest.TempPathFactory, talks: list[list[tuple[str, str]]]
) -> None:
    place = tmp_path_factory.mktemp("talks") / "a.jsonl"
    wanted, unanswered, shortened = list[tuple[tuple[str, str], ...]](), 0, 0
    for turns in (t for t in talks if t and t[0][0] == "user"):
        joined: list[tuple[str, str]] = []
        for role, text in turns:  # an answer ends what came before it, or goes on
            if joined and joined[-1][0] == role:
                joined[-1] = (role, f"{joined[-1][1]}\n\n{text}")
            else:
                joined.append((role, text))
        ends = [n for n, (role, _) in enumerate(joined) if role == "assistant"]
        unanswered += not ends
        shortened += bool(ends) and ends[-1] < len(joined) - 1
        wanted += [tuple(joined[: ends[-1] + 1])] if ends else []
    records = [[{"role": role, "content": text} for role, text in turns] for turns in talks]
    if not wanted:
        with pytest.raises(SourceError):
            told.read(written(place, records))
        return
    read = told.read(written(place, records))
    found = [
        tuple((m["role"], m["content"]) for m in [*talk, {"role": "assistant", "content": last}])
        for talk, last in rows(read)
    ]
    assert found == list(dict.fromkeys(wanted))
    assert len(set(read.table["response_id"].to_pylist())) == len(found)
    counts = read.counts
    assert (counts[told.UNANSWERED], counts[told.SHORTENED]) == (unanswered, shortened)
    assert counts[told.REPEATED] == len(wanted) - len(found)
    assert len({json.dumps(talk) for talk, _ in rows(read)}) == len(set(read.table["prompt_id"].to_pylist()))


# ----------------------------------------------------------------------------------------------------------------------------- sides


def of_data(rows: list[tuple[str, Talk]]) -> pa.Table:
    """Split and messages of the data's rows."""
    columns = {
        "split": pa.array([split for split, _ in rows], pa.string()),
        "messages": pa.array([m for _, m in rows], MESSAGES),
    }
    return pa.table(columns)


def as_read(talks: list[Talk], source: str = "ours") -> pa.Table:
    """Conversations, each of which ends with an answer, in the schema READ."""
    made = [
        {
            "source": source,
            "prompt_id": json.dumps(talk[:-1]),
            "response_id": f"r{n}",
            "messages": talk[:-1],
            "response": talk[-1]["content"],
        }
        for n, talk in enumerate(talks)
    ]
    return pa.Table.from_pylist(made, schema=READ)


def column(talks: list[Talk]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(talks, MESSAGES)])


def key(talk: Talk) -> str:
    """What makes prompts equal, by the function that the data's are compared with."""
    return key_of("\n".join(message["content"] for message in talk if message["role"] == "user"))


@cache
def key_of(text: str) -> str:
    return str(keys_of(pa.array([text], pa.string()))[0].as_py())


def trained_prompts(talk: Talk) -> set[str]:
    """Of a conversation every prompt that it has: all up to each user turn."""
    return {key(talk[: n + 1]) for n, message in enumerate(talk) if message["role"] == "user"}


TEXTS = st.lists(st.sampled_from(["one", "two", "TWO ", "!", "?", "é", "é", ""]), min_size=1, max_size=3).map(" ".join)


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=3), min_size=1, max_size=6), st.integers(1, 3))
def test_prompts_have_one_key_where_their_words_are_equal(users: list[list[str]], cut: int) -> None:
    talks = [asks(*texts) for texts in users]
    chunked = pa.chunked_array([pa.array(talks[n : n + cut], MESSAGES) for n in range(0, len(talks), cut)])
    prompts = Prompts.of(chunked)
    words = [key(talk[: n + 1]) for talk in talks for n in range(0, len(talk), 2)]
    assert prompts.row.tolist() == [n for n, texts in enumerate(users) for _ in texts]
    one, other = np.array(words)[:, None], prompts.keys[:, None]
    assert ((one == one.T) == (other == other.T)).all()
    ends = np.cumsum([len(texts) for texts in users]) - 1
    assert prompts.whole.tolist() == prompts.keys[ends].tolist()
    assert prompts.first == [key(talk[:1]) for talk in talks]


PROMPT = st.lists(st.sampled_from(["a", "b", "c", "A!", "a b", "d"]), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(PROMPT, min_size=4, max_size=14),
    st.lists(st.tuples(st.sampled_from(["train", "held_out"]), PROMPT), max_size=5),
    st.lists(PROMPT, max_size=2),
    st.lists(PROMPT, max_size=2),
    st.sampled_from([0.3, 0.5, 0.7]),
)
def test_no_prompt_that_is_held_out_anywhere_or_measured_by_is_trained_and_nothing_else_is_left_out(
    users: list[list[str]],
    known: list[tuple[str, list[str]]],
    validation: list[list[str]],
    benchmark: list[list[str]],
    share: float,
) -> None:
    talks = [answered(*texts, answer=str(n)) for n, texts in enumerate(users)]
    rated = [(split, asks(*texts)) for split, texts in known]
    against = (
        {"validation": column([asks(*t) for t in validation])},
        {"benchmark": column([asks(*t) for t in benchmark])},
    )
    try:
        made = sided(as_read(talks), [of_data(rated[:2]), of_data(rated[2:])], share, *against, RULE)
    except ValueError as error:
        assume("both are needed" not in str(error))
        raise
    table = made.table.to_pylist()
    side = {int(row["response"]): row["split"] for row in table}
    held = {key(talk) for split, talk in rated if split == "held_out"}
    learned = set[str]().union(*(trained_prompts(talk) for split, talk in rated if split == "train"))
    measured = {key(asks(*texts)) for texts in [*validation, *benchmark]}
    both = held | {key(talks[n]) for n, split in side.items() if split == "held_out"}
    for n, split in side.items():
        mine = trained_prompts(talks[n])
        assert not mine & measured
        assert split == "held_out" or not mine & both, "trained, though it is held out in the data or the conversations"
        assert key(talks[n]) not in (learned if split == "held_out" else held), "on another side than in the data"
    dropped = {row["prompt_id"] for row in made.dropped.to_pylist()}
    for n, talk in enumerate(talks):
        if n in side:
            continue
        mine, whole = trained_prompts(talk), key(talk)
        out = mine & measured and json.dumps(talk[:-1]) in dropped
        assert out or (whole in held and whole in learned) or mine & both
    assert len(side) + made.counts[told.CROSSED] + sum(bool(trained_prompts(t) & measured) for t in talks) == len(talks)
    alone = [n for n, split in side.items() if key(talks[n]) not in held | learned]
    begun = {key(talks[n][:1]): set[str]() for n in alone}
    for n in alone:
        begun[key(talks[n][:1])].add(side[n])
    assert all(len(sides) == 1 for sides in begun.values()), "conversations that begin alike are on one side"


def test_the_held_out_share_is_drawn_by_the_hash_of_the_data() -> None:
    from pipeline.reward_model.training_data import with_split

    talks = [answered(f"question {n}") for n in range(400)]
    made = sided(as_read(talks), [], 0.2, {}, {}, RULE)
    ids = [f"question {n}" for n in range(400)]
    wanted = [
        "train" if s == "train" else "held_out"
        for s in with_split(pa.table({"prompt_id": ids}), 0.2)["split"].to_pylist()
    ]
    assert made.table["split"].to_pylist() == wanted
    assert 50 < wanted.count("held_out") < 110
    assert made.table.schema == TUNED_ON
    assert set(made.table["origin"].to_pylist()) == {"conversations"}
    more = sided(as_read([answered("another"), *talks]), [], 0.2, {}, {}, RULE)
    assert more.table["split"].to_pylist()[1:] == wanted, "further conversations move nobody else"


def test_a_conversation_that_has_the_words_of_a_held_out_one_in_other_turns_is_left_out() -> None:
    talks = [
        talk for n in range(40) for talk in (answered(f"question {n} more"), answered(f"question {n}", "more", "end"))
    ]
    made = sided(as_read(talks), [], 0.5, {}, {}, RULE)
    side = {
        (len(row["messages"]), row["messages"][0]["content"].split()[1]): row["split"] for row in made.table.to_pylist()
    }
    left_out = {n for _, n in side if (5, n) not in side}
    assert len(left_out) == made.counts[told.CROSSED] > 5
    assert all(side[1, n] == "held_out" for n in left_out)
    assert len(made.table) == 80 - len(left_out)


def test_what_overlaps_with_a_benchmark_is_left_out_with_its_overlap() -> None:
    asked = "Name every river that flows through the old town and say where it ends"
    talks = [answered(f"number {n}") for n in range(30)]
    close = [
        answered("Hello", f"Please: {asked}, thanks"),
        answered(asked.upper(), "More?"),
        answered("Hello", "Name every river"),
    ]
    made = sided(
        as_read([*talks, *close]),
        [],
        0.3,
        {"ours": column([asks("number 3")])},
        {"rivers": column([asks(asked)])},
        RULE,
    )
    found = {
        (json.loads(row["prompt_id"])[-1]["content"], row["benchmark"]): row["overlap"]
        for row in made.dropped.to_pylist()
    }
    assert found == {("number 3", "ours"): 1.0, (f"Please: {asked}, thanks", "rivers"): 1.0, ("More?", "rivers"): 1.0}
    assert set(made.dropped["source"].to_pylist()) == {"ours"}
    assert len(made.table) == 30
    with pytest.raises(
        ValueError, match=r"there are 0 conversations to train on and 0 held out; both are needed. 1 were left out"
    ):
        sided(as_read(talks[3:4]), [], 0.3, {"ours": column([asks("number 3")])}, {}, RULE)


def test_conversations_do_not_touch_the_data_and_stand_behind_them(tmp_path: Path) -> None:
    rated = [(("held_out" if n % 4 == 0 else "train"), asks(f"number {n}")) for n in range(12)]
    responses = pa.Table.from_pylist(
        [
            {
                "split": split,
                "origin": "data",
                "prompt_id": f"p{n}",
                "response_id": f"p{n}-1",
                "messages": talk,
                "response": "x",
                "best": True,
            }
            for n, (split, talk) in enumerate(rated)
        ],
        schema=TUNED_ON,
    )
    nothing = pa.table({"split": pa.array([], pa.string()), "messages": pa.array([], MESSAGES)})
    given = data.TunedOn(responses, nothing, told.DROPPED.empty_table(), {"ties dropped": 2}, "CC-BY-4.0", pa.table({}))
    talks = [answered(f"NUMBER {n}!") for n in range(12)] + [answered(f"number {n}", "more?") for n in range(12)]
    talks += [answered("other"), answered("other")]
    source = written(tmp_path / "a.jsonl", talks)
    wanted = Alignment.model_validate(
        {"recipe": "r", "held_out_share": 0.4, "conversations": source, "methods": {"s": SFT}}
    )
    made = data.with_conversations(given, wanted, {}, {}, RULE)
    assert made.responses.slice(0, 12).equals(responses)
    assert made.pairs is nothing
    assert (made.licence, made.licences) == ("CC-BY-4.0", {"ours": "MIT"})
    behind = samples.of_origins(made.responses, "conversations").to_pylist()
    side = {row["messages"][-1]["content"]: row["split"] for row in behind if len(row["messages"]) == 1}
    assert {n: side[f"NUMBER {n}!"] for n in range(12)} == {n: split for n, (split, _) in enumerate(rated)}
    longer = {row["messages"][0]["content"]: row["split"] for row in behind if len(row["messages"]) == 3}
    assert set(longer.values()) == {"train", "held_out"}
    assert all(split == "held_out" for asked, split in longer.items() if int(asked.split()[1]) % 4 == 0)
    assert made.counts[told.REPEATED] == 1
    assert made.counts[told.CROSSED] == 25 - len(side) - len(longer) > 0
    assert made.counts["ties dropped"] == 2
    views = data_views(made.responses)
    assert set(views["prompts"]["splits"].to_pylist()) == {1}
    assert set(views["prompts"]["best"].to_pylist()) == {0, 1}, "of conversations any number may be learned"


# --------------------------------------------------------------------------------------------------------------------------- methods


SFT = {"kind": "sft", "checkpoint": "small", "learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "max_tokens": 64, "evaluations": 1,
       "precision": "float32"}  # fmt: skip
TUNED = {name: value for name, value in SFT.items() if name not in ("kind", "checkpoint")}
ONLINE = {name: value for name, value in TUNED.items() if name != "epochs"} | {"steps": 1, "max_new_tokens": 8}
DRAWN = {"prompts": 4, "responses": 2}
METHODS: dict[str, Any] = {
    "sft": SFT,
    "plain": SFT | {"origin": "data"},
    "dpo": {"kind": "dpo", "start": "sft", "beta": 0.1, **TUNED},
    "iterative": {"kind": "iterative_dpo", "start": "plain", "samples": DRAWN, "beta": 0.1, **TUNED},
    "ppo": {"kind": "ppo", "start": "plain", **ONLINE},
    "rloo": {"kind": "rloo", "start": "plain", "responses": 2, "origin": "conversations", **ONLINE},
    "best": {"kind": "best_of_n", "start": "plain", "samples": DRAWN},
    "steered": SFT | {"kind": "steerlm"},
    "steered_2": {"kind": "steerlm2", "start": "steered", "unconditional": "plain", "samples": DRAWN, **TUNED},
}


def test_a_method_takes_conversations_by_its_kind_where_there_are_any_or_what_it_says() -> None:
    source = {"ours": {"kind": "files", "path": "a.jsonl", "licence": "MIT"}}
    wanted = Alignment.model_validate({"recipe": "r", "conversations": source, "methods": METHODS})
    assert {name: wanted.origin_of(name) for name in METHODS} == {
        **dict.fromkeys(("sft", "iterative", "rloo", "best", "steered", "steered_2"), "conversations"),
        **dict.fromkeys(("plain", "dpo", "ppo"), "data"),
    }
    assert {name: wanted.origins_of(name) for name in ("plain", "ppo", "dpo", "iterative")} == {
        "plain": {"data"},
        "ppo": {"data"},
        "dpo": {"data", "conversations"},
        "iterative": {"data", "conversations"},
    }
    without = {name: method for name, method in METHODS.items() if method.get("origin") != "conversations"}
    none = Alignment.model_validate({"recipe": "r", "methods": without})
    assert {none.origin_of(name) for name in without} == {"data"}
    for changed, why in (
        (
            {"methods": METHODS},
            "methods.rloo.origin: there are no conversations; name their sources under `conversations`",
        ),
        (
            {
                "conversations": source,
                "methods": {"s": SFT, "d": {"kind": "dpo", "start": "s", "origin": "conversations", **TUNED}},
            },
            "have no pairs",
        ),
        (
            {"conversations": {"ours": source["ours"] | {"weight": 2}}, "methods": {"s": SFT}},
            "conversations.ours.weight: all conversations",
        ),
    ):
        with pytest.raises(ValidationError, match=why):
            Alignment.model_validate({"recipe": "r", **changed})


def small(origins: Mapping[str, int]) -> pa.Table:
    """TUNED_ON with so many train rows of each origin, and one held out."""
    made = [
        {"split": "train" if n else "held_out", "origin": origin, "prompt_id": f"{origin}-{n}", "response_id": f"{origin}-{n}-1",
         "messages": asks(f"{origin} {n}"), "response": "x", "best": True}
        for origin, count in origins.items() for n in range(count + 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(made, schema=TUNED_ON)


def test_prompts_are_drawn_of_one_origin() -> None:
    table, wanted = small({"data": 6, "conversations": 9}), Samples(prompts=20, responses=2)
    counts: dict[Origin, int] = {"data": 6, "conversations": 9}
    for origin, count in counts.items():
        drawn = samples.prompts_of(table, "train", wanted, 1, origin)["prompt_id"].to_pylist()
        assert sorted(set(drawn)) == [f"{origin}-{n}" for n in range(1, count + 1)]
    assert samples.prompts_of(table, "held_out", wanted, 1)["prompt_id"].to_pylist() == ["data-0"] * 2
    with pytest.raises(ValueError, match="no prompt of the conversations in the split train"):
        samples.prompts_of(small({"data": 6}), "train", wanted, 1, "conversations")


@given(
    st.lists(st.integers(-5000, 5000).map(lambda n: n / 1000), min_size=3, max_size=6, unique=True),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6),
)
def test_rewards_are_standardised_over_the_train_responses_of_the_data_whatever_conversations_there_are(
    goodness: list[float], others: list[float]
) -> None:
    def scores(values: list[float]) -> pa.Table:
        return pa.table({name: pa.array(values, pa.float64()) for name in (*ATTRIBUTES, "reward", "goodness")})

    alone, standard = samples.scored_data(small({"data": len(goodness) - 1}), scores(goodness))
    table = small({"data": len(goodness) - 1, "conversations": len(others) - 1})
    both, same = samples.scored_data(table, scores([*goodness, *others]))
    assert same == standard
    assert (standard.mean, standard.sd) == pytest.approx((np.mean(goodness[1:]), np.std(goodness[1:])))
    assert both.slice(0, len(goodness)).equals(alone)
    assert both.schema == SCORED_DATA
    assert both["standardised"].to_pylist()[-1] == pytest.approx((others[-1] - standard.mean) / standard.sd)


# ---------------------------------------------------------------------------------------------------------------------------- assets


WORDS = "one two three four five six seven eight nine ten".split()


class Chain:
    """The data of a store with conversations beside them, their scores by a reward model with random weights, and policies tuned on them."""

    def __init__(self, folder: Path) -> None:
        self.uri = str(folder / "store")
        self.store = Store(self.uri)
        save_small_model(folder / "base")
        table = dataset(40)
        split = pa.array(["validation" if int(p[1:]) >= 30 else "train" for p in table["prompt_id"].to_pylist()])
        self.table(None, "helpsteer_dataset", table.set_column(table.schema.get_field_index("split"), "split", split))
        save_reward_model(self.staged("reward_model"), ATTRIBUTES)
        self.store.publish("reward_model", "first", self.place)
        weights = [{"attribute": a, "weight": 1.0, "tuned_on": "x", "pairs": 1} for a in ATTRIBUTES]
        self.table("first", "attribute_weights", pa.Table.from_pylist(weights, schema=WEIGHTS))
        self.asked = {
            int(p[1:]): m[0]["content"]
            for p, m in zip(table["prompt_id"].to_pylist(), table["messages"].to_pylist(), strict=True)
        }
        talks = [
            answered(*(WORDS[n % 10], WORDS[n // 10], "yes")[: 2 + n % 2], answer=f"good {WORDS[n % 7]}")
            for n in range(60)
        ]
        talks += [answered(asked, answer="good") for asked in self.asked.values()]
        source = written(folder / "talks.jsonl", talks)
        methods = {name: METHODS[name] for name in ("sft", "plain", "rloo", "steered")}
        wanted = {
            "recipe": "first",
            "held_out_share": 0.3,
            "conversations": source,
            "evaluated": None,
            "methods": methods,
        }
        self.profile = load_profile("tiny").model_copy(
            update={
                "checkpoints": {"small": Checkpoint(folder=str(folder / "base"), licence="Apache-2.0")},
                "recipes": {"first": RECIPE},
                "alignment": Alignment.model_validate(wanted),
            }
        )
        keys = ["alignment_data", "scored_data", *(f"aligned/{name}" for name in methods)]
        self.result = dg.materialize(
            alignment.build(self.profile),
            selection=[dg.AssetKey(key.split("/")) for key in keys],
            resources={
                "storage": Storage(uri=self.uri),
                "compute": ComputeDouble(),
                "tracking": TensorBoard(folder=f"{self.uri}/.tracking"),
            },
        )

    def staged(self, key: str) -> Path:
        self.place = self.store.staging(key, "first")
        return Path(str(self.place))

    def table(self, partition: str | None, key: str, table: pa.Table) -> None:
        staged = self.store.staging(key, partition)
        write_table(table, staged / DATA)
        self.store.publish(key, partition, staged)

    def card(self, name: str) -> str:
        return (Path(str(self.store.path(f"aligned/{name}"))) / "README.md").read_text()

    def rows(self, origin: Origin, split: str) -> pa.Table:
        table = samples.of_origins(self.store.read("alignment_data"), origin)
        return table.filter(pc.equal(table["split"], split))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


def test_the_data_are_published_with_conversations_and_neither_has_a_prompt_of_the_validation_split(
    chain: Chain,
) -> None:
    assert chain.result.success
    validation = {asked for n, asked in chain.asked.items() if n >= 30}
    for origin in ("data", "conversations"):
        for split in ("train", "held_out"):
            part = chain.rows(origin, split)
            assert len(part)
            assert not validation & {
                m["content"] for talk in part["messages"].to_pylist() for m in talk if m["role"] == "user"
            }
    dropped = chain.store.read("alignment_data", name="dropped.parquet")
    ours = dropped.filter(pc.equal(dropped["source"], "ours"))
    assert len(ours) == len(validation)
    assert set(ours["overlap"].to_pylist()) == {1.0}
    assert len(chain.store.read("alignment_data", name="rejected.parquet")) == 0
    info = chain.store.published("alignment_data").info
    assert info[alignment.CONVERSED] == {"ours": "MIT"}
    (event,) = chain.result.asset_materializations_for_node("alignment_data")
    assert {"licences of conversations", "conversations to learn", "what was decided of conversations"} <= set(
        event.metadata
    )


def test_conversations_are_scored_where_steerlm_learns_them_and_the_data_alone_set_the_standard(chain: Chain) -> None:
    scored, table = chain.store.read("scored_data"), chain.store.read("alignment_data")
    assert scored["response_id"].equals(table["response_id"])
    mine = samples.of_origins(scored, "data")
    train = np.array(mine.filter(pc.equal(mine["split"], "train"))["standardised"])
    assert (train.mean(), train.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    others = np.array(samples.of_origins(scored, "conversations")["standardised"])
    assert np.isfinite(others).all()
    assert abs(others.mean()) > 1e-3


def test_a_policy_is_tuned_on_its_origin_and_its_card_says_so_with_the_licences(chain: Chain) -> None:
    for name, origin in (
        ("sft", "conversations"),
        ("plain", "data"),
        ("steered", "conversations"),
        ("rloo", "conversations"),
    ):
        part = chain.rows(origin, "train")
        learned = {
            "sft": len(part),
            "plain": pc.sum(part["best"]).as_py(),
            "steered": len(part),
            "rloo": len(pc.unique(part["prompt_id"])),
        }
        (event,) = chain.result.asset_materializations_for_node(f"aligned__{name}")
        assert event.metadata["rows"].value == learned[name], name
        card = chain.card(name)
        assert f"| origin | {origin} |" in card
        assert ("MIT" in card) == (origin == "conversations")
        assert "Apache-2.0" in card
        watched = chain.store.read(f"aligned/{name}", name="watched.parquet")["messages"].to_pylist()
        held_out = {talk[-1]["content"] for talk in chain.rows("data", "held_out")["messages"].to_pylist()}
        assert {talk[-1]["content"] for talk in watched} <= held_out, "all policies are watched on the same prompts"


def test_adding_conversations_makes_anew_what_takes_them_and_nothing_else(chain: Chain) -> None:
    def versions(wanted: Alignment) -> dict[str, str | None]:
        built = alignment.build(chain.profile.model_copy(update={"alignment": wanted}))
        return {spec.key.to_user_string(): spec.code_version for asset in built for spec in asset.specs}

    wanted = chain.profile.alignment
    assert wanted is not None
    methods = {name: wanted.methods[name] for name in ("sft", "plain", "steered")}
    source = wanted.conversations["ours"]
    without = wanted.model_copy(update={"conversations": {}, "methods": methods})
    less = wanted.model_copy(update={"methods": methods})
    moved = {key for key, version in versions(without).items() if versions(less)[key] != version}
    assert moved == {"alignment_data", "scored_data", "aligned/sft", "aligned/steered"}
    other = less.model_copy(update={"conversations": {"ours": source.model_copy(update={"limit": 5})}})
    assert {key for key, version in versions(less).items() if versions(other)[key] != version} == {"alignment_data"}
    unscored = wanted.model_copy(update={"methods": {"sft": methods["sft"]}})
    assert versions(unscored)["scored_data"] == versions(without)["scored_data"], (
        "without SteerLM, the data alone are scored"
    )
