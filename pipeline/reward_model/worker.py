"""The stage's worker: trains a recipe's reward model.

Spec: rated, preferred (URIs of tables, schemas RATED and PREFERRED), data_version, work (local folder for checkpoints), cache, checkpoint,
recipe, recipe_name, seed, processes, tracking (folder for TensorBoard, or null), rated_by, ratings_note. Writes a model folder in Hugging
Face format (weights, config, tokenizer, card) with training_curve.parquet, training_steps.parquet, development_predictions.parquet,
development_preferences.parquet and training_prompts.parquet, the prompts that it was trained on.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from upath import UPath

from pipeline.models.checkpoints import resolve
from pipeline.models.encoding import prepare_tokenizer
from pipeline.processes import join, silent, together
from pipeline.reward_model.fit_probe import fit_probe
from pipeline.reward_model.publishing import publish
from pipeline.reward_model.schema import (
    PREFERRED,
    RATED,
)
from pipeline.reward_model.sides import enough, side_of
from pipeline.reward_model.stages import train_stages
from pipeline.settings import Checkpoint, Recipe, digest
from pipeline.store import local_path, read_table
from pipeline.worker import Log, Spec, run_worker


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Train; see the module's description. With `processes`, as many processes train together, here or as `torchrun` started them."""
    if spec.get("processes", 1) > 1 and "RANK" not in os.environ:
        return together(spec, log)
    import torch
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()  # it warns of a new head, and of layers left out: both are asked for
    rank = join()
    if rank:
        log = silent
    recipe, base = Recipe.model_validate(spec["recipe"]), Checkpoint.model_validate(spec["checkpoint"])
    torch.manual_seed(spec["seed"])
    folder = resolve(base, Path(spec["cache"]))
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folder), recipe.template)
    tables = read_table(UPath(spec["rated"]), RATED.names), read_table(UPath(spec["preferred"]), PREFERRED.names)
    train, development = (side_of(tokenizer, *tables, split, recipe.max_tokens) for split in ("train", "development"))
    what = f"{len(train.rated)} ratings and {len(train.preferred)} preferences"
    log(
        f"{what} to train on; {len(development.rated)} and {len(development.preferred)} of other prompts pick the checkpoint"
    )
    for stage in recipe.stages:
        enough(stage, train, development)

    sharded = spec.get("processes", 1) > 1  # such a checkpoint is read by such a training alone
    parts = [recipe, base, spec["data_version"], spec["seed"], sharded]
    work_folder = Path(spec["work"]) / digest(parts)
    if not rank:
        _remove_others(work_folder)
    fit = fit_probe if recipe.objective == "probe" else train_stages
    made = fit(spec, recipe, folder, tokenizer, train, development, work_folder, log)
    if rank:
        return {}
    out = local_path(UPath(spec["out"]))
    made.save(out)
    tokenizer.save_pretrained(out)
    return publish(spec, recipe, base, train, development, made, out, log)


def _remove_others(place: Path) -> None:
    """Remove what runs on other data or settings left beside a folder: nobody goes on from it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for other in place.parent.iterdir():
        if other != place:
            shutil.rmtree(other)


if __name__ == "__main__":
    run_worker(work)
