"""What the deliveries that are published leave to a draw."""

from collections.abc import Collection
from typing import NamedTuple

import pyarrow as pa

from pipeline.prompts.sampling import taken
from pipeline.store import Store


class Standing(NamedTuple):
    """Prompt ids before a draw. taken: other deliveries keep these from it; had: the delivery's own until now; kept: of these, those that stay."""

    taken: Collection[str]
    had: set[str]
    kept: set[str]

    def replaced(self, drawn: pa.Table) -> int:
        """How many prompts the delivery had before, and has no more."""
        return len(self.had - set(drawn["prompt_id"].to_pylist()))


def standing(store: Store, delivery: str, pool: pa.Table, similarity: float | None, drawn_by: str) -> Standing:
    """What a delivery's draw starts from.

    pool: schema COMPLEXITY; similarity: from which a prompt repeats another (see `sampling.taken`); drawn_by: digest of what decides the
    draw: a delivery that was drawn by the same keeps its prompts.
    """
    others = [key for key in store.partitions("prompts") if key != delivery]
    read = (store.read("prompts", key, columns=["prompt_id", "turns"]) for key in others)
    before, had = store.manifest("prompts", delivery), set[str]()
    if before:
        had = set(store.read("prompts", delivery, columns=["prompt_id"])["prompt_id"].to_pylist())
    kept = had if before and before.info.get("drawn_by") == drawn_by else set[str]()
    return Standing(taken(pool, read, similarity), had, kept)
