"""Seeded draws that depend on an item's id alone: adding or reordering items moves nobody else's draw."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def uniforms(ids: Sequence[str], salt: str, draws: int = 1) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), `draws` an id: shape (len(ids), draws). Equal on every machine; independent between salts."""
    if not 1 <= draws <= 8:
        raise ValueError(f"draws: 1 to 8 (blake2b has 64 bytes), not {draws}")
    key = hashlib.sha256(salt.encode()).digest()
    hashes = b"".join(hashlib.blake2b(i.encode(), digest_size=8 * draws, key=key).digest() for i in ids)
    whole = np.frombuffer(hashes, dtype="<u8").reshape(len(ids), draws)
    return (whole >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seeds(ids: Sequence[str], salt: str) -> npt.NDArray[np.int64]:
    """Seeds in [0, 2^31), one an id."""
    return (uniforms(ids, salt)[:, 0] * 2**31).astype(np.int64)
