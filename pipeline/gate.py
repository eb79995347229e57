"""Validate, then publish: the one way into the store.

The rules of a stage run over what is staged; every rule is an asset check with its figures; where a gating rule fails, or can't be
evaluated, the step fails and what was published before stays. A blocking asset check alone would stop only the same run: a later
run, a backfill or an automation condition would go on from bad data.
"""

import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.columns import describe
from pipeline.rules import ROWS, Rule
from pipeline.shown import Link, Markdown, Rows, Shown
from pipeline.store import DATA, Store, read_table, write_table

SCHEMA_CHECK = "schema"
Event = dg.AssetCheckResult | dg.MaterializeResult[Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one rule: `passed`, its figures for the UI, and `error` where it could not be evaluated."""

    rule: Rule
    passed: bool
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Contract:
    """What an asset promises: the key that it is published under, the columns of its table, and the rules that hold of it.

    schema: None for a folder that holds no main table (a model).
    """

    key: str
    schema: pa.Schema | None
    rules: Sequence[Rule]


@dataclass(frozen=True)
class Made:
    """What a step has made of an asset, before it is checked.

    table: the asset's table. folder: a staged folder instead, which holds the table as `data.parquet` where the contract has a schema, or
    a model. views: the frames that rules with `view=` look at. beside: further files of the same version by name, which may have folders in
    it; a table becomes Parquet. finish: called with the staged folder when all of these are written, to add what depends on them
    (checksums). shown: what the UI shows. info: facts about the run for the manifest, not part of the content's hash. rows: their number,
    for a folder without a table. then: called when it is published.
    """

    table: pa.Table | None = None
    folder: UPath | None = None
    views: Mapping[str, pa.Table] = field(default_factory=dict)
    beside: Mapping[str, pa.Table | bytes] = field(default_factory=dict)
    finish: Callable[[UPath], None] | None = None
    shown: Mapping[str, Shown] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    then: Callable[[], None] | None = None


def check_specs(contract: Contract) -> list[dg.AssetCheckSpec]:
    """Specs of an asset's checks: the schema of its table, where it has one, then each rule."""
    asset = asset_key(contract.key)
    specs = [dg.AssetCheckSpec(r.name, asset=asset, blocking=r.gating, description=r.says) for r in contract.rules]
    if contract.schema is not None:
        says = "The table has the declared columns with the declared types."
        specs.insert(0, dg.AssetCheckSpec(SCHEMA_CHECK, asset=asset, blocking=True, description=says))
    return specs


def publish(context: dg.AssetExecutionContext, store: Store, contract: Contract, made: Made) -> Iterator[Event]:
    """Check what was made, then publish it under the contract's key and the run's partition.

    Of a table in a staged folder only the columns that rules read are loaded. Raises `dg.Failure` when the schema is another one, or a
    gating rule fails: then nothing is published.
    """
    partition, views, rows = partition_of(context), dict(made.views), made.rows
    if contract.schema is not None:
        yield from _schema_check(contract.key, _schema_of(made), contract.schema)
    staged = made.folder or store.staging(contract.key, partition)
    if made.table is not None and contract.schema is not None:
        views[ROWS] = made.table.select(contract.schema.names).cast(contract.schema)
        write_table(views[ROWS], staged / DATA)
        rows = made.table.num_rows
    elif contract.schema is not None:
        read = sorted(set().union(*(rule.columns for rule in contract.rules if rule.view == ROWS)))
        views[ROWS] = read_table(staged / DATA, read or contract.schema.names[:1])
        rows = views[ROWS].num_rows
    for name, content in made.beside.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (staged / name).write_bytes(content)
        else:
            write_table(content, staged / name)
    if made.finish:
        made.finish(staged)
    yield from _rule_checks(contract, views, staged)
    manifest = store.publish(contract.key, partition, staged, rows, made.info)
    facts: dict[str, Any] = {"store": str(store.path(contract.key, partition)), "version": manifest.version}
    if rows is not None:
        facts["dagster/row_count"] = rows
    if contract.schema is not None:
        facts["dagster/column_schema"] = _columns(contract.key, contract.schema)
    yield dg.MaterializeResult(
        asset_key=asset_key(contract.key),
        metadata={**facts, **{name: as_metadata(value) for name, value in made.shown.items()}},
        data_version=dg.DataVersion(manifest.version),
    )
    if made.then:
        made.then()


def _schema_of(made: Made) -> pa.Schema:
    if made.table is not None:
        return made.table.schema
    if made.folder is None:
        raise ValueError("nothing was made: neither a table nor a folder")
    with (made.folder / DATA).open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as written:
        return written.schema_arrow


def _schema_check(key: str, found: pa.Schema, schema: pa.Schema) -> Iterator[Event]:
    problems = schema_problems(found, schema)
    yield dg.AssetCheckResult(
        asset_key=asset_key(key),
        check_name=SCHEMA_CHECK,
        passed=not problems,
        metadata={"problems": problems or ["none"]},
    )
    if problems:
        raise _refused(key, [f"{SCHEMA_CHECK}: {'; '.join(problems)}"])


def _rule_checks(contract: Contract, views: Mapping[str, pa.Table], staged: UPath) -> Iterator[Event]:
    """A check result for every rule; where a gating one fails, the staged folder is removed and the step fails."""
    failed = []
    for outcome in evaluate(contract.rules, views):
        yield _check_result(contract.key, outcome)
        if not outcome.passed and outcome.rule.gating:
            figures = "; ".join(f"{name} {value}" for name, value in outcome.figures.items())
            failed.append(f"{outcome.rule.name}: {outcome.rule.says} ({outcome.error or figures})")
    if failed:
        staged.fs.rm(str(staged), recursive=True)
        raise _refused(contract.key, failed)


def _columns(key: str, schema: pa.Schema) -> dg.TableSchema:
    asset = key.partition("/")[0]
    return dg.TableSchema([dg.TableColumn(f.name, str(f.type), description=describe(asset, f.name)) for f in schema])


def as_metadata(value: Shown) -> Any:
    """What people are shown, as Dagster takes it for metadata. Texts of strangers are shown as they are: the UI shows a table's cells as text."""
    match value:
        case Markdown():
            return dg.MetadataValue.md(value)
        case Link():
            return dg.MetadataValue.url(value)
        case pa.Table():
            return _table(value, Rows.most)
        case Rows(table=table, most=most):
            return _table(table, most)
        case Mapping() | list() | tuple():
            return dg.MetadataValue.json(value)
        case _:
            return value


def _table(table: pa.Table, most: int, width: int = 300) -> dg.TableMetadataValue:
    """The first rows; what is long is cut."""

    def cell(value: Any) -> str | int | float | bool | None:
        if isinstance(value, list):
            value = "\n".join(": ".join(map(str, m.values())) if isinstance(m, dict) else str(m) for m in value)
        if isinstance(value, str) and len(value) > width:
            value = value[: width - 1] + "…"
        return value if isinstance(value, str | int | float | bool) or value is None else str(value)

    records = [dg.TableRecord({k: cell(v) for k, v in row.items()}) for row in table.slice(0, most).to_pylist()]
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(n, "string") for n in table.column_names]))


