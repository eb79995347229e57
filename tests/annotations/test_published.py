"""HelpSteer2's published rows as tasks, arrays, annotations; its preprocessing on them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotations.agreement import weighted_kappa
from pipeline.annotations.consensus import MISSING, Ratings, Totals, agreed_tasks, consensus_labels, most_agreeing
from pipeline.annotations.published import helpsteer_rows, levels_of, ratings_of_stream, recorded, tasks_in
from pipeline.forms.helpsteer import DISAGREEMENTS, HELPSTEER, flatten, messages_of
from pipeline.forms.rows import ANNOTATIONS
from pipeline.responses.schema import RESPONSE_PAIRS
from pipeline.vocabulary import ATTRIBUTES

KNOWN = {"helpfulness": 0.415, "correctness": 0.431, "coherence": 0.167, "complexity": 0.269, "verbosity": 0.420}
lists = st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=6)


def row(prompt: str, response: str, *ratings: int | None) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, **{a: list(ratings) for a in ATTRIBUTES}}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=DISAGREEMENTS)


def batches(whole: pa.Table, size: int) -> list[pa.Table]:
    return [whole.slice(n, size) for n in range(0, len(whole), size)]


@given(st.lists(st.sampled_from("aab"), max_size=20), st.integers(1, 6))
def test_two_consecutive_rows_of_a_prompt_are_a_task_however_the_stream_is_cut(prompts: list[str], size: int) -> None:
    whole = table(*(row(p, f"r{n}", 1) for n, p in enumerate(prompts)))
    wanted, n = list[int](), 0
    while n < len(prompts):
        pair = 2 if prompts[n : n + 2] == [prompts[n]] * 2 else 1
        wanted += [max(wanted, default=-1) + 1] * pair
        n += pair
    found = list(tasks_in(batches(whole, size)))
    assert [t for _, number in found for t in number.tolist()] == wanted
    assert pa.concat_tables([whole.slice(0, 0), *(t for t, _ in found)]).equals(whole.combine_chunks())
    blocks = [set(number.tolist()) for _, number in found]
    assert sum(map(len, blocks)) == len(set().union(*blocks)), "no task is in two blocks"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(lists, min_size=5, max_size=5), max_size=8))
def test_levels_are_the_lists_padded(rows: list[list[list[int | None]]]) -> None:
    whole = table(*({"prompt": "p", "response": "r", **dict(zip(ATTRIBUTES, r, strict=True))} for r in rows))
    levels = levels_of(whole)
    for n, ratings in enumerate(rows):
        for k, values in enumerate(ratings):
            padded = [MISSING if v is None else v for v in values] + [MISSING] * (levels.shape[1] - len(values))
            assert levels[n, :, k].tolist() == padded


def test_a_rating_of_seven_is_an_error() -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
        levels_of(table(row("p", "r", 7)))


def pairs_of(ratings: list[tuple[list[int], list[int]]]) -> pa.Table:
    return table(*(row(f"p{n}", f"{n}-{k}", *r) for n, both in enumerate(ratings) for k, r in enumerate(both)))


ratings = st.lists(st.tuples(*[st.lists(st.integers(0, 4), min_size=1, max_size=6)] * 2), max_size=12)


@settings(max_examples=150, deadline=None)
@given(ratings, st.integers(1, 5))
def test_its_preprocessing_is_that_of_the_same_ratings_as_annotations(given_: list[Any], size: int) -> None:
    whole, totals = pairs_of(given_), Totals()
    found = pa.concat_tables([HELPSTEER.empty_table(), *helpsteer_rows(batches(whole, size), totals)]).to_pylist()
    pairs, annotations, _ = recorded(whole, np.arange(len(whole)) // 2, "CC-BY-4.0")
    labels = {r["response_id"]: r for r in consensus_labels(agreed_tasks(most_agreeing(annotations))).to_pylist()}
    wanted = [
        {"prompt": p["messages"][0]["content"], "response": p["response"]}
        | {a: labels[p["response_id"]][a] for a in ATTRIBUTES}
        for p in pairs.to_pylist()
        if p["response_id"] in labels
    ]
    assert found == wanted
    assert totals.tasks == len(given_)
    assert totals.tasks - totals.dropped == len(wanted) / 2


def test_recorded_tasks_have_ids_of_their_texts_and_no_annotator_twice() -> None:
    whole = table(
        row("p", "a", 4, 3), row("p", "b", 1, None, 2), row("q", "c", 2), *[row("s", "d", 1), row("s", "e", 1)] * 2
    )
    ((_, number),) = tasks_in([whole])
    pairs, annotations, left_out = recorded(whole, number, "CC-BY-4.0")
    assert pairs.schema.equals(RESPONSE_PAIRS)
    assert annotations.schema.equals(ANNOTATIONS)
    assert left_out["reason"].to_pylist() == [
        "the task has only one response",
        "the same task stands earlier in the file",
    ]
    assert left_out["prompt_id"].to_pylist()[1] == pairs["prompt_id"].to_pylist()[-1]
    assert pairs["response"].to_pylist() == ["a", "b", "d", "e"]
    assert pairs["position"].to_pylist() == [1, 2, 1, 2]
    assert len(set(annotations["annotator_id"].to_pylist())) == len(annotations) == 6
    assert not any(annotations["simulated"].to_pylist())
    again, _, _ = recorded(whole.slice(0, 2), np.array([0, 0]), "CC-BY-4.0")
    assert again["response_id"].to_pylist() == pairs["response_id"].to_pylist()[:2]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5).filter(lambda t: not any("<extra" in x for x in t)))
def test_a_prompt_field_is_the_conversation_that_it_was_made_of(turns: list[str]) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(turns)]
    assert messages_of(flatten(pa.array([messages]))[0].as_py()) == messages


def test_multi_turn_prompts_in_the_published_form_are_conversations_and_back() -> None:
    heads = ("\n<extra_id_1>Assistant\n", "\n<extra_id_1>User\n")
    prompts = [
        "c# in a nutshell, please",
        f"Hi{heads[0]}Hello!\n\nHow can I help?{heads[1]}",
        f"a{heads[0]}{heads[1]}b{heads[0]}c{heads[1]}d",
    ]
    assert [[m["content"] for m in messages_of(p)] for p in prompts] == [
        ["c# in a nutshell, please"], ["Hi", "Hello!\n\nHow can I help?", ""], ["a", "", "b", "c", "d"]
    ]  # fmt: skip
    assert all(len(messages_of(p)) % 2 for p in prompts), "each ends with the user's turn"
    assert flatten(pa.array([messages_of(p) for p in prompts])).to_pylist() == prompts


def test_kappas_of_a_stream_of_lists_are_those_of_the_lists() -> None:
    draw = np.random.default_rng(6)
    units = [{a: draw.integers(0, 5, n).tolist() for a in ATTRIBUTES} for n in draw.integers(1, 7, 120)]
    whole = table(*({"prompt": str(n), "response": "r", **unit} for n, unit in enumerate(units)))
    levels, task = ratings_of_stream(batches(whole, 50))
    assert task.tolist() == list(range(120))
    for n, attribute in enumerate(ATTRIBUTES):
        rows = np.where(levels[:, :, n] == MISSING, np.nan, levels[:, :, n])
        padded = [unit[attribute] + [np.nan] * (6 - len(unit[attribute])) for unit in units]
        assert weighted_kappa(rows) == pytest.approx(weighted_kappa(padded), abs=1e-12)


def test_ratings_of_annotations_and_of_lists_are_the_same() -> None:
    whole = pairs_of([([4, 3, 0], [1, 2]), ([0, 0, 4, 4], [3])])
    _, annotations, _ = recorded(whole, np.arange(4) // 2, "x")
    ratings = Ratings.of(annotations)
    levels, task = ratings_of_stream([whole])
    assert (ratings.levels == levels).all()
    assert (ratings.prompt == task).all()
