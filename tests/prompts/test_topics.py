import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from upath import UPath

from pipeline.prompts.schema import CANDIDATES, TOPIC_MAP
from pipeline.prompts.topics import (
    MAP,
    NAME_WORDS,
    Topics,
    Vectors,
    bertopic,
    centres_of,
    find,
    grow,
    k_means,
    moved,
    nearest,
    positions,
    topic_names,
)
from pipeline.prompts.worker import TopicsSpec, work
from pipeline.settings import Topics as TopicSettings
from pipeline.store import DATA, read_table, write_table

SUBJECTS = ("bread and flour", "guitar and chords", "planets and moons", "taxes and income")


def unit(vectors: np.ndarray) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = unit(np.random.default_rng(0).normal(size=(200, 8)))


def groups(sizes: list[int], first: int = 0, dimensions: int = 32, seed: int = 0) -> tuple[list[str], Vectors]:
    """Texts and vectors of groups that lie apart, `first` the number of the first: each about a direction of its own."""
    noise = np.random.default_rng(seed).normal(size=(sum(sizes), dimensions)) / 20
    where = np.repeat(np.arange(first, first + len(sizes)), sizes)
    texts = [f"{SUBJECTS[w % len(SUBJECTS)]} subject{'abcdefgh'[w]}" for w in where]
    return texts, unit(np.eye(dimensions)[where] + noise)


def test_clusters_are_equal_for_equal_vectors_and_numbered_without_gaps() -> None:
    topics = k_means(VECTORS, 12, 4)
    assert (topics == k_means(VECTORS, 12, 4)).all()
    assert sorted(set(topics.tolist())) == list(range(topics.max() + 1))
    assert topics.max() + 1 <= 12


def test_vectors_that_lie_together_are_one_topic() -> None:
    texts, vectors = groups([25] * 4)
    labels, topics = find(texts, vectors, "k_means", 4, 1)
    assert len({tuple(labels[k : k + 25]) for k in range(0, 100, 25)}) == 4
    assert all(len(set(labels[k : k + 25])) == 1 for k in range(0, 100, 25))
    assert all(f"subject{'abcd'[n]}" in topics.names[labels[25 * n]] for n in range(4))


@pytest.mark.parametrize(("n", "most"), [(1, 1), (4, 1), (10, 2), (60, 12)])
def test_a_topic_has_five_prompts_on_average_at_least(n: int, most: int) -> None:
    assert len(find(["text"] * n, VECTORS[:n], "k_means", 1000, 1)[1].names) <= most


def test_bertopic_finds_groups_leaves_no_prompt_out_and_gives_no_more_topics_than_asked_for() -> None:
    texts, vectors = groups([30] * 4, seed=2)
    strays = unit(np.random.default_rng(3).normal(size=(6, 32)))
    texts, vectors = texts + ["neither this nor that"] * 6, np.concatenate([vectors, strays])
    labels = bertopic(texts, vectors, 4, 1)
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3]
    assert all(len(set(labels[k : k + 30].tolist())) == 1 for k in range(0, 120, 30))
    assert (labels == bertopic(texts, vectors, 4, 1)).all()
    assert bertopic(texts, vectors, 2, 1).max() + 1 <= 2
    for few in (3, 7, 12):
        assert bertopic(texts[:few], vectors[:few], 2, 1).shape == (few,)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 99))