def evaluate(rules: Sequence[Rule], views: Mapping[str, pa.Table]) -> Iterator[Outcome]:
    """Run rules over their views with Great Expectations, in order. A rule that can't be evaluated has not passed."""
    if not rules:
        return
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    gx_context = gx.get_context(mode="ephemeral")
    gx_context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for view in dict.fromkeys(rule.view for rule in rules):
        wanted = [rule for rule in rules if rule.view == view]
        columns = sorted(set().union(*(rule.columns for rule in wanted)))
        if view not in views:
            yield from (Outcome(rule, False, error=f"no view {view!r} was made") for rule in wanted)
            continue
        missing = [c for c in columns if c not in views[view].column_names]
        if missing:
            yield from (
                Outcome(rule, False, error=f"view {view!r} has no column {', '.join(missing)}") for rule in wanted
            )
            continue
        frame = views[view].select(columns or views[view].column_names[:1]).to_pandas()
        batch = (
            gx_context.data_sources.add_pandas(view)
            .add_dataframe_asset(view)
            .add_batch_definition_whole_dataframe(view)
            .get_batch({"dataframe": frame})
        )
        for rule in wanted:
            yield _evaluate(batch, gx.expectations, rule)


def _evaluate(batch: Any, expectations: Any, rule: Rule) -> Outcome:
    try:
        result = batch.validate(getattr(expectations, rule.expectation)(**rule.arguments))
    except Exception as error:  # whatever a rule or its data does: it has not passed, and the reader is told why
        return Outcome(rule, False, error=f"could not be evaluated: {type(error).__name__}: {error}")
    raised = _exception(result.exception_info)
    if raised:
        return Outcome(rule, False, error=f"could not be evaluated: {raised}")
    figures = {name: result.result[gx] for gx, name in _FIGURES.items() if result.result.get(gx) is not None}
    return Outcome(rule, bool(result.success), figures)


