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
import pyarrow.parquet as pq
from upath import UPath

from pipeline.store import write_table
from pipeline.worker import Log, Progress, Spec, run_worker

BATCH = 128
NAME_WORDS = 4


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Embed, cluster and name; see the module's description."""
    with UPath(spec["input"]).open("rb") as file:
        candidates = pq.read_table(file, columns=["prompt_id", "turns"])
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
    """Unit vectors of texts: shape (len(texts), dimensions). embedder: `package:MODULE`, a hub id, or a folder."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(_folder(embedder), trust_remote_code=False)
    progress = Progress(log, "embedded", len(texts))
    order = np.argsort([len(text) for text in texts], kind="stable")[::-1]  # like lengths together: little padding
    vectors = np.zeros((len(texts), model.get_sentence_embedding_dimension() or 0), dtype=np.float32)
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
    """Topic of each vector, 0 up, by mini-batch k-means with `count` clusters, or one for every five vectors where that is fewer."""
    from sklearn.cluster import MiniBatchKMeans

    k = max(1, min(count, len(vectors) // 5))
    labels = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=4096).fit_predict(vectors)
    return np.unique(labels, return_inverse=True)[1]


def topic_names(texts: list[str], topics: npt.NDArray[np.int64]) -> list[str]:
    """A name a topic: the words that are frequent in it and rare in the others (class-based TF-IDF, Grootendorst 2022, equation 2)."""
    from sklearn.feature_extraction.text import CountVectorizer

    documents = [""] * (int(topics.max()) + 1)
    for topic in range(len(documents)):
        documents[topic] = " ".join(texts[row] for row in np.flatnonzero(topics == topic))
    vectorizer = CountVectorizer(stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{3,30}\b", max_features=20_000)
    counts = vectorizer.fit_transform(documents).tocsr().astype(np.float64)
    words = vectorizer.get_feature_names_out()
    frequency = np.asarray(counts.sum(axis=0)).ravel()
    weighted = counts.multiply(np.log1p(counts.sum() / counts.shape[0] / frequency)).tocsr()
    names = []
    for topic in range(weighted.shape[0]):
        row = weighted.getrow(topic)
        best = np.lexsort((row.indices, -row.data))[:NAME_WORDS]
        names.append(", ".join(words[row.indices[best]]) or "(no words)")
    return names


if __name__ == "__main__":
    run_worker(work)
