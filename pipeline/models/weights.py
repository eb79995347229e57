"""Weights from a folder: all of them, and of no kind that may run code. Imported only by workers."""

from pathlib import Path
from typing import Any

from pipeline.models.checkpoints import refuse_other_weights


def read_model(kind: Any, folder: Path, what: str, new: tuple[str, ...] = (), **options: Any) -> Any:
    """A model of a class of transformers, with every weight from the folder's safetensors.

    what: what the folder should hold, for the error; new: what names of parameters that it need not have begin with; options: of
    `from_pretrained`. Raises ValueError where weights are missing: transformers would draw them at random.
    """
    refuse_other_weights(folder)
    model, found = kind.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith(new)):
        raise ValueError(f"{folder}: is not {what}: it has no weights for {', '.join(missing[:3])}")
    return model
