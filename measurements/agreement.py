"""Agreement on HelpSteer2's own ratings, beside the published kappas, and how much of its rise is the selection's doing.

`python -m measurements.agreement FOLDER`: a folder with `ratings_370.jsonl` (raw ratings of 370 responses, a random sample of the published
`disagreements` file) and `full_pair_matrices.json` (counts of all its rating pairs). Prints tables and, as its last line, one JSON object.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipeline.annotations.agreement import PUBLISHED_KAPPAS, STAGES, agreement, weighted_kappa_from_counts
from pipeline.annotations.published import ratings_of_stream
from pipeline.forms.helpsteer import DISAGREEMENTS
from pipeline.vocabulary import ATTRIBUTES

PERMUTATIONS = 500


def main() -> None:
    """Compute, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="folder with ratings_370.jsonl and full_pair_matrices.json")
    folder, console = parser.parse_args().folder, Console()
    matrices = json.loads((folder / "full_pair_matrices.json").read_text())["pair_matrices"]
    units = [json.loads(line) for line in (folder / "ratings_370.jsonl").read_text().splitlines()]
    rows = [{"prompt": str(u["unit"]), "response": "", **{a: u[a] for a in ATTRIBUTES}} for u in units]
    levels, unit = ratings_of_stream([pa.Table.from_pylist(rows, schema=DISAGREEMENTS)])
    three = (levels[:, :, 0] >= 0).sum(axis=1) >= 3
    every = agreement(
        levels, unit, 3, "per_attribute", 2, 0, "people", permutations=PERMUTATIONS, responses=1
    ).to_pylist()
    ours = {("all", r["attribute"]): r for r in every if r["stage"] == "all"}
    # after a selection, units with fewer than three ratings are left out, as in the known values
    for rule in ("per_attribute", "annotator"):
        found = agreement(levels[three], unit[three], 3, rule, 2, 0, "people", permutations=PERMUTATIONS, responses=1)
        ours |= {(f"{rule}, {r['stage']}", r["attribute"]): r for r in found.to_pylist() if r["stage"] != "all"}

    whole = Table("attribute", "all 23,652", "spread <= 2", title="Kappa of the whole file, from its pair counts")
    kappas = {
        a: [weighted_kappa_from_counts(matrices[a][part]["pairs"]) for part in ("all", "kept")] for a in ATTRIBUTES
    }
    for attribute, values in kappas.items():
        whole.add_row(attribute, *(f"{value:.4f}" for value in values))
    console.print(whole)
    columns = list(dict.fromkeys(stage for stage, _ in ours))
    table = Table("attribute", *columns, title="Kappa of 370 responses (by chance) \\[published]")
    for attribute in ATTRIBUTES:
        cells = []
        for column in columns:
            row = ours[column, attribute]
            published = PUBLISHED_KAPPAS[next(s for s in STAGES if column.endswith(s))][attribute]
            cells.append(f"{row['kappa']:.3f} ({row['kappa_null']:.3f}) \\[{published:.3f}]")
        table.add_row(attribute, *cells)
    console.print(table)
    before, after = (ours[s, "helpfulness"] for s in ("all", "per_attribute, tasks removed"))
    rise = after["kappa"] - before["kappa"]
    over = [(r["kappa"] - r["kappa_null"]) / (1 - r["kappa_null"]) for r in (before, after)]
    share = 1 - (over[1] - over[0]) / rise
    console.print(
        f"Helpfulness rises from {before['kappa']:.3f} to {after['kappa']:.3f}, by {rise:.3f}. Ratings that don't agree at all rise from "
        f"{before['kappa_null']:.3f} to {after['kappa_null']:.3f} by the same selection. On a scale from chance (0) to 1, agreement rises "
        f"from {over[0]:.2f} to {over[1]:.2f}: {share:.0%} of the rise is the selection's own doing."
    )
    figures = {stage: {a: round(ours[stage, a]["kappa"], 4) for a in ATTRIBUTES} for stage in columns}
    null = {stage: {a: round(ours[stage, a]["kappa_null"], 4) for a in ATTRIBUTES} for stage in columns}
    print(json.dumps({"whole_file": {a: np.round(v, 4).tolist() for a, v in kappas.items()}, "kappa": figures, "kappa_null": null,
                      "rise": rise, "share_of_selection": share}))  # fmt: skip


if __name__ == "__main__":
    main()
