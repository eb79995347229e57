"""Any conversation in any of the shapes that are read, in any file, gives the same turns of the user and the same id."""

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompts import shapes
from pipeline.prompts.pieces import Pieces, put_together
from pipeline.prompts.shapes import UnusableError, all_turns, paths_of, turns_of, user_turns
from pipeline.prompts.sources import DETAIL, conversations
from pipeline.settings import FilesSource
from pipeline.texts.scraped import seen_text

ANSWER = "SECRET ANSWER OF AN ASSISTANT"
Turns = list[tuple[str, str]]


def asked_in(record: Any, **columns: str) -> list[str]:
    return user_turns(turns_of(record, columns)).turns


def messages_in(record: Any, **columns: str) -> Iterator[list[dict[str, str]]]:
    """All turns of a record, of a tree path by path."""
    return (all_turns(record, found).messages for found in paths_of(turns_of(record, columns), columns))


def reason_of(record: Any) -> str:
    with pytest.raises(UnusableError) as refused:
        asked_in(record)
    return refused.value.reason


# -------------------------------------------------------------------------------------------------------------- any shape, the same

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
WORDS = {
    "user": ["user", "human", "prompter", "customer", "User", "HUMAN", " Client "],
    "assistant": ["assistant", "gpt", "bot", "AI", "ChatGPT", "gpt-4", "Claude-3-Opus", "model", "Bard"],
    "system": ["system", "System", "developer"],
}


@st.composite
def conversation(draw: st.DrawFn) -> Turns:
    """Turns that a user begins, with a system's before them or not."""
    users = draw(st.lists(TEXTS, min_size=1, max_size=4))
    system = [("system", "Be brief.")] if draw(st.booleans()) else []
    return system + [t for text in users for t in (("user", text), ("assistant", ANSWER))]


@st.composite
def in_a_list(draw: st.DrawFn, turns: Turns) -> dict[str, Any]:
    holder, who, what = (draw(st.sampled_from(names)) for names in (shapes.LISTS, shapes.WHO, shapes.WHAT))
    case = draw(st.sampled_from([str, str.title, str.upper]))
    words = {role: draw(st.sampled_from(known)) for role, known in WORDS.items()}
    said = [{case(who): words[role], case(what): text} for role, text in turns]
    record = {case(holder): said, "id": "x", "score": 0.5}
    return record if draw(st.booleans()) else {**record, case(holder): json.dumps(said)}


def chatgpt(turns: Turns) -> dict[str, Any]:
    """A conversation in ChatGPT's export, with a branch that was left."""
    ids = count()
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    at = "root"
    for role, text in turns:
        for said in (text, "a branch that was left") if role == "user" else (text,):
            name = f"n{next(ids)}"
            message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [said]}, "metadata": {}}
            mapping[name] = {"id": name, "message": message, "parent": at, "children": []}
            mapping[at]["children"].append(name)
        at = mapping[at]["children"][0]
    return {"title": "A talk", "mapping": mapping, "current_node": at}


def tree(turns: Turns) -> dict[str, Any]:
    """A tree as OASST has it, with replies of a worse rank."""
    node: dict[str, Any] = {}
    for role, text in reversed([t for t in turns if t[0] != "system"]):
        worse = {"text": "a worse reply", "role": "assistant", "rank": 3, "replies": []}
        replies = [worse, {**node, "rank": 0}] if node.get("role") == "assistant" else [node] if node else []
        node = {"text": text, "role": "prompter" if role == "user" else role, "rank": None, "replies": replies}
    return {"message_tree_id": "t", "prompt": node}


def parts(turns: Turns) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]}


def arena(turns: Turns) -> dict[str, Any]:
    one = [{"role": role, "content": text} for role, text in turns]
    return {"question_id": "q", "model_a": "x", "conversation_a": one, "conversation_b": one[:-1], "turn": 1}


def lone(turns: Turns) -> dict[str, Any]:
    users = [text for role, text in turns if role == "user"]
    return {"prompt": users[0]} if len(users) == 1 else {"turns": users, "question_id": 81}


