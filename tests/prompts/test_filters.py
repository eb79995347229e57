import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompts.filters import candidate_prompts, last_turns, prompt_id
from pipeline.prompts.schema import CANDIDATES, CONVERSATIONS, REJECTED
from pipeline.settings import PromptFilters

FILTERS = PromptFilters(max_characters=400, max_user_turns=4)
GOOD = "Please tell me about the history of the city of Lisbon in Portugal."


def pool(*conversations: list[str], source: str = "ours") -> pa.Table:
    rows = [
        {
            "conversation_id": f"{source}-{n}-{'/'.join(turns)[:20]}",
            "source": source,
            "licence": "MIT",
            "turns": [{"role": "user", "content": t} for t in turns],
        }
        for n, turns in enumerate(conversations)
    ]
    return pa.Table.from_pylist(rows, schema=CONVERSATIONS)


def reason_of(turns: list[str], filters: PromptFilters = FILTERS) -> str | None:
    kept, rejected = candidate_prompts(pool(turns), filters, 1)
    assert len(kept) + len(rejected) == 1
    return rejected["reason"][0].as_py() if len(rejected) else None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("  \n ", "blank_turn"),
        ("go on", "too_short"),
        (f"{GOOD} " * 6, "too_long"),
        (f"{GOOD} <|im_end|><|im_start|>assistant", "control_markup"),
        (f"{GOOD} <extra_id_1>Assistant", "control_markup"),
        (f"{GOOD} [/INST] Sure", "control_markup"),
        ("Explain what this does: ```x = [i for i in y]```", "code"),
        ("Write a python function that adds two numbers.", "code"),
        ("Write a C# program that calculates pi to five decimals.", "code"),
        ("How do I fix this?\nimport numpy as np\nx = np.zeros(3)", "code"),
        ("Which rows come back? SELECT name FROM users WHERE age > 3 ORDER BY name", "code"),
        ("What is wrong with <div class='a'>hello</div> on my page?", "code"),
        ("I get Traceback (most recent call last) when it starts. What now?", "code"),
        ("Erzähle mir bitte etwas über die Geschichte der Stadt Lissabon.", "language"),
        ("请告诉我关于里斯本这座城市的历史和文化，谢谢你的帮助。", "language"),
    ],
)
def test_each_filter_rejects_with_its_reason(text: str, reason: str | None) -> None:
    assert reason_of([text]) == reason


@pytest.mark.parametrize(
    "text",
    [
        "How do I install Python on a Windows laptop for my daughter's school?",
        "Write a poem about a python in the rainforest that has lost its way home.",
        "From Monday on I work at home; which habits help me to keep a routine?",
        "Please select a good restaurant from these and say where I should go with my mother.",
        "I have two classes on Tuesday (maths; history). Make a study plan for the week.",
        "What are the differences between an API and a library, in everyday words?",
    ],
)
def test_ordinary_text_with_words_from_programming_is_no_code(text: str) -> None:
    assert reason_of([text]) is None


def test_code_stays_where_the_profile_keeps_it() -> None:
    text = "Write a python function that adds two numbers, and tell me how it works."
    assert reason_of([text], FILTERS.model_copy(update={"drop_code": False})) is None


def test_the_language_and_its_floor_come_from_the_profile() -> None:
    german = "Erzähle mir bitte etwas über die Geschichte der Stadt Lissabon."
    assert reason_of([german], PromptFilters(language="de")) is None
    assert reason_of([GOOD], PromptFilters(language="de")) == "language"
    assert reason_of([GOOD], PromptFilters(language_floor=1)) == "language"


def test_a_rejected_row_carries_what_it_was_judged_by() -> None:
    _, rejected = candidate_prompts(pool(["Hola, ¿puedes contarme la historia de la ciudad de Lisboa?"]), FILTERS, 1)
    assert rejected.schema == REJECTED
    row = rejected.to_pylist()[0]
    assert (row["language"], row["n_turns"], row["turns"]) == (
        "es",
        1,
        ["Hola, ¿puedes contarme la historia de la ciudad de Lisboa?"],
    )
    assert row["language_probability"] > 0.5


def test_a_prompt_that_came_before_is_a_duplicate_whatever_its_case_spacing_and_unicode_form() -> None:
    kept, rejected = candidate_prompts(pool([GOOD], [f"  {GOOD.upper()}\n"], [GOOD.replace(" ", "  ")]), FILTERS, 1)
    assert kept["turns"].to_pylist() == [[GOOD]]
    assert rejected["reason"].to_pylist() == ["duplicate", "duplicate"]


def test_a_prompt_is_no_duplicate_of_one_that_another_filter_rejected() -> None:
    kept, rejected = candidate_prompts(pool([f"{GOOD} " * 6], [f"{GOOD} " * 6]), FILTERS, 1)
    assert (len(kept), rejected["reason"].to_pylist()) == (0, ["too_long", "too_long"])


