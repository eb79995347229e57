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


def check_specs(key: str, rules: Sequence[Rule], table: bool = True) -> list[dg.AssetCheckSpec]:
    """Specs of an asset's checks: the schema of its table, where it is one, then each rule."""
    asset = asset_key(key)
    specs = [dg.AssetCheckSpec(r.name, asset=asset, blocking=r.gating, description=r.says) for r in rules]
    if table:
        says = "The declared columns with the declared types."
        specs.insert(0, dg.AssetCheckSpec(SCHEMA_CHECK, asset=asset, blocking=True, description=says))
    return specs


def publish(
    context: dg.AssetExecutionContext,
    store: Store,
    key: str,
    table: pa.Table,
    schema: pa.Schema,
    rules: Sequence[Rule],
    *,
    views: Mapping[str, pa.Table] | None = None,
    side_tables: Mapping[str, pa.Table] | None = None,
    side_files: Mapping[str, bytes] | None = None,
    finish: Callable[[UPath], None] | None = None,
    metadata: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Iterator[Event]:
    """Check a table, then publish it under its asset key and the run's partition.

    views: frames that rules with `view=` look at. side_tables: further Parquet files of the same version, by file name (rejected rows,
    say), which may have folders in it; side_files: files of another kind; finish: called with the staged folder, to write what depends on
    the files in it (checksums). metadata: for the UI. info: facts about the run for the manifest, not part of the content hash.
    Raises `dg.Failure` when a gating rule fails.
    """
    yield from _schema_check(key, table.schema, schema)
    table = table.select(schema.names).cast(schema)
    staged = store.staging(key, partition_of(context))
    write_table(table, staged / DATA)
    for name in [*(side_tables or {}), *(side_files or {})]:
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
    for name, side in (side_tables or {}).items():
        write_table(side, staged / name)
    for name, content in (side_files or {}).items():
        (staged / name).write_bytes(content)
    if finish:
        finish(staged)
    yield from publish_folder(
        context,
        store,
        key,
        staged,
        rules,
        views={ROWS: table, **(views or {})},
        rows=table.num_rows,
        metadata={**_columns(key, schema), **(metadata or {})},
        info=info,
    )


def publish_staged(
    context: dg.AssetExecutionContext,
    store: Store,
    key: str,
    staged: UPath,
    schema: pa.Schema,
    rules: Sequence[Rule],
    *,
    views: Mapping[str, pa.Table],
    metadata: Mapping[str, Any],
) -> Iterator[Event]:
    """Check a table that was written into a staged folder as a stream, then publish the folder. Only the rules' columns are loaded."""
    with (staged / DATA).open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as written:
        found, rows = written.schema_arrow, written.metadata.num_rows
    yield from _schema_check(key, found, schema)
    columns = sorted(set().union(*(rule.columns for rule in rules if rule.view == ROWS)))
    yield from publish_folder(
        context,
        store,
        key,
        staged,
        rules,
        views={ROWS: read_table(staged / DATA, columns or schema.names[:1]), **views},
        rows=rows,
        metadata={**_columns(key, schema), **metadata},
    )


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


def _columns(key: str, schema: pa.Schema) -> dict[str, dg.TableSchema]:
    asset = key.partition("/")[0]
    columns = [dg.TableColumn(f.name, str(f.type), description=describe(asset, f.name)) for f in schema]
    return {"dagster/column_schema": dg.TableSchema(columns)}


def publish_folder(
    context: dg.AssetExecutionContext,
    store: Store,
    key: str,
    staged: UPath,
    rules: Sequence[Rule],
    *,
    views: Mapping[str, pa.Table],
    rows: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Iterator[Event]:
    """Check the views of a staged folder (a model), then publish it. See `publish`."""
    failed = []
    for outcome in evaluate(rules, views):
        yield _check_result(key, outcome)
        if not outcome.passed and outcome.rule.gating:
            figures = "; ".join(f"{name} {value}" for name, value in outcome.figures.items())
            failed.append(f"{outcome.rule.name}: {outcome.rule.says} ({outcome.error or figures})")
    if failed:
        staged.fs.rm(str(staged), recursive=True)
        raise _refused(key, failed)
    manifest = store.publish(key, partition_of(context), staged, rows, info)
    facts: dict[str, Any] = {"store": str(store.path(key, partition_of(context))), "version": manifest.version}
    if rows is not None:
        facts["dagster/row_count"] = rows
    yield dg.MaterializeResult(
        asset_key=asset_key(key), metadata={**facts, **(metadata or {})}, data_version=dg.DataVersion(manifest.version)
    )


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
        description=f"{key} was not published; what was published before stays. It breaks:\n{listed}",
        metadata={"broken rules": dg.MetadataValue.json([html.escape(r) for r in reasons])},
        allow_retries=False,
    )