SHAPES: list[Callable[[Turns], dict[str, Any]]] = [chatgpt, tree, parts, arena, lone]
CONTAINERS = ["a.jsonl", "a.json", "held.json", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.jsonl.zst"]


def written(folder: Path, name: str, record: dict[str, Any]) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        # Parquet has no objects with fields of their own: a tree of nodes stays JSON
        flat = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in record.items()}
        pq.write_table(pa.Table.from_pylist([flat]), path)
        return path
    text = json.dumps(
        {"about": "x", "data": [record]} if "held" in name else [record] if ".json" in path.suffixes else record
    )
    pack = {".gz": gzip.compress, ".zst": lambda plain: pa.compress(plain, codec="zstd", asbytes=True)}
    path.write_bytes(pack.get(path.suffix, bytes)(text.encode()))
    return path


def read(path: Path) -> pa.Table:
    stream, _ = conversations({"ours": FilesSource(kind="files", path=str(path), licence="MIT")})
    return stream.read_all()


@settings(max_examples=300, deadline=None)
@given(st.data(), conversation(), st.sampled_from(CONTAINERS))
def test_a_conversation_in_any_shape_and_file_has_the_same_turns_and_id(
    data: st.DataObject, turns: Turns, name: str
) -> None:
    made = data.draw(in_a_list(turns) | st.sampled_from(SHAPES).map(lambda shape: shape(turns)))
    users = [text for role, text in turns if role == "user"]
    plain = {"messages": [{"role": role, "content": text} for role, text in turns]}
    with tempfile.TemporaryDirectory() as folder:
        if name.endswith(".parquet") and any(isinstance(value, dict) for value in made.values()):
            name = "a.jsonl"
        one, other = read(written(Path(folder), name, made)), read(written(Path(folder), "plain.jsonl", plain))
    assert [turn["content"] for turn in one["turns"][0].as_py()] == users
    assert one.equals(other)


@settings(max_examples=200, deadline=None)
@given(st.data(), conversation())
def test_a_conversation_in_any_shape_has_the_same_messages(data: st.DataObject, turns: Turns) -> None:
    whole = [shape for shape in SHAPES if shape is not lone]
    made = data.draw(in_a_list(turns) | st.sampled_from(whole).map(lambda shape: shape(turns)))
    told = [(role, text) for role, text in turns if role != "system" or "prompt" not in made]  # a tree has no system's
    seen = [(role, text if (plain := seen_text(text)) is None else plain) for role, text in told]
    if not all(text.strip() for _, text in seen):
        with pytest.raises(UnusableError, match="is blank"):
            next(messages_in(made))
    else:
        assert [(message["role"], message["content"]) for message in next(messages_in(made))] == seen


# ------------------------------------------------------------------------------------------------------------------- one shape each


