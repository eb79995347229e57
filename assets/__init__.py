"""The assets, one module a stage. Each has `build(profile)`, which makes its definitions; a body reads, calls `pipeline`, publishes."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import gate
from pipeline.annotations.schema import said_of_all
from pipeline.rules import Rule
from pipeline.settings import Profile, Section, digest
from pipeline.store import Store
from pipeline.vocabulary import RatedBy

OWNERS = ["team:data"]


def code_version(version: str, *parts: Section | str | int | float) -> str:
    """Version of an asset: of its code, and of the part of the profile that it depends on."""
    return f"{version}-{digest(parts)}"


def options(
    key: str,
    stage: str,
    rules: Sequence[Rule],
    version: str,
    deps: Sequence[str] = (),
    kinds: Sequence[str] = ("parquet",),
    table: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """Arguments of `@dg.asset` that every asset here has."""
    return {
        "key": gate.asset_key(key),
        "deps": [gate.asset_key(d) for d in deps],
        "group_name": stage,
        "owners": OWNERS,
        "kinds": set(kinds),
        "code_version": version,
        "check_specs": gate.check_specs(key, rules, table),
        **more,
    }


def engine_compute(profile: Profile) -> dict[str, Any]:
    """The part of a worker's spec that says on what its engine runs."""
    compute = profile.compute
    cluster = {"cluster": compute.ray.model_dump(mode="json")} if compute.kind == "ray" else {}
    return {"device": compute.device, **cluster}


def ratings_of(store: Store, profile: Profile, recipe: str) -> tuple[RatedBy, str]:
    """Who gave the ratings that a recipe learns from, and what is said of them: by the data set's rows, not by the desk that there is now."""
    collected = profile.rated_by
    if store.manifest("helpsteer_dataset"):
        rows = store.read("helpsteer_dataset", columns=["rated_by"])
        # a row that doesn't say is of the profile's desk
        collected = said_of_all({by or profile.rated_by for by in pc.unique(rows["rated_by"]).to_pylist()})
    return profile.rated_by_of(recipe, collected), profile.ratings_note_of(recipe, collected)


def sample_table(table: pa.Table, rows: int = 8, width: int = 300) -> dg.TableMetadataValue:
    """The first rows as a table for the UI: text as it is (the UI shows it as text), cut to a readable length."""

    def cell(value: Any) -> str | int | float | bool | None:
        if isinstance(value, list):
            value = "\n".join(": ".join(map(str, m.values())) if isinstance(m, dict) else str(m) for m in value)
        if isinstance(value, str) and len(value) > width:
            value = value[: width - 1] + "…"
        return value if isinstance(value, str | int | float | bool) or value is None else str(value)

    records = [dg.TableRecord({k: cell(v) for k, v in row.items()}) for row in table.slice(0, rows).to_pylist()]
    columns = [dg.TableColumn(name, "string") for name in table.column_names]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def count_table(values: pa.ChunkedArray | Mapping[str, int], name: str, most: int = 30) -> dg.TableMetadataValue:
    """How often each value stands in a column, or is counted already, the most frequent first."""
    if isinstance(values, pa.ChunkedArray):
        values = {str(c["values"]): c["counts"] for c in pc.value_counts(values).to_pylist()}
    counts = sorted(values.items(), key=lambda c: (-c[1], c[0]))
    records = [dg.TableRecord({name: value, "rows": count}) for value, count in counts[:most]]
    return dg.MetadataValue.table(
        records, dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("rows", "int")])
    )
