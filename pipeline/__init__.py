"""From conversations to a reward model: what the project knows, one package a stage.

No module here imports Dagster, but for `definitions`, `automation`, `gate` and `demo`. Nothing heavy is imported at load time.
"""
