"""The data set that is published, over all deliveries."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, options, sample_table
from pipeline import gate, plots
from pipeline.dataset import build as building
from pipeline.dataset import card, expectations, schema
from pipeline.settings import ATTRIBUTES, Profile
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
        files = {
            f"{split}.jsonl.gz": building.jsonl_gz(building.helpsteer_rows(table, split))
            for split in ("train", "validation")
        }
        files["README.md"] = card.data_card(table, agreement, len(bad), profile).encode()
        means = table.to_pandas().groupby("generator")[list(ATTRIBUTES)].mean()
        yield from gate.publish(
            context,
            store,
            "helpsteer_dataset",
            table,
            schema.DATASET,
            expectations.DATASET,
            views=expectations.dataset_views(table),
            side_tables={"provenance.parquet": table.select(schema.PROVENANCE.names), "left_out.parquet": bad},
            side_files=files,
            metadata={
                "deliveries": len(deliveries),
                "train prompts": len(pc.unique(table.filter(pc.equal(table["split"], "train"))["prompt_id"])),
                "validation prompts": len(pc.unique(table.filter(pc.equal(table["split"], "validation"))["prompt_id"])),
                "simulated ratings": profile.simulated,
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
