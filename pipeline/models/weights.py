"""Weights from a folder: all of them, and of no kind that may run code. Imported only by workers."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.models.checkpoints import refuse_other_weights


def read_model(kind: Any, folder: Path, what: str, new: Collection[str] = (), **options: Any) -> Any:
    """A model of a class of transformers, with every weight from the folder's safetensors.

    what: what the folder should hold, for the error; new: parameters that it need not have; options: of `from_pretrained`. Raises ValueError
    where weights are missing: transformers would draw them at random.
    """
    refuse_other_weights(folder)
    model, found = kind.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    if missing := sorted(set(found["missing_keys"]) - set(new)):
        raise ValueError(f"{folder}: is not {what}: it has no weights for {', '.join(missing[:3])}")
    return model
