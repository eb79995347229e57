import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pipeline.prompts.worker import NAME_WORDS, cluster, topic_names

VECTORS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


def test_clusters_are_equal_for_equal_vectors_and_numbered_without_gaps() -> None:
    topics = cluster(VECTORS, 12, 4)
    assert (topics == cluster(VECTORS, 12, 4)).all()
    assert sorted(set(topics.tolist())) == list(range(topics.max() + 1))
    assert topics.max() + 1 <= 12


def test_vectors_that_lie_together_are_one_topic() -> None:
    centres = np.eye(4, dtype=np.float32).repeat(25, axis=0)
    topics = cluster(centres + VECTORS[:100, :4] / 100, 4, 1)
    assert len({tuple(topics[k : k + 25]) for k in range(0, 100, 25)}) == 4
    assert all(len(set(topics[k : k + 25])) == 1 for k in range(0, 100, 25))


@pytest.mark.parametrize(("n", "most"), [(1, 1), (4, 1), (10, 2), (60, 12)])
def test_a_topic_has_five_prompts_on_average_at_least(n: int, most: int) -> None:
    assert cluster(VECTORS[:n], 1000, 1).max() + 1 <= most


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
