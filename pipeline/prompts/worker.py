"""The stage's worker: sentence embeddings of candidate prompts, clustered into topics that are named by their words.

Spec: input (URI of a Parquet file in the schema CANDIDATES), embedder, count, seed. Writes `topics.parquet`: prompt_id, topic, topic_name.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.store import read_table, write_table
from pipeline.worker import Log, Progress, Spec, run_worker

BATCH = 128
TOKENS = 128
"""What the embedder reads of a prompt: the length that all-MiniLM-L6-v2 was trained at (its model card)."""
NAME_WORDS = 4
MOST_WORDS = 20_000


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Embed, cluster and name; see the module's description."""
    candidates = read_table(UPath(spec["input"]), ["prompt_id", "turns"])
    if not len(candidates):
        raise ValueError("there are no candidate prompts: look at what was rejected in candidate_prompts, and why")
    texts = pc.binary_join(candidates["turns"], "\n").to_pylist()
    vectors = embed(texts, spec["embedder"], log)
    topics = cluster(vectors, spec["count"], spec["seed"])
    names = topic_names(texts, topics)
    table = pa.table(
        {
            "prompt_id": candidates["prompt_id"],
            "topic": pa.array(topics, pa.int32()),
            "topic_name": pa.array([names[t] for t in topics], pa.string()),
        }
    )
    write_table(table, UPath(spec["out"]) / "topics.parquet")
    return {"topics": len(names), "dimensions": vectors.shape[1]}


def embed(texts: list[str], embedder: str, log: Log) -> npt.NDArray[np.float32]:
    """Unit vectors of texts: shape (len(texts), dimensions). embedder: `package:MODULE`, a hub id, or a folder.

    Of a long text it reads the first 128 tokens.
    """
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(_folder(embedder), trust_remote_code=False)
    model.max_seq_length = TOKENS
    progress = Progress(log, "embedded", len(texts))
    order = np.argsort([len(text) for text in texts], kind="stable")[::-1]  # like lengths together: little padding
    vectors = np.zeros((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    for start in range(0, len(texts), BATCH):
        rows = order[start : start + BATCH]
        vectors[rows] = model.encode(
            [texts[r] for r in rows], batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        progress.update(min(start + BATCH, len(texts)))
    return vectors


def _folder(embedder: str) -> str:
    if not embedder.startswith("package:"):
        return embedder
    package = embedder.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            f"the package {package}, which carries the embedder, is not installed: `make setup` installs it"
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


def cluster(vectors: npt.NDArray[np.float32], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Topic of each vector, 0 up, by mini-batch k-means with `count` clusters, or one for every five vectors where that is fewer.

    Equal for equal vectors, count and seed.
    """
    from sklearn.cluster import MiniBatchKMeans

    k = max(1, min(count, len(vectors) // 5))
    labels = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=4096).fit_predict(vectors)
    return np.unique(labels, return_inverse=True)[1]


def topic_names(texts: list[str], topics: npt.NDArray[np.int64]) -> list[str]:
    """A name a topic: the words that weigh most in it by class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794, section 3.3).

    A word's weight in a topic is its count there times log(1 + A / f), with A the mean number of words a topic and f the word's count in all.
    A word counts once a text: else one prompt that repeats itself names the topic of fifty.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    vectorizer = CountVectorizer(token_pattern=r"(?u)\b[^\W\d_]{3,30}\b", max_features=MOST_WORDS, binary=True)
    # the vectorizer refuses texts without any word: one that is then left out keeps it from that
    counts = vectorizer.fit_transform([f"{text} the" for text in texts])
    words = vectorizer.get_feature_names_out()
    meant = np.array([word not in ENGLISH_STOP_WORDS for word in words])
    counts, words = counts[:, meant], words[meant]
    rows = np.arange(len(texts))
    of_topic = csr_matrix((np.ones(len(texts)), (topics, rows))) @ counts
    frequency = np.asarray(of_topic.sum(axis=0)).ravel()
    weighted = of_topic.multiply(np.log1p(of_topic.sum() / of_topic.shape[0] / frequency)).tocsr()
    names = []
    for topic in range(weighted.shape[0]):
        row = weighted[[topic]]
        best = row.indices[np.lexsort((row.indices, -row.data.round(9)))[:NAME_WORDS]]
        names.append(", ".join(words[best]) or "(no words)")
    return names


if __name__ == "__main__":
    run_worker(work)
