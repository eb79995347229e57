"""Which conversations go together: optimiser steps of drawn units, each in forward passes of like length within a budget of tokens.

A unit is what a loss needs at once: a rated response, or the two responses of a preference.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Units = npt.NDArray[np.int64]
TOKENS_A_BATCH = 4096


def batches(lengths: Sequence[int] | npt.NDArray[np.int64], tokens: int = TOKENS_A_BATCH) -> Iterator[Units]:
    """Rows in batches of like length, each at most `tokens` tokens with its padding (or one row); the longest first."""
    sizes = np.asarray(lengths)
    order = np.argsort(sizes, kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, tokens // int(sizes[order[start]]))
        yield order[start : start + size]
        start += size


def plan_steps(
    lengths: npt.NDArray[np.int64], batch_size: int, epochs: int, tokens: int, seed: int, processes: int = 1
) -> list[list[list[Units]]]:
    """For every optimiser step of a training, for every process, its forward passes: arrays of units, some maybe empty.

    lengths: tokens that a unit takes in a batch (a preference: twice its longer response). Every epoch draws all units anew, without
    replacement, by `seed` alone: a step's units don't depend on `tokens` or `processes`. All processes have equally many passes, as
    sharded training needs.
    """
    steps = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
        for start in range(0, len(order), batch_size):
            units = order[start : start + batch_size]
            units = units[np.argsort(lengths[units], kind="stable")[::-1]]
            shares = [units[rank::processes] for rank in range(processes)]
            passes = [[share[b] for b in batches(lengths[share], tokens)] for share in shares]
            most = max(map(len, passes))
            steps.append([p + [np.empty(0, np.int64)] * (most - len(p)) for p in passes])
    return steps
