"""How fast the package's conversations become candidate prompts, and in how much memory: reading and filtering, against a plain JSON load.

The floor is `json.loads` over the whole records of the same file, which keeps everything in memory and filters nothing.
Run: python benchmarks/prompts.py
"""

import json
import time
import tracemalloc
from pathlib import Path

from pipeline.prompts.filters import candidate_prompts
from pipeline.prompts.sources import _sharegpt_file, conversations
from pipeline.settings import PromptFilters, ShareGPTSource


def whole_records(path: Path) -> str:
    """The file's text up to its last whole record, closed as JSON."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rindex("\n  },")] + "\n  }]"


def main() -> None:
    """Measure, print the table, and the figures as JSON."""
    begun = time.perf_counter()
    table, (report,) = conversations({"sharegpt": ShareGPTSource(kind="sharegpt", licence="not stated")})
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    kept, rejected = candidate_prompts(table, PromptFilters(), 1)
    filtered = time.perf_counter() - begun
    text = whole_records(_sharegpt_file())
    begun = time.perf_counter()
    floor_records = len(json.loads(text))
    floor = time.perf_counter() - begun
    tracemalloc.start()
    conversations({"sharegpt": ShareGPTSource(kind="sharegpt", licence="not stated")})
    peak = tracemalloc.get_traced_memory()[1]
    print(f"{'step':<28}{'rows':>9}{'seconds':>10}{'rows/s':>11}")
    rows = [
        ("read", report.records, read),
        ("filter", len(kept) + len(rejected), filtered),
        ("floor: json.loads", floor_records, floor),
    ]
    for name, count, seconds in rows:
        print(f"{name:<28}{count:>9,}{seconds:>10.2f}{count / seconds:>11,.0f}")
    figures = {"records": report.records, "cut": report.cuts, "candidates": len(kept), "read_s": round(read, 3)}
    figures |= {
        "filter_s": round(filtered, 3),
        "floor_s": round(floor, 3),
        "ratio": round((read + filtered) / floor, 2),
    }
    print(json.dumps(figures | {"python_peak_mib": round(peak / 2**20, 1)}))


if __name__ == "__main__":
    main()