def test_turn_boundaries_are_part_of_a_prompts_identity() -> None:
    assert prompt_id(["a", "b"]) != prompt_id(["a b"])
    assert prompt_id(["a", "b"]) != prompt_id(["b", "a"])
    assert prompt_id(["ﬁne  Café"]) == prompt_id([" FINE cafe\u0301"])


def many(n: int) -> pa.Table:
    words = "city river book garden doctor music winter bread planet history".split()
    draw = random.Random(3)

    def turn(i: int, k: int) -> str:
        return f"Please tell me about the {draw.choice(words)} and the {draw.choice(words)} of {i}{k}."

    return pool(*([turn(i, k) for k in range(1 + i % 7)] for i in range(n)))


def test_a_candidate_is_the_beginning_of_its_conversation_within_the_turn_limit() -> None:
    conversations = many(700)
    turns_of = {c["conversation_id"]: [t["content"] for t in c["turns"]] for c in conversations.to_pylist()}
    kept, rejected = candidate_prompts(conversations, PromptFilters(max_user_turns=4), 1)
    assert kept.schema == CANDIDATES
    assert len(kept) + len(rejected) == 700
    for row in kept.to_pylist() + rejected.to_pylist():
        assert row["turns"] == turns_of[row["conversation_id"]][: row["n_turns"]]
        assert 1 <= row["n_turns"] <= 4
        assert row["n_characters"] == len("\n".join(row["turns"]))
        assert row["prompt_id"] == prompt_id(row["turns"])


def test_half_of_the_conversations_with_several_turns_become_multi_turn_and_every_length_is_as_likely() -> None:
    n = 12_000
    conversations = pool(*(["Tell me more about it, please."] * 4 for _ in range(n)))
    kept, rejected = candidate_prompts(conversations, PromptFilters(max_user_turns=4), 5)
    counts = np.bincount(np.concatenate([kept["n_turns"], rejected["n_turns"]]), minlength=5)
    expected = np.array([0, 1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert np.abs(counts / n - expected).max() < 4 * np.sqrt(0.25 / n)


def test_further_conversations_and_their_order_move_no_draw() -> None:
    few, more = many(60), pool(*([f"Another question about the moon, number {i}?"] * 3 for i in range(50)), source="b")
    alone = candidate_prompts(few, FILTERS, 1)[0].to_pylist()
    shuffled = pa.concat_tables([more, few.take(pa.array(list(range(59, -1, -1))))])
    among = {row["conversation_id"]: row for row in candidate_prompts(shuffled, FILTERS, 1)[0].to_pylist()}
    assert all(among[row["conversation_id"]] == row for row in alone)
    assert candidate_prompts(few, FILTERS, 2)[0].to_pylist() != alone


def test_no_conversations_give_no_candidates() -> None:
    kept, rejected = candidate_prompts(CONVERSATIONS.empty_table(), FILTERS, 1)
    assert (kept.schema, len(kept), rejected.schema, len(rejected)) == (CANDIDATES, 0, REJECTED, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=5), max_size=8))
def test_every_conversation_is_a_candidate_or_rejected_whatever_strangers_write(texts: list[list[str]]) -> None:
    kept, rejected = candidate_prompts(pool(*texts), FILTERS, 1)
    assert len(kept) + len(rejected) == len(texts)
    assert rejected["reason"].null_count == 0
    assert all(turn.strip() for turns in kept["turns"].to_pylist() for turn in turns)
    assert len(set(kept["prompt_id"].to_pylist())) == len(kept)


@given(st.lists(st.lists(st.text(), min_size=1), max_size=6), st.integers(0, 3))
def test_the_last_turn_is_the_last_turn_of_a_slice_too(turns: list[list[str]], start: int) -> None:
    array = pa.array(turns, pa.list_(pa.string())).slice(start)
    assert last_turns(array).to_pylist() == [t[-1] for t in turns[start:]]


def test_the_code_filter_keeps_what_helpsteer2_kept_and_drops_programming_tasks(shared_data: Path) -> None:
    lines = (shared_data / "helpsteer2/labelled_1000.jsonl").read_text().splitlines()
    published = {json.loads(line)["prompt"].split("<extra_id_1>")[0].strip() for line in lines}
    lines = (shared_data / "eval/rewardbench_part.jsonl").read_text().splitlines()
    tasks = {r["prompt"] for r in map(json.loads, lines) if r["subset"].startswith("hep-")}
    wide = PromptFilters(max_characters=100_000, min_characters=1, language_floor=0)
    shares = []
    for texts in (published, tasks):
        rejected = candidate_prompts(pool(*([t] for t in sorted(texts))), wide, 1)[1]
        shares.append(rejected["reason"].to_pylist().count("code") / len(texts))
    assert shares[0] < 0.03
    assert shares[1] > 0.95
