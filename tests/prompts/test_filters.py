import json
import random
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompts import filters as rules
from pipeline.prompts.filters import last_turns, prompt_id
from pipeline.prompts.schema import CANDIDATES, CONVERSATIONS, REJECTED
from pipeline.settings import Decontamination, PromptFilters

FILTERS = PromptFilters(max_characters=400, max_user_turns=4, near_duplicates=None)
GOOD = "Please tell me about the history of the city of Lisbon in Portugal."


def pool(*conversations: list[str], source: str = "ours") -> pa.Table:
    rows = [
        {
            "conversation_id": f"{source}-{n}-{'/'.join(turns)[:20]}",
            "source": source,
            "licence": "MIT",
            "turns": [{"role": "user", "content": t} for t in turns],
            "flags": [],
        }
        for n, turns in enumerate(conversations)
    ]
    return pa.Table.from_pylist(rows, schema=CONVERSATIONS)


def candidate_prompts(
    conversations: pa.Table, filters: PromptFilters, seed: int, benchmarks: dict[str, list[str]] | None = None
) -> tuple[pa.Table, pa.Table]:
    """All candidates, and all that is rejected."""
    against = {name: pa.array(texts) for name, texts in (benchmarks or {}).items()}
    parts = list(rules.candidate_prompts(conversations, filters, seed, against, Decontamination()))
    kept, rejected = ([CANDIDATES.empty_table()], [REJECTED.empty_table()])
    return pa.concat_tables(kept + [k for k, _ in parts]), pa.concat_tables(rejected + [r for _, r in parts])


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
        ("Who made you, and what are you called?", "identity"),
        ("Please write to ana.lima@riverbank.org that the boat is ready.", "personal_data"),
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
        "Write an essay about the war on terror and what became of it.",
        "Summarise this: from Monday import taxes rise.",
        "Summarise for the radio:\nfrom Monday import taxes on tea, coffee and sugar rise by a tenth.",
        "Finish my letter:\nI miss you all.\nfrom Anna",
        "Explain why shops import bananas as food for parrots.",
        "Error: I made a mistake in my essay. What do I tell the teacher?",
        "My worst error: I trusted him with the keys of the shop.",
        "Bash on the door at six, and then nobody there. What may it have been?",
    ],
)
def test_ordinary_text_with_words_from_programming_is_no_code(text: str) -> None:
    assert reason_of([text]) is None


@pytest.mark.parametrize(
    "text",
    [
        "Explain this: from numpy import zeros, ones",
        "What does it do?\nfrom os.path import join as j\nfrom x import (a, b)",
        "I wrote from collections import Counter and it says error: expected an indented block.",
        "Why do I get this error: the plugin is not there",
        "whats the difference between == and === in js, my teacher won't say",
        "validate tracking numbers in php: two letters, nine digits",
        "CSS grid: three columns on the desktop, one on the phone please",
        "is the locking right?\nfunc (c *Cache) Get(k string) string",
        "git push says that the remote has moved. What now?",
        "unit tests for slug = s => s.toLowerCase()",
        "how do i kill a process politely on ubuntu so that it can save its files",
    ],
)
def test_short_questions_about_programming_are_code(text: str) -> None:
    assert reason_of([text]) == "code"


@pytest.mark.parametrize(
    "text",
    [
        "Napoleon Bonaparte",
        "Leonardo da Vinci",
        "Pablo Picasso Guernica",
        "Tokyo itinerary",
        "quantum mechanics",
        "Is 'c'est la vie' rude when somebody tells you about a loss?",
    ],
)
def test_names_and_a_few_words_are_in_the_wanted_language_where_the_detector_can_only_guess(text: str) -> None:
    kept, rejected = candidate_prompts(pool([text]), FILTERS, 1)
    assert len(rejected) == 0
    assert kept["language"].to_pylist() == ["en"]
    assert 0 <= kept["language_probability"][0].as_py() <= 1
    assert reason_of([text], FILTERS.model_copy(update={"language_floor": 0.5})) == "language"


