"""Topics against human ones, and what topics, complexity and draw take in time and memory.

`python -m measurements.topics [--human FILE] [--times 1 10] [--noise] [--count 1000]`. FILE: JSON lines with `prompt` and `cluster` (Arena-Hard's
questions). The package's conversations, whole, through the filters, then each step in a process of its own; at ten times, with nine copies of
every candidate that each lack other words. With `--noise` copies aren't embedded, but get their original's vector and noise. Prints tables and,
as its last line, one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from upath import UPath

from pipeline.prompts.complexity import complexity
from pipeline.prompts.filters import candidate_prompts, prompt_id
from pipeline.prompts.sampling import draw, free, shortfall
from pipeline.prompts.schema import CANDIDATES, COMPLEXITY
from pipeline.prompts.sources import conversations
from pipeline.prompts.topics import bertopic, find, k_means, topic_names
from pipeline.prompts.worker import embeddings
from pipeline.settings import Decontamination, PromptFilters, Sample, ShareGPTSource, Topics
from pipeline.store import read_table, write_table

EMBEDDER = Topics().embedder
SEEDS = 5
COUNTS = (100, 250)
SHARE = 6
"""A delivery is a sixth of the pool."""
NOISE = 0.015
"""Standard deviation, a dimension, of the noise that stands in for a copy's other words: a cosine of 0.96 to the original's vector."""


def against_people(file: Path, console: Console) -> dict[str, Any]:
    """Adjusted mutual information with human topics: BERTopic, k-means on embeddings and on TF-IDF, with as many clusters as BERTopic found."""
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import adjusted_mutual_info_score

    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [row["prompt"] for row in rows]
    people = np.unique([row["cluster"] for row in rows], return_inverse=True)[1]
    with tempfile.TemporaryDirectory() as work:
        vectors = embeddings(texts, EMBEDDER, UPath(work), console.print).vectors
    tfidf = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit_transform(texts)
    table = Table(
        "asked for",
        "found",
        "BERTopic",
        "k-means",
        "TF-IDF, k-means",
        title=f"{people.max() + 1} human topics, {len(texts)} prompts",
    )
    figures: dict[str, Any] = {}
    for count in COUNTS:
        found, scores = [], []
        for seed in range(SEEDS):
            ours = bertopic(texts, vectors, count, seed)
            found.append(int(ours.max()) + 1)
            plain = KMeans(found[-1], random_state=seed, n_init=1).fit_predict(tfidf)
            labels = (ours, k_means(vectors, found[-1], seed), plain)
            scores.append([adjusted_mutual_info_score(people, label) for label in labels])
        mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
        table.add_row(str(count), f"{min(found)} to {max(found)}", *cells)
        figures[str(count)] = {"found": found, "ami": np.round(mean, 4).tolist(), "std": np.round(spread, 4).tolist()}
    console.print(table)
    return figures


# ----------------------------------------------------------------------------------------------------------------------------- scale


def candidates(times: int) -> pa.Table:
    """Candidates of the package's conversations, and times - 1 copies of each that lack every so many-th word."""
    stream, _ = conversations({"sharegpt": ShareGPTSource(kind="sharegpt", licence="not stated")})
    made = candidate_prompts(stream, PromptFilters(), 1, {}, Decontamination())
    table = pa.concat_tables([CANDIDATES.empty_table(), *(kept for kept, _ in made)])
    copies = [table]
    for copy in range(1, times):
        turns = [[_lacking(turn, copy + 4) for turn in prompt] for prompt in table["turns"].to_pylist()]
        columns = {name: table[name] for name in CANDIDATES.names}
        columns["turns"] = pa.array(turns, CANDIDATES.field("turns").type)
        columns["prompt_id"] = pa.array([prompt_id(t) for t in turns])
        copies.append(pa.table(columns, schema=CANDIDATES))
    return pa.concat_tables(copies)


def _lacking(text: str, every: int) -> str:
    words = text.split(" ")
    return (
        " ".join(word for n, word in enumerate(words, start=1) if n % every)
        if len(words) >= every
        else f"{text} ({every})"
    )


