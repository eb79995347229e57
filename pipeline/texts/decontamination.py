"""Training prompts that overlap with a benchmark prompt.

Tülu 3's rule (arXiv 2411.15124; allenai/open-instruct, decontamination/README.md and search.py): a word of the benchmark prompt is matched
where it is part of an n-gram of that prompt which the training prompt has too; the overlap is the share of the benchmark prompt's words
that one training prompt matches, and above a threshold the two are too close. The defaults are its 8 words and half of the words; GPT-3
(arXiv 2005.14165, appendix C) took n-grams of 8 to 13 words, and any one of them. A benchmark prompt of fewer than n words has no n-gram:
it matches a training prompt with the same words.

Compared are the user's turns, all of a conversation's together. Words are what white space, punctuation and symbols divide, in NFKC and
lower case. A language that is written without spaces has few words by this rule, so that only equal prompts are found there.

N-grams are compared by 64-bit hashes: a false match among a billion pairs of different ones is less likely than 1e-9, and hardly moves a
share. 200,000 prompts of 120 words against 10,000 took 19 seconds on one core, and 62 where they shared much boilerplate.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import Decontamination
from pipeline.texts.words import keys_of, words_of

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

OVERLAPS = pa.schema([("prompt", pa.int64()), ("benchmark", pa.string()), ("overlap", pa.float64())])
"""What `overlaps` gives: the training prompt's place, the benchmark, and the largest share of one of its prompts that is matched."""

PART = 20_000
"""Training prompts that are compared at a time."""
MOST = 1 << 22
"""Matches that are spread out at a time: about 200 MB."""


FINGERPRINTS = pa.schema([("text", pa.uint64()), ("ngrams", pa.list_(pa.uint64()))])
"""Prompts as `overlaps` compares them, without their texts: hashes of all words together, and of each n-gram."""
SEEN_PROMPTS = "seen_prompts.parquet"
"""File of a reward model's folder with the fingerprints of the prompts that it was trained on, or its checkpoint picked by."""
NGRAM = b"ngram"
"""Under what the metadata of a table of FINGERPRINTS says how many words an n-gram has."""


def fingerprints(training: pa.Array, n: int) -> pa.Table:
    """Prompts in the schema FINGERPRINTS, a row a text, with n-grams of n words."""
    lists = []
    for start in range(0, len(training), PART):
        words = words_of(training.slice(start, PART))
        vocabulary = pc.unique(words.flatten())
        grams = _ngrams(words, vocabulary, _hashes(vocabulary), n)
        ends = np.append(0, np.bincount(grams.row, minlength=len(words)).cumsum())
        lists.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(grams.hashes)))
    whole = pa.array(_hashes(keys_of(training)), pa.uint64())
    ngrams = pa.chunked_array(lists, pa.list_(pa.uint64()))
    return pa.table([whole, ngrams], FINGERPRINTS.with_metadata({NGRAM: str(n).encode()}))


def overlaps(training: pa.Array | pa.Table, benchmarks: Mapping[str, pa.Array], rule: Decontamination) -> pa.Table:
    """Training prompts too close to a benchmark, in the schema OVERLAPS: a row a prompt and benchmark, by prompt, then benchmark.

    training: a text a prompt, or their `fingerprints`, whose n-grams then have as many words as those, whatever the rule says;
    benchmarks: by name, the texts of their prompts. The overlap is above the threshold, 1 for an equal prompt.
    """
    found: dict[tuple[int, str], float] = {}
    n = int(training.schema.metadata[NGRAM]) if isinstance(training, pa.Table) else rule.ngram
    index = _Index.of(benchmarks, n)
    short_keys, short_names = _short(benchmarks, n)
    short = pa.array(_hashes(short_keys), pa.uint64())
    for start in range(0, len(training), PART):
        part = training.slice(start, PART)
        if isinstance(part, pa.Table):
            grams, keys = _read(part), part["text"].combine_chunks()
        else:
            grams, keys = index.ngrams(words_of(part)), pa.array(_hashes(keys_of(part)), pa.uint64())
        for prompt, name, share in index.matches(grams, rule.threshold):
            at = (start + prompt, name)
            found[at] = max(found.get(at, 0.0), share)
        equal = np.asarray(pc.fill_null(pc.index_in(keys, short), -1), dtype=np.int64)
        for prompt in np.flatnonzero(equal >= 0).tolist():
            found |= dict.fromkeys(((start + prompt, name) for name in short_names[equal[prompt]]), 1.0)
    rows = [{"prompt": prompt, "benchmark": name, "overlap": found[prompt, name]} for prompt, name in sorted(found)]
    return pa.Table.from_pylist(rows, schema=OVERLAPS)


