import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.dataset.schema import DATASET, STATISTICS
from pipeline.dataset.statistics import PUBLISHED_STATISTICS, statistics
from pipeline.forms.helpsteer import flatten
from pipeline.vocabulary import ATTRIBUTES
from tests.dataset.collected import response_pairs


def labelled(rows: int = 60) -> pa.Table:
    """Random labels, some missing."""
    pairs, draw = response_pairs("d", rows // 2), np.random.default_rng(0)
    columns = {name: pa.nulls(rows, DATASET.field(name).type) for name in DATASET.names}
    columns |= {"messages": pairs["messages"], "response": pairs["response"]}
    for a in ATTRIBUTES:
        missing = (draw.random(rows) < 0.1) & (a != "helpfulness")
        columns[a] = pa.array(draw.integers(0, 5, rows), pa.int8(), mask=missing)
    return pa.table(columns, schema=DATASET)


def test_figures_are_those_that_pandas_gives() -> None:
    table = labelled()
    frame = table.select(ATTRIBUTES).to_pandas().astype("Float64")
    frame["turns in the prompt"] = [len(m) for m in table["messages"].to_pylist()]
    frame["characters of the prompt"] = [len(p) for p in flatten(table["messages"]).to_pylist()]
    frame["characters of the response"] = [len(t) for t in table["response"].to_pylist()]
    ours = statistics(table).to_pandas().set_index("quantity")
    frame = frame.astype(float)
    pd.testing.assert_series_equal(ours["mean"], frame.mean(), check_names=False)
    pd.testing.assert_series_equal(ours["sd"], frame.std(), check_names=False)
    pd.testing.assert_series_equal(ours["r"], frame.corr()["helpfulness"], check_names=False)


def test_the_published_figures_stand_beside_ours() -> None:
    figures = statistics(labelled())
    assert figures.schema.equals(STATISTICS)
    assert figures["quantity"].to_pylist() == list(PUBLISHED_STATISTICS)
    assert figures["r_published"].to_pylist()[1] == 0.9430


def test_a_quantity_that_does_not_vary_has_no_correlation() -> None:
    table = labelled(4)
    same = table.set_column(table.column_names.index("helpfulness"), "helpfulness", pa.array([3] * 4, pa.int8()))
    assert np.isnan(statistics(same)["r"].to_pylist()).all()
    assert np.isnan(statistics(table.slice(0, 0))["mean"].to_pylist()).all()


def test_turns_of_both_sides_give_the_published_mean(shared_data: Path) -> None:
    """Multi-turn prompts are about 29 % of HelpSteer2, fewer in this sample: their mean turns, weighted so, are the published figure."""
    rows = [json.loads(line) for line in (shared_data / "helpsteer2" / "labelled_1000.jsonl").read_text().splitlines()]
    headers = np.array([r["prompt"].count("\n<extra_id_1>") for r in rows])
    turns = headers[headers > 0].mean() + 1
    assert 0.71 * 1 + 0.29 * turns == pytest.approx(PUBLISHED_STATISTICS["turns in the prompt"][0], abs=0.25)
    users = headers[headers > 0].mean() / 2 + 1
    assert abs(0.71 * 1 + 0.29 * users - PUBLISHED_STATISTICS["turns in the prompt"][0]) > 0.8
