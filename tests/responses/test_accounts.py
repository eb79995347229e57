import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.responses.accounts import account
from pipeline.settings import Checkpoint, Price

tokens = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=20)
money = st.floats(0, 100)


def table(rows: list[tuple[int, int]]) -> pa.Table:
    return pa.table({"prompt_tokens": [p for p, _ in rows], "output_tokens": [o for _, o in rows]})


@given(tokens, tokens, st.floats(0, 1e5), st.integers(1, 8), st.integers(1, 8), money, money, money)
def test_tokens_device_time_and_cost_are_what_a_plain_sum_gives(
    mine: list[tuple[int, int]],
    others: list[tuple[int, int]],
    seconds: float,
    parallel: int,
    replicas: int,
    hour: float,
    read: float,
    written: float,
) -> None:
    price = Price(currency="EUR", device_hour=hour, input_million=read, output_million=written)
    checkpoint = Checkpoint(hub="a/b", licence="x", tensor_parallel=parallel, replicas=replicas, price=price)
    found = account(table(mine), table(mine + others), seconds, checkpoint)
    inputs = outputs = everyone = 0
    for p, o in mine:
        inputs, outputs = inputs + p, outputs + o
    for _, o in mine + others:
        everyone += o
    devices = seconds * parallel * replicas * (outputs / everyone) if everyone else 0
    assert (found["prompt tokens"], found["output tokens"]) == (inputs, outputs)
    assert found["device seconds of this run"] == pytest.approx(devices, abs=0.051)
    cost = devices / 3600 * hour + inputs / 1e6 * read + outputs / 1e6 * written
    assert found.get("cost (EUR)", 0) == pytest.approx(cost, abs=1e-4)


def test_no_price_no_cost() -> None:
    found = account(table([(1, 1)]), table([(1, 1)]), 1.0, Checkpoint(hub="a/b", licence="x"))
    assert not [name for name in found if name.startswith("cost")]
