"""What must be in order before the data set leaves the store."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.settings import Profile, Push

NO_LICENCE = re.compile(r"\s*(unknown|none|not stated|unstated|not for redistribution)\b|\s*$", re.IGNORECASE)
"""What a licence says where there is no leave to publish."""


def statement(profile: Profile, sources: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What a data set's card says of licences and annotators, as its manifest keeps it: a later profile may say other things.

    sources: names and licences of where its prompts come from.
    """
    licences = [("the data set (dataset.licence)", profile.dataset.licence)]
    licences += [(f"prompts from {name} (prompts.sources)", licence) for name, licence in sources]
    if profile.contexts:
        contexts = profile.contexts.checkpoint
        licences.append((f"contexts, by {contexts} (checkpoints)", profile.checkpoints[contexts].licence))
    licences += [
        (f"ratings by {name}, on {m.checkpoint} (checkpoints)", profile.checkpoints[m.checkpoint].licence)
        for name, m in profile.panel.items()
    ]
    said = {"licence": profile.dataset.licence, "annotators": profile.dataset.annotators}
    return {**said, "licences": [list(pair) for pair in licences]}


def objections(table: pa.Table, info: Mapping[str, Any], profile: Profile, push: Push) -> list[str]:
    """Why the data set may not be pushed, each with what to do about it; none where it may.

    table: columns generator and licence of the published rows; info: of the published manifest, whose `simulated` says whether some
    ratings are (taken as true where it is missing), whose `models` names the language models that gave ratings, and whose `stated` is what the
    card says (see `statement`). Simulated and models' ratings can be allowed in the profile; a missing licence can't: it is stated, or the part
    that lacks it is left out.
    """
    reasons, simulated, models = list[str](), info.get("simulated", True), info.get("models", [])
    stated = info.get("stated", {})
    for name in ("licence", "annotators"):
        if stated.get(name) != getattr(profile.dataset, name):
            reasons.append(
                f"the profile's dataset.{name} isn't what the published card says: materialize helpsteer_dataset again"
            )
    if simulated and not push.allow_simulated:
        reasons.append(
            "ratings come from simulated annotators; dataset.push.allow_simulated: true in the profile pushes them all the same"
        )
    if models and not push.allow_model_ratings:
        reasons.append(
            f"language models gave ratings ({', '.join(models)}), and no person did; dataset.push.allow_model_ratings: true in the "
            "profile pushes them all the same"
        )
    if not simulated and not models and not profile.dataset.annotators:
        reasons.append("the card doesn't say who the annotators are: write dataset.annotators in the profile")
    licences = [(what, licence) for what, licence in stated.get("licences", [])]
    generators = table.group_by(["generator", "licence"]).aggregate([]).to_pylist()
    licences += sorted((f"responses of {g['generator']} (checkpoints)", g["licence"] or "") for g in generators)
    reasons += [
        f"no licence allows {what} to be published: the stated licence is {licence!r}"
        for what, licence in licences
        if NO_LICENCE.match(licence)
    ]
    return reasons
