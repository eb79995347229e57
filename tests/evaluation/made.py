"""Items and scores for tests: small tables of any form of benchmark."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.evaluation.schema import ITEMS, SCORES


def items_of(*rows: tuple[str, str, Sequence[str], int], benchmark: str = "b") -> pa.Table:
    """Items: subset, id, responses, and how many of those, the first ones, are good."""
    records = [
        {
            "benchmark": benchmark,
            "subset": subset,
            "item_id": item_id,
            "messages": [{"role": "user", "content": f"{subset} {item_id}"}],
            "responses": list(responses),
            "good": [n < good for n in range(len(responses))],
        }
        for subset, item_id, responses, good in rows
    ]
    return pa.Table.from_pylist(records, schema=ITEMS)


def pairs_of(
    count: int, subset: str = "s", chosen: str = "a longer one", other: str = "short", benchmark: str = "b"
) -> pa.Table:
    """Pairs of the same texts."""
    return items_of(*((subset, str(n), (chosen, other), 1) for n in range(count)), benchmark=benchmark)


def scores_of(items: pa.Table, goodness: Sequence[float] | np.ndarray) -> pa.Table:
    """Scores of all responses of items, in order."""
    rows = [
        {key: item[key] for key in ("benchmark", "subset", "item_id")}
        | {"response": n, "good": good, "characters": len(text)}
        for item in items.to_pylist()
        for n, (text, good) in enumerate(zip(item["responses"], item["good"], strict=True))
    ]
    scored = [row | {"goodness": float(value)} for row, value in zip(rows, goodness, strict=True)]
    return pa.Table.from_pylist(scored, schema=SCORES)


def won(*wins: int) -> list[float]:
    """Goodness of pairs: 1 where the good one wins, 0 a tie, -1 a loss."""
    return [value for win in wins for value in (float(win), 0.0)]
