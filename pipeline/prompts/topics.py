"""Topics of prompts: clusters of sentence embeddings, named by their words, that keep their ids and names while the pool grows.

A topic has a centre, the mean direction of the prompts that it was found in. What is published of topics is their centres and names, as a table:
nothing is pickled, and new candidates find their topic without the model that found it.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prompts.schema import TOPIC_MAP

Vectors = npt.NDArray[np.float32]
TopicIds = npt.NDArray[np.int64]
Method = Literal["bertopic", "k_means"]

MAP = "map.parquet"
"""File name of the topics' table, beside the prompts'."""
NAME_WORDS = 4
MOST_WORDS = 20_000
PROMPTS_A_TOPIC = 5
"""Fewest prompts a topic on average: a smaller pool has fewer topics than were asked for."""
FIT_QUANTILE = 0.05
"""A new candidate fits a topic where it is as near to its centre as all but this share of the pool that topics were found in is to theirs."""
NEIGHBOURS, DIMENSIONS = 5, 5
"""UMAP's. BERTopic has 15 and 5; many small topics need fewer neighbours: of 5, 10 and 15, against human topics, 5 did best, which is where
they were chosen (measurements/topics.py)."""
CHUNK = 8192
"""Prompts that are compared with all centres at a time."""


@dataclass(frozen=True)
class Topics:
    """Topics 0 up. names: one each; centres: unit vectors, shape (topics, dimensions); fits_from: least cosine to a centre of what fits."""

    names: tuple[str, ...]
    centres: Vectors
    fits_from: float

    @classmethod
    def of_table(cls, table: pa.Table) -> Self:
        """Topics of a table in the schema TOPIC_MAP."""
        table = table.sort_by("topic")
        centres = np.stack(table["centre"].to_numpy(zero_copy_only=False))
        return cls(tuple(table["topic_name"].to_pylist()), centres, float(table["fits_from"][0].as_py()))

    def table(self, labels: TopicIds) -> pa.Table:
        """The table of these topics, in the schema TOPIC_MAP; labels: topics of the prompts that are there now."""
        columns = {
            "topic": range(len(self.names)),
            "topic_name": self.names,
            "prompts": np.bincount(labels, minlength=len(self.names)),
            "fits_from": np.full(len(self.names), self.fits_from),
            "centre": list(self.centres),
        }
        return pa.table({name: pa.array(columns[name], TOPIC_MAP.field(name).type) for name in TOPIC_MAP.names})


def find(texts: list[str], vectors: Vectors, method: Method, count: int, seed: int) -> tuple[TopicIds, Topics]:
    """Topic of each text, and the topics: about `count`, or one for every five texts where that is fewer.

    vectors: unit vectors of the texts. Equal for equal arguments on one machine.
    """
    wanted = max(1, min(count, len(texts) // PROMPTS_A_TOPIC))
    labels = k_means(vectors, wanted, seed) if method == "k_means" else bertopic(texts, vectors, wanted, seed)
    centres = centres_of(vectors, labels)
    near = (vectors * centres[labels]).sum(axis=1)
    return labels, Topics(tuple(topic_names(texts, labels)), centres, float(np.quantile(near, FIT_QUANTILE)))


class Grown(NamedTuple):
    """The topic of each text, the topics with those that were added, and figures."""

    labels: TopicIds
    topics: Topics
    figures: dict[str, int]


def grow(topics: Topics, texts: list[str], vectors: Vectors, labels: TopicIds, seed: int) -> Grown:
    """Give the texts that have no topic yet (label -1) one.

    A new text goes to the topic with the nearest centre. Where many don't fit any, topics are added: those that don't fit are clustered
    among themselves, into one cluster for as many texts as a topic has now on average; a cluster is a new topic where at least half of that
    number, and at least five, fit its own centre. The other ones stay with the nearest. No topic is renamed, and no text that has one moves.
    """
    new = np.flatnonzero(labels < 0)
    size = max(PROMPTS_A_TOPIC, round((len(labels) - len(new)) / len(topics.names)))
    found, near = nearest(vectors[new], topics.centres)
    labels = labels.copy()
    labels[new] = found
    strange = new[near < topics.fits_from]
    centres, added = [topics.centres], 0
    if len(strange) >= PROMPTS_A_TOPIC:
        clusters = k_means(vectors[strange], max(1, len(strange) // size), seed)
        for cluster, centre in enumerate(centres_of(vectors[strange], clusters)):
            members = strange[clusters == cluster]
            if (vectors[members] @ centre >= topics.fits_from).sum() >= max(PROMPTS_A_TOPIC, size / 2):
                labels[members] = len(topics.names) + added
                centres.append(centre[None])
                added += 1
    names = list(topics.names)
    if added:
        names += topic_names(texts, labels, len(names) + added)[len(names) :]
    figures = {"new prompts": len(new), "new prompts that fit no topic": len(strange), "topics added": added}
    return Grown(labels, Topics(tuple(names), np.concatenate(centres), topics.fits_from), figures)


def k_means(vectors: Vectors, count: int, seed: int) -> TopicIds:
    """Cluster of each vector, 0 up, by k-means with `count` clusters."""
    from sklearn.cluster import KMeans

    labels = KMeans(count, random_state=seed, n_init=1).fit_predict(vectors)
    return np.unique(labels, return_inverse=True)[1]


def bertopic(texts: list[str], vectors: Vectors, count: int, seed: int) -> TopicIds:
    """Topic of each text, 0 up, by BERTopic (Grootendorst 2022, arXiv 2203.05794): UMAP, then HDBSCAN's leaves; at most `count`.

    The least size of a cluster is a quarter of the mean that `count` topics would have; where that gives more topics than `count`, BERTopic
    merges the most alike. What HDBSCAN leaves out goes to the topic with the nearest centre. A seed keeps UMAP to one thread. Where there are
    no more texts than UMAP has dimensions, they are clustered by k-means.
    """
    from bertopic import BERTopic
    from hdbscan import HDBSCAN
    from sklearn.feature_extraction.text import CountVectorizer
    from umap import UMAP

    if len(texts) <= DIMENSIONS + 1:
        return k_means(vectors, count, seed)
    least = max(2, round(len(texts) / count / 4))
    model = BERTopic(
        umap_model=UMAP(
            n_neighbors=NEIGHBOURS,
            n_components=DIMENSIONS,
            min_dist=0.0,
            metric="cosine",
            random_state=seed,
            n_jobs=1,
        ),
        hdbscan_model=HDBSCAN(min_cluster_size=least, min_samples=1, cluster_selection_method="leaf"),
        vectorizer_model=CountVectorizer(token_pattern=WORD, max_features=MOST_WORDS),
    )
    documents = [f"{text} the" for text in texts]  # none without a word: the vectorizer refuses a topic of such
    labels = np.asarray(model.fit_transform(documents, embeddings=vectors)[0])
    outliers = bool((labels < 0).any())
    if labels.max() + 1 > count:
        labels = np.asarray(model.reduce_topics(documents, nr_topics=count + outliers).topics_)
    if labels.max() < 0:
        return np.zeros(len(texts), dtype=np.int64)
    inside = labels >= 0
    labels[~inside] = nearest(vectors[~inside], centres_of(vectors[inside], labels[inside]))[0]
    return np.unique(labels, return_inverse=True)[1]


def centres_of(vectors: Vectors, labels: TopicIds) -> Vectors:
    """Mean direction of each cluster's vectors: unit vectors, shape (clusters, dimensions)."""
    sums = np.zeros((int(labels.max()) + 1, vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    centres: Vectors = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    return centres


def nearest(vectors: Vectors, centres: Vectors) -> tuple[TopicIds, Vectors]:
    """Index of the nearest centre of each unit vector, and the cosine to it."""
    labels, near = np.zeros(len(vectors), dtype=np.int64), np.zeros(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), CHUNK):
        cosines = vectors[start : start + CHUNK] @ centres.T
        labels[start : start + CHUNK], near[start : start + CHUNK] = cosines.argmax(axis=1), cosines.max(axis=1)
    return labels, near


WORD = r"(?u)\b[^\W\d_]{3,30}\b"


def topic_names(texts: list[str], topics: TopicIds, count: int | None = None) -> list[str]:
    """A name a topic, of `count` or as many as are in use: the words that weigh most in it by class-based TF-IDF (arXiv 2203.05794, section 3.3).

    A word's weight in a topic is its count there times log(1 + A / f), with A the mean number of words a topic and f the word's count in all.
    A word counts once a text: else one prompt that repeats itself names the topic of fifty.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    vectorizer = CountVectorizer(token_pattern=WORD, max_features=MOST_WORDS, binary=True)
    # the vectorizer refuses texts without any word: one that is left out below keeps it from that
    counts = vectorizer.fit_transform([f"{text} the" for text in texts])
    words = vectorizer.get_feature_names_out()
    meant = np.array([word not in ENGLISH_STOP_WORDS for word in words])
    counts, words = counts[:, meant], words[meant]
    rows, shape = np.arange(len(texts)), (count or int(topics.max()) + 1, len(texts))
    of_topic = csr_matrix((np.ones(len(texts)), (topics, rows)), shape) @ counts
    frequency = np.asarray(of_topic.sum(axis=0)).ravel()
    weighted = of_topic.multiply(np.log1p(of_topic.sum() / of_topic.shape[0] / frequency)).tocsr()
    names = []
    for topic in range(weighted.shape[0]):
        row = weighted[[topic]]
        best = row.indices[np.lexsort((row.indices, -row.data.round(9)))[:NAME_WORDS]]
        names.append(", ".join(words[best]) or "(no words)")
    return names


def positions(centres: Vectors, seed: int) -> npt.NDArray[np.float64]:
    """Places of topics on a plane, near where their centres are alike (t-SNE): shape (topics, 2). One topic stands at the origin."""
    from sklearn.manifold import TSNE

    if len(centres) == 1:
        return np.zeros((1, 2))
    perplexity = min(30.0, (len(centres) - 1) / 3)
    method = "exact" if len(centres) <= 300 else "barnes_hut"  # whichever is faster
    tsne = TSNE(2, perplexity=perplexity, metric="cosine", init="random", method=method, random_state=seed)
    places = tsne.fit_transform(centres)
    return np.asarray(places, dtype=np.float64)


def with_topics(candidates: pa.Table, topics: pa.Table) -> pa.Table:
    """Candidates with the columns topic and topic_name. topics: prompt_id, topic, topic_name of all of them, in any order."""
    at = pc.index_in(candidates["prompt_id"], topics["prompt_id"].combine_chunks())
    for name in ("topic", "topic_name"):
        candidates = candidates.append_column(name, topics[name].take(at))
    return candidates


def moved(before: pa.Table, after: pa.Table) -> int:
    """How many prompts of one table with prompt_id and topic have another topic in a later one."""
    at = pc.index_in(after["prompt_id"], before["prompt_id"].combine_chunks())
    earlier: Any = before["topic"].take(at)
    return pc.sum(pc.fill_null(pc.not_equal(earlier, after["topic"]), False)).as_py() or 0
