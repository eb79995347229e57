"""How fast ratings become labels: against the same rule as a pandas groupby-apply, and as a stream of up to 5 million responses.

`python -m measurements.consensus [--responses N] [--stream N ...]`. Prints tables and, as its last line, one JSON object:
`speedup` (times faster than groupby-apply, same labels), `exponent` (of time in the number of responses), `io_share` (of the largest
stream's time: reading and writing Parquet alone), `peak_mib` by size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.annotations.consensus import Totals, labels_of_stream, most_agreeing
from pipeline.forms.rows import LABELS
from pipeline.vocabulary import ATTRIBUTES

SHARES = {3: 0.70, 4: 0.06, 5: 0.21, 6: 0.03}
"""Ratings a response, about as in HelpSteer2's published file."""


def ids(generator: np.random.Generator, n: int) -> pa.Array:
    """Random ids of 32 hex digits."""
    text = generator.bytes(16 * n).hex().encode()
    return pa.Array.from_buffers(pa.binary(32), n, [None, pa.py_buffer(text)]).cast(pa.binary()).cast(pa.string())


def made(responses: int, seed: int) -> pa.Table:
    """Annotations of so many responses, two a prompt, a prompt's rows together; a rating in a hundred is missing."""
    generator = np.random.default_rng(seed)
    n = generator.choice(list(SHARES), responses, p=list(SHARES.values()))
    response = np.repeat(np.arange(responses), n)
    middle = generator.integers(0, 5, responses)[response]
    columns: dict[str, pa.Array] = {
        "prompt_id": ids(generator, (responses + 1) // 2).take(pa.array(response // 2)),
        "response_id": ids(generator, responses).take(pa.array(response)),
    }
    for attribute in ATTRIBUTES:
        ratings = np.clip(middle + generator.integers(-2, 3, len(response)), 0, 4).astype(np.int8)
        columns[attribute] = pa.array(ratings, mask=generator.random(len(response)) < 0.01)
    return pa.table(columns)


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The rule as a pandas groupby-apply: of each response and attribute the three closest, their mean rounded half up."""

    def label(ratings: pd.Series) -> float:
        values = [int(x) for x in ratings if x == x]
        if not values:
            return float("nan")
        triples = list(combinations(values, 3)) if len(values) > 3 else [tuple(values)]
        best = min(triples, key=lambda t: sum((x - y) ** 2 for x, y in combinations(t, 2)))
        return float(np.floor(sum(best) / len(best) + 0.5))

    def labels(group: pd.DataFrame) -> pd.Series:
        return pd.Series({a: label(group[a]) for a in ATTRIBUTES})

    return frame.groupby("response_id", sort=True)[list(ATTRIBUTES)].apply(labels)


def compare(responses: int) -> dict[str, float]:
    """Ours and groupby-apply on the same table; the labels must be the same."""
    table = made(responses, 1)
    most_agreeing(table.slice(0, 1000))  # nothing of ours or of theirs is loaded within a timing
    plain(table.slice(0, 100).to_pandas())
    times, kept_times = [], []
    for _ in range(3):
        begun = time.perf_counter()
        most_agreeing(table)
        kept_times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        ours = pa.concat_tables(labels_of_stream([table], Totals(), max_spread=4))  # all tasks are kept
        times.append(time.perf_counter() - begun)
    frame = table.to_pandas()
    begun = time.perf_counter()
    theirs = plain(frame)
    slow = time.perf_counter() - begun
    found = ours.to_pandas().set_index("response_id").sort_index()[list(ATTRIBUTES)].astype(float)
    assert np.array_equal(found.to_numpy(), theirs.to_numpy(), equal_nan=True), "not the same labels"
    return {
        "responses": responses,
        "annotations": len(table),
        "seconds": min(times),
        "most_agreeing_seconds": min(kept_times),
        "groupby_apply_seconds": slow,
        "speedup": slow / min(times),
    }


def stream(source: Path, target: Path) -> dict[str, float]:
    """Parquet of annotations to Parquet of labels, all tasks kept; the seconds, and those within reading and writing alone."""
    spent = {"read": 0.0, "write": 0.0}

    def batches() -> Iterator[pa.RecordBatch]:
        found = pq.ParquetFile(source).iter_batches(1 << 16)
        while True:
            begun = time.perf_counter()
            batch = next(found, None)
            spent["read"] += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    totals, begun = Totals(), time.perf_counter()
    with pq.ParquetWriter(target, LABELS, compression="zstd") as writer:
        for labels in labels_of_stream(batches(), totals, max_spread=4):
            at = time.perf_counter()
            writer.write_table(labels)
            spent["write"] += time.perf_counter() - at
    seconds = time.perf_counter() - begun
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent, from before the exec
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {"responses": totals.responses, "ratings": totals.ratings, "seconds": seconds, **spent, "peak_mib": peak}


def main() -> None:
    """Run both, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--responses",
        type=int,
        default=200_000,
        help="number of responses in the comparison with pandas (default: %(default)s)",
    )
    parser.add_argument(
        "--stream",
        type=int,
        nargs="*",
        default=[312_500, 1_250_000, 5_000_000],
        help="numbers of responses in the streams (default: %(default)s)",
    )
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(stream(*options.child)))
        return
    console = Console()
    against = compare(options.responses)
    shown = Table(
        "", "seconds", title=f"{against['responses']:,} responses, {against['annotations']:,} annotations, same labels"
    )
    shown.add_row("labels_of_stream: the kept ratings' labels (best of 3)", f"{against['seconds']:.2f}")
    shown.add_row(
        "most_agreeing alone: the table of kept ratings (best of 3)", f"{against['most_agreeing_seconds']:.2f}"
    )
    shown.add_row("the same rule as pandas groupby-apply", f"{against['groupby_apply_seconds']:.1f}")
    shown.add_row("times faster", f"{against['speedup']:.0f}")
    console.print(shown)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.stream:
            source, target = Path(folder) / "annotations.parquet", Path(folder) / "labels.parquet"
            first = made(2, 0)
            with pq.ParquetWriter(source, first.schema, compression="zstd") as writer:
                for start in range(0, size, 250_000):
                    writer.write_table(made(min(250_000, size - start), start + 2))
            child = [sys.executable, __file__, "--child", str(source), str(target)]
            runs.append(json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout))
    shown = Table(
        "responses",
        "seconds",
        "of it Parquet",
        "responses a second",
        "peak memory (MiB)",
        title="Parquet to Parquet, a process each",
    )
    for run in runs:
        share = (run["read"] + run["write"]) / run["seconds"]
        shown.add_row(
            f"{run['responses']:,}",
            f"{run['seconds']:.1f}",
            f"{share:.0%}",
            f"{run['responses'] / run['seconds']:,.0f}",
            f"{run['peak_mib']:.0f}",
        )
    console.print(shown)
    sizes, seconds = (np.log([run[k] for run in runs]) for k in ("responses", "seconds"))
    exponent = float(np.polyfit(sizes, seconds, 1)[0]) if len(runs) > 1 else float("nan")
    last = runs[-1] if runs else {"read": 0, "write": 0, "seconds": 1}
    figures = {
        "speedup": against["speedup"],
        "exponent": exponent,
        "io_share": (last["read"] + last["write"]) / last["seconds"],
    }
    print(
        json.dumps(
            {
                **figures,
                "seconds": against["seconds"],
                "streams": runs,
                "peak_mib": {str(r["responses"]): round(r["peak_mib"]) for r in runs},
            }
        )
    )


if __name__ == "__main__":
    main()