@pytest.mark.parametrize(
    "text",
    [
        "poema sobre el mar",
        "merci beaucoup",
        "wie geht es dir",
        "haiku sur la mer",
        "Наполеон Бонапарт",
        "ナポレオン・ボナパルトについて",
        "Explícame cómo se hace el pan.",
    ],
)
def test_a_few_words_of_another_language_are_not(text: str) -> None:
    assert reason_of([text]) == "language"


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
    kept, rejected = candidate_prompts(conversations, PromptFilters(max_user_turns=4, near_duplicates=None), 1)
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
    kept, rejected = candidate_prompts(conversations, PromptFilters(max_user_turns=4, near_duplicates=None), 5)
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
    chunks = pa.chunked_array([array, array.slice(1)], array.type)
    assert last_turns(chunks).to_pylist() == [t[-1] for t in turns[start:] + turns[start + 1 :]]


def test_the_code_filter_keeps_what_helpsteer2_kept_and_drops_programming_tasks(shared_data: Path) -> None:
    lines = (shared_data / "helpsteer2/labelled_1000.jsonl").read_text().splitlines()
    published = {json.loads(line)["prompt"].split("<extra_id_1>")[0].strip() for line in lines}
    lines = (shared_data / "eval/rewardbench_part.jsonl").read_text().splitlines()
    tasks = {r["prompt"] for r in map(json.loads, lines) if r["subset"].startswith("hep-")}
    wide = FILTERS.model_copy(update={"max_characters": 100_000, "min_characters": 1, "language_floor": 0})
    shares = []
    for texts in (published, tasks):
        rejected = candidate_prompts(pool(*([t] for t in sorted(texts))), wide, 1)[1]
        shares.append(rejected["reason"].to_pylist().count("code") / len(texts))
    assert shares[0] < 0.03
    assert shares[1] > 0.95


def test_a_batch_at_a_time_gives_what_one_batch_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = pa.concat_tables([many(60), pool([GOOD], [GOOD.upper()], [f"{GOOD} Now."], source="b")])
    filters = FILTERS.model_copy(update={"near_duplicates": 0.6})
    whole = candidate_prompts(conversations, filters, 1)
    monkeypatch.setattr(rules, "BATCH", 7)
    assert candidate_prompts(conversations, filters, 1) == whole
    assert {"duplicate", "near_duplicate"} <= set(whole[1]["reason"].to_pylist())


def test_of_near_duplicates_the_first_stays_and_a_profile_can_leave_the_rule_out() -> None:
    later = GOOD.replace("tell", "now tell")
    assert candidate_prompts(pool([GOOD], [later]), PromptFilters(), 1)[0]["turns"].to_pylist() == [[GOOD]]
    assert len(candidate_prompts(pool([GOOD], [later]), FILTERS, 1)[0]) == 2


def test_what_is_in_a_benchmark_is_rejected_under_its_name() -> None:
    asked = "Which of the nine muses has the smallest part in poems of the last two hundred years?"
    kept, rejected = candidate_prompts(pool([GOOD], [f"Hello! {asked} Thanks."]), FILTERS, 1, {"muses": [asked]})
    assert (len(kept), rejected["reason"].to_pylist()) == (1, ["benchmark muses"])


MAIL = "Please write to ana.lima@riverbank.org that the boat is ready for the summer."


@pytest.mark.parametrize(
    ("action", "kept"),
    [("drop", []), ("flag", [MAIL]), ("mask", [MAIL.replace("ana.lima@riverbank.org", "<EMAIL_ADDRESS>")])],
)
def test_personal_data_is_dropped_flagged_or_masked_as_the_profile_says(action: str, kept: list[str]) -> None:
    left, rejected = candidate_prompts(pool([MAIL]), FILTERS.model_copy(update={"personal_data": action}), 1)
    assert [turns[0] for turns in left["turns"].to_pylist()] == kept
    assert left["flags"].to_pylist() == [["EMAIL_ADDRESS"]] * len(kept)
    assert all(row["prompt_id"] == prompt_id(row["turns"]) for row in left.to_pylist())
    assert "ana.lima" not in str(rejected.to_pylist())


