"""A probe: linear outputs of the pooled hidden states of some layers of a frozen model. Imported only by workers.

A folder of a probe holds the layers that it needs, in Hugging Face format, with `probe.safetensors` (weight, bias) and `probe.json`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from pipeline.models.classifier import FullPrecisionHead, base_config, device, name_outputs, outputs_of, plain, reading
from pipeline.models.weights import read_model

POOLINGS = ("last", "mean")


class Probe(nn.Module):
    """Linear outputs of the pooled states of some layers; gives `logits`, as a sequence classifier does."""

    base_model_prefix = "backbone"

    def __init__(self, backbone: Any, layers: Sequence[int], poolings: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.layers, self.poolings = backbone, tuple(layers), tuple(poolings)
        self.config = backbone.config
        width = self.config.hidden_size * len(self.layers) * len(self.poolings)
        self.score = FullPrecisionHead(width, len(outputs))
        name_outputs(self.config, outputs)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.score.weight.device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """Outputs, shape (conversations, outputs), as `logits`."""
        states = pooled_states(self.backbone, self.layers, input_ids, attention_mask)
        return SimpleNamespace(logits=self.score(picked(states, self.poolings)))

    def save(self, folder: Path) -> None:
        """Write the probe into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backbone.save_pretrained(folder)
        save_file({n: t.contiguous() for n, t in self.score.state_dict().items()}, folder / "probe.safetensors")
        (folder / "probe.json").write_text(json.dumps({"layers": self.layers, "poolings": self.poolings}))


def is_probe(folder: Path) -> bool:
    """Whether a model's folder is a probe's."""
    return (folder / "probe.json").exists()


def load_probe(folder: Path, precision: str = "float32") -> Probe:
    """A probe: the base model's layers in a precision, the head in float32."""
    found = json.loads((folder / "probe.json").read_text())
    backbone = read_model(AutoModel, folder, "a probe", dtype=getattr(torch, precision))
    probe = Probe(backbone, found["layers"], found["poolings"], outputs_of(backbone.config))
    probe.score.load_state_dict(load_file(folder / "probe.safetensors"))
    return probe.to(device())


def load_backbone(folder: Path, pad_token_id: int, layers: int | None = None) -> Any:
    """The base model's layers, the first `layers` of them if given, without any head, in float32. See `base_config`."""
    config = base_config(folder, pad_token_id, layers)
    return plain(read_model(AutoModel, folder, "a base model", **reading(config))).to(device())


def picked(states: torch.Tensor, poolings: Sequence[str]) -> torch.Tensor:
    """What a probe's outputs are linear in, of states of shape (..., layers, 2 poolings, width): shape (..., layers x poolings x width)."""
    return torch.stack([states[..., POOLINGS.index(p), :] for p in poolings], dim=-2).flatten(-3)


def pooled_states(backbone: Any, layers: Sequence[int], ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """States after the layers, each divided by its root mean square, of the last token and as the mean over tokens.

    Shape (conversations, layers, 2 poolings, width). Right padding. Raises ValueError for a model whose layers can't be found.
    """
    last, counts = mask.sum(dim=1) - 1, mask.sum(dim=1, keepdim=True)

    def pooled(hidden: torch.Tensor) -> torch.Tensor:
        mean = (hidden * mask[:, :, None]).sum(dim=1) / counts
        return torch.stack([hidden[torch.arange(len(ids)), last], mean], dim=1)

    return _states(backbone, layers, ids, mask, pooled)


def pooled_until_each(backbone: Any, layers: Sequence[int], ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What `pooled_states` are of each conversation's beginning, up to each of its tokens: shape (conversations, length, layers, 2, width)."""
    counts = mask.cumsum(dim=1)[:, :, None]

    def pooled(hidden: torch.Tensor) -> torch.Tensor:
        return torch.stack([hidden, (hidden * mask[:, :, None]).cumsum(dim=1) / counts], dim=2)

    return _states(backbone, layers, ids, mask, pooled)


def _states(
    backbone: Any,
    layers: Sequence[int],
    ids: torch.Tensor,
    mask: torch.Tensor,
    pooled: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """What is made of the states after each layer, divided by their root mean squares; layers stand third from the end."""
    depth = backbone.config.num_hidden_layers
    lists = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise ValueError(
            f"a probe reads the layers of the base model; {type(backbone).__name__} has no list of {depth}"
        )
    blocks = lists[0]
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            hidden = (output[0] if isinstance(output, tuple) else output).float()
            found[layer] = pooled(hidden * torch.rsqrt(hidden.square().mean(dim=-1, keepdim=True) + 1e-6))

        return hook

    handles = [blocks[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
    try:
        backbone(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([found[layer] for layer in layers], dim=-3)
