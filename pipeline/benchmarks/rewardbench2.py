"""RewardBench 2 (arXiv 2506.01937): best of four in five domains, and Ties, where many responses are right.

Record: id, prompt, chosen, rejected (lists), subset; of Ties the id is `ref:N` (one right response) or `tied:N` (several), for the same
question N. A response may be empty. Overall is the plain mean of the domains. Source: allenai/reward-bench, `reroll_and_score_dataset` and
`process_single_model` of version 0.1.4.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks import fields, units
from pipeline.benchmarks.units import Floats

TIES = "Ties"
DOMAINS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", TIES)
"""Its subsets."""
ITEMS_OF = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495}
"""Published items of the domains whose items are units (arXiv 2506.01937, section 3)."""
FIELDS = ("id", "prompt", "chosen", "rejected", "subset")
TIED, REF, PREFERRED, HARD, MARGIN = 0.3, 0.3, 0.2, 0.2, 0.01
"""What makes the score of Ties: both prompts' accuracy, and how the margin to the wrong responses compares with the right ones' spread."""
_ID = re.compile(r"(ref|tied):(0|[1-9][0-9]{0,17})")


def item(record: Mapping[str, Any], line: int | None) -> dict[str, Any]:
    """A record as a row of ITEMS without its benchmark. Raises ValueError with what is wrong."""
    subset, item_id = fields.text(record, "subset"), fields.identity(record, "id", line)
    chosen, rejected = (fields.responses(record, name) for name in ("chosen", "rejected"))
    if subset not in DOMAINS:
        raise ValueError(f"field subset is {subset[:40]!r}, which is none of {', '.join(DOMAINS)}")
    if subset == TIES and not _ID.fullmatch(item_id):
        raise ValueError(f"field id is {item_id[:40]!r}; in Ties it must be ref:N or tied:N")
    if subset != TIES and len(chosen) > 1:
        raise ValueError(f"field chosen has {len(chosen)} responses; only Ties may have more than one")
    for name, found in (("num_correct", chosen), ("num_incorrect", rejected)):
        if record.get(name) is not None and record[name] != len(found):
            raise ValueError(f"field {name} is {str(record[name])[:40]}, but there are {len(found)} responses")
    question = item_id.partition(":")[2] if subset == TIES else None  # the two prompts of a question make one unit
    return fields.item(subset, item_id, fields.prompt(record, "prompt"), chosen, rejected, question)


def outcomes(items: pa.Table, goodness: npt.ArrayLike) -> pa.Table:
    """Outcomes in the schema OUTCOMES: 1/n where the right response is among n that share the highest score, else 0; of Ties, see `_ties`."""
    values = units.finite(items, goodness)
    ties = np.asarray(pc.equal(items["subset"], TIES))
    lengths = np.asarray(pc.list_value_length(items["responses"]))
    of_ties = np.repeat(ties, lengths)
    best = _best_of(items.filter(pa.array(~ties)), values[~of_ties])
    return pa.concat_tables([best, _ties(items.filter(pa.array(ties)), values[of_ties])])


def lacks(counts: Mapping[str, int]) -> str:
    """What these subsets lack to be RewardBench 2, as words; "" where every domain is there with all of its items."""
    fewer = [
        f"{n - counts[domain]} of {n} items of {domain}" for domain, n in ITEMS_OF.items() if n > counts.get(domain, n)
    ]
    return units.without("RewardBench 2", [*DOMAINS, *fewer], counts)


def section_of(subset: str) -> str:
    """A domain is a section of its own."""
    return subset


def sections(accuracies: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """The domains' accuracies themselves."""
    return dict(accuracies)


def overall(sections: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
    """Plain mean of the domains. Raises ValueError without any."""
    return units.plain_mean(sections)


def _best_of(items: pa.Table, values: Floats) -> pa.Table:
    worst, _, other = units.extremes(items, values)
    highest = units.of_items(np.maximum, values, items)  # NaN where any score isn't finite
    lengths = np.asarray(pc.list_value_length(items["responses"]))
    sharing = units.of_items(np.add, (values == np.repeat(highest, lengths)).astype(np.float64), items)
    won = np.divide(1.0, sharing, out=np.zeros(len(items)), where=worst == highest)
    return units.outcomes(items, items["item_id"], won, worst - other)


def _ties(items: pa.Table, values: Floats) -> pa.Table:
    """A row a question N: values whose mean is the score of Ties; the margin is the smaller one of its prompts.

    For a question with both prompts the value is .3 (all right responses of `tied` score above all others) + .3 (the same of `ref`)
    + .2 (the margin of `tied`, worst right minus best wrong, is above the spread of its right responses) + .2 (the smaller margin of the two
    prompts is) + .01 tanh(that margin / spread - 1). The score is a sum of means, each over the questions that have the term: one lacks the
    last where the spread is 0. So a term is scaled by all questions / those that have it.
    """
    ids = [item_id.split(":") for item_id in items["item_id"].to_pylist()]
    row = np.array([kind == "tied" for kind, _ in ids], dtype=np.int64)  # 0: ref, 1: tied
    questions, column = np.unique(np.array([int(number) for _, number in ids], dtype=np.int64), return_inverse=True)
    worst, best, other = units.extremes(items, values)
    there = np.zeros((2, len(questions)), dtype=bool)
    margin, spread = np.full((2, *there.shape), np.nan)
    there[row, column], margin[row, column], spread[row, column] = True, worst - other, best - worst
    several = np.zeros_like(there)
    several[row, column] = units.of_items(np.add, np.asarray(pc.list_flatten(items["good"])).astype(int), items) > 1
    least = np.where(there, margin, np.inf).min(axis=0)
    spread, both = spread[1], there.all(axis=0) & several[1]
    spreads = both & (spread > 0)
    ratio = np.divide(least, spread, out=np.full(len(questions), np.nan), where=spreads)
    terms = (
        (TIED, margin[1] > 0, there[1]),
        (REF, margin[0] > 0, there[0]),
        (PREFERRED, margin[1] > spread, both),
        (HARD, least > spread, both),
        (MARGIN, np.nan_to_num(np.tanh(ratio - 1), nan=-1.0), spreads),
    )
    value = sum(
        (w * np.where(has, v, 0.0) * len(questions) / max(has.sum(), 1) for w, v, has in terms),
        np.zeros(len(questions)),
    )
    _, first = np.unique(column, return_index=True)
    named = [str(number) for number in questions]
    return units.outcomes(items.take(first), named, value, least)
