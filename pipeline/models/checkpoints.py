"""Model checkpoints: from what a profile names to a local folder in Hugging Face format. Only workers call this: it may need torch."""

import hashlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache as once
from pathlib import Path

from upath import UPath

from pipeline.hub import HubError, fetch
from pipeline.models.precision import precision_of
from pipeline.settings import PROJECT, Checkpoint
from pipeline.store import replacing

ACCEPTED_TERMS = "HELPSTEER_ACCEPT_TERMS"


COMMIT = re.compile("[0-9a-f]{40}")
DECIDING = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""Files of a model's folder that decide what it answers: weights, configuration, vocabulary, chat template."""
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


class CheckpointError(ValueError):
    """A checkpoint that can't be had; the message says what to do."""


def resolve(checkpoint: Checkpoint, cache: Path) -> Path:
    """The local folder of a checkpoint (safetensors, config, tokenizer).

    A GGUF file is de-quantised once, and kept under `cache`. A hub model is downloaded at its revision through huggingface_hub.
    Raises `CheckpointError` where terms are not accepted, files, package or network are missing, or weights are in no safetensors.
    """
    if not checkpoint.weights:
        raise CheckpointError(
            f"{identity(checkpoint)[0]} has no weights here: a server has it, or it is recorded answers"
        )
    _check_terms(checkpoint)
    if checkpoint.folder:
        folder = Path(checkpoint.folder).expanduser()
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} is not a model folder: it has no config.json")
        refuse_other_weights(folder)
        return folder
    if checkpoint.hub:
        return _download(checkpoint.hub, checkpoint.revision)
    return _from_gguf(checkpoint, cache)


def refuse_other_weights(folder: Path) -> None:
    """Raise CheckpointError where a model's folder has weights, but none in safetensors: to read them may run code that is in them."""
    others = sorted(path.name for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern))
    if others and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} has no weights in safetensors, and other formats ({', '.join(others[:3])}) are not read because they may run code. "
            "Convert weights that you trust: load them with transformers, `model.save_pretrained(...)` into a new folder, and the tokenizer too"
        )


def pinned(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint that stays the same while a branch of the hub moves on: its revision is a commit."""
    return checkpoint.model_copy(update={"revision": identity(checkpoint)[1]}) if checkpoint.hub else checkpoint


def identity(checkpoint: Checkpoint) -> tuple[str, str]:
    """Model name and revision that tell one model from another: a hub commit, a hash of the files' content, what a server is said to have."""
    if checkpoint.server:
        return checkpoint.server.model, checkpoint.server.revision
    if checkpoint.recording:
        path = PROJECT / Path(checkpoint.recording.path).expanduser()
        if not path.is_file():
            raise CheckpointError(f"there is no file of recorded answers {path}")
        return path.name, _sha256([path])[:16]
    if checkpoint.hub:
        _check_terms(checkpoint)
        commit = checkpoint.revision and COMMIT.fullmatch(checkpoint.revision)
        return checkpoint.hub, commit[0] if commit else _download(checkpoint.hub, checkpoint.revision).name
    if checkpoint.gguf:
        return checkpoint.gguf[0].rsplit("/", 1)[-1], _sha256(_gguf_parts(checkpoint))[:16]
    folder = Path(str(checkpoint.folder)).expanduser()
    return folder.name, _sha256(sorted(path for pattern in DECIDING for path in folder.glob(pattern)))[:16]


def _check_terms(checkpoint: Checkpoint) -> None:
    accepted = {name.strip() for name in os.environ.get(ACCEPTED_TERMS, "").split(",")}
    if checkpoint.terms and checkpoint.terms not in accepted:
        name = checkpoint.hub or checkpoint.folder or checkpoint.gguf[0]
        raise CheckpointError(
            f"{name} has terms of use of its own ({checkpoint.licence}). Read them; if you accept them, set the "
            f"environment variable {ACCEPTED_TERMS}={checkpoint.terms}"
        )


def _download(hub: str, revision: str | None) -> Path:
    try:
        return fetch(hub, revision, DECIDING)
    except HubError as error:
        raise CheckpointError(str(error)) from error


def _gguf_parts(checkpoint: Checkpoint) -> list[Path]:
    paths = []
    for part in checkpoint.gguf:
        package, _, name = part.partition("/")
        spec = importlib.util.find_spec(package)  # found, not imported: only its files are wanted
        if spec is None or not spec.submodule_search_locations:
            raise CheckpointError(
                f"the package {package}, which carries {name}, is not installed; `make setup` (or `make gemma`) installs it"
            )
        path = Path(spec.submodule_search_locations[0]) / name
        if not path.is_file():
            raise CheckpointError(f"the package {package} has no file {name}")
        paths.append(path)
    return paths


def _sha256(paths: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                sha.update(chunk)
    return sha.hexdigest()


def _from_gguf(checkpoint: Checkpoint, cache: Path) -> Path:
    parts = _gguf_parts(checkpoint)
    import torch

    precision = precision_of(checkpoint.dtype, "cuda" if torch.cuda.is_available() else "cpu")
    target = cache / f"{parts[0].stem.split('.')[0]}-{_sha256(parts)[:16]}-{precision}"
    if target.is_dir():
        return target
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    cache.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(UPath(target)) as building:
            building.mkdir()
            joined = building / "model.gguf"
            with joined.open("wb") as whole:
                for part in parts:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, whole)
            dtype = getattr(torch, precision)
            with _read_once():
                unpacked, found = AutoModelForCausalLM.from_pretrained(
                    building,
                    gguf_file=joined.name,
                    dtype=dtype,
                    quantization_config=GgufConfig(dequantize=True),
                    output_loading_info=True,
                )
                tokenizer = AutoTokenizer.from_pretrained(building, gguf_file=joined.name)
            if missing := sorted(found["missing_keys"]):
                raise CheckpointError(f"{parts[0].name} has no weights for {', '.join(missing[:3])}")
            joined.unlink()
            model = AutoModelForCausalLM.from_config(unpacked.config, dtype=dtype)  # a plain one, which can be saved
            model.load_state_dict(unpacked.state_dict())
            model.save_pretrained(building)
            tokenizer.save_pretrained(building)
    except OSError:
        if not target.is_dir():  # else another worker was first
            raise
    return target


@contextmanager
def _read_once() -> Iterator[None]:
    """Have transformers read a GGUF file's vocabulary and make its map of names once: it does the first three times, the second once a module."""
    import gguf

    before = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in before.items():
            setattr(gguf, name, once(function))
        yield
    finally:
        for name, function in before.items():
            setattr(gguf, name, function)
