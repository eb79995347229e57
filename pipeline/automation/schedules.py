"""Schedules: when a delivery is opened by the clock."""

import dagster as dg

from pipeline.partitions import DELIVERIES, DELIVERY
from pipeline.settings import Profile


def schedules(profile: Profile) -> list[dg.ScheduleDefinition]:
    """The weekly delivery, off until it is turned on in the UI; none where the texts are recorded."""
    if profile.recorded:
        return []

    @dg.schedule(
        job_name=DELIVERY,
        cron_schedule=profile.schedule.cron,
        execution_timezone=profile.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Opens a new delivery, named by the date, and runs the job that collects it.",
    )
    def weekly_delivery(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        key = context.scheduled_execution_time.strftime("%Y-%m-%d")
        context.instance.add_dynamic_partitions(str(DELIVERIES.name), [key])
        return dg.RunRequest(run_key=key, partition_key=key)

    return [weekly_delivery]
