"""The data card, in the hub's format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import Profile


def data_card(table: pa.Table, agreement: Mapping[str, pa.Table], left_out: int, profile: Profile) -> str:
    """README.md of the data set. table: schema DATASET; agreement: tables of `annotation_agreement` by delivery."""
    rules = profile.annotations
    generators = sorted(
        {
            (r["generator"], r["model"], r["licence"])
            for r in table.select(["generator", "model", "licence"]).to_pylist()
        }
    )
    facts: dict[str, Any] = {
        "name": profile.dataset.name,
        "licence": profile.dataset.licence,
        "language": profile.language,
        "simulated": profile.simulated,
        "splits": [_split(table, split) for split in ("train", "validation")],
        "sources": [f"{name} ({licence})" for name, licence in profile.sources.items()],
        "generators": [f"`{g}` ({m}, {licence})" for g, m, licence in generators],
        "initial": rules.initial,
        "extra": rules.extra,
        "above": rules.escalate_above,
        "keep": rules.keep,
        "rule": "each attribute for itself"
        if rules.rule == "per_attribute"
        else "the same annotators for all attributes",
        "max_spread": rules.max_spread,
        "left_out": left_out,
        "agreement": [row for delivery, part in agreement.items() for row in _agreement(delivery, part)],
        "licences": [{"what": f"prompts from {name}", "licence": licence} for name, licence in profile.sources.items()]
        + [{"what": f"responses of {g} ({m})", "licence": licence} for g, m, licence in generators],
    }
    # Markdown, with no stranger's text in it: names and licences of the profile, and numbers
    template = jinja2.Template((Path(__file__).parent / "card.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    return str(template.render(facts)) + "\n"


def _split(table: pa.Table, split: str) -> dict[str, Any]:
    part = table.filter(pc.equal(table["split"], split))
    return {"split": split, "prompts": len(pc.unique(part["prompt_id"])), "rows": len(part)}


def _agreement(delivery: str, table: pa.Table) -> list[dict[str, Any]]:
    by = {(r["attribute"], r["stage"]): r for r in table.to_pylist()}
    return [
        {
            "delivery": delivery,
            "attribute": attribute,
            "all": by[attribute, "all"]["kappa"],
            "kept": by[attribute, "outliers removed"]["kappa"],
            "kept_null": by[attribute, "outliers removed"]["kappa_null"],
            "agreed": by[attribute, "tasks removed"]["kappa"],
            "agreed_null": by[attribute, "tasks removed"]["kappa_null"],
        }
        for attribute in dict.fromkeys(table["attribute"].to_pylist())
    ]
