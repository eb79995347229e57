"""What works with each family of base models, tried on tiny ones with random weights, of the classes and the token layouts of published ones.

`python -m measurements.families [--vllm] [--family NAME ...]`. Each family is trained, scored, folded and read as anyone would read it. Prints
the table of `docs/reward-models.md`, and as its last line one JSON object of the same. `--vllm` adds a column, and starts vLLM once a family.

training     a recipe of ratings ends with less loss than the training mean has, in bfloat16, from a ridge start
layers       the same of the first two layers, in float32 with gradient checkpointing
adapters     the same with LoRA; the merged model scores as the adapted one
probe        a probe of the frozen states
alone        a conversation's score is the same alone and among longer ones, in float32, to rounding (1e-4)
fold         the model of one output scores as the weighted sum of the outputs
transformers plain `AutoModelForSequenceClassification` gives our rewards, and so our order, with the chat template that was saved
TRL          its reward trainer, given the folder, orders pairs as we do
vLLM         its classifier, given the folder, gives our order
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error
from upath import UPath

from pipeline.models.encoding import encode
from pipeline.models.loading import load_scorer
from pipeline.models.scoring import score
from pipeline.reward_model.export import fold
from pipeline.reward_model.schema import PREFERRED, RATED
from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.worker import work
from pipeline.settings import Checkpoint, Recipe
from pipeline.store import write_table
from pipeline.vocabulary import ATTRIBUTES
from tests.models.bases import FAMILIES, save_base
from tests.reward_model import vllm_scores

WEIGHTS = dict(zip(ATTRIBUTES, (0.65, 0.8, 0.45, 0.55, -0.4), strict=True))
RECIPE = {
    "base": "tiny",
    "epochs": 1,
    "batch_size": 8,
    "micro_batch_tokens": 1024,
    "learning_rate": 1e-3,
    "warmup_steps": 1,
    "evaluations": 1,
    "max_tokens": 512,
    "development_share": 0.25,
}
PROMPTS = 16


def conversations() -> list[dict[str, Any]]:
    """Rated responses, two a prompt; the longer and the more often `yes`, the better."""
    rows = []
    for n in range(2 * PROMPTS):
        level = (3 * n + n // 2) % 5
        rows.append(
            {
                "split": "development" if n < PROMPTS // 2 else "train",
                "prompt_id": f"p{n // 2}",
                "response_id": f"p{n // 2}/{1 + n % 2}",
                "position": 1 + n % 2,
                "messages": [{"role": "user", "content": f"{n // 2}?"}],
                "response": f"{n} " + "yes " * level + "no",
                **{name: float(level) for name in RATED.names if name.startswith(ATTRIBUTES)},
            }
        )
    return rows


def train(family: str, place: Path, name: str, **recipe: Any) -> tuple[Path, dict[str, Any]]:
    """The folder of a model that is trained of a family's base, and what the training says of it."""
    base, out = place / "base", place / name
    if not base.exists():
        save_base(family, base)
        write_table(pa.Table.from_pylist(conversations(), schema=RATED), UPath(place / "rated.parquet"))
        write_table(PREFERRED.empty_table(), UPath(place / "preferred.parquet"))
    out.mkdir()
    spec = TrainingSpec(
        rated=UPath(place / "rated.parquet"),
        preferred=UPath(place / "preferred.parquet"),
        data_version="v",
        work=place / "work",
        cache=place / "cache",
        checkpoint=Checkpoint(folder=str(base), licence="none"),
        recipe=Recipe.model_validate(RECIPE | {"template": FAMILIES[family].template} | recipe),
        recipe_name=name,
        seed=1,
        rated_by="simulated annotators",
        ratings_note="",
        out=UPath(out),
    )
    return out, work(spec, lambda message: None)


def encoded(folder: Path) -> list[list[int]]:
    """The conversations' tokens, by the tokenizer that a model is published with."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [encode(tokenizer, row["messages"], row["response"], 512).ids for row in conversations()]


def scored(folder: Path) -> npt.NDArray[np.float64]:
    """Outputs of a published model for the conversations, as we score them."""
    return score(load_scorer(folder), encoded(folder))


def close(ours: npt.ArrayLike, theirs: npt.ArrayLike, tolerance: float = 1e-4) -> bool:
    """Whether values differ by no more than rounding, relative to their spread."""
    a, b = np.asarray(ours), np.asarray(theirs)
    return bool(np.abs(a - b).max() <= tolerance * max(1.0, float(np.std(a))))


def as_evaluated(figures: dict[str, Any]) -> bool:
    """Whether the published model has the development loss of the checkpoint that it is."""
    return close(figures["written_loss"], figures["published_loss"], 2e-2)


def alone(folder: Path) -> bool:
    """Whether a conversation's score is the same alone and among longer ones."""
    model, ids = load_scorer(folder), encoded(folder)
    return close(scored(folder), np.concatenate([score(model, [row]) for row in ids]))


