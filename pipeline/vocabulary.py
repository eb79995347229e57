"""Words that every stage uses: attributes, outputs of reward models, messages, who rated."""

from typing import Literal

import pyarrow as pa

Attribute = Literal["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
ATTRIBUTES: tuple[Attribute, ...] = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The five rated attributes, in the published order (HelpSteer2, arXiv 2406.08673, section 2.1)."""

OUTPUTS = (*ATTRIBUTES, "reward")
"""What a reward model may predict."""

RatedBy = Literal["people", "simulated annotators", "language models"]
"""Who gave ratings."""

RATINGS_NOTES: dict[RatedBy, str] = {
    "people": "",
    "simulated annotators": "Ratings come from simulated annotators: the figures show that the chain works, not what people think.",
    "language models": "Ratings by language models; no person rated.",
}
"""What is said of ratings wherever they, or what rests on them, are shown, by who gave them."""

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""A conversation as a column has it."""
