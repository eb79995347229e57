"""A large gzipped file of ratings through the reader and back out: memory must not grow with it.

`python -m measurements.formats [--gib 1 5]`. Makes files of HelpSteer2's `disagreements` rows whose texts don't compress, of these sizes on
disk; a process each converts them to Parquet with the project's own command. Prints a table and, as its last line, one JSON object: for
each size `seconds`, `mib_per_second` (of the file) and `peak_mib`; `seconds_of_gzip` is Python's own gzip reading the same file, the floor.
"""

import argparse
import base64
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.vocabulary import ATTRIBUTES

RUN = """
import sys
from pathlib import Path
from pipeline.annotations.__main__ import main
status = main(sys.argv[1:])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
raise SystemExit(status)
"""


def member(seed: int, rows: int = 20_000) -> bytes:
    """A gzip member of so many rows, of about 2,500 characters each, as the published ones have."""
    generator, lines = np.random.default_rng(seed), []
    for number in range(rows):
        text = base64.b64encode(generator.bytes(1875)).decode()
        ratings = {a: generator.integers(0, 5, 3).tolist() for a in ATTRIBUTES}
        lines.append(json.dumps({"prompt": f"{seed}/{number // 2} {text[:700]}", "response": text[700:], **ratings}))
    return gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=1)


def measure(folder: Path, gib: float) -> dict[str, float]:
    """Make a file of a size, convert it, and read it with gzip alone."""
    source, target, members = folder / "ratings.jsonl.gz", folder / "ratings.parquet", [member(n) for n in range(4)]
    with source.open("wb") as file:
        while file.tell() < gib * 2**30:
            file.write(members[file.tell() % len(members)])
    begun = time.perf_counter()
    command = [sys.executable, "-c", RUN, "convert", str(source), str(target)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    with gzip.open(source) as file:
        while file.read(1 << 22):
            pass
    floor = time.perf_counter() - begun
    size = source.stat().st_size / 2**20
    target.unlink()
    return {
        "gib": gib,
        "seconds": seconds,
        "mib_per_second": size / seconds,
        "peak_mib": int(said.split()[-1]) / 1024,
        "seconds_of_gzip": floor,
    }


def main() -> None:
    """Measure, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--gib",
        type=float,
        nargs="*",
        default=[0.5, 5],
        help="sizes of the files on disk, in GiB (default: %(default)s)",
    )
    sizes, runs = parser.parse_args().gib, []
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure(Path(folder), size) for size in sizes]
    shown = Table(
        "file (GiB)", "seconds", "MiB a second", "peak memory (MiB)", "gzip alone (s)", title="JSONL.gz to Parquet"
    )
    for run in runs:
        shown.add_row(
            f"{run['gib']:g}", *(f"{run[k]:.0f}" for k in ("seconds", "mib_per_second", "peak_mib", "seconds_of_gzip"))
        )
    Console().print(shown)
    print(json.dumps({"runs": runs, "ratio_to_gzip": runs[-1]["seconds"] / runs[-1]["seconds_of_gzip"]}))


if __name__ == "__main__":
    main()
