"""A disk that is really full: a small file system of its own, filled by answers, then made larger. Run as a script, in a mount namespace."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from pipeline.engines.finished import FinishedRequests, finish
from pipeline.engines.requests import Answer, Request
from pipeline.settings import Sampling
from pipeline.store import DATA, Store, write_table

COUNT, LENGTH = 2000, 4096


class Long:
    """Test double of an engine: answers at once, with texts that can't be compressed."""

    def __init__(self) -> None:
        self.asked = list[str]()

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            self.asked.append(request.key)
            yield Answer(request.key, os.urandom(LENGTH // 2).hex(), "stop", None, 1, 1)


def main(place: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    requests = [Request(f"{n:064x}", [{"role": "user", "content": "?"}], Sampling(), n) for n in range(COUNT)]
    store = Store(str(place / "store"))
    staged = store.staging("prompts")
    write_table(pa.table({"a": [1]}), staged / DATA)
    store.publish("prompts", None, staged, rows=1)

    finished, engine = FinishedRequests(UPath(place / "work")), Long()
    with pytest.raises(OSError, match="No space left on device"):
        finish(requests, [engine], finished, lambda _: None, every=100)
    kept = len(finished.keys())
    assert len(engine.asked) > kept
    assert 0 < kept < COUNT
    assert kept % 100 == 0, "each part is whole or absent"
    assert not [p for p in (place / "work").iterdir() if p.name.startswith(".")], (
        "a part that was cut off is taken away"
    )

    # a version that does not fit: the published one stays
    staged = store.staging("prompts")
    with pytest.raises(OSError, match="No space left on device"):
        write_table(pa.table({"a": [os.urandom(1 << 16).hex() for _ in range(100)]}), staged / DATA)
    assert store.read("prompts").to_pydict() == {"a": [1]}

    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    again = Long()
    tally = finish(requests, [again], finished, lambda _: None, every=100)
    reused = tally.reused
    assert kept <= reused <= len(engine.asked), "answers of the part that found no room stood in the journal"
    assert tally.answered == len(again.asked) == COUNT - reused
    assert len(finished.read()) == len(finished.keys()) == COUNT
    assert all(len(text) == LENGTH for text in finished.read()["text"].to_pylist())
    print(
        f"{len(engine.asked)} of {COUNT} answers came before the disk was full, {reused} were kept, {len(again.asked)} asked for then"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