def _once(benchmarks: Mapping[str, pa.Array]) -> tuple[pa.Array, Ints]:
    """Every benchmark's different texts, one after the other, and the number of the benchmark of each."""
    parts = [pc.unique(texts) for texts in benchmarks.values()]
    return pa.concat_arrays([pa.array([], pa.string()), *parts]), np.repeat(
        np.arange(len(parts)), [len(part) for part in parts]
    )


def _short(benchmarks: Mapping[str, pa.Array], n: int) -> tuple[pa.Array, list[list[str]]]:
    """Keys of the benchmark prompts that have fewer than n words, and in which benchmarks each stands; blank prompts match nothing."""
    names: dict[str, dict[str, None]] = {}
    texts, numbers = _once(benchmarks)
    few, listed = pc.less(pc.list_value_length(words_of(texts)), n), list(benchmarks)
    for key, number in zip(keys_of(texts.filter(few)).to_pylist(), numbers[np.asarray(few, dtype=bool)], strict=True):
        if key:
            names.setdefault(key, {})[listed[number]] = None
    return pa.array(list(names), pa.string()), [list(found) for found in names.values()]


@dataclass(frozen=True)
class _Index:
    """N-grams of the benchmark prompts, and where each stands.

    hashes: of each n-gram, sorted. Its places are `begin[g]` to `begin[g + 1]` of `prompt` and `position`, ascending. length: words of each
    prompt; name: its benchmark, as a number of `names`; vocabulary: every word of theirs; words: the hash of each of these.
    """

    n: int
    names: list[str]
    vocabulary: pa.Array
    words: Hashes
    hashes: Hashes
    begin: Ints
    prompt: Ints
    position: Ints
    length: Ints
    name: Ints

    @classmethod
    def of(cls, benchmarks: Mapping[str, pa.Array], n: int) -> "_Index":
        texts, name = _once(benchmarks)
        words = words_of(texts)
        enough = pc.greater_equal(pc.list_value_length(words), n)
        words, name = words.filter(enough), name[np.asarray(enough, dtype=bool)]
        vocabulary = pc.unique(words.flatten())
        hashed = _hashes(vocabulary)
        grams = _ngrams(words, vocabulary, hashed, n)
        order = np.lexsort((grams.position, grams.row, grams.hashes))
        unique, begin = np.unique(grams.hashes[order], return_index=True)
        return cls(
            n,
            list(benchmarks),
            vocabulary,
            hashed,
            unique,
            np.append(begin, len(order)).astype(np.int64),
            grams.row[order],
            grams.position[order],
            np.asarray(pc.list_value_length(words), dtype=np.int64),
            name,
        )

    def ngrams(self, words: pa.Array) -> "Ngrams":
        """N-grams of training prompts that may be those of a benchmark's."""
        return _ngrams(words, self.vocabulary, self.words, self.n)

    def matches(self, grams: "Ngrams", threshold: float) -> Iterator[tuple[int, str, float]]:
        """Place of a training prompt, benchmark, and overlap of each pair of prompts above the threshold. grams: of training prompts."""
        if not len(self.hashes):
            return
        place = np.minimum(np.searchsorted(self.hashes, grams.hashes), len(self.hashes) - 1)
        known = self.hashes[place] == grams.hashes
        pairs = np.unique(grams.row[known] * len(self.hashes) + place[known])
        row, gram = np.divmod(pairs, len(self.hashes))
        counts = self.begin[gram + 1] - self.begin[gram]
        for some in _batches(row, counts):
            yield from self._covered(row[some], gram[some], counts[some], threshold)

    def _covered(self, row: Ints, gram: Ints, counts: Ints, threshold: float) -> Iterator[tuple[int, str, float]]:
        spread = (
            np.repeat(self.begin[gram], counts) + np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        )
        rows, prompt, position = np.repeat(row, counts), self.prompt[spread], self.position[spread]
        order = np.lexsort((position, prompt, rows))
        rows, prompt, position = rows[order], prompt[order], position[order]
        last = np.ones(len(rows), dtype=bool)  # of a training prompt and a benchmark prompt
        last[:-1] = (rows[1:] != rows[:-1]) | (prompt[1:] != prompt[:-1])
        words = np.full(len(rows), self.n)  # that a match covers, up to where the next one begins
        words[:-1] = np.where(last[:-1], self.n, np.minimum(np.diff(position), self.n))
        ends = np.flatnonzero(last)
        share = np.diff(np.append(0, words.cumsum()[ends])) / self.length[prompt[ends]]
        for at, value in zip(ends[share > threshold].tolist(), share[share > threshold].tolist(), strict=True):
            yield int(rows[at]), self.names[self.name[prompt[at]]], value


