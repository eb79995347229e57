"""The code location: everything that Dagster loads."""

from typing import Any

import dagster as dg

from assets import alignment, annotations, dataset, evaluation, prompts, responses, reward_model
from pipeline.automation.jobs import jobs
from pipeline.automation.schedules import schedules
from pipeline.settings import Profile, load_profile
from resources.compute import compute_of
from resources.desks.starting import desk_of
from resources.hub import Hub
from resources.storage import Storage
from resources.tracking import tracking_of

STAGES = (prompts, responses, annotations, dataset, reward_model, evaluation, alignment)


def build_defs(profile: Profile | None = None, **resource_overrides: Any) -> dg.Definitions:
    """Definitions of a profile (default: what `PIPELINE_PROFILE` names), with resources replaced by name where given."""
    profile = profile or load_profile()
    resources = {
        "storage": Storage(uri=profile.store),
        "compute": compute_of(profile),
        "desk": desk_of(profile),
        "hub": Hub(),
        "tracking": tracking_of(profile),
    }
    at_once = profile.compute.steps_at_once
    assets = [asset for stage in STAGES for asset in stage.build(profile)]
    return dg.Definitions(
        assets=assets,
        jobs=jobs(profile, [spec for asset in assets for spec in asset.specs]),
        schedules=schedules(profile),
        resources={**resources, **resource_overrides},
        # heavy work is in workers, which are processes of their own: one step at a time needs no further process
        executor=dg.in_process_executor
        if at_once == 1
        else dg.multiprocess_executor.configured({"max_concurrent": at_once}),
    )


defs = build_defs()
