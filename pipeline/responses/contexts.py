"""Earlier assistant turns, written anew: several candidates a turn, of which the one that fits best into the conversation is kept.

HelpSteer2 (section 2.1 and appendix; method: A) draws 16 candidates a turn, ranks them by reward models and by the likelihood of the user's
next turn, and keeps the best average rank. What is sought is coherence with what the user says next, not quality.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.draws import seeds
from pipeline.engines.asking import Asking, Question
from pipeline.engines.requests import REFUSED, Message
from pipeline.responses.schema import CANDIDATES, CONTEXTS, REJECTED_CONTEXTS
from pipeline.settings import Contexts
from pipeline.worker import Figures, Log

Scores = npt.NDArray[np.float64]


class Scorer(Protocol):
    """Something that says how well a candidate fits."""

    name: str

    def score(self, conversations: Sequence[Sequence[Message]], nexts: Sequence[str], log: Log) -> Scores:
        """A number for each conversation, which ends with the candidate; nexts: what the user says then. More is better."""
        ...


def best_by_rank(scores: Scores, possible: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The candidate with the best average rank over the scorers, of each conversation.

    scores: (conversations, candidates, scorers), more is better; possible: (conversations, candidates), at least one of each. Candidates
    with equal scores share the mean of their ranks; among equal averages the first is taken. Without scorers that is the first possible one.
    """
    # how many possible candidates are better, and half of those that are as good: a rank but for a constant
    mine, others = scores[:, :, None, :], np.where(possible[:, None, :, None], scores[:, None, :, :], -np.inf)
    rank = (others > mine).sum(axis=2) + (others == mine).sum(axis=2) / 2
    mean = np.where(possible, rank.sum(axis=2), np.inf)
    best: npt.NDArray[np.int64] = mean.argmin(axis=1)
    return best


class Written(NamedTuple):
    """Contexts (schema CONTEXTS), prompts that were refused (REJECTED_CONTEXTS), all candidates (CANDIDATES), and figures."""

    contexts: pa.Table
    rejected: pa.Table
    candidates: pa.Table
    figures: Figures


def write_contexts(
    table: pa.Table, wanted: Contexts, asking: Asking, scorers: Callable[[], Sequence[Scorer]], seed: int
) -> Written:
    """Write the assistant turns of prompts anew.

    table: columns prompt_id and turns of PROMPTS. Turn by turn, all conversations of a turn at once: first all candidates are written,
    then all are scored. A conversation of which every candidate is refused (it has outgrown the model's context, or the model wrote nothing)
    is rejected with the reason.
    scorers: loads them, where there is something to choose.
    """
    system: list[Message] = [{"role": "system", "content": wanted.system_prompt}] if wanted.system_prompt else []
    turns: dict[str, list[str]] = dict(zip(table["prompt_id"].to_pylist(), table["turns"].to_pylist(), strict=True))
    conversations: dict[str, list[Message]] = {i: [{"role": "user", "content": t[0]}] for i, t in turns.items()}
    rejected, written = dict[str, str](), list[dict[str, Any]]()
    totals: dict[str, float] = dict.fromkeys(
        ("reused", "answered", "prompt_tokens", "output_tokens", "seconds", "start_seconds"), 0
    )
    n = wanted.candidates
    for turn in range(1, max(map(len, turns.values()), default=1)):
        ids = [i for i, t in turns.items() if len(t) > turn and i not in rejected]
        # the first candidate's draw is that of a single one: asking for more changes none that is there
        drawn = [seeds(ids, f"{seed}/context/{turn}" + (f"/{c}" if c else "")) for c in range(n)]
        questions = [
            Question(system + conversations[i], wanted.sampling, int(s[k])) for k, i in enumerate(ids) for s in drawn
        ]
        asking.log(f"The assistant's turn {turn} of {len(ids)} conversations is written, with {n} candidates each")
        asked = asking.ask(questions)
        for name in totals:
            totals[name] += getattr(asked.tally, name)
        answers = asked.outcomes.to_pylist()
        groups = {i: answers[k * n : (k + 1) * n] for k, i in enumerate(ids)}
        for i, group in groups.items():
            if all(a["finish_reason"] == REFUSED for a in group):
                rejected[i] = group[0]["detail"]
        kept = [i for i in ids if i not in rejected]
        for i, chosen, rows in _choose(kept, turn, groups, conversations, turns, scorers, asking.log):
            text = groups[i][chosen]["text"]
            conversations[i] += [{"role": "assistant", "content": text}, {"role": "user", "content": turns[i][turn]}]
            written += rows
    contexts = [
        {
            "prompt_id": i,
            "messages": messages,
            "n_turns": len(turns[i]),
            "model": asking.engine.model if len(turns[i]) > 1 else None,
            "model_revision": asking.engine.revision if len(turns[i]) > 1 else None,
        }
        for i, messages in sorted(conversations.items())
        if i not in rejected
    ]
    reasons = [{"prompt_id": i, "reason": reason} for i, reason in sorted(rejected.items())]
    return Written(
        pa.Table.from_pylist(contexts, schema=CONTEXTS),
        pa.Table.from_pylist(reasons, schema=REJECTED_CONTEXTS),
        pa.Table.from_pylist(written, schema=CANDIDATES),
        {**totals, "rejected": len(rejected)},
    )


class Kept(NamedTuple):
    """Of a conversation its id, the candidate that is kept, and rows of CANDIDATES."""

    prompt_id: str
    candidate: int
    rows: list[dict[str, Any]]


def _choose(
    ids: Sequence[str],
    turn: int,
    groups: dict[str, list[dict[str, Any]]],
    conversations: dict[str, list[Message]],
    turns: dict[str, list[str]],
    scorers: Callable[[], Sequence[Scorer]],
    log: Log,
) -> list[Kept]:
    """The candidate of each conversation that is kept."""
    if not ids:
        return []
    n = len(groups[ids[0]])
    possible = np.array([[a["finish_reason"] != REFUSED for a in groups[i]] for i in ids])
    judges = scorers() if n > 1 else []
    scores = np.zeros((len(ids), n, len(judges)))
    if judges:
        asked = [[*conversations[i], {"role": "assistant", "content": a["text"]}] for i in ids for a in groups[i]]
        nexts = [turns[i][turn] for i in ids for _ in range(n)]
        for k, judge in enumerate(judges):
            scores[:, :, k] = judge.score(asked, nexts, log).reshape(len(ids), n)
    best = best_by_rank(scores, possible)
    found = []
    for row, (i, chosen) in enumerate(zip(ids, best.tolist(), strict=True)):
        rows = [
            {
                "prompt_id": i,
                "turn": turn,
                "candidate": c,
                "text": a["text"],
                "scores": [{"scorer": j.name, "score": float(s)} for j, s in zip(judges, scores[row, c], strict=True)],
                "chosen": c == chosen,
            }
            for c, a in enumerate(groups[i])
        ]
        found.append(Kept(i, chosen, rows))
    return found
