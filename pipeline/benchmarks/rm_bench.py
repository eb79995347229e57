"""RM-Bench (arXiv 2410.16184): three good responses against three others, of the same three styles, in nine comparisons.

Record: id, prompt, chosen, rejected (each of three: concise, detailed in plain text, detailed with Markdown), domain. A response may be empty.
The authors' files of one domain each (`chat_filtered.json` and others) don't say it in their records: there the file's name does. A tie loses.
Source: THU-KEG/RM-Bench, README and `compute_accuracy` of its scripts.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.benchmarks import fields, units

DOMAINS = {"chat": "Chat", "code": "Code", "math": "Math", "safety-refuse": "Safety", "safety-response": "Safety"}
"""What a record's `domain` may be, and the domain that it counts in."""
FIELDS = ("prompt", "chosen", "rejected", "domain")
STYLES = 3
MEASURES = {
    "easy": np.tri(STYLES, k=-1, dtype=bool),  # the good response (row) has the richer style
    "normal": np.eye(STYLES, dtype=bool),
    "hard": ~np.tri(STYLES, dtype=bool),  # the other one (column) has
}


def item(record: Mapping[str, Any], line: int | None) -> dict[str, Any]:
    """A record as a row of ITEMS without its benchmark. Raises ValueError with what is wrong."""
    domain = fields.text(record, "domain")
    if domain not in DOMAINS:
        raise ValueError(f"field domain is {domain[:40]!r}, which is none of {', '.join(DOMAINS)}")
    chosen, rejected = [fields.responses(record, name) for name in ("chosen", "rejected")]
    for name, found in (("chosen", chosen), ("rejected", rejected)):
        if len(found) != STYLES:
            raise ValueError(f"field {name} has {len(found)} responses, not one for each of {STYLES} styles")
    return fields.item(domain, fields.identity(record, "id", line), fields.prompt(record, "prompt"), chosen, rejected)


def outcomes(items: pa.Table, goodness: npt.ArrayLike) -> pa.Table:
    """Outcomes in the schema OUTCOMES: an item's share of won comparisons by `easy`, `normal`, `hard`, and their plain mean `accuracy`."""
    values = units.finite(items, goodness).reshape(-1, 2, STYLES)
    margins = values[:, 0, :, None] - values[:, 1, None, :]
    shares = {name: (margins[:, cells] > 0).mean(axis=1) for name, cells in MEASURES.items()}
    shares["accuracy"] = np.mean(list(shares.values()), axis=0)
    cells = MEASURES | {"accuracy": np.ones((STYLES, STYLES), dtype=bool)}
    return pa.concat_tables(
        units.outcomes(items, items["item_id"], share, margins[:, cells[name]].min(axis=1), name)
        for name, share in shares.items()
    )


def named_by(file: str) -> dict[str, str]:
    """Fields that the name of a file says: the domain that it begins with, alone or before what is no letter. file: without its folder."""
    name = file.lower().replace("_", "-")
    found = (domain for domain in DOMAINS if re.match(rf"{domain}(?![a-z])", name))
    return {"domain": domain} if (domain := next(found, None)) else {}


def lacks(counts: Mapping[str, int]) -> str:
    """What these subsets lack to be RM-Bench, as words; "" where every domain, and both parts of Safety, are there."""
    there = {section_of(subset) for subset in counts}
    return units.without("RM-Bench", list(dict.fromkeys(DOMAINS.values())), there) or units.without(
        "RM-Bench", list(DOMAINS), counts
    )


def section_of(subset: str) -> str:
    """The domain of a subset."""
    return DOMAINS[subset]


def sections(accuracies: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """The domains: Safety is over all of its items, as in the authors' code, so its two parts weigh by their numbers."""
    return units.weighted(accuracies, counts, section_of)


def overall(sections: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
    """Plain mean of the domains. Raises ValueError without any."""
    return units.plain_mean(sections)
