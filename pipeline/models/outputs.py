"""Outputs of reward models: how many a folder's weights have, and their weights as people write them."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open


def outputs_in(folder: Path) -> int:
    """Outputs of the head in a model's folder; a large model's weights are in several files, which an index names."""
    probe, index = folder / "probe.safetensors", folder / "model.safetensors.index.json"
    file, name = ("probe.safetensors", "weight") if probe.exists() else ("model.safetensors", "score.weight")
    if index.exists():
        file = json.loads(index.read_text())["weight_map"][name]
    with safe_open(folder / file, "np") as weights:
        outputs: int = weights.get_slice(name).get_shape()[0]
    return outputs


def parse_weights(text: str, outputs: Sequence[str]) -> dict[str, float]:
    """Weights from `helpfulness=0.65,correctness=0.8`. Raises ValueError with what is wrong."""
    weights = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in outputs:
            raise ValueError(
                f"weights: {name.strip()!r} is no output of the model; its outputs are {', '.join(outputs)}"
            )
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"weights: {part!r} is not of the form NAME=NUMBER") from None
    return weights
