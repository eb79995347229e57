"""What must be in order before the data set leaves the store."""

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.settings import Profile, Push

NO_LICENCE = re.compile(r"\s*(unknown|none|not stated|unstated|not for redistribution)\b|\s*$", re.IGNORECASE)
"""What a licence says where there is no leave to publish."""


def objections(table: pa.Table, info: Mapping[str, Any], profile: Profile, push: Push) -> list[str]:
    """Why the data set may not be pushed, each with what to do about it; none where it may.

    table: columns generator and licence of the published rows; info: of the published manifest, whose `simulated` says whether some
    ratings are (taken as true where it is missing), and whose `models` names the language models that gave ratings. Both can be allowed in
    the profile; a missing licence can't: it is stated, or the part that lacks it is left out.
    """
    reasons, simulated, models = [], info.get("simulated", True), info.get("models", [])
    if simulated and not push.allow_simulated:
        reasons.append(
            "ratings come from simulated annotators; dataset.push.allow_simulated: true in the profile pushes them all the same"
        )
    if models and not push.allow_model_ratings:
        reasons.append(
            f"there are ratings by language models: {', '.join(models)}; no person gave them; dataset.push.allow_model_ratings: true in the "
            "profile pushes them all the same"
        )
    if not simulated and not models and not profile.dataset.annotators:
        reasons.append("the card doesn't say who the annotators are: write dataset.annotators in the profile")
    licences = [("the data set (dataset.licence)", profile.dataset.licence)]
    licences += [(f"prompts from {name} (prompts.sources)", licence) for name, licence in profile.sources.items()]
    if profile.contexts:
        contexts = profile.contexts.checkpoint
        licences.append((f"contexts, by {contexts} (checkpoints)", profile.checkpoints[contexts].licence))
    licences += [
        (f"ratings by {name}, on {m.checkpoint} (checkpoints)", profile.checkpoints[m.checkpoint].licence)
        for name, m in profile.panel.items()
    ]
    generators = table.group_by(["generator", "licence"]).aggregate([]).to_pylist()
    licences += sorted((f"responses of {g['generator']} (checkpoints)", g["licence"] or "") for g in generators)
    reasons += [
        f"there is no licence to publish {what}: it says {licence!r}"
        for what, licence in licences
        if NO_LICENCE.match(licence)
    ]
    return reasons
