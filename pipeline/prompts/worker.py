"""The stage's worker: sentence embeddings of candidate prompts, and the topic of each.

Writes `topics.parquet`: prompt_id, topic, topic_name, and `map.parquet`, the topics in the schema TOPIC_MAP.
"""

import hashlib
import importlib.util
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from upath import UPath

from pipeline.prompts.topics import MAP, Topics, find, grow, positions
from pipeline.settings import Topics as TopicSettings
from pipeline.store import DATA, read_table, write_table
from pipeline.worker import Figures, Log, Progress, Spec, Uri, run_worker

BATCH = 128
TOKENS = 128
"""What the embedder reads of a prompt: the length that all-MiniLM-L6-v2 was trained at (its model card)."""
SHARD = 4096
"""Embeddings that are written at a time: what a killed worker can lose."""


class TopicsSpec(Spec):
    """The topics of a pool."""

    worker = "pipeline.prompts.worker"
    input: Uri = Field(description="Parquet file of candidate prompts, in the schema CANDIDATES")
    work: Uri = Field(description="folder that keeps embeddings from run to run")
    earlier: Uri | None = Field(None, description="folder of the published topics that are to be kept")
    weights: str | None = Field(
        None, description="hash of the embedder's weights that the published topics were found with"
    )
    topics: TopicSettings
    seed: int


def work(spec: TopicsSpec, log: Log) -> Figures:
    """Embed, find topics or keep to those that there are; see the module's description."""
    candidates, wanted = read_table(spec.input, ["prompt_id", "turns"]), spec.topics
    if not len(candidates):
        raise ValueError("there are no candidate prompts; candidate_prompts says which were rejected, and why")
    texts = pc.binary_join(candidates["turns"], "\n").to_pylist()
    embedded = embeddings(texts, wanted.embedder, spec.work, log)
    vectors = embedded.vectors
    if spec.earlier:
        if embedded.weights != spec.weights:
            raise ValueError(
                f"topics.embedder: the weights of {wanted.embedder} are not those that the published topics were found with, so that "
                "new prompts can't be compared with them: bring the old weights back, or change topics.count to find topics anew"
            )
        known = read_table(spec.earlier / DATA, ["prompt_id", "topic"])
        at = pc.index_in(candidates["prompt_id"], known["prompt_id"].combine_chunks())
        labels = np.asarray(pc.fill_null(known["topic"].take(at), -1), dtype=np.int64)
        labels, topics, figures = grow(
            Topics.of_table(read_table(spec.earlier / MAP)), texts, vectors, labels, spec.seed
        )
    else:
        labels, topics = find(texts, vectors, wanted.method, wanted.count, spec.seed)
        figures = {"new prompts": len(texts)}
    table = pa.table(
        {
            "prompt_id": candidates["prompt_id"],
            "topic": pa.array(labels, pa.int32()),
            "topic_name": pa.array(topics.names, pa.string()).take(pa.array(labels)),
        }
    )
    write_table(table, spec.out / "topics.parquet")
    write_table(topics.table(labels), spec.out / MAP)
    return {
        "topics": len(topics.names),
        "dimensions": vectors.shape[1],
        "embedder's weights": embedded.weights,
        "embedded anew": embedded.new,
        **figures,
        "map": positions(topics.centres, spec.seed).round(3).tolist(),
    }


class Embedded(NamedTuple):
    """Unit vectors of texts, shape (texts, dimensions), how many texts had to be embedded, and a hash of the embedder's weights."""

    vectors: npt.NDArray[np.float32]
    new: int
    weights: str


def embeddings(texts: list[str], embedder: str, work: UPath, log: Log) -> Embedded:
    """Vectors of texts.

    embedder: `package:MODULE`, a hub id, or a folder. Vectors are kept in `work` by a hash of the text, in a folder by a hash of the
    embedder's weights, as 16-bit numbers; all are read as such, so that a text has the same vector whether it was kept or not.
    """
    from sentence_transformers import SentenceTransformer

    safe = {"use_safetensors": True}
    model = SentenceTransformer(_folder(embedder), trust_remote_code=False, model_kwargs=safe)
    model.max_seq_length = TOKENS
    weights = _fingerprint(model)
    folder = work / f"embeddings-{weights}"
    folder.mkdir(parents=True, exist_ok=True)
    keys = pa.array([hashlib.sha256(text.encode()).digest() for text in texts], pa.binary())
    unique = pc.unique(keys)
    rows = pc.index_in(keys, unique).to_numpy()
    vectors = np.zeros((len(unique), model.get_embedding_dimension()), dtype=np.float16)
    missing = np.ones(len(unique), dtype=bool)
    for shard in sorted(folder.glob("*.parquet")):
        kept = read_table(shard)
        at = pc.fill_null(pc.index_in(kept["key"], unique), -1).to_numpy()
        vectors[at[at >= 0]] = _matrix(kept["vector"], vectors.shape[1])[at >= 0]
        missing[at[at >= 0]] = False
    stands = np.unique(rows, return_index=True)[1]  # a row of each unique text
    new = np.flatnonzero(missing)
    new = new[
        np.argsort([-len(texts[row]) for row in stands[new]], kind="stable")
    ]  # like lengths together: little padding
    progress = Progress(log, "prompts embedded", len(new))
    for start in range(0, len(new), SHARD):
        shard_rows = new[start : start + SHARD]
        for begin in range(0, len(shard_rows), BATCH):
            batch = shard_rows[begin : begin + BATCH]
            vectors[batch] = model.encode(
                [texts[row] for row in stands[batch]],
                batch_size=BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            progress.update(start + begin + len(batch))
        flat = pa.array(vectors[shard_rows].ravel(), pa.float16())
        column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        table = pa.table({"key": unique.take(pa.array(shard_rows)), "vector": column})
        write_table(table, folder / f"{uuid.uuid4().hex}.parquet")
    whole = vectors[rows].astype(np.float32)
    return Embedded(whole / np.linalg.norm(whole, axis=1, keepdims=True), len(new), weights)


def _matrix(column: pa.ChunkedArray, width: int) -> npt.NDArray[np.float16]:
    return np.asarray(pc.list_flatten(column)).reshape(-1, width)


def _fingerprint(model: Any) -> str:
    """A hash of the embedder's weights, wherever they are and of whatever precision, and of how much it reads."""
    import torch

    hashed = hashlib.sha256(str(TOKENS).encode())
    for name, weights in sorted(model.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:16]


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


if __name__ == "__main__":
    run_worker(work, TopicsSpec)
