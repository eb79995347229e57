"""When things run: jobs, schedules, sensors. What runs is defined in `assets`."""
