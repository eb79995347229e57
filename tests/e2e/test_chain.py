"""The whole chain, small: real conversations, the real vLLM, real weights, simulated annotators; then again, and again after a loss."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import dagster as dg
import datasets
import ijson
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.alignment import schema as alignment
from pipeline.annotations.consensus import spreads
from pipeline.columns import describe, descriptions
from pipeline.dataset.schema import PUSHED
from pipeline.models.loading import load_scorer
from pipeline.models.scoring import score
from pipeline.prompts.sources import _sharegpt_file
from pipeline.settings import PROJECT
from pipeline.store import Store
from pipeline.vocabulary import ATTRIBUTES

pytestmark = pytest.mark.engine

OF_POLICIES = {
    "alignment_data": alignment.TUNED_ON,
    "scored_data": alignment.SCORED_DATA,
    "policy_samples": alignment.SAMPLES,
    "scored_samples": alignment.SCORED,
    "policy_rewards": alignment.REWARDS,
}
"""Tables that this profile doesn't make, as it aligns no model."""
PROFILE = """
extends: tiny
name: small
store: {store}
prompts:
  sources: {{sharegpt: {{limit: 500}}}}
  topics: {{count: 8}}
  filters: {{max_characters: 600}}
  sample: {{prompts: 28}}
contexts: {{sampling: {{max_tokens: 24}}}}
generators:
  careful: {{sampling: {{max_tokens: 32}}}}
  plain: {{sampling: {{max_tokens: 32}}}}
  terse: {{sampling: {{max_tokens: 24}}}}
  verbose: {{sampling: {{max_tokens: 48}}}}
  loose: {{sampling: {{max_tokens: 32}}}}
  careless: {{sampling: {{max_tokens: 24}}}}
dataset: {{validation_share: 0.25}}
recipes:
  smollm2_regression: {{layers: 4, max_tokens: 128, evaluations: 1, development_share: 0.55}}
  smollm2_probe: null  # other tests train one
alignment: null  # tests/alignment has policies
"""


RECIPES = ("smollm2_regression",)


class Demo:
    def __init__(self, place: Path, cache: Path) -> None:
        (place / "small.yaml").write_text(PROFILE.format(store=place / "store"))
        (place / "home").mkdir()
        shutil.copytree(
            cache, place / "store" / ".cache", copy_function=os.link
        )  # the weights that other tests have too
        shutil.copy(PROJECT / "pipeline" / "dagster.yaml", place / "home")
        self.env = {**os.environ, "PIPELINE_PROFILE": str(place / "small.yaml"), "DAGSTER_HOME": str(place / "home")}
        self.store = Store(str(place / "store"))

    def run(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.operating", "run"],
            env=self.env,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, checkpoint_cache: Path) -> Demo:
    made = Demo(tmp_path_factory.mktemp("chain"), checkpoint_cache)
    made.output = made.run()  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="module")
def store(demo: Demo) -> Store:
    return demo.store


def generators(store: Store) -> dict[str, pa.Table]:
    return {
        name: store.read(f"responses/{name}", "demo")
        for name in ("careful", "plain", "terse", "verbose", "loose", "careless")
    }


def test_it_ends_with_a_table_and_a_report(demo: Demo, store: Store) -> None:
    assert "rows in" in demo.output  # type: ignore[attr-defined]
    page = (Path(store.uri) / "report.html").read_text()
    assert "simulated annotators" in page
    assert "<script" not in page
    links = [unquote(link) for link in re.findall(r'href="([^"]*)"', page)]
    assert len(links) > len(RECIPES)
    assert [link for link in links if not (Path(store.uri) / link).exists()] == []


def test_every_column_that_the_ui_shows_is_described_and_no_description_is_left_over(demo: Demo) -> None:
    with dg.DagsterInstance.from_config(demo.env["DAGSTER_HOME"]) as instance:
        latest = [instance.get_latest_materialization_event(key) for key in instance.get_asset_keys()]
    shown = [m.metadata.get("dagster/column_schema") for e in latest if e and (m := e.asset_materialization)]
    columns = [column for table in shown if table for column in table.schema.columns]
    assert [c.name for c in columns if not c.description] == []
    pushed = {describe("hub_dataset", name) for name in PUSHED.names}
    policies = {describe(asset, name) for asset, schema in OF_POLICIES.items() for name in schema.names}
    assert None not in policies
    assert descriptions() - {c.description for c in columns} - pushed - policies == set()


def test_six_generators_answer_and_every_prompt_has_two_different_ones(store: Store) -> None:
    tables = generators(store)
    assert all(len(t) for t in tables.values())
    together = pa.concat_tables(tables.values()).to_pandas()
    assert (together.groupby("prompt_id")["generator"].nunique() == 2).all()
    assert (together.groupby("prompt_id").size() == 2).all()
    assert together["finish_reason"].isin(["stop", "length", "refused"]).all()
    written = together.loc[together["response"].str.strip() != "", "response"]
    assert written.nunique() > 0.95 * len(written), "real weights: different prompts, different answers"