class Ngrams(NamedTuple):
    """Of every n-gram its hash, and which list of words has it, from which position on."""

    hashes: Hashes
    row: Ints
    position: Ints


def _read(part: pa.Table) -> Ngrams:
    """N-grams of some rows of FINGERPRINTS; where in its text one stands, nobody knows."""
    lists = part["ngrams"].combine_chunks()
    row = np.repeat(np.arange(len(part)), np.asarray(pc.list_value_length(lists), dtype=np.int64))
    return Ngrams(np.asarray(lists.flatten()), row, np.zeros(len(row), dtype=np.int64))


def _hashes(texts: pa.Array) -> Hashes:
    """64 bits of BLAKE2b of each text, the same on every machine."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _ngrams(words: pa.Array, vocabulary: pa.Array, hashed: Hashes, n: int) -> Ngrams:
    """Every n-gram of lists of words that has only words of a vocabulary. hashed: of its words."""
    lengths = np.asarray(pc.list_value_length(words), dtype=np.int64)
    ids = np.asarray(pc.fill_null(pc.index_in(words.flatten(), vocabulary), -1), dtype=np.int64)
    row = np.repeat(np.arange(len(words)), lengths)
    position = np.arange(len(ids)) - np.repeat(lengths.cumsum() - lengths, lengths)
    count = max(len(ids) - n + 1, 0)
    mixed, hashes = np.append(hashed, np.uint64(0))[ids], np.zeros(count, dtype=np.uint64)
    unknown = np.append(0, (ids < 0).cumsum())
    for k in range(n):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + mixed[k : k + count]
    good = (row[:count] == row[n - 1 :][:count]) & (unknown[n:][:count] == unknown[:count])
    return Ngrams(hashes[good], row[:count][good], position[:count][good])


def _batches(row: Ints, counts: Ints) -> Iterator[Any]:
    """Slices with about MOST matches each that keep a training prompt's together. row: ascending."""
    start, total = 0, counts.cumsum()
    while start < len(row):
        before = total[start - 1] if start else 0
        end = int(np.searchsorted(total, before + MOST, "right"))
        end = int(np.searchsorted(row, row[min(max(end, start), len(row) - 1)], "left")) if end < len(row) else end
        if end <= start:  # one training prompt has more
            end = int(np.searchsorted(row, row[start], "right"))
        yield slice(start, end)
        start = end
