"""What people are shown of the data set."""

import pyarrow as pa

from pipeline import plots
from pipeline.dataset.deliveries import Collection
from pipeline.shown import Link, Markdown, Shown, whole
from pipeline.vocabulary import ATTRIBUTES


def dataset(made: Collection, deliveries: int) -> dict[str, Shown]:
    """Sizes, who rated, statistics, what was removed, samples, and the card."""
    return {
        "deliveries": deliveries,
        "train prompts": len(made.files["train"]) // 2,
        "validation prompts": len(made.files["validation"]) // 2,
        "rated by": ", ".join(f"{share:.0%} {by}" for by, share in made.raters.items()),
        "statistics": pa.Table.from_pandas(made.figures.to_pandas().round(4), preserve_index=False),
        "removals": whole(made.removed),
        "mean labels by generator": _by_generator(made),
        "samples": made.files["train"],
        "data card": Markdown(made.card.split("---\n", 2)[2]),
    }


def pushed(repo: str, version: str, url: str) -> dict[str, Shown]:
    """Where the data set was pushed to, and which version."""
    return {"repository": repo, "commit": Link(url), "pushed version": version}


def _by_generator(made: Collection) -> Markdown:
    means = made.rows.to_pandas().groupby("generator")[list(ATTRIBUTES)].mean()
    title = f"Mean labels by generator, rated by {' and '.join(made.raters)}"
    return plots.grouped_bars(list(means.index), {a: list(means[a]) for a in ATTRIBUTES}, title, "mean label")
