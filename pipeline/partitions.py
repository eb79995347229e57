"""Partitions: the ways in which an asset is cut into parts that are made one at a time."""

import dagster as dg

from pipeline.settings import Profile

DELIVERIES = dg.DynamicPartitionsDefinition(name="delivery")
"""One partition a batch of tasks that is sent to annotators."""


def recipes(profile: Profile) -> dg.StaticPartitionsDefinition:
    """One partition a recipe of the profile."""
    return dg.StaticPartitionsDefinition(list(profile.recipes))