def test_contexts_are_not_the_sources_own_text(store: Store) -> None:
    contexts = store.read("contexts", "demo").to_pylist()
    written = [m["content"] for c in contexts for m in c["messages"] if m["role"] == "assistant"]
    assert any(written)
    with _sharegpt_file().open("rb") as file:
        records = (r for _, r in zip(range(500), ijson.items(file, "item"), strict=False))
        theirs = {t["value"].strip() for r in records for t in r["conversations"] if t["from"] != "human"}
    assert not {w for w in written if w} & theirs


def test_more_than_three_ratings_only_where_the_first_three_differ_by_more_than_two(store: Store) -> None:
    ratings = store.read("annotations", "demo")
    counts = (
        ratings.group_by("response_id").aggregate([([], "count_all")]).to_pandas().set_index("response_id")["count_all"]
    )
    first = spreads(ratings.filter(pc.equal(ratings["round"], 1))).to_pandas().set_index("response_id")["spread"]
    assert counts.between(3, 5).all()
    assert (counts[counts > 3].index.map(first) > 2).all()
    assert pc.all(ratings["simulated"]).as_py()


def test_the_data_set_loads_as_helpsteer2_does_and_keeps_no_wide_spread(store: Store) -> None:
    loaded = datasets.load_dataset(str(store.path("helpsteer_dataset")))
    assert set(loaded) == {"train", "validation"}
    assert loaded["train"].column_names == ["prompt", "response", *ATTRIBUTES]
    for rows in loaded.values():
        assert rows["prompt"][0::2] == rows["prompt"][1::2]
    assert not set(loaded["train"]["prompt"]) & set(loaded["validation"]["prompt"])
    every = datasets.load_dataset(str(store.path("helpsteer_dataset")), "disagreements")["train"]
    assert every["prompt"][0::2] == every["prompt"][1::2]
    assert sum(map(len, every["helpfulness"])) == len(store.read("annotations", "demo"))
    preferences = datasets.load_dataset(str(store.path("helpsteer_dataset")), "preference")["train"]
    of_split = {"train": set(loaded["train"]["prompt"]), "val": set(loaded["validation"]["prompt"])}
    assert all(p in of_split[s] for p, s in zip(preferences["prompt"], preferences["split"], strict=True))
    votes = store.read("agreed_tasks", "demo")["helpfulness_votes"].to_pylist()
    for row in votes:
        levels = [n for n, count in enumerate(row) if count]
        assert levels[-1] - levels[0] <= 2


def test_outside_code_reproduces_the_published_scores(store: Store) -> None:
    folder = store.path("reward_model", "smollm2_regression").path
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    data, ours = {r["response_id"]: r for r in store.read("helpsteer_dataset").to_pylist()}, load_scorer(Path(folder))
    for row in store.read("reward_model", "smollm2_regression", "development_predictions.parquet").to_pylist()[:6]:
        example = data[row["response_id"]]
        messages = [*example["messages"], {"role": "assistant", "content": example["response"]}]
        inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        if inputs["input_ids"].shape[1] <= 128:
            with torch.no_grad():
                scores = model(**inputs).logits[0].numpy()
            assert scores == pytest.approx(score(ours, inputs["input_ids"].tolist())[0], abs=1e-4)
            # what is published is in the precision of training
            assert scores == pytest.approx(np.array([row[a] for a in ATTRIBUTES]), abs=0.1)


def kept(output: str) -> dict[str, bool]:
    """Asset, with a recipe's name -> whether the table at the end says that it was kept."""
    rows = re.finditer(r"│ \w+ +│ (\S+) +│ +(\S*) +│(.*)", output)
    return {m[1] + (f" {m[2]}" if m[2].startswith("smollm2") else ""): "kept" in m[3] for m in rows}


def test_again_nothing_is_recomputed_and_it_takes_less_than_a_minute_of_processor_time(demo: Demo) -> None:
    before = os.times()
    table = kept(demo.run())
    after = os.times()
    assert {"conversations", "responses/careful", "leaderboard"} < set(table)
    assert {f"{name} {recipe}" for name in ("training_data", "exported_model") for recipe in RECIPES} < set(table)
    assert all(table.values())
    assert after.children_user + after.children_system - before.children_user - before.children_system < 60


def test_a_lost_output_is_made_again_with_what_depends_on_it_and_nothing_else(demo: Demo, store: Store) -> None:
    before = store.read("responses/terse", "demo")
    others = {
        name: store.manifest(f"responses/{name}", "demo")
        for name in ("careful", "plain", "verbose", "loose", "careless")
    }
    shutil.rmtree(Path(store.uri) / "responses" / "terse")
    table = kept(demo.run())
    upstream = {
        "conversations",
        "candidate_prompts",
        "prompt_topics",
        "prompt_complexity",
        "prompts",
        "contexts",
        "response_plan",
    }
    assert {name for name, was_kept in table.items() if was_kept} >= upstream | {f"responses/{name}" for name in others}
    assert not table["responses/terse"]
    assert {name: store.manifest(f"responses/{name}", "demo") for name in others} == others
    assert store.read("responses/terse", "demo").equals(before), (
        "its answers were kept by request, and not paid for again"
    )
    manifest = store.manifest("responses/terse", "demo")
    assert manifest is not None
    assert json.loads(json.dumps(manifest.info))["answered"] == 0
