"""The data set that is published, over all deliveries."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, options, sample_table
from pipeline import gate, plots
from pipeline.dataset import build as building
from pipeline.dataset import card, expectations, schema
from pipeline.rules import ROWS
from pipeline.settings import ATTRIBUTES, Profile
from pipeline.store import DATA, write_table
from resources.storage import Storage


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's asset for a profile."""

    @dg.asset(
        **options(
            "helpsteer_dataset",
            "dataset",
            expectations.DATASET,
            code_version("1", profile.dataset, profile.annotations),
            deps=["agreed_tasks", "response_pairs", "annotation_agreement"],
            kinds=["huggingface", "parquet"],
        )
    )
    def helpsteer_dataset(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Train and validation files in nvidia/HelpSteer2's format with their provenance and card, over all deliveries."""
        store = storage.store()
        parts, left_out = [schema.DATASET.empty_table()], [schema.LEFT_OUT.empty_table()]
        deliveries = store.partitions("agreed_tasks")
        for key in deliveries:
            share = profile.dataset.validation_share
            rows, bad = building.rows_of(store.read("agreed_tasks", key), store.read("response_pairs", key), key, share)
            parts.append(rows)
            left_out.append(bad)
        table, bad = building.in_order(pa.concat_tables(parts)), pa.concat_tables(left_out)
        agreement = {
            key: store.read("annotation_agreement", key)
            for key in deliveries
            if store.manifest("annotation_agreement", key)
        }
        staged = store.staging("helpsteer_dataset")
        write_table(table, staged / DATA)
        write_table(table.select(schema.PROVENANCE.names), staged / "provenance.parquet")
        write_table(bad, staged / "left_out.parquet")
        for split in ("train", "validation"):
            (staged / f"{split}.jsonl.gz").write_bytes(building.jsonl_gz(building.helpsteer_rows(table, split)))
        text = card.data_card(table, agreement, len(bad), profile)
        (staged / "README.md").write_text(text)
        means = table.to_pandas().groupby("generator")[list(ATTRIBUTES)].mean()
        yield from gate.publish_folder(
            context,
            store,
            "helpsteer_dataset",
            staged,
            expectations.DATASET,
            views={ROWS: table, **expectations.dataset_views(table)},
            rows=len(table),
            metadata={
                "deliveries": len(deliveries),
                "train prompts": len(pc.unique(table.filter(pc.equal(table["split"], "train"))["prompt_id"])),
                "validation prompts": len(pc.unique(table.filter(pc.equal(table["split"], "validation"))["prompt_id"])),
                "simulated ratings": profile.simulated,
                "dagster/column_schema": dg.TableSchema([dg.TableColumn(f.name, str(f.type)) for f in schema.DATASET]),
                "mean rating by generator": dg.MetadataValue.md(
                    plots.grouped_bars(
                        list(means.index),
                        {a: list(means[a]) for a in ATTRIBUTES},
                        "Mean label by generator" + (" (simulated annotators)" if profile.simulated else ""),
                        "rating",
                    )
                ),
                "samples": sample_table(building.helpsteer_rows(table, "train")),
            },
        )

    return [helpsteer_dataset]