def plainly_read(folder: Path) -> npt.NDArray[np.float64]:
    """Rewards as the card of a published model shows how to get them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rewards = []
    for row in conversations():
        messages = [*row["messages"], {"role": "assistant", "content": row["response"]}]
        with torch.no_grad():
            rewards.append(
                float(model(**tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)).logits)
            )
    return np.array(rewards)


def trl_agrees(folder: Path, rewards: npt.NDArray[np.float64], place: Path) -> bool:
    """Whether TRL's reward trainer orders pairs as our rewards do, by the same margins."""
    import datasets
    from trl import RewardConfig, RewardTrainer

    rows = conversations()
    pairs = [[*a["messages"], {"role": "assistant", "content": a["response"]}] for a in rows]
    data = datasets.Dataset.from_dict({"chosen": pairs[::2], "rejected": pairs[1::2]})
    arguments = RewardConfig(
        output_dir=str(place),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        max_length=512,
        per_device_eval_batch_size=len(data),
    )
    theirs = RewardTrainer(model=str(folder), args=arguments, train_dataset=data, eval_dataset=data).evaluate()
    gaps = rewards[::2] - rewards[1::2]
    return close((gaps > 0).mean(), theirs["eval_accuracy"]) and close(gaps.mean(), theirs["eval_margin"], 1e-3)


def vllm_agrees(folder: Path, rewards: npt.NDArray[np.float64]) -> bool:
    """Whether vLLM's classifier, in a process of its own, gives our order."""
    (folder / "ids.json").write_text(json.dumps(encoded(folder)))
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    command = [sys.executable, vllm_scores.__file__, folder, folder / "ids.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print("\n".join(done.stderr.splitlines()[-20:]), file=sys.stderr)
        return False
    theirs = json.loads(done.stdout.splitlines()[-1])
    return close(rewards, theirs, 1e-2) and list(np.argsort(rewards)) == list(np.argsort(theirs))


def row_of(family: str, place: Path) -> dict[str, bool | None]:
    """What works with a family; None for what it is refused for, or what doesn't apply."""
    probe, probed = train(family, place, "probe", objective="probe")
    row: dict[str, bool | None] = {"probe": as_evaluated(probed)}
    try:
        model, figures = train(family, place, "training")
    except ValueError:
        row |= dict.fromkeys(("training", "layers", "adapters", "transformers", "TRL"))
        model = probe
    else:
        row["training"] = as_evaluated(figures)
        shortened = {"layers": 2, "precision": "float32", "gradient_checkpointing": True}
        row["layers"] = as_evaluated(train(family, place, "layers", **shortened)[1])
        row["adapters"] = as_evaluated(train(family, place, "adapters", precision="float32", lora={"rank": 2})[1])
    fold(model, place / "reward", WEIGHTS)
    rewards = scored(place / "reward")[:, 0]
    row["alone"] = alone(model)
    row["fold"] = close(scored(model) @ np.array(list(WEIGHTS.values())), rewards)
    if model != probe:
        theirs = plainly_read(place / "reward")
        row["transformers"] = close(rewards, theirs) and list(np.argsort(rewards)) == list(np.argsort(theirs))
        row["TRL"] = trl_agrees(place / "reward", rewards, place / "trl")
    return {name: row[name] for name in COLUMNS}


COLUMNS = ("training", "layers", "adapters", "probe", "alone", "fold", "transformers", "TRL")
CELLS = {True: "yes", False: "**no**", None: "-"}


def line(family: str, row: dict[str, bool | None]) -> str:
    """A row of the table in Markdown."""
    return f"| {family} | {' | '.join(CELLS[value] for value in row.values())} |"


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", default=list(FAMILIES), choices=list(FAMILIES), metavar="NAME")
    parser.add_argument("--vllm", action="store_true")
    options = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    rows: dict[str, dict[str, bool | None]] = {}
    for family in options.family:
        with tempfile.TemporaryDirectory() as place:
            rows[family] = row_of(family, Path(place))
            if options.vllm and rows[family]["transformers"]:
                rewards = scored(Path(place) / "reward")[:, 0]
                rows[family]["vLLM"] = vllm_agrees(Path(place) / "reward", rewards)
        print(line(family, rows[family]), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
