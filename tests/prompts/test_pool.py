import json
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from assets import prompts
from pipeline.prompts.pool import REJECTED_FILE, benchmark_prompts, describe, within_pool, write_candidates
from pipeline.prompts.schema import CANDIDATES, REJECTED
from pipeline.settings import Decontamination, FilesSource, PromptFilters, Prompts, Sample, load_profile
from pipeline.store import DATA, Store, read_batches, read_table
from pipeline.texts.decontamination import overlaps
from pipeline.texts.personal_data import KINDS
from resources.storage import Storage
from tests.prompts.planted import planted
from tests.prompts.test_filters import pool

SUPPLY = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40), min_size=1)
WEIGHTS = st.fixed_dictionaries({name: st.sampled_from([0.5, 1.0, 2.0, 3.0]) for name in "abcd"})


def rows(supply: dict[str, int]) -> tuple[list[str], list[str]]:
    return [f"{s}{n}" for s, k in supply.items() for n in range(k)], [s for s, k in supply.items() for _ in range(k)]


@given(SUPPLY, WEIGHTS, st.integers(0, 100))
def test_sources_give_to_the_pool_by_weight_as_far_as_they_go(
    supply: dict[str, int], weights: dict[str, float], size: int
) -> None:
    ids, sources = rows(supply)
    inside = within_pool(ids, sources, weights, size, 1)
    assert inside.sum() == min(size, len(ids))
    given = Counter(s for s, taken in zip(sources, inside, strict=True) if taken)
    for a in supply:  # no place could go to another source and be claimed with more right
        for b in supply:
            if given[a] < supply[a] and given[b]:
                assert (given[a] + 0.5) / weights[a] >= (given[b] - 0.5) / weights[b]


@given(SUPPLY, WEIGHTS, st.integers(0, 60))
def test_a_larger_pool_or_fewer_sources_only_add_to_what_a_source_gives(
    supply: dict[str, int], weights: dict[str, float], size: int
) -> None:
    def of_a(supply: dict[str, int], size: int) -> set[str]:
        ids, sources = rows(supply)
        taken = within_pool(ids, sources, weights, size, 1)
        return {i for i, s, t in zip(ids, sources, taken, strict=True) if t and s == "a"}

    assert of_a(supply, size) <= of_a(supply, size + 1)
    assert of_a(supply, size) <= of_a({name: k for name, k in supply.items() if name in "ab"}, size)


def test_a_pool_of_100_from_weights_3_and_1_has_75_and_25() -> None:
    ids, sources = rows({"a": 500, "b": 500})
    inside = within_pool(ids, sources, {"a": 3.0, "b": 1.0}, 100, 1)
    assert Counter(s for s, taken in zip(sources, inside, strict=True) if taken) == {"a": 75, "b": 25}
    assert inside.tolist() != within_pool(ids, sources, {"a": 3.0, "b": 1.0}, 100, 2).tolist()


ABOUT = "bread boats bells birds bricks bees beans boots books bikes"


def wanted(size: int | None = None, **filters: Any) -> Prompts:
    sources = {n: FilesSource(kind="files", path="x", licence="MIT", weight=w) for n, w in (("ours", 3), ("b", 1))}
    return Prompts(sources=sources, pool=size, filters=PromptFilters(**filters), sample=Sample(prompts=2))


def two_sources() -> pa.Table:
    ask = "Which {} should I look for at the market in the old town of {}?"
    texts = [[ask.format(thing, place)] for thing in ABOUT.split() for place in ("Porto", "Riga")]
    return pa.concat_tables(
        [pool(*texts), pool(*([t[0].replace("market", "harbour fair")] for t in texts), source="b")]
    )


def write(folder: Path, conversations: pa.Table, profile: Prompts) -> tuple[Any, pa.Table, pa.Table]:
    place = UPath(folder)
    made = write_candidates(conversations.to_batches(), profile, 1, {}, Decontamination(), place)
    return made, read_table(place / DATA), read_table(place / REJECTED_FILE)


def test_what_is_over_the_pool_is_rejected_and_every_conversation_is_accounted_for(tmp_path: Path) -> None:
    made, kept, rejected = write(tmp_path, two_sources(), wanted(12, near_duplicates=None))
    assert (kept.schema, rejected.schema) == (CANDIDATES, REJECTED)
    assert Counter(kept["source"].to_pylist()) == {"ours": 9, "b": 3}
    assert (made.conversations, made.kept, made.rejected) == (40, 12, {"over_pool": 28})
    assert len(made.samples) == 2
    assert sorted(kept["conversation_id"].to_pylist() + rejected["conversation_id"].to_pylist()) == sorted(
        two_sources()["conversation_id"].to_pylist()
    )


def test_conversations_of_a_source_that_the_profile_has_no_more_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"those of gone \(MIT\), which .* materialize `conversations` again"):
        write(tmp_path, pool(["Which bread keeps longest in a tin?"], source="gone"), wanted())
    other = wanted().model_copy(
        update={"sources": {n: s.model_copy(update={"licence": "CC0"}) for n, s in wanted().sources.items()}}
    )
    with pytest.raises(ValueError, match=r"\(MIT\).* under another licence: materialize `conversations` again"):
        write(tmp_path, two_sources(), other)
    with pytest.raises(ValueError, match="another version of the project: materialize `conversations` again"):
        write(tmp_path, two_sources().drop_columns("flags"), wanted())


