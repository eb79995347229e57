"""How much a prompt asks for: 1 to 5 by the number of intentions and constraints (HelpSteer2, appendix on prompts, after #InsTag).

This is the offline heuristic, which counts words that ask and words that limit in the turn that is to be answered. It needs no model.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prompts.filters import last_turns

INTENTION = (
    r"(?i)\b(?:write|explain|summari[sz]e|list|compare|create|describe|give|make|"
    r"generate|analy[sz]e|translate|rewrite|suggest|provide|find|"
    r"calculate|design|plan|tell|show|help|discuss|evaluate|identify|draft|outline|recommend|classify|extract|improve|act as|what|why|how|who|"
    r"when|where|which|can you|could you|should)\b"
)
CONSTRAINT = (
    r"(?i)\b(?:must|should not|do not|don't|without|only|at least|at most|no more than|less than|more than|exactly|within|using|include|"
    r"including|exclude|avoid|ensure|each|every|format|table|bullet|markdown|json|tone|style|words?|paragraphs?|sentences?|characters?|"
    r"in the style of|based on|according to|step by step|for (?:a|an|the)|\d+)\b"
)
LENGTHS = (600, 1500)
"""Characters from which a turn counts as carrying one, two further constraints: long input is material to be kept to."""
LEVELS = (2.0, 4.0, 6.5, 10.0)
"""Least score of levels 2 to 5. Chosen so that ShareGPT's English single turns spread over all five."""


def complexity(turns: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Level 1 to 5 (int8) of the last turn of each prompt (list of strings): its score against LEVELS.

    The score is the number of intentions (at most 6) plus the number of constraints (at most 12).
    """
    last = last_turns(turns)
    intentions = np.asarray(pc.count_substring_regex(last, INTENTION), dtype=np.float64)
    constraints = np.asarray(pc.count_substring_regex(last, CONSTRAINT), dtype=np.float64)
    constraints += np.searchsorted(LENGTHS, np.asarray(pc.utf8_length(last)), side="right")
    score = np.minimum(intentions, 6) + np.minimum(constraints, 12)
    return pa.array(1 + np.searchsorted(LEVELS, score, side="right"), pa.int8())


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
