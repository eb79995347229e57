"""A reward model of one output: attribute weights folded into the head, so that any scorer takes it as it is.

As a worker, it writes a model folder, and compares both models' scores.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.benchmarks.schema import TOTALS
from pipeline.settings import Section
from pipeline.store import local_path, read_table
from pipeline.vocabulary import RatedBy
from pipeline.worker import Figures, Log, Spec, Uri, run_worker

COMPARED = 8
"""Conversations that are scored by both models."""


class Accuracy(Section):
    """A row of the card's table: how often the model prefers the response that a benchmark holds to be better."""

    name: str
    level: str = Field(description="overall, or part where it is not the whole of a published benchmark")
    units: int
    accuracy: float
    low: float
    high: float


def accuracies_in(summary: pa.Table) -> list[Accuracy]:
    """The overall accuracies for the card. summary: schema SUMMARY of the model's benchmark scores."""
    return [
        Accuracy(**{field: row[field] for field in Accuracy.model_fields})
        for row in summary.to_pylist()
        if row["level"] in TOTALS and row["measure"] == "accuracy"
    ]


class ExportSpec(Spec):
    """The export of one recipe's reward model."""

    worker = "pipeline.reward_model.export"
    model: Path = Field(description="folder of the reward model")
    weights: dict[str, float] = Field(description="weights of the model's outputs, by name")
    rated: Uri = Field(description="table of rated responses, on whose conversations scores are compared")
    preferred: Uri = Field(description="table of preferences, on whose conversations scores are compared")
    max_tokens: int
    name: str = Field(description="name of the recipe")
    licences: tuple[str, ...]
    scores: tuple[Accuracy, ...]
    rated_by: RatedBy
    ratings_note: str = Field(description="what the card says of the ratings; may be empty")


def fold(folder: Path, out: Path, weights: Mapping[str, float]) -> Any:
    """Write the model of a folder, with the weighted sum of its outputs as its only one, `reward`, into another folder; the model.

    Weights times outputs is linear, and so is the head: the scores are the same. An output without a weight counts nothing. A probe
    stays a probe, which no other software loads. Raises ValueError for weights of outputs that the model doesn't have.
    """
    from transformers import AutoTokenizer

    from pipeline.models import classifier as models
    from pipeline.models.encoding import leave_to_template
    from pipeline.models.loading import load_scorer

    model = load_scorer(folder)
    outputs = models.outputs_of(model.config)
    if unknown := sorted(set(weights) - set(outputs)):
        raise ValueError(f"weights: {folder} has no output {', '.join(unknown)}; its outputs are {', '.join(outputs)}")
    models.keep_outputs(model, [[weights.get(name, 0.0) for name in outputs]], ("reward",))
    (model.save if hasattr(model, "save") else model.save_pretrained)(out)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    leave_to_template(tokenizer)
    tokenizer.save_pretrained(out)
    return model


def work(spec: ExportSpec, log: Log) -> Figures:
    """Fold, and compare the scores; see the module's description."""
    from transformers import AutoTokenizer

    from pipeline.models.classifier import outputs_of
    from pipeline.models.encoding import encode_each
    from pipeline.models.loading import load_scorer
    from pipeline.models.probe import is_probe
    from pipeline.models.scoring import score

    folder, out = spec.model, local_path(spec.out)
    fold(folder, out, spec.weights)
    rated = read_table(spec.rated, ["messages", "response"])
    preferred = read_table(spec.preferred, ["messages", "chosen"]).rename_columns(rated.column_names)
    table = pa.concat_tables([rated, preferred]).slice(0, COMPARED)
    tokenizer, before, after = AutoTokenizer.from_pretrained(out), load_scorer(folder), load_scorer(out)
    rows = zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
    taken, _ = encode_each(tokenizer, rows, spec.max_tokens)
    encoded = [tokens.ids for tokens in taken.values()]
    weights = [spec.weights.get(name, 0.0) for name in outputs_of(before.config)]
    wanted = score(before, encoded) @ np.asarray(weights)
    found = score(after, encoded)[:, 0]
    difference = float(np.abs(found - wanted).max(initial=0.0))
    log(
        f"The exported model's scores of {len(encoded)} conversations differ from the weighted outputs by at most {difference:.1e}"
    )
    original = (folder / "README.md").read_text()
    (out / "README.md").write_text(_card(spec, original, is_probe(out)))
    return {"compared": len(encoded), "largest_difference": difference, "outputs": after.config.num_labels}


def _card(spec: ExportSpec, original: str, probe: bool) -> str:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)  # noqa: S701  (Markdown)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    template = environment.from_string((Path(__file__).parent / "export_card.md.jinja").read_text())
    front, _, rest = original.removeprefix("---\n").partition("\n---\n")
    return template.render(spec=spec, probe=probe, front=front, original=rest.partition("\n")[2].strip())


if __name__ == "__main__":
    run_worker(work, ExportSpec)
