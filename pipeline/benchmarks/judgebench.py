"""JudgeBench (arXiv 2410.12784): pairs of which one response is right, objectively.

Record: pair_id, source, question, response_A, response_B, label (`A>B` or `B>A`). A response may be empty. JudgeBench asks a judge in both
orders and counts +1 for a right verdict, -1 for a wrong one, 0 for a tie or none: a pair is won where the sum is above 0. A reward model
scores each response by itself, so both orders give the same verdict: a pair is won where the right response scores strictly higher.
Overall is over all pairs. Source: ScalerLab/JudgeBench, `compute_final_metrics`, and the paper's table of categories.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from pipeline.benchmarks import fields, units

CATEGORIES = {
    "mmlu-pro": "Knowledge",
    "livebench-reasoning": "Reasoning",
    "livebench-math": "Math",
    "livecodebench": "Coding",
}
"""How a record's `source` begins, and the category that it counts in."""
FIELDS = ("source", "question", "response_A", "response_B", "label")
VERDICTS = {"A>B": ("response_A", "response_B"), "B>A": ("response_B", "response_A")}


def item(record: Mapping[str, Any], line: int | None) -> dict[str, Any]:
    """A record as a row of ITEMS without its benchmark. Raises ValueError with what is wrong."""
    source, label = fields.text(record, "source"), fields.text(record, "label")
    if not source.startswith(tuple(CATEGORIES)):
        raise ValueError(f"field source is {source[:40]!r}, which begins with none of {', '.join(CATEGORIES)}")
    if label not in VERDICTS:
        raise ValueError(f"field label is {label[:40]!r}, which is none of {', '.join(VERDICTS)}")
    good, other = (fields.response(record, name) for name in VERDICTS[label])
    return fields.item(
        source, fields.identity(record, "pair_id", line), fields.prompt(record, "question"), [good], [other]
    )


def outcomes(items: pa.Table, goodness: npt.ArrayLike) -> pa.Table:
    """Whether the right response scores strictly higher (1) or not (0), in the schema OUTCOMES."""
    return units.strict_wins(items, goodness)


def lacks(counts: Mapping[str, int]) -> str:
    """What these subsets lack to be JudgeBench, as words; "" where every category is there."""
    there = {section_of(subset) for subset in counts}
    return units.without("JudgeBench", list(CATEGORIES.values()), there)


def section_of(subset: str) -> str:
    """The category of a source."""
    return next(category for start, category in CATEGORIES.items() if subset.startswith(start))


def sections(accuracies: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """The categories, each over all of its pairs."""
    return units.weighted(accuracies, counts, section_of)


def overall(sections: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
    """Mean over all pairs: categories weigh by their numbers of pairs. counts: pairs of each source. Raises ValueError without sections."""
    pairs = {section: sum(n for s, n in counts.items() if section_of(s) == section) for section in sections}
    if not sections:
        raise ValueError("no sections to take the mean of")
    return units.weighted(sections, pairs, lambda _: "all")["all"]
