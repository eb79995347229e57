"""From conversations to a reward model: what the project knows, one package a stage.

No module here imports Dagster, but for `definitions`, `gate`, `partitions`, `automation` and `operating`. Nothing heavy is imported at load time.
"""
