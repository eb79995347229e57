"""The data card, in the hub's format."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.schema import MODELS, rated_by
from pipeline.settings import RATERS, Profile, SimulatedDesk

HUB_LICENCES = frozenset(
    """apache-2.0 mit odc-by odbl pddl cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-4.0
    cc-by-nc-nd-4.0 cc-by-nd-4.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0""".split()
)
"""Licences that the hub knows by name (https://huggingface.co/docs/hub/repositories-licenses); the others are `other`."""

STAGES = ("all", "outliers removed", "tasks removed")
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def data_card(
    table: pa.Table,
    files: Mapping[str, pa.Table],
    annotations: pa.Table,
    agreement: Mapping[str, pa.Table],
    removals: pa.Table,
    statistics: pa.Table,
    profile: Profile,
    sources: Sequence[tuple[str, str]],
) -> str:
    """README.md of the data set.

    table: schema DATASET; files: rows of each file of FILES; annotations: all ratings, before any removal; agreement: tables of
    `annotation_agreement` by delivery; removals, statistics: schemas REMOVALS and STATISTICS; sources: names and licences of where prompts come from.
    """
    rules, shares = profile.annotations, rated_by(annotations)
    generators = sorted(
        {
            (r["generator"], r["model"] or "model not recorded", r["licence"])
            for r in table.select(["generator", "model", "licence"]).to_pylist()
        }
    )
    licence = profile.dataset.licence
    contexts = profile.contexts.checkpoint if profile.contexts else None
    writer = f"`{contexts}`, {profile.checkpoints[contexts].licence}" if contexts else None
    facts: dict[str, Any] = {
        "name": profile.dataset.name,
        "licence": licence,
        "hub_licence": licence.lower() if licence.lower() in HUB_LICENCES else None,
        "licence_name": re.sub(r"[^a-z0-9.]+", "-", licence.split("(")[0].lower()).strip("-.") or "unknown",
        "language": profile.language,
        "size": next((name for most, name in SIZES if len(table) < most), "n>10M"),
        "simulated": shares.get("simulated annotators", 0),
        "models": shares.get("language models", 0),
        "model_names": models_in(annotations),
        "raters": " and ".join(shares),
        "files": [
            {"file": name, "prompts": len(pc.unique(rows["prompt"])), "rows": len(rows)} for name, rows in files.items()
        ],
        "sources": [f"{name} ({source})" for name, source in sources],
        "contexts": writer,
        "generators": [f"`{g}` ({m}, {licence})" for g, m, licence in generators],
        "initial": rules.initial,
        "extra": rules.extra,
        "above": rules.escalate_above,
        "keep": rules.keep,
        "rule": "each attribute for itself"
        if rules.rule == "per_attribute"
        else "the same annotators for all attributes",
        "max_spread": rules.max_spread,
        "per_response": len(annotations) / max(len(pc.unique(annotations["response_id"])), 1),
        "desks": _desks(annotations, profile),
        "people": shares.get("people", 0) > 0,
        "written": profile.dataset.annotators,
        "removals": removals.to_pylist(),
        "statistics": statistics.to_pylist(),
        "agreement": [row for delivery, part in agreement.items() for row in _agreement(delivery, part)],
        "licences": [
            *({"what": f"prompts from {name}", "licence": source} for name, source in sources),
            *(
                {"what": f"earlier assistant turns, by `{name}`", "licence": profile.checkpoints[name].licence}
                for name in filter(None, [contexts])
            ),
            *({"what": f"responses of `{g}` ({m})", "licence": licence} for g, m, licence in generators),
            *(
                {
                    "what": f"ratings by `{name}`, on `{m.checkpoint}`",
                    "licence": profile.checkpoints[m.checkpoint].licence,
                }
                for name, m in profile.panel.items()
            ),
        ],
    }
    # Markdown, with no stranger's text in it: names, texts and licences of the profile, and numbers
    template = jinja2.Template((Path(__file__).parent / "card.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    return str(template.render(facts)) + "\n"


def models_in(annotations: pa.Table) -> list[str]:
    """The language models among the annotators, by the names that their rows have."""
    desks = pa.array([desk for desk, by in RATERS.items() if by == "language models"])
    return sorted(pc.unique(annotations["annotator_id"].filter(pc.is_in(annotations["desk"], desks))).to_pylist())


def _desks(annotations: pa.Table, profile: Profile) -> list[str]:
    """A sentence a desk: how many annotators rated how many responses through it, and how they were chosen as far as is known."""
    counts = annotations.group_by("desk").aggregate([("annotator_id", "count_distinct"), ([], "count_all")])
    return [
        f"Desk `{row['desk']}`: {_given(row['desk'], row['annotator_id_count_distinct'], row['count_all'], profile)}"
        for row in sorted(counts.to_pylist(), key=lambda r: str(r["desk"]))
    ]


def _given(desk: str, annotators: int, ratings: int, profile: Profile) -> str:
    """What is said of the ratings of one desk, its name aside."""
    given, section = f"gave {ratings} ratings of a response", profile.annotations.desk
    if desk == "helpsteer2":
        return f"{ratings} recorded ratings of a response; who gave them is not published."
    if desk == MODELS:
        drawn = "Which of them rate a prompt's responses is drawn by its hash."
        return f"{annotators} language models {given}, each by itself. {drawn} {_members(profile)}".rstrip()
    if desk == "simulated":
        how = "They are drawn at random for each prompt, by its hash."
        if isinstance(section, SimulatedDesk):
            how += (
                f" The panel has {section.annotators}, each with a constant bias (sd {section.bias:g} levels) and noise (sd {section.noise:g}), of "
                f"whom about {section.careless_share:.0%} are careless; they rate what can be measured of a text, such as its length."
            )
        return f"{annotators} annotators {given}. {how}"
    if RATERS[desk] == "people":
        return f"{annotators} annotators {given}. Tasks went to whoever the team gave them to."
    return f"{annotators} {RATERS[desk]} {given}."


def _members(profile: Profile) -> str:
    """The panel of language models, a member each: its checkpoint, and how it decodes."""
    members = [
        f"`model:{name}` is `{m.checkpoint}` at temperature {m.sampling.temperature:g}{', with guidelines of its own' if m.system_prompt else ''}"
        for name, m in profile.panel.items()
    ]
    return f"{'; '.join(members)}." if members else ""


def _agreement(delivery: str, table: pa.Table) -> list[dict[str, Any]]:
    by = {(r["attribute"], r["stage"]): r for r in table.to_pylist()}
    return [
        {
            "delivery": delivery,
            "attribute": attribute,
            "figures": [by[attribute, stage][figure] for stage in STAGES for figure in ("kappa", "kappa_null")],
        }
        for attribute in dict.fromkeys(table["attribute"].to_pylist())
    ]
