"""How much a prompt asks for: 1 to 5 by the number of intentions and constraints (HelpSteer2, appendix on prompts, after #InsTag).

This is the offline heuristic, which counts what asks and what limits in the turn that is to be answered. It needs no model. A long text that was
pasted in for a simple task is full of words that could limit, but thinly; so they count by how densely they stand.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prompts.filters import last_turns

INTENTION = (
    r"(?i)(?:[.!?:;,\n\"”]|\b(?:and|then|also|please|to|you|me))[ \t\n]*\b(?:"
    r"write|explain|summari[sz]e|list|compare|create|describe|give|make|generate|analy[sz]e|translate|rewrite|suggest|provide|find|calculate|"
    r"design|plan|tell|show|help|discuss|evaluate|identify|draft|outline|recommend|classify|extract|improve|act|answer|invent|develop|prepare|"
    r"organi[sz]e|propose|define|name|compose|proofread|correct|rank|rate|turn|add|choose|set up|say|judge|estimate|present|test)\b|\?"
)
"""A verb that asks where a clause begins, or a question mark. The text begins with a line break: Arrow counts on in what is left of it after each
match, so that ^ would hold at every one."""
CONSTRAINT = (
    r"(?i)\b(?:must|should not|do not|don't|without|only|at least|at most|no more than|less than|more than|exactly|within|using|include|"
    r"including|exclude|avoid|ensure|each|every|format|table|bullet|markdown|json|tone|style|words?|paragraphs?|sentences?|characters?|"
    r"in the style of|based on|according to|step by step|for (?:a|an|the)|no|nothing|never|under|below|present tense|past tense|first person|"
    r"third person|one|two|three|four|five|six|seven|eight|nine|ten|twelve|\d+)\b"
)
PART = r"[,;+]"
"""What parts a list: a dense one asks for much in few words."""
CONSTRAINT_DENSITY, PART_DENSITY = 1.0, 2.0
"""A hundred characters: with fewer constraints than that each counts for less, by the square; with more parts than that they begin to count."""
LEVELS = (2.0, 3.5, 6.0, 10.0)
"""Least score of levels 2 to 5. These and the densities were chosen on one half of labelled prompts (measurements/complexity.py)."""


def complexity(turns: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Level 1 to 5 (int8) of the last turn of each prompt (list of strings): its score against LEVELS.

    The score is the number of intentions (1 to 6), plus constraints (at most 12) and parts of lists (at most 6) as far as they are dense.
    """
    last = last_turns(turns)
    begun = pc.binary_join_element_wise("\n", last, "")
    asks, limits, parts = (
        np.asarray(pc.count_substring_regex(begun, pattern), dtype=np.float64)
        for pattern in (INTENTION, CONSTRAINT, PART)
    )
    hundreds = np.maximum(np.asarray(pc.utf8_length(last)), 40) / 100
    limits *= np.minimum(limits / hundreds / CONSTRAINT_DENSITY, 1) ** 2
    parts *= np.clip(parts / hundreds / PART_DENSITY - 1, 0, 1)
    score = np.clip(asks, 1, 6) + np.minimum(limits, 12) + np.minimum(parts, 6)
    return pa.array(1 + np.searchsorted(LEVELS, score, side="right"), pa.int8())


class Levels(NamedTuple):
    """Prompts with their level, and those that have none, with the reason in `detail`; the heuristic's levels of the first, for comparison."""

    rated: pa.Table
    unrated: pa.Table
    counted: pa.ChunkedArray


def by_heuristic(prompts: pa.Table) -> Levels:
    """All prompts (schema TOPICS) with the level that the heuristic counts."""
    counted = pa.chunked_array([complexity(prompts["turns"])])
    unrated = prompts.slice(0, 0).append_column("detail", pa.chunked_array([], pa.string()))
    return Levels(prompts.append_column("complexity", counted), unrated, counted)


def by_model(prompts: pa.Table, ratings: pa.Table) -> Levels:
    """Prompts (schema TOPICS) with the level that a model gave, and those to which it gave none. ratings: the rater's table, in any order."""
    ratings = ratings.take(pc.index_in(prompts["prompt_id"], ratings["prompt_id"].combine_chunks()))
    given = pc.is_valid(ratings["complexity"])
    counted = pa.chunked_array([complexity(prompts["turns"])]).filter(given)
    return Levels(
        prompts.append_column("complexity", ratings["complexity"]).filter(given),
        prompts.append_column("detail", ratings["detail"]).filter(pc.invert(given)),
        counted,
    )


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[dict[str, float | None], pa.Table]:
    """How well two raters' levels agree: figures, and how often each level of the first meets each of the second.

    first, second: levels 1 to 5 of the same prompts; shape (n,), no missing ones. Weighted kappa is Cohen's with quadratic weights (1968); None
    where there is nothing to agree on: no prompts, or one level alone.
    """
    from sklearn.metrics import cohen_kappa_score

    ours, theirs = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    several = len(np.union1d(ours, theirs)) > 1
    kappa = cohen_kappa_score(ours, theirs, weights="quadratic", labels=[1, 2, 3, 4, 5]) if several else None
    apart = np.abs(ours - theirs)
    counts = np.bincount(5 * (ours - 1) + theirs - 1, minlength=25).reshape(5, 5)
    figures = {
        "weighted kappa": None if kappa is None else round(float(kappa), 3),
        "same level": round(float((apart == 0).mean()), 3) if len(ours) else None,
        "within one level": round(float((apart <= 1).mean()), 3) if len(ours) else None,
    }
    return figures, pa.table({"level": range(1, 6), **{str(n): counts[:, n - 1] for n in range(1, 6)}})