def step_embed(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Embeddings of all candidates."""
    texts = pc.binary_join(read_table(UPath(folder / "candidates.parquet"), ["turns"])["turns"], "\n").to_pylist()
    first = len(texts) // options.copies
    vectors, new, _ = embeddings(texts[:first], EMBEDDER, UPath(folder), lambda _: None)
    noise = np.random.default_rng(1).normal(0, NOISE, (options.copies - 1, *vectors.shape)).astype(np.float32)
    copies = (vectors + noise).reshape(-1, vectors.shape[1])
    np.save(folder / "vectors.npy", np.concatenate([vectors, copies / np.linalg.norm(copies, axis=1, keepdims=True)]))
    return {"rows": first, "embedded": new}


def step_topics(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Topics by BERTopic, named."""
    table = read_table(UPath(folder / "candidates.parquet"))
    texts = pc.binary_join(table["turns"], "\n").to_pylist()
    labels, topics = find(texts, np.load(folder / "vectors.npy"), "bertopic", options.count, 1)
    names = pa.array(topics.names).take(pa.array(labels))
    table = table.append_column("topic", pa.array(labels, pa.int32())).append_column("topic_name", names)
    write_table(table, UPath(folder / "topics.parquet"))
    sizes = np.bincount(labels)
    return {"rows": len(table), "topics": len(sizes), "largest": int(sizes.max()), "median": float(np.median(sizes))}


def step_k_means(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same by k-means."""
    vectors = np.load(folder / "vectors.npy")
    labels = k_means(vectors, max(1, min(options.count, len(vectors) // 5)), 1)
    topic_names(
        pc.binary_join(read_table(UPath(folder / "candidates.parquet"), ["turns"])["turns"], "\n").to_pylist(), labels
    )
    sizes = np.bincount(labels)
    return {"rows": len(vectors), "topics": len(sizes), "largest": int(sizes.max()), "median": float(np.median(sizes))}


def step_complexity(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Levels by the heuristic."""
    table = read_table(UPath(folder / "topics.parquet"))
    table = table.append_column("complexity", complexity(table["turns"]))
    write_table(table.select(COMPLEXITY.names), UPath(folder / "pool.parquet"))
    return {"rows": len(table)}


def step_draw(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A delivery of a sixth of the pool."""
    pool = read_table(UPath(folder / "pool.parquet"))
    sample = Sample(prompts=len(pool) // SHARE)
    table, figures = draw(pool, sample, 1, "d1", ())
    short = shortfall(table, free(pool, sample, ()))
    gave = np.asarray(pc.struct_field(pc.value_counts(table["topic"]), "counts"))
    want = pc.sum(pc.equal(short["for_want_of"], "prompts")).as_py() or 0
    return {"rows": len(pool), **figures, "most of a topic": int(gave.max()), "short for want of prompts": want}


STEPS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "embed": step_embed,
    "topics": step_topics,
    "k_means": step_k_means,
    "complexity": step_complexity,
    "draw": step_draw,
}


def run_step(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One step, its seconds (of clock and of processor) and its peak memory."""
    begun, used = time.perf_counter(), time.process_time()
    figures = STEPS[name](folder, options)
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent, from before the exec
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {**figures, "seconds": round(seconds, 2), "processor_s": round(processor, 2), "peak_mib": round(peak)}


def main() -> None:
    """Run, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--human", type=Path, help="JSONL file with `prompt` and `cluster`, the topics that people gave"
    )
    parser.add_argument(
        "--times",
        type=int,
        nargs="*",
        default=[1, 10],
        help="sizes to measure, in multiples of the package's candidate prompts (default: %(default)s)",
    )
    parser.add_argument("--count", type=int, default=1000, help="number of topics asked for (default: %(default)s)")
    parser.add_argument(
        "--noise",
        action="store_true",
        help="give copies the vector of their original, with noise, instead of embedding them",
    )
    parser.add_argument("--copies", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options.step[0], Path(options.step[1]), options)))
        return
    console, figures = Console(), dict[str, Any]()
    if options.human:
        figures["human"] = against_people(options.human, console)
    for times in options.times:
        with tempfile.TemporaryDirectory() as folder:
            write_table(candidates(times), UPath(folder) / "candidates.parquet")
            shown = Table(
                "step",
                "rows",
                "seconds",
                "of a processor",
                "rows a second",
                "peak memory (MiB)",
                title=f"{times} times the candidates",
            )
            steps = {}
            for name in STEPS:
                child = [sys.executable, __file__, "--step", name, folder, "--count", str(options.count)]
                child += ["--copies", str(times if options.noise else 1)]
                done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
                step = steps[name] = json.loads(done.stdout.splitlines()[-1])
                rate = f"{step['rows'] / step['seconds']:,.0f}"
                shown.add_row(
                    name,
                    f"{step['rows']:,}",
                    f"{step['seconds']:.1f}",
                    f"{step['processor_s']:.1f}",
                    rate,
                    str(step["peak_mib"]),
                )
            console.print(shown)
            console.print({name: steps[name] for name in ("topics", "k_means", "draw")})
            figures[f"times_{times}"] = steps
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