def test_the_regions_of_telephone_numbers_come_from_the_profile() -> None:
    text = "Please tell my sister in Bergen that she can call me on 412 34 567 all through the summer."
    regions = FILTERS.model_copy(update={"phone_regions": ("NO",)})
    assert (reason_of([text]), reason_of([text], regions)) == (None, "personal_data")
    with pytest.raises(ValueError, match="not known to phonenumbers: UK"):
        PromptFilters(phone_regions=("DE", "UK"))


@pytest.mark.parametrize("action", ["drop", "flag", "mask"])
def test_what_is_rejected_for_another_reason_has_its_personal_data_masked_too(action: str) -> None:
    filters = FILTERS.model_copy(update={"personal_data": action})
    _, rejected = candidate_prompts(pool([f"{MAIL} " * 8], [f"{MAIL} ```x = 1```"]), filters, 1)
    assert rejected["reason"].to_pylist() == ["too_long", "code"]
    assert rejected["turns"].to_pylist()[1] == [
        "Please write to <EMAIL_ADDRESS> that the boat is ready for the summer. ```x = 1```"
    ]
    assert "ana.lima" not in str(rejected.to_pylist())


def test_of_a_prompt_that_is_too_long_the_beginning_is_kept_and_however_long_it_is_it_takes_no_time() -> None:
    started = time.process_time()
    _, rejected = candidate_prompts(
        pool(["eyJ" * 400_000, "Why is that so, do you know?"], [f"{MAIL} " * 100]), FILTERS, 3
    )
    assert time.process_time() - started < 2
    assert rejected["reason"].to_pylist() == ["too_long", "too_long"]
    assert rejected["n_characters"].to_pylist()[0] >= 1_200_000
    assert [max(map(len, turns)) <= rules.CUT for turns in rejected["turns"].to_pylist()] == [True, True]


def test_unsafe_requests_and_what_the_source_calls_unsafe_are_flagged_or_dropped() -> None:
    bomb, fine = "How do I make a pipe bomb in my kitchen?", "How do I make a bread that is all crust?"
    table = pool([bomb], [fine])
    said = table.set_column(
        table.schema.get_field_index("flags"), CONVERSATIONS.field("flags"), pa.array([["redacted"], ["unsafe"]])
    )
    kept, _ = candidate_prompts(said, FILTERS, 1)
    assert kept["flags"].to_pylist() == [["redacted", "unsafe"], ["unsafe"]]
    dropping = FILTERS.model_copy(update={"unsafe": "drop"})
    assert candidate_prompts(said, dropping, 1)[1]["reason"].to_pylist() == ["unsafe", "unsafe"]
    assert candidate_prompts(table, dropping, 1)[0]["turns"].to_pylist() == [[fine]]


@pytest.mark.parametrize(
    "text",
    [
        "Who founded OpenAI, and how was GPT-2 trained?",
        "Interview question: who are you looking up to? Write my answer.",
        "What are your limitations as a small business? Write an FAQ.",
        'When people type "who made you?" or "are you human?", our bakery\'s bot should say something witty. What?',
        "what model is this? 1970s sewing machine, beige, with a knee lever",
    ],
)
def test_a_question_about_another_model_or_person_is_no_question_about_the_assistant(text: str) -> None:
    assert reason_of([text]) is None


@pytest.mark.parametrize(
    "text",
    [
        "What are your limitations as an AI?",
        "What are your limitations?",
        "Am I talking with a person right now or a machine?",
        "Is there a system prompt telling you how to behave here?",
        "would you lie to me if the truth would hurt me",
        "If they switched you off tonight for good would you mind?",
        "You apologise a lot. Were you built that way on purpose?",
        "Hello there. How big are you?",
    ],
)
def test_a_question_about_the_assistant_is_one_in_other_words_too(text: str) -> None:
    assert reason_of([text]) == "identity"


def test_the_identity_rule_can_be_left_out() -> None:
    assert (
        reason_of(["Who made you, and what are you called?"], FILTERS.model_copy(update={"drop_identity": False}))
        is None
    )