@pytest.mark.parametrize(
    ("record", "asked"),
    [
        ({"instruction": "Sort these.", "input": "b, a", "output": ANSWER}, ["Sort these.\n\nb, a"]),
        ({"instruction": "Sort these.", "input": " ", "output": ANSWER}, ["Sort these."]),
        ({"instruction": "Sum this up.", "context": "A text.", "response": ANSWER}, ["Sum this up.\n\nA text."]),
        ({"query": "And then?", "response": ANSWER, "history": [["First?", ANSWER]]}, ["First?", "And then?"]),
        ({"system_prompt": "Be brief.", "question": "Why?", "response": ANSWER}, ["Why?"]),
        ({"prompt": [{"role": "user", "content": "Why?"}], "chosen": []}, ["Why?"]),
        ({"prompt": '["One?", "Two?"]', "response_a": '["x"]', "response_b": '["y"]'}, ["One?", "Two?"]),
        ({"prompt": '["One?", "Two?"]'}, ['["One?", "Two?"]']),
        ({"prompt": "Why?", "messages": [{"role": "user", "content": "The whole?"}]}, ["The whole?"]),
        ({"prompt": "Why?", "turns": 3, "items": ["x"], "conversations": []}, ["Why?"]),
        ({"prompt": "Why?", "messages": [{"Role": "User", "Content": "The whole?"}]}, ["The whole?"]),
        ({"turns": [{"content": "One?"}], "cluster": "x"}, ["One?"]),
        ({"chat_messages": [{"sender": "human", "text": "Why?", "attachments": []}]}, ["Why?"]),
        ({"conversation_a": None, "conversation_b": [{"role": "user", "content": "Why?"}]}, ["Why?"]),
        (
            {"messages": [{"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Why?"]}}]},
            ["Why?"],
        ),
        ({"messages": [{"role": "user", "name": "Ann", "content": "Why?"}]}, ["Why?"]),
    ],
)
def test_shapes_that_have_a_place_of_their_own(record: dict[str, Any], asked: list[str]) -> None:
    assert asked_in(record) == asked


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"conversations": "[{broken"}, "no_conversation"),
        ({"prompt": 7}, "no_conversation"),
        ({"prompt": None, "mapping": {}}, "no_conversation"),
        ({"dialog": ["Hi", "Hello"]}, "bad_turn"),
        ({"dialogue": [{"speaker": "doctor", "text": "Where does it hurt?"}]}, "bad_turn"),
        ({"messages": [{"words": "Why?"}]}, "bad_turn"),
        ({"messages": [{"role": "user", "words": "Why?"}]}, "bad_turn"),
        ({"messages": [{"role": "Tool-Call", "content": "x"}]}, "starts_mid_conversation"),
        ({"prompt": {"role": "assistant", "text": "So", "replies": []}}, "starts_mid_conversation"),
        ({"mapping": {"a": {"message": None, "parent": None, "children": []}}}, "no_user_turn"),
    ],
)
def test_what_is_none_is_set_aside_with_its_reason(record: dict[str, Any], reason: str) -> None:
    assert reason_of(record) == reason


def test_who_speaks_is_shown_where_it_is_a_role_and_not_where_it_may_be_a_person() -> None:
    for field, shown in (
        ("role", "'Ann'"),
        ("from", "'Ann'"),
        ("name", "a str"),
        ("author", "a str"),
        ("sender", "a str"),
    ):
        with pytest.raises(UnusableError, match=f"turn 1: `{field}` is {shown}, which is not a known role"):
            asked_in({"messages": [{field: "Ann", "content": "x"}]})


def test_a_turn_under_other_names_is_told_how_to_map_them() -> None:
    with pytest.raises(
        UnusableError,
        match=r"turn 1 has none of the fields role, .*; its fields are: words; .*`columns: {role: FIELD}`",
    ):
        asked_in({"messages": [{"words": "x", "A SECRET": 1}]})
    record = {"messages": [{"words": "x", "party": {"is": "user"}}], "prompt": "another"}
    assert asked_in(record, role="party.is", content="words") == ["x"]


def test_what_chatgpt_hides_is_no_turn_and_without_a_current_node_the_last_replies_are_read() -> None:
    record = chatgpt([("user", "One?"), ("assistant", ANSWER)])
    hidden = {
        "author": {"role": "user"},
        "content": {"content_type": "user_editable_context", "user_profile": "A SECRET"},
    }
    record["mapping"]["root"]["message"] = hidden
    assert asked_in(record) == ["One?"]
    assert asked_in({**record, "current_node": None}) == ["a branch that was left"]


def test_a_tree_that_leads_into_itself_ends() -> None:
    said = {"author": {"role": "user"}, "content": {"parts": ["Why?"]}}
    nodes = {name: {"message": said, "parent": other, "children": [other]} for name, other in (("a", "b"), ("b", "a"))}
    assert asked_in({"mapping": nodes, "current_node": "a"}) == ["Why?", "Why?"]


KEYS = [*shapes.LISTS, *shapes.ALONE, *shapes.WHO, *shapes.WHAT, "Role", "mapping", "current_node", "parent", "children", "replies", "rank",
        "history", "input", "response_a", "parts", "type", "metadata", "id", "message_id", "parent_id", "other"]  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["user", "gpt", "X_1", '[{"role": 1}]', "[", "", "<p>x</p>", 10**400])
)
JSON = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(KEYS), v, max_size=4), max_leaves=25
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5) | JSON, max_size=4))
def test_whatever_a_record_holds_it_is_read_or_set_aside(records: list[Any]) -> None:
    pieces, refused = Pieces(), list[str]()
    for _, _, record in put_together(("a", n, record) for n, record in enumerate(records)):
        try:
            found = turns_of(record, {"role": "type"} if len(records) == 2 else {})
            pieces.later(record, found)
            assert all(isinstance(turn, str) for turn in user_turns(found).turns)
        except UnusableError as error:
            refused.append(f"{error.reason}: {error}")
    assert all(len(said) < DETAIL for said in refused)


