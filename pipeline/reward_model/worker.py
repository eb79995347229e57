"""The stage's worker: trains a recipe's reward model.

Writes a model folder in Hugging Face format (weights, config, tokenizer, card) with
training_curve.parquet, training_steps.parquet, development_predictions.parquet,
development_preferences.parquet and training_prompts.parquet, the prompts that it was trained on.
"""

import os
from collections import Counter

from pipeline.models.checkpoints import identity, pinned, resolve
from pipeline.models.classifier import device
from pipeline.models.encoding import prepare_tokenizer
from pipeline.models.precision import precision_of
from pipeline.models.templates import DATE, writes_date
from pipeline.processes import join, silent, together
from pipeline.reward_model.fit_probe import fit_probe
from pipeline.reward_model.publishing import publish
from pipeline.reward_model.schema import (
    PREFERRED,
    RATED,
)
from pipeline.reward_model.sides import enough, side_of
from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.stages import train_stages
from pipeline.settings import digest
from pipeline.store import local_path, read_table
from pipeline.worker import Figures, Log, remove_others, run_worker


def work(spec: TrainingSpec, log: Log) -> Figures:
    """Train; see the module's description. With `processes`, as many processes train together, here or as `torchrun` started them."""
    spec = spec.model_copy(update={"checkpoint": pinned(spec.checkpoint)})
    if spec.processes > 1 and "RANK" not in os.environ:
        return together("pipeline.reward_model.process", spec, log)
    import torch
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()  # it warns of a new head, and of layers left out: both are asked for
    rank = join()
    if rank:
        log = silent
    precision = precision_of(spec.recipe.precision, device())
    recipe = spec.recipe.model_copy(update={"precision": precision})
    spec = spec.model_copy(update={"recipe": recipe})
    log(f"Training computes in {precision}")
    torch.manual_seed(spec.seed)
    folder = resolve(spec.checkpoint, spec.cache)
    known = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config().vocab_size
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folder), recipe.template, known)
    if writes_date(tokenizer.chat_template):
        log(
            f"The base model's chat template writes today's date; the reward model's has {DATE}, so that scores stay the same"
        )
    tables = read_table(spec.rated, RATED.names), read_table(spec.preferred, PREFERRED.names)
    train, development = (side_of(tokenizer, *tables, split, recipe.max_tokens) for split in ("train", "development"))
    what = f"{len(train.rated)} ratings and {len(train.preferred)} preferences"
    log(
        f"There are {what} to train on; {len(development.rated)} ratings and {len(development.preferred)} preferences "
        f"of other prompts pick the checkpoint"
    )
    cut = [
        sum(getattr(s, name) for s in (train, development)) for name in ("lost_oldest_turns", "shortened", "tokens_cut")
    ]
    if any(cut):
        log(
            f"Of {len(train.encoded) + len(development.encoded)} conversations, {cut[0]} have more than max_tokens ({recipe.max_tokens}) and lose "
            f"their oldest turns; {cut[1]} have so with their last turn alone and lose the middle of their texts, {cut[2]} tokens in all"
        )
    for reason, count in (Counter(train.refused) + Counter(development.refused)).items():
        log(f"{count} conversations are left out, because the base model's chat template refuses them: {reason}")
    for stage in recipe.stages:
        enough(stage, train, development)

    sharded = spec.processes > 1  # such a checkpoint is read by such a training alone
    work_folder = spec.work / digest(
        [recipe, spec.checkpoint, identity(spec.checkpoint), spec.data_version, spec.seed, sharded]
    )
    if not rank:
        remove_others(work_folder)
    fit = fit_probe if recipe.objective == "probe" else train_stages
    made = fit(spec, folder, tokenizer, train, development, work_folder, log)
    if rank:
        return {}
    out = local_path(spec.out)
    made.save(out)
    tokenizer.model_max_length = recipe.max_tokens  # whoever scores with it reads as much
    tokenizer.save_pretrained(out)
    return {**publish(spec, train, development, made, out, log), "precision": precision}


if __name__ == "__main__":
    run_worker(work, TrainingSpec)