def test_without_a_limit_a_further_source_leaves_all_earlier_candidates(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    alone = write(tmp_path / "one", two_sources().slice(0, 20), wanted())[1]
    both = write(tmp_path, two_sources(), wanted())[1]
    assert both.slice(0, len(alone)).equals(alone)
    assert len(both) > len(alone)


def test_a_table_of_conversations_is_described_with_its_samples_masked() -> None:
    shape = describe(pool(["Mail a.b@posteo.de please"], ["One", "Two"]).to_batches())
    assert (shape.roles, shape.lengths.tolist(), shape.flags) == ({"user"}, [1, 2], {})
    assert shape.samples["turns"].to_pylist() == [["Mail <EMAIL_ADDRESS> please"], ["One", "Two"]]


def test_benchmark_prompts_are_read_turn_by_turn_and_a_record_without_text_is_refused(tmp_path: Path) -> None:
    records = [
        {"turns": ["One?", "Two?"]},
        {"turns": [{"content": "Three?"}]},
        {"prompt": "Four?"},
        {"question": "Five?"},
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = benchmark_prompts({"b": str(tmp_path / "b.jsonl")})
    assert found["b"].to_pylist() == ["One?", "Two?", "Three?", "Four?", "Five?"]
    for bad in ('{"text": "x"}', '{"turns": [1]}', '{"turns": []}', "{broken", '{"turns": "letters"}', '["no object"]'):
        (tmp_path / "c.jsonl").write_text(f'{bad}\n{{"prompt": "x"}}\n')
        with pytest.raises(ValueError, match=r"c\.jsonl, record 1: "):
            benchmark_prompts({"c": str(tmp_path / "c.jsonl")})


def test_every_prompt_of_a_benchmark_planted_in_a_source_is_found(tmp_path: Path) -> None:
    places = "Lisbon Riga Turku Lima Oslo Cairo Delhi Quito Sofia Tunis".split()
    visits = [
        [f"Plan a visit to {p} for a family of five.", f"Now leave out whatever in {p} costs more than ten euros."]
        for p in places
    ]
    (tmp_path / "visits.jsonl").write_text("".join(json.dumps({"turns": turns}) + "\n" for turns in visits))
    essays = [
        *(f"Write an essay on the history of {p}, in which no sentence has a comma." for p in places),
        "Wer hat den Dom von Riga gebaut?",
    ]
    (tmp_path / "essays.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in essays))
    against = benchmark_prompts({name: str(tmp_path / f"{name}.jsonl") for name in ("visits", "essays")})
    texts = [text for prompts in against.values() for text in prompts.to_pylist()]
    wide = wanted(
        None,
        drop_code=False,
        drop_identity=False,
        personal_data="flag",
        max_characters=10**6,
        min_characters=1,
        language_floor=0,
    )
    made = write_candidates(
        pool(*([t] for t in texts)).to_batches(), wide, 1, against, Decontamination(), UPath(tmp_path)
    )
    assert made.kept == 0
    assert made.rejected == {"language": 1, "benchmark visits": 20, "benchmark essays": 10}
    found = overlaps(pa.array(texts), against, Decontamination())
    assert pc.unique(found["prompt"]).to_pylist() == list(range(len(texts)))


PLACES = "Porto Riga Turku Lima Oslo Cairo Delhi Quito Sofia Tunis Dakar Hanoi Seoul Perth Paris Turin Malmo Basel Leeds Cork Bern Graz Brno"
SECRET = "ZEBRA-ANSWER-OF-AN-ASSISTANT"


@pytest.mark.parametrize("action", ["drop", "mask"])
def test_nothing_published_has_an_assistants_words_or_personal_data_that_was_found(tmp_path: Path, action: str) -> None:
    texts = {kind: planted(kind, 100, seed=11) for kind in KINDS}
    items = [item for found in texts.values() for _, item in found]
    asked = [f"{text} Please help me to write it in a friendly way." for found in texts.values() for text, _ in found]
    asked += [f"Tell me about the history of {place}, in three short paragraphs." for place in PLACES.split()]
    turns = [[{"role": "user", "content": t}, {"role": "assistant", "content": SECRET}] for t in asked]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"conversation": t}) + "\n" for t in turns))
    own = Prompts(
        sources={"a": FilesSource(kind="files", path=str(tmp_path / "a.jsonl"), licence="MIT")},
        filters=PromptFilters(personal_data=action, near_duplicates=None),
        sample=Sample(prompts=2),
    )
    profile = load_profile("tiny").model_copy(update={"prompts": own})
    store = Store(str(tmp_path / "store"))
    result = dg.materialize(
        [a for a in prompts.build(profile) if a.key.path[-1] in ("conversations", "candidate_prompts")],
        instance=dg.DagsterInstance.ephemeral(),
        resources={"storage": Storage(uri=store.uri)},
    )
    events = result.get_asset_materialization_events() + result.get_asset_check_evaluations()
    folders = {key: store.path(key) for key in ("conversations", "candidate_prompts")}
    published = {
        key: [str(pq.read_table(f).to_pylist()) for f in sorted(Path(str(d)).glob("*.parquet"))]
        for key, d in folders.items()
    }
    assert SECRET not in str(published) + str(events)
    shown = str(published["candidate_prompts"]) + str(events)
    left = [item for item in items if item in shown]
    assert len(left) <= 0.02 * len(items)  # those that the rules miss; see measurements/filters.py
    found = Counter(
        f
        for row in read_batches(folders["candidate_prompts"] / REJECTED_FILE)
        for flags in row["flags"].to_pylist()
        for f in flags
    )
    found += Counter(
        f
        for row in read_batches(folders["candidate_prompts"] / DATA)
        for flags in row["flags"].to_pylist()
        for f in flags
    )
    assert all(found[kind] >= 97 for kind in KINDS)
