import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.sections import PUBLISHED, REWARDBENCH, SUBSET_SECTION, overall, section_of, section_scores

COUNTS = {subset: n for subsets in REWARDBENCH.values() for subset, n in subsets.items()}


def test_the_composition_is_rewardbenchs() -> None:
    # method.md G1: 23 subsets; sections of 358, 456, 740 and, by weight, 984 + 984
    assert len(SUBSET_SECTION) == 23
    assert {section: sum(subsets.values()) for section, subsets in REWARDBENCH.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 984 + 984,
    }


@pytest.mark.parametrize("row", PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_the_published_overall_is_the_mean_of_its_sections(
    row: tuple[str, float, float, float, float, float, float | None],
) -> None:
    _, total, chat, hard, safety, reasoning, _ = row
    assert overall({"Chat": chat, "Chat Hard": hard, "Safety": safety, "Reasoning": reasoning}) == pytest.approx(
        total, abs=0.1
    )


def test_the_counts_case() -> None:
    assert overall({"Chat": 96.65, "Chat Hard": 91.67, "Safety": 92.70, "Reasoning": 98.82}) == pytest.approx(
        94.96, abs=5e-3
    )


@given(st.fixed_dictionaries({subset: st.floats(0, 1) for subset in COUNTS}))
def test_a_section_is_the_mean_over_its_pairs_by_weight(accuracies: dict[str, float]) -> None:
    found = section_scores(accuracies, dict.fromkeys(accuracies, 1))
    for section, subsets in REWARDBENCH.items():
        pairs = [accuracies[s] for s, n in subsets.items() for _ in range(n)]
        assert found[section] == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)


def test_prior_sets_count_half_and_a_missing_one_is_masked() -> None:
    # method.md G3: Nemotron-4 340B is 89.3 and Llama 3 70B is 86.3 with Prior Sets
    by_name = {row[0]: row for row in PUBLISHED}
    for name, wanted in (("Nemotron-4 340B RM (w. HelpSteer2)", 89.3), ("Llama 3 70B RM (w. HelpSteer2)", 86.3)):
        _, _, chat, hard, safety, reasoning, prior = by_name[name]
        sections = {"Chat": chat, "Chat Hard": hard, "Safety": safety, "Reasoning": reasoning}
        assert overall(sections, prior) == pytest.approx(wanted, abs=0.05)
        assert overall(sections, math.nan) == overall(sections)


def test_subsets_of_other_benchmarks_count_by_their_pairs_in_their_own_section() -> None:
    assert section_of("smoke-chat-hard") == "Chat Hard"
    assert section_of("held_out") == "held_out"
    assert section_scores({"held_out": 0.25}, {"held_out": 8}) == {"held_out": 0.25}


def test_there_are_nineteen_published_rows() -> None:
    assert len(PUBLISHED) == 19