def test_the_nearest_centre_is_that_of_a_plain_search(n: int, k: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    vectors, centres = unit(draws.normal(size=(n, 5))), unit(draws.normal(size=(k, 5)))
    found, near = nearest(vectors, centres)
    for vector, label, cosine in zip(vectors, found, near, strict=True):
        cosines = [sum(float(a) * float(b) for a, b in zip(vector, centre, strict=True)) for centre in centres]
        assert cosines[label] == pytest.approx(max(cosines), abs=1e-5)
        assert cosine == pytest.approx(max(cosines), abs=1e-5)


def test_new_prompts_of_old_subjects_get_old_topics_and_no_topic_is_added_moved_or_renamed() -> None:
    texts, vectors = groups([40] * 4)
    labels, topics = find(texts, vectors, "k_means", 4, 1)
    more_texts, more = groups([10] * 4, seed=9)
    after, grown, figures = grow(
        topics, texts + more_texts, np.concatenate([vectors, more]), np.concatenate([labels, np.full(40, -1)]), 1
    )
    assert (after[:160] == labels).all()
    assert after[160:].tolist() == [labels[40 * n] for n in range(4) for _ in range(10)]
    assert grown.names == topics.names
    assert (grown.centres == topics.centres).all()
    assert figures["topics added"] == 0


def test_many_prompts_of_a_new_subject_become_a_topic_of_their_own_and_a_few_do_not() -> None:
    texts, vectors = groups([40] * 4)
    labels, topics = find(texts, vectors, "k_means", 4, 1)
    for many, added in ((30, 1), (4, 0)):
        new_texts, new = groups([many], first=5, seed=7)
        after, grown, figures = grow(
            topics, texts + new_texts, np.concatenate([vectors, new]), np.concatenate([labels, np.full(many, -1)]), 1
        )
        assert (after[:160] == labels).all()
        assert figures == {"new prompts": many, "new prompts that fit no topic": many, "topics added": added}
        assert grown.names[:4] == topics.names
        assert len(grown.names) == len(grown.centres) == 4 + added
        if added:
            assert set(after[160:]) == {4}
            assert "subjectf" in grown.names[4]
    # what grew is found again by what it published
    again = Topics.of_table(grown.table(after))
    assert again.names == grown.names
    assert (again.centres == grown.centres).all()
    assert again.fits_from == pytest.approx(grown.fits_from)


def test_a_topic_without_prompts_stays_with_its_number_and_name() -> None:
    texts, vectors = groups([40] * 4)
    labels, topics = find(texts, vectors, "k_means", 4, 1)
    left = labels != labels[0]
    kept = [t for t, inside in zip(texts, left, strict=True) if inside]
    after, grown, _ = grow(topics, kept, vectors[left], labels[left], 1)
    table = grown.table(after)
    assert table.schema == TOPIC_MAP
    assert table["topic_name"].to_pylist() == list(topics.names)
    assert table["prompts"][labels[0]].as_py() == 0


def test_prompts_that_moved_are_counted() -> None:
    before = pa.table({"prompt_id": ["a", "b", "c"], "topic": pa.array([1, 2, 3], pa.int32())})
    after = pa.table({"prompt_id": ["d", "c", "b"], "topic": pa.array([9, 3, 5], pa.int32())})
    assert moved(before, after) == 1
    assert moved(before, before) == 0
    assert moved(before.slice(0, 0), after) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_every_topic_has_a_place_on_the_map(n: int) -> None:
    places = positions(VECTORS[:n], 1)
    assert places.shape == (n, 2)
    assert np.isfinite(places).all()


def test_the_centre_of_a_cluster_is_the_direction_of_its_mean() -> None:
    vectors = unit(np.array([[1.0, 0], [0, 1], [1, 1], [-1, 0]]))
    assert centres_of(vectors, np.array([0, 0, 1, 1])) == pytest.approx(
        unit(np.array([[1.0, 1], [np.sqrt(0.5) - 1, np.sqrt(0.5)]])), abs=1e-6
    )


def worked(
    folder: Path, turns: list[list[str]], earlier: str | None, out: str, weights: str | None = None
) -> dict[str, Any]:
    """The worker's figures over prompts."""
    (folder / out).mkdir(parents=True)
    rows = [{"prompt_id": t[-1], "turns": t, "n_turns": len(t)} for t in turns]
    write_table(pa.Table.from_pylist(rows, schema=CANDIDATES), UPath(folder / f"{out}.parquet"))
    spec = TopicsSpec(
        input=UPath(folder / f"{out}.parquet"),
        work=UPath(folder / "work"),
        earlier=earlier,
        weights=weights,
        topics=TopicSettings(method="k_means", count=3),
        seed=1,
        out=UPath(folder / out),
    )
    return work(spec, print)


@pytest.mark.engine
def test_a_refresh_embeds_what_is_new_alone_and_keeps_the_topics_that_are_published(tmp_path: Path) -> None:
    about = ["Which flour do I need to bake bread on day {}?", "Which guitar chords do I learn on day {}?",
             "Which planets can I see with a telescope on day {}?"]  # fmt: skip
    first = [[text.format(n)] for n in range(10) for text in about]
    figures = worked(tmp_path, first, None, "one")
    assert (figures["topics"], figures["embedded anew"]) == (3, 30)
    weights = figures["embedder's weights"]
    before = read_table(UPath(tmp_path / "one" / "topics.parquet"))
    published = UPath(tmp_path / "published")
    published.mkdir()
    write_table(before, published / DATA)
    write_table(read_table(UPath(tmp_path / "one" / MAP)), published / MAP)
    tax = [[f"How is income from abroad taxed, and which form is needed, question {n}?"] for n in range(12)]
    more = [["Hello", text.format(n)] for n in range(20, 24) for text in about]
    figures = worked(tmp_path, tax + more + first[6:], str(published), "two", weights)
    assert figures["embedded anew"] == 24
    assert figures["topics added"] == 1
    after = read_table(UPath(tmp_path / "two" / "topics.parquet"))
    assert moved(before, after) == 0
    topics = dict(zip(after["prompt_id"].to_pylist(), after["topic"].to_pylist(), strict=True))
    assert {topics[t[-1]] for t in tax} == {3}
    old = dict(zip(before["prompt_id"].to_pylist(), before["topic"].to_pylist(), strict=True))
    assert [topics[t[-1]] for t in more] == [old[text.format(1)] for _ in range(4) for text in about]
    again = worked(tmp_path, tax + more + first[6:], str(published), "three", weights)
    assert again["embedded anew"] == 0
    assert read_table(UPath(tmp_path / "three" / "topics.parquet")) == after
    with pytest.raises(ValueError, match="are not those that the published topics were found with"):
        worked(tmp_path, first, str(published), "four", "of another embedder")


def test_a_topic_is_named_by_words_of_its_own() -> None:
    texts = [
        "bake bread with flour please",
        "bread and flour recipe please",
        "guitar chords please",
        "guitar and piano please",
    ]
    bread, music = topic_names(texts, np.array([0, 0, 1, 1]))
    assert bread.startswith("bread, flour")
    assert music.startswith("guitar")
    assert "please" not in (bread + music).split(", ")[:2]


def test_a_topic_without_words_says_so() -> None:
    assert topic_names(["1 + 1 = 2", "the of and", "bread"], np.array([0, 1, 2])) == [
        "(no words)",
        "(no words)",
        "bread",
    ]


words = st.sampled_from("apple river stone cloud violin the of 42 amber".split())
prompts = st.lists(st.tuples(st.integers(0, 2), st.lists(words, max_size=8)), min_size=1, max_size=10)


@settings(max_examples=80, deadline=None)
@given(prompts)
def test_names_are_those_of_class_based_tf_idf_by_its_formula(prompts: list[tuple[int, list[str]]]) -> None:
    topics = np.unique([topic for topic, _ in prompts], return_inverse=True)[1]
    bags: list[list[str]] = [[] for _ in range(topics.max() + 1)]
    for topic, (_, text) in zip(topics, prompts, strict=True):
        bags[topic] += {w for w in text if re.fullmatch("[a-z]{3,30}", w) and w not in ENGLISH_STOP_WORDS}
    everything = [w for bag in bags for w in bag]
    mean_words = len(everything) / len(bags)
    expected = []
    for bag in bags:
        weight = {w: bag.count(w) * np.log(1 + mean_words / everything.count(w)) for w in set(bag)}
        best = sorted(weight, key=lambda w: (-round(weight[w], 9), w))[:NAME_WORDS]
        expected.append(", ".join(best) or "(no words)")
    assert topic_names([" ".join(text) for _, text in prompts], topics) == expected


def test_a_prompt_that_repeats_a_word_does_not_name_its_topic() -> None:
    texts = ["golfer " * 90 + "story", "story of a dragon", "story of a ship", "recipe for soup"]
    assert topic_names(texts, np.array([0, 0, 0, 1]))[0].startswith("story")
