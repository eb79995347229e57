"""The gate inside one run: what it shows, refuses and keeps."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets.published import Published
from pipeline.gate import Made
from pipeline.rules import Rule
from pipeline.store import Store
from resources.storage import Storage
from tests.helpers import failure

SCHEMA = pa.schema([("id", pa.string()), ("rating", pa.int8())])
RULES = (
    Rule(
        "in_range",
        "Ratings go from 0 to 4.",
        "ExpectColumnValuesToBeBetween",
        {"column": "rating", "min_value": 0, "max_value": 4},
    ),
    Rule("few", "At most three rows.", "ExpectTableRowCountToBeBetween", {"max_value": 3}, gating=False),
    Rule("total", "The total is known.", "ExpectColumnValuesToNotBeNull", {"column": "n"}, view="totals"),
)


def rows(*ratings: int | None, schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.table({"id": [f"r{n}" for n in range(len(ratings))], "rating": ratings}, schema=schema)


def run(
    tmp_path: Path, table: pa.Table, rules: tuple[Rule, ...] = RULES, totals: object = 1
) -> tuple[dg.ExecuteInProcessResult, Store]:
    @Published("ratings", "test", SCHEMA, rules, "1", modules=()).asset
    def ratings(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        return Made(table, views={"totals": pa.table({"n": [totals]})})

    result = dg.materialize([ratings], resources={"storage": Storage(uri=str(tmp_path))}, raise_on_error=False)
    return result, Store(str(tmp_path))


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def test_good_data_is_published_with_every_rule_as_a_check_with_figures(tmp_path: Path) -> None:
    result, store = run(tmp_path, rows(0, 4))
    assert result.success
    assert store.read("ratings").equals(rows(0, 4))
    assert {name: check.passed for name, check in checks(result).items()} == {
        "schema": True,
        "in_range": True,
        "few": True,
        "total": True,
    }
    assert checks(result)["in_range"].metadata["rows checked"].value == 2
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["dagster/row_count"].value == 2
    assert [c.name for c in metadata["dagster/column_schema"].schema.columns] == ["id", "rating"]


def test_a_broken_gating_rule_publishes_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    run(tmp_path, rows(1))
    result, store = run(tmp_path, rows(2, 7))
    assert not result.success
    assert store.read("ratings").equals(rows(1))
    assert "in_range: Ratings go from 0 to 4." in failure(result)
    assert "rows that break the rule 1" in failure(result)
    assert checks(result)["in_range"].metadata["examples"].value == [7]
    assert result.get_asset_materialization_events() == []


def test_a_broken_warning_is_shown_and_stops_nothing(tmp_path: Path) -> None:
    result, store = run(tmp_path, rows(1, 1, 1, 1))
    assert result.success
    assert not checks(result)["few"].passed
    assert checks(result)["few"].severity == dg.AssetCheckSeverity.WARN
    assert len(store.read("ratings")) == 4


def test_a_gating_rule_that_cannot_be_evaluated_has_not_passed(tmp_path: Path) -> None:
    for broken in (
        Rule("odd", "No such expectation.", "ExpectNothingKnown", {"column": "rating"}),
        Rule("odd", "No such column.", "ExpectColumnValuesToNotBeNull", {"column": "gone"}),
        Rule("odd", "No such view.", "ExpectColumnValuesToNotBeNull", {"column": "rating"}, view="gone"),
        Rule(
            "odd", "An argument that makes no sense.", "ExpectColumnValuesToMatchRegex", {"column": "id", "regex": "("}
        ),
    ):
        result, store = run(tmp_path, rows(1), (broken,))
        assert not result.success
        assert store.manifest("ratings") is None
        assert not checks(result)["odd"].passed
        assert "odd: " in failure(result)


def test_missing_extra_and_mistyped_columns_are_named(tmp_path: Path) -> None:
    result, store = run(tmp_path, pa.table({"id": [1], "more": ["x"]}))
    assert not result.success
    assert store.manifest("ratings") is None
    said = failure(result)
    for part in (
        "column rating (int8) is missing",
        "column more is not declared",
        "column id is int64, declared string",
    ):
        assert part in said


def test_strangers_text_in_a_check_is_escaped(tmp_path: Path) -> None:
    rule = Rule("short", "Ids are short.", "ExpectColumnValueLengthsToBeBetween", {"column": "id", "max_value": 5})
    table = pa.table({"id": ["<img src=x onerror=alert(1)>"], "rating": pa.array([1], pa.int8())}, schema=SCHEMA)
    result, _ = run(tmp_path, table, (rule,))
    assert checks(result)["short"].metadata["examples"].value == ["&lt;img src=x onerror=alert(1)&gt;"]


def test_the_data_version_is_the_content(tmp_path: Path) -> None:
    first, _ = run(tmp_path, rows(1, 2))
    again, _ = run(tmp_path, rows(1, 2))
    other, _ = run(tmp_path, rows(1, 3))
    events = [r.get_asset_materialization_events()[0] for r in (first, again, other)]
    versions = [e.step_materialization_data.materialization.tags["dagster/data_version"] for e in events]
    assert versions[0] == versions[1] != versions[2]
