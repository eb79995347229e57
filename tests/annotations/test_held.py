"""Tasks that annotators have flagged are not taken, and are counted."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotations.held import held_back, without_held
from pipeline.forms.ratings import Quarantine
from pipeline.forms.rows import ANNOTATIONS

flags = st.one_of(st.none(), st.lists(st.sampled_from(["pii", "PII", "Personal-data", "code", "skip", ""]), max_size=3))


@given(st.lists(st.tuples(st.sampled_from("pqr"), flags), max_size=9))
def test_a_flag_by_anyone_holds_its_task_back(rows: list[tuple[str, Any]]) -> None:
    table = pa.Table.from_pylist([{"prompt_id": p, "flags": f} for p, f in rows], schema=ANNOTATIONS)
    bad = {"pii", "personal data", "skip"}
    wanted = {p for p, f in rows if any(one.lower().replace("-", " ") in bad for one in f or [])}
    assert set(held_back(table, ("pii", "personal data", "skip")).to_pylist()) == wanted
    aside = Quarantine()
    left = [row for t in without_held([table], "f", aside) for row in t.to_pylist()]
    assert [row["prompt_id"] for row in left] == [p for p, _ in rows if p not in wanted]
    assert aside.left_out.total() == len(wanted)


@pytest.mark.parametrize("flag", ["personal_data", "Personal Data", " personal-data "])
def test_a_flag_is_known_in_any_dress(flag: str) -> None:
    table = pa.Table.from_pylist([{"prompt_id": "p", "flags": [flag]}], schema=ANNOTATIONS)
    assert held_back(table, ["personal data"]).to_pylist() == ["p"]
