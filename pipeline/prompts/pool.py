"""Candidates written as a stream: files of those that are kept and those that are rejected, within the pool's size."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from pipeline.draws import uniforms
from pipeline.prompts.filters import BATCH, CUT, candidate_prompts
from pipeline.prompts.schema import CANDIDATES, CONVERSATIONS, REJECTED
from pipeline.records import Unreadable, records
from pipeline.settings import PROJECT, Decontamination, Prompts
from pipeline.store import DATA, read_batches, read_table, write_table
from pipeline.texts.personal_data import shown

REJECTED_FILE = "rejected.parquet"
SHOWN = 2
"""Rejected rows of each reason that are shown."""


@dataclass
class Written:
    """What became of the conversations: their number, candidates, rejected ones by reason, flags of candidates, and samples of the rejected."""

    conversations: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    samples: pa.Table = field(default_factory=REJECTED.empty_table)


@dataclass
class Description:
    """What conversations are like: roles, user turns of each, flags, and the first few, with personal data masked."""

    roles: set[str]
    lengths: npt.NDArray[np.int32]
    flags: Counter[str]
    samples: pa.Table


def describe(conversations: Iterable[pa.RecordBatch]) -> Description:
    """Look through conversations, a batch at a time."""
    roles: set[str] = set()
    flags: Counter[str] = Counter()
    lengths = [np.zeros(0, dtype=np.int32)]
    samples = pa.table({"source": pa.array([], pa.string()), "turns": pa.array([], pa.list_(pa.string()))})
    for batch in conversations:
        turns = pc.list_flatten(batch["turns"])
        roles |= set(pc.unique(pc.struct_field(turns, "role")).to_pylist())
        flags.update(pc.list_flatten(batch["flags"]).to_pylist())
        lengths.append(np.asarray(pc.list_value_length(batch["turns"]), dtype=np.int32))
        if not len(samples):
            first = batch.slice(0, 8)
            texts = [[turn["content"][:CUT] for turn in turns] for turns in first["turns"].to_pylist()]
            samples = shown(pa.table({"source": first["source"], "turns": pa.array(texts, pa.list_(pa.string()))}))
    return Description(roles, np.concatenate(lengths), flags, samples)


def write_candidates(
    conversations: Iterable[pa.RecordBatch],
    prompts: Prompts,
    seed: int,
    benchmarks: Mapping[str, pa.Array],
    rule: Decontamination,
    folder: UPath,
) -> Written:
    """Filter conversations into two files of a folder, DATA (schema CANDIDATES) and REJECTED_FILE (schema REJECTED); what there is.

    See `candidate_prompts`; over_pool is the reason against those that the pool has no room for. Memory holds a batch, and of each candidate
    what tells duplicates; not the texts. Raises ValueError for conversations of a source that the profile doesn't
    have, or has under another licence, or in another schema.
    """
    written = Written()
    with (folder / REJECTED_FILE).open("wb") as file, pq.ParquetWriter(file, REJECTED, compression="zstd") as out:

        def reject(rejected: pa.Table) -> None:
            new = Counter(rejected["reason"].to_pylist())
            for reason in new:
                if (lacks := SHOWN - written.rejected[reason]) > 0:
                    first = rejected.filter(pc.equal(rejected["reason"], reason)).slice(0, lacks)
                    written.samples = pa.concat_tables([written.samples, first])
            written.rejected += new
            out.write_table(rejected)

        def kept() -> Iterator[pa.RecordBatch]:
            stream = candidate_prompts(_of_profile(conversations, prompts), prompts.filters, seed, benchmarks, rule)
            for candidates, rejected in stream:
                written.conversations += len(candidates) + len(rejected)
                reject(rejected)
                yield from candidates.to_batches()

        written.kept = write_table(pa.RecordBatchReader.from_batches(CANDIDATES, kept()), folder / DATA)
        if prompts.pool and written.kept > prompts.pool:
            within = pa.RecordBatchReader.from_batches(CANDIDATES, _within(prompts, seed, folder / DATA, reject))
            written.kept = write_table(within, folder / DATA)
    names = pc.list_flatten(read_table(folder / DATA, ["flags"])["flags"]).to_pylist()
    written.flags = Counter(names)
    return written


def _of_profile(conversations: Iterable[pa.RecordBatch], prompts: Prompts) -> Iterator[pa.RecordBatch]:
    for batch in conversations:
        if not batch.schema.equals(CONVERSATIONS):
            raise ValueError(
                "The conversations were published by another version of the project: materialize `conversations` again"
            )
        pairs = set(zip(batch["source"].to_pylist(), batch["licence"].to_pylist(), strict=True))
        if foreign := pairs - {(name, source.licence) for name, source in prompts.sources.items()}:
            raise ValueError(
                f"The published conversations include those of "
                f"{', '.join(f'{name} ({licence})' for name, licence in sorted(foreign))}, which the profile "
                "doesn't have among its sources, or has under another licence: materialize `conversations` again"
            )
        yield batch


def _within(prompts: Prompts, seed: int, path: UPath, reject: Callable[[pa.Table], None]) -> Iterator[pa.RecordBatch]:
    """Candidates of a file that are within the pool; the others are rejected as over_pool."""
    all_of = read_table(path, ["conversation_id", "source"])
    weights = {name: source.weight for name, source in prompts.sources.items()}
    ids, sources = all_of["conversation_id"].to_pylist(), all_of["source"].to_pylist()
    inside, at = within_pool(ids, sources, weights, prompts.pool or len(ids), seed), 0
    for batch in read_batches(path, rows=BATCH):
        mine, at = pa.array(inside[at : at + len(batch)]), at + len(batch)
        out = shown(pa.table(batch.filter(pc.invert(mine))), prompts.filters.phone_regions)
        reject(out.append_column("reason", pa.array(["over_pool"] * len(out), pa.string())).cast(REJECTED))
        yield batch.filter(mine)


def within_pool(
    ids: Sequence[str], sources: Sequence[str], weights: Mapping[str, float], pool: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Which candidates are in a pool of limited size: each source gives by its weight as far as it goes, in the order of a hash of id and seed.

    ids, sources: of each candidate. The r-th of a source (from 0) claims a place by (r + 1/2) / weight, and the least claims win: Webster and
    Sainte-Lague's method. So shares are exact to rounding where supply allows, and what one source lacks goes to the others by their weights.
    A further source takes places from the ends of the others' orders, and changes none of their orders.
    """
    draw = uniforms(ids, f"{seed}/pool")[:, 0] if ids else np.zeros(0)
    names = {name: n for n, name in enumerate(weights)}
    source = np.array([names[s] for s in sources], dtype=np.int64)
    order = np.lexsort((draw, source))
    _, begins, sizes = np.unique(source[order], return_index=True, return_counts=True)
    rank = np.empty(len(source))
    rank[order] = np.arange(len(source)) - np.repeat(begins, sizes)
    claims = (rank + 0.5) / np.array([*weights.values()])[source]
    inside = np.zeros(len(source), dtype=bool)
    inside[np.lexsort((source, claims))[:pool]] = True
    return inside


def benchmark_prompts(files: Mapping[str, str]) -> dict[str, pa.Array]:
    """Texts of benchmarks' prompts by name, each turn of one a text of its own, from files of records.

    A record has `turns` (a list of texts, or of objects with `content`), or `prompt` or `question`. Raises ValueError for a record without.
    """
    return {
        name: pa.array(list(_texts(PROJECT / Path(path).expanduser())), pa.string()) for name, path in files.items()
    }


def _texts(path: Path) -> Iterator[str]:
    for number, record in records(path):
        if isinstance(record, Unreadable):
            raise ValueError(f"{path}, record {number}: {record.reason}")
        if not isinstance(record, Mapping):
            raise ValueError(f"{path}, record {number}: is not an object")
        turns = record.get("turns") or [record.get("prompt") or record.get("question")]
        if not isinstance(turns, list):  # a text would be taken letter by letter
            raise ValueError(f"{path}, record {number}: `turns` is not a list")
        for turn in turns:
            text = turn.get("content") if isinstance(turn, Mapping) else turn
            if not isinstance(text, str):
                raise ValueError(f"{path}, record {number}: has no text in `turns`, `prompt` or `question`")
            yield text
