"""Descriptive statistics of the data set, beside HelpSteer2's."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.schema import STATISTICS
from pipeline.forms.helpsteer import flatten, whole
from pipeline.vocabulary import ATTRIBUTES

PUBLISHED_STATISTICS: dict[str, tuple[float, float, float]] = {
    "helpfulness": (2.8655, 1.2703, 1.0),
    "correctness": (2.9644, 1.2689, 0.9430),
    "coherence": (3.6393, 0.6491, 0.4979),
    "complexity": (1.7048, 0.6986, 0.1805),
    "verbosity": (1.9999, 0.7571, 0.0600),
    "turns in the prompt": (2.8348, 3.8221, -0.0520),
    "characters of the prompt": (712.6, 877.8, -0.0774),
    "characters of the response": (1492.6, 1065.7, 0.0845),
}
"""Mean, standard deviation, Pearson's correlation with helpfulness: HelpSteer2 (arXiv 2406.08673), Table 2, column HelpSteer2."""


def statistics(table: pa.Table) -> pa.Table:
    """Figures of all rows of the data set (schema DATASET) in the schema STATISTICS, a row a quantity.

    Every response counts once, so a prompt's length and turns count twice. Turns are those of user and assistant together: with about 29 %
    multi-turn prompts, users' turns alone would not give the published mean. Characters are code points, of the prompt with its turn
    markup. sd is that of a sample, with n - 1; the paper doesn't say which, and at its 21,362 rows the two agree to four figures. A
    response without a label counts in none of that attribute's figures; NaN where there are fewer than two values, or no spread.
    """
    columns: dict[str, npt.NDArray[np.float64]] = {
        a: np.asarray(pc.fill_null(table[a].cast(pa.float64()), float("nan"))) for a in ATTRIBUTES
    }
    prompt = pc.utf8_length(flatten(table["messages"]))
    columns |= {
        "turns in the prompt": np.asarray(pc.list_value_length(whole(table["messages"])), dtype=np.float64),
        "characters of the prompt": np.asarray(prompt, dtype=np.float64),
        "characters of the response": np.asarray(pc.utf8_length(table["response"]), dtype=np.float64),
    }
    rows = []
    for name, (mean, sd, r) in PUBLISHED_STATISTICS.items():
        values = columns[name]
        known = values[np.isfinite(values)]
        rows.append(
            {
                "quantity": name,
                "mean": float(known.mean()) if len(known) else float("nan"),
                "sd": float(known.std(ddof=1)) if len(known) > 1 else float("nan"),
                "r": pearson(values, columns["helpfulness"]),
                "mean_published": mean,
                "sd_published": sd,
                "r_published": r,
            }
        )
    return pa.Table.from_pylist(rows, schema=STATISTICS)


def pearson(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Pearson's correlation over the places where both are known; NaN for fewer than two of them, or where one doesn't vary."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 2 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return float("nan")
    return float(np.corrcoef(x[both], y[both])[0, 1])
