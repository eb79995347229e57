"""Candidates for an assistant's turn: which one is kept, and what the worker makes of a conversation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from transformers import AutoModelForCausalLM, AutoTokenizer
from upath import UPath

from pipeline.engines.asking import Asking
from pipeline.engines.finished import FinishedRequests
from pipeline.engines.requests import Answer, Request
from pipeline.engines.starting import LazyEngine
from pipeline.responses.contexts import best_by_rank, write_contexts
from pipeline.responses.schema import CANDIDATES, CONTEXTS
from pipeline.responses.scorers import NextUserTurn
from pipeline.settings import Contexts, Sampling
from tests.helpers import quiet
from tests.reward_model.small import save_small_model


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 6), st.integers(0, 3))
def test_the_candidate_kept_has_the_best_average_rank(data: st.DataObject, rows: int, n: int, scorers: int) -> None:
    numbers = st.lists(st.integers(-3, 3), min_size=rows * n * scorers, max_size=rows * n * scorers)
    scores = np.array(data.draw(numbers), dtype=float).reshape(rows, n, scorers)
    possible = np.array(data.draw(st.lists(st.booleans(), min_size=rows * n, max_size=rows * n))).reshape(rows, n)
    possible[~possible.any(axis=1), 0] = True
    best = best_by_rank(scores, possible)
    for row in range(rows):
        (candidates,) = np.flatnonzero(possible[row])[None]
        ranks = sum((rankdata(-scores[row, candidates, k]) for k in range(scorers)), start=np.zeros(len(candidates)))
        assert best[row] == candidates[int(np.argmin(np.round(ranks, 9)))]


class Writer:
    """Test double of an engine: writes its seed, or what it is told for a conversation of that many turns."""

    def __init__(self, refuse: frozenset[int] = frozenset(), blank: frozenset[int] = frozenset()) -> None:
        self.asked: list[Request] = []
        self.refuse, self.blank = refuse, blank

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            number = len(self.asked)
            self.asked.append(request)
            if number in self.refuse:
                yield Answer(request.key, "", "refused", "context overflow", 1, 0)
            else:
                yield Answer(request.key, "" if number in self.blank else f"text {request.seed}", "stop", None, 1, 2)


class Longest:
    """Test double of a scorer: prefers the greatest text."""

    name = "longest"

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def score(self, conversations: Sequence[Sequence[dict[str, str]]], nexts: Sequence[str], log: Any) -> np.ndarray:
        self.seen += [(c[-1]["content"], n) for c, n in zip(conversations, nexts, strict=True)]
        return np.array([float(c[-1]["content"].removeprefix("text ") or 0) for c in conversations])


PROMPTS = pa.table({"prompt_id": ["a", "b", "c"], "turns": [["1"], ["2", "3"], ["4", "5", "6"]]})


def run(tmp_path: Path, engine: Writer, candidates: int, scorer: Longest | None = None) -> Any:
    wanted = Contexts(checkpoint="x", candidates=1).model_copy(update={"candidates": candidates})
    lazy = LazyEngine("m", "r", "t", lambda: engine)
    finished = FinishedRequests(UPath(tmp_path / "work"))
    return write_contexts(PROMPTS, wanted, Asking(lazy, finished, quiet), lambda: [scorer or Longest()], 1)


def test_the_best_of_the_candidates_goes_into_the_conversation(tmp_path: Path) -> None:
    engine, scorer = Writer(), Longest()
    contexts, rejected, candidates, figures = run(tmp_path, engine, 4, scorer)
    assert contexts.schema.equals(CONTEXTS)
    assert candidates.schema.equals(CANDIDATES)
    assert len(rejected) == 0
    assert (len(candidates), figures["answered"]) == (12, 12)
    rows = candidates.to_pylist()
    conversations = {r["prompt_id"]: r["messages"] for r in contexts.to_pylist()}
    assert [m["content"] for m in conversations["a"]] == ["1"]
    for prompt, turn in (("b", 1), ("c", 1), ("c", 2)):
        group = [r for r in rows if (r["prompt_id"], r["turn"]) == (prompt, turn)]
        assert len({r["text"] for r in group}) == 4, "each candidate is a draw of its own"
        best = max(group, key=lambda r: float(r["text"].removeprefix("text ")))
        assert [r["chosen"] for r in group] == [r is best for r in group]
        assert conversations[prompt][2 * turn - 1] == {"role": "assistant", "content": best["text"]}
    assert {n for _, n in scorer.seen} == {"3", "5", "6"}, "a candidate is judged by what the user says next"


def test_one_candidate_is_the_first_of_several_and_needs_no_scorer(tmp_path: Path) -> None:
    one, scorer = Writer(), Longest()
    _, _, candidates, _ = run(tmp_path / "one", one, 1, scorer)
    several = Writer()
    run(tmp_path / "several", several, 3)
    assert scorer.seen == []
    assert candidates["chosen"].to_pylist() == [True] * 3
    first = {r.key for r in several.asked}
    assert {r.key for r in one.asked[:2]} <= first, "asking for more candidates changes none that is there"


def test_a_blank_candidate_is_never_taken_and_a_conversation_with_only_blank_ones_is_rejected(tmp_path: Path) -> None:
    # b has only blank ones, and of the first four of c the first is blank
    contexts, rejected, _, _ = run(tmp_path, Writer(blank=frozenset({0, 1, 2, 3, 4})), 4)
    by = {r["prompt_id"]: r for r in contexts.to_pylist()}
    assert by["c"]["messages"][1]["content"] != ""
    (refused,) = rejected.to_pylist()
    assert refused == {"prompt_id": "b", "reason": "no answer: it has no text, and ended with finish reason 'stop'"}


def test_a_conversation_of_which_every_candidate_is_refused_is_rejected(tmp_path: Path) -> None:
    contexts, rejected, _, figures = run(tmp_path, Writer(refuse=frozenset({0, 1, 4})), 2)
    assert rejected.to_pylist() == [{"prompt_id": "b", "reason": "context overflow"}]
    assert contexts["prompt_id"].to_pylist() == ["a", "c"]
    assert figures["rejected"] == 1


def test_the_next_turns_likelihood_is_that_of_a_plain_loop_whatever_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = save_small_model(tmp_path / "model")
    scorer = NextUserTurn("n", folder, 128, "bfloat16")
    scorer._model = scorer._model.float()
    conversations = [
        [{"role": "user", "content": "one two"}, {"role": "assistant", "content": text}]
        for text in ("good", "bad bad bad no", "yes")
    ]
    nexts = ["three four", "five", "six seven eight nine"]
    found = scorer.score(conversations, nexts, quiet)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
    )
    for value, conversation, following in zip(found, conversations, nexts, strict=True):
        head = tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False)
        start = [*head, *tokenizer("<|im_start|> user", add_special_tokens=False).input_ids]
        words = tokenizer(following, add_special_tokens=False).input_ids
        total = 0.0
        for n, word in enumerate(words):
            with torch.no_grad():
                logits = model(torch.tensor([[*start, *words[:n]]])).logits[0, -1]
            total += float(torch.log_softmax(logits, dim=0)[word])
        assert value == pytest.approx(total, abs=1e-3)


def test_candidates_and_scorers_go_together() -> None:
    with pytest.raises(ValueError, match="several candidates need at least one"):
        Contexts(checkpoint="x", candidates=4)
    with pytest.raises(ValueError, match="several candidates need at least one"):
        Contexts.model_validate({"checkpoint": "x", "scorers": [{"kind": "next_user_turn", "checkpoint": "x"}]})
    assert Contexts(checkpoint="x", sampling=Sampling()).candidates == 1