ALL_KEYS = [*KEYS, *shapes.ANSWERS, *shapes.SYSTEMS, "tool_calls", "review_result"]
SAID = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(ALL_KEYS), v, max_size=4), max_leaves=25
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(ALL_KEYS), SAID, max_size=6), st.booleans())
def test_whatever_a_record_holds_all_its_turns_are_read_or_it_is_set_aside(
    record: dict[str, Any], mapped: bool
) -> None:
    refused = ""
    try:
        for messages in messages_in(record, **({"role": "type"} if mapped else {})):
            roles = [message["role"] for message in messages]
            talk = roles[roles[0] == "system" :]
            assert talk == (["user", "assistant"] * len(talk))[: len(talk)] != []
            assert all(message["content"].strip() for message in messages)
    except UnusableError as error:
        refused = f"{error.reason}: {error}"
    assert len(refused) < DETAIL


def test_fields_of_a_trees_turns_may_have_other_names() -> None:
    replies = [{"by": "bot", "words": text, "rank": rank} for rank, text in ((1, "worse"), (0, "better"))]
    record = {"prompt": {"by": "user", "words": "Why?", "replies": replies}}
    told = [
        [message["content"] for message in messages] for messages in messages_in(record, role="by", content="words")
    ]
    assert told == [["Why?", "better"], ["Why?", "worse"]]


# ------------------------------------------------------------------------------------------------------------------------- in pieces


def row(name: str, parent: str | None, role: str, text: str, rank: int | None = None) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "role": role, "text": text, "rank": rank}


def test_rows_of_messages_are_put_together_and_a_reply_without_its_message_is_set_aside() -> None:
    rows = [
        row("a", None, "prompter", "One?"),
        row("b", "a", "assistant", ANSWER, 1),
        row("c", "a", "assistant", ANSWER, 0),
        row("d", "b", "prompter", "After the worse?"),
        row("e", "c", "prompter", "Two?"),
        row("f", None, "prompter", "Three?"),
        row("g", "lost", "prompter", "Whose?"),
        {"prompt": "Four?"},
    ]
    given = list(put_together(("f", n, r) for n, r in enumerate(rows, start=1)))
    lost = [n for _, n, r in given if isinstance(r, UnusableError) and r.reason == "starts_mid_conversation"]
    read = {n: asked_in(r) for _, n, r in given if not isinstance(r, UnusableError)}
    assert (lost, read) == ([7], {1: ["One?", "Two?"], 6: ["Three?"], 8: ["Four?"]})


def later(*records: tuple[str, str]) -> list[bool]:
    """Of records, by id and turns (u, a): which are later pieces."""
    pieces, words = Pieces(), {"u": "human", "a": "gpt"}
    made = [{"id": i, "conversations": [{"from": words[t], "value": "x"} for t in turns]} for i, turns in records]
    return [pieces.later(record, turns_of(record)) for record in made]


def test_a_piece_goes_on_where_the_record_before_it_ends() -> None:
    assert later(("X_0", "uaua"), ("X_4", "uaua"), ("X_8", "ua"), ("Y_0", "ua")) == [False, True, True, False]
    assert later(("X_0", "uaua"), ("Y_4", "ua"), ("X_4", "ua")) == [False] * 3


@pytest.mark.parametrize("turns", ["u", "ua", "uau", "uaua"])
def test_ids_that_count_are_no_pieces(turns: str) -> None:
    assert later(*((f"q_{n}", turns) for n in range(20))) == [False] * 20
    assert later(*((f"q_{n}_{n}", turns) for n in range(20)), ("q", turns), ("_1", turns)) == [False] * 22