_FIGURES = {
    "element_count": "rows looked at",
    "unexpected_count": "rows that break it",
    "unexpected_percent": "percent that break it",
    "observed_value": "observed",
    "partial_unexpected_list": "examples",
}


def _exception(info: Mapping[str, Any] | None) -> str | None:
    """The message of an exception that Great Expectations caught: flat, or nested by metric id."""
    if not info:
        return None
    if "raised_exception" in info:
        return str(info.get("exception_message")) if info["raised_exception"] else None
    return next((message for nested in info.values() if (message := _exception(nested))), None)


def _check_result(key: str, outcome: Outcome) -> dg.AssetCheckResult:
    figures = {name: _plain(value) for name, value in outcome.figures.items()}
    return dg.AssetCheckResult(
        asset_key=asset_key(key),
        check_name=outcome.rule.name,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if outcome.rule.gating else dg.AssetCheckSeverity.WARN,
        description=outcome.error or outcome.rule.says,
        metadata={
            **figures,
            "expectation": outcome.rule.expectation,
            "arguments": _plain(dict(outcome.rule.arguments)),
        },
    )


def _plain(value: Any) -> Any:
    """A value as Dagster metadata takes it; strings from data are escaped and cut."""
    if isinstance(value, str):
        return html.escape(value[:200])
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in list(value)[:10]]
    if isinstance(value, bool | int) or value is None:
        return value
    return round(float(value), 4) if hasattr(value, "__float__") else str(value)


def schema_problems(actual: pa.Schema, declared: pa.Schema) -> list[str]:
    """Missing, extra and mistyped columns, in words."""
    problems = [f"column {f.name} ({f.type}) is missing" for f in declared if f.name not in actual.names]
    problems += [f"column {name} is not declared" for name in actual.names if name not in declared.names]
    problems += [
        f"column {f.name} is {actual.field(f.name).type}, declared {f.type}"
        for f in declared
        if f.name in actual.names and actual.field(f.name).type != f.type
    ]
    return problems


def asset_key(key: str) -> dg.AssetKey:
    """Dagster's key of a store key: `responses/careful` is the path responses, careful."""
    return dg.AssetKey(key.split("/"))


def partition_of(context: dg.AssetExecutionContext) -> str | None:
    """The run's partition, where the asset has partitions; a run for a partition may include assets that have none."""
    return context.partition_key if context.assets_def.partitions_def is not None else None


def _refused(key: str, reasons: Sequence[str]) -> dg.Failure:
    listed = "\n".join(f"- {reason}" for reason in reasons)
    return dg.Failure(
        description=f"{key} was not published; what was published before stays. These checks failed:\n{listed}",
        metadata={"broken rules": dg.MetadataValue.json([html.escape(r) for r in reasons])},
        allow_retries=False,
    )
