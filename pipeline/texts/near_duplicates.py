"""Prompts that say almost the same as an earlier one: MinHash and banding find the pairs, Jaccard similarity decides them.

A text is the set of its word 3-grams (all its words, where it has fewer); words as in `pipeline.texts.decontamination`. Of two texts
whose sets are at least `similarity` alike the earlier one stays. rensa's MinHash (Broder, 1997) with 20 bands of 3 values proposes pairs: of
100 pairs with similarity 0.6 it misses one, of 10,000 with 0.7 two ((1 - s^3)^20); what it proposes is compared exactly, so that nothing is
dropped by chance.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.texts.words import words_of

WORDS = 3
"""Words of a shingle."""
BANDS, ROWS = 20, 3
SEED = 1

Shingles = list[npt.NDArray[np.uint32]]


def shingles(texts: pa.Array) -> Shingles:
    """The hashed word 3-grams of each text: sorted, each once; none of a text without words. Equal on every machine."""
    words = words_of(texts)
    lengths = np.asarray(pc.list_value_length(words), dtype=np.int64)
    begins = np.append(0, lengths.cumsum())
    hashes = pd.util.hash_array(np.asarray(words.flatten().to_pandas(), dtype=object), categorize=True)
    mixed = np.zeros(len(hashes), dtype=np.uint64)
    for k in range(WORDS):
        mixed[: len(hashes) - k] = mixed[: len(hashes) - k] * np.uint64(0x9E3779B97F4A7C15) + hashes[k:]
    grams = (mixed >> np.uint64(32)).astype(np.uint32)
    ends = np.maximum(begins[1:] - (WORDS - 1), begins[:-1])
    found = [np.unique(grams[begin:end]) for begin, end in zip(begins[:-1].tolist(), ends.tolist(), strict=True)]
    few = np.flatnonzero((lengths > 0) & (lengths < WORDS))
    whole = np.asarray(pc.binary_join(words.take(pa.array(few)), " ").to_pandas(), dtype=object)
    for row, text in zip(few.tolist(), pd.util.hash_array(whole), strict=True):
        found[row] = np.array([text >> np.uint64(32)], dtype=np.uint32)
    return found


class NearDuplicates:
    """An index of texts that stay, and the question whether another is near to one of them."""

    def __init__(self, similarity: float) -> None:
        from rensa import RMinHashLSH

        self.similarity = similarity
        self._index = RMinHashLSH(similarity, BANDS * ROWS, BANDS)
        self._kept: Shingles = []

    def repeats(self, texts: pa.Array) -> npt.NDArray[np.bool_]:
        """Which texts are near to one that stays, of an earlier call or before it in this one; the others stay from now on."""
        return self._compared(texts, keep=True)

    def near(self, texts: pa.Array) -> npt.NDArray[np.bool_]:
        """Which texts are near to one that stays. Nothing is added."""
        return self._compared(texts, keep=False)

    def _compared(self, texts: pa.Array, keep: bool) -> npt.NDArray[np.bool_]:
        from rensa import RMinHash

        sets = shingles(texts)
        tokens = [[raw[n : n + 4] for n in range(0, len(raw), 4)] for raw in (s.tobytes() for s in sets)]
        near = np.zeros(len(sets), dtype=bool)
        for row, minhash in enumerate(RMinHash.from_token_sets(tokens, BANDS * ROWS, SEED)):
            own = sets[row]
            if not len(own):  # no words: nothing to compare
                continue
            near[row] = any(jaccard(own, self._kept[n]) >= self.similarity for n in self._index.query(minhash))
            if keep and not near[row]:
                self._index.insert(len(self._kept), minhash)
                self._kept.append(own)
        return near


def near_to(texts: pa.Array | pa.ChunkedArray, others: pa.Array, similarity: float) -> npt.NDArray[np.bool_]:
    """Which texts are near to one of the others, as delivered before."""
    index = NearDuplicates(similarity)
    index.repeats(others)
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    return np.concatenate([np.zeros(0, dtype=bool), *(index.near(chunk) for chunk in chunks)])


def jaccard(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> float:
    """Share of two sorted sets' members that both have; 0 where both are empty."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / max(len(a) + len(b) - both, 1)
