"""A probe: ridge regression of ratings on the frozen hidden states of several layers. Minutes on a CPU. Imported only by workers.

A folder of a probe holds the layers that it needs, in Hugging Face format, with `probe.safetensors` (weight, bias) and `probe.json`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel

from pipeline.reward_model.model import FullPrecisionHead, backbone_of, device, name_outputs, outputs_of
from pipeline.reward_model.scoring import Encoded, Floats, autocast, over_batches

POOLINGS = ("last", "mean")
STRENGTHS = 10.0 ** np.arange(-3.0, 3.5, 0.5)
"""Ridge strengths that are tried, in units of the mean squared length of a row of standardised states."""
LAYERS = 8
"""Layers whose states are looked at, evenly over the depth."""
MOST_ROWS = 2000
"""Rows that choose layers, pooling and strength; all rows fit the probe that is published."""


@dataclass(frozen=True)
class Choice:
    """Layers (1 is the first), poolings of their states over tokens, ridge strength, and the mean squared error in cross-validation."""

    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    strength: float
    error: float


class Probe(nn.Module):
    """Linear outputs of the pooled states of some layers; gives `logits`, as a sequence classifier does."""

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
        picked = [states[:, :, POOLINGS.index(p)] for p in self.poolings]
        return SimpleNamespace(logits=self.score(torch.stack(picked, dim=2).flatten(1)))

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
    backbone = AutoModel.from_pretrained(folder, dtype=getattr(torch, precision), trust_remote_code=False)
    probe = Probe(backbone, found["layers"], found["poolings"], outputs_of(backbone.config))
    probe.score.load_state_dict(load_file(folder / "probe.safetensors"))
    return probe.to(device())


def load_backbone(folder: Path, pad_token_id: int, layers: int | None = None) -> Any:
    """The base model's layers, the first `layers` of them if given, without any head, in float32."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if layers:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    config.pad_token_id = pad_token_id
    model = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, trust_remote_code=False)
    return model.to(device())


def pooled_states(backbone: Any, layers: Sequence[int], ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """States after the layers, each divided by its root mean square, of the last token and as the mean over tokens.

    Shape (conversations, layers, 2 poolings, width). Right padding. Raises ValueError for a model whose layers can't be found.
    """
    blocks = getattr(backbone_of(backbone), "layers", None)
    if blocks is None:
        raise ValueError(f"a probe reads `layers` of the base model; {type(backbone).__name__} has none of that name")
    found: dict[int, torch.Tensor] = {}
    last, counts = mask.sum(dim=1) - 1, mask.sum(dim=1, keepdim=True)

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            hidden = (output[0] if isinstance(output, tuple) else output).float()
            hidden = hidden * torch.rsqrt(hidden.square().mean(dim=-1, keepdim=True) + 1e-6)
            mean = (hidden * mask[:, :, None]).sum(dim=1) / counts
            found[layer] = torch.stack([hidden[torch.arange(len(ids)), last], mean], dim=1)

        return hook

    handles = [blocks[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
    try:
        backbone(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([found[layer] for layer in layers], dim=1)


def candidate_layers(depth: int) -> tuple[int, ...]:
    """Layers to look at, evenly over a model of `depth` layers, the last among them."""
    return tuple(sorted({max(1, round(depth * n / LAYERS)) for n in range(1, LAYERS + 1)}))


def states_of(
    backbone: Any, layers: Sequence[int], encoded: Encoded, update: Callable[[int], None], precision: str
) -> npt.NDArray[np.float32]:
    """Pooled states of conversations, computed in `precision`: shape (conversations, layers, 2, width), float32."""
    backbone.eval()
    width = backbone.config.hidden_size

    def states(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(backbone.device, precision):
            return pooled_states(backbone, layers, ids.to(backbone.device), mask.to(backbone.device)).flatten(1)

    columns = len(layers) * len(POOLINGS) * width
    found = over_batches(encoded, backbone.config.pad_token_id, columns, states, update)
    return found.astype(np.float32).reshape(len(encoded), len(layers), len(POOLINGS), width)


def choices(layers: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What is tried, as indices: each layer and each three neighbours, with the last token's state, the mean, or both."""
    runs = [(n,) for n in range(layers)] + [(n, n + 1, n + 2) for n in range(layers - 2)]
    for run in runs:
        for poolings in ((0,), (1,), (0, 1)):
            yield run, poolings


def fit(
    states: npt.NDArray[np.float32], labels: Floats, folds: npt.NDArray[np.int64], layers: Sequence[int]
) -> tuple[Choice, Floats, Floats, list[Choice]]:
    """The choice with the least squared error in cross-validation, its weights (outputs, features) and bias, and the best of every choice.

    states: (rows, layers, poolings, width); labels: (rows, outputs), NaN: not rated; folds: a number a row, the same for the responses
    of a prompt; layers: their names. One strength for all outputs: one for each fits the noise of a few hundred ratings.
    """
    rows = _sample(folds)
    kernels: dict[tuple[int, int], Floats] = {}
    for n in range(states.shape[1]):
        for p in range(states.shape[2]):
            part = _standard(states[rows][:, n, p].astype(np.float64))[0]
            kernels[n, p] = part @ part.T / part.shape[1]
    tried = []
    for run, poolings in choices(states.shape[1]):
        kernel = sum((kernels[n, p] for n in run for p in poolings), np.zeros((len(rows), len(rows))))
        errors = cross_validated(kernel / (len(run) * len(poolings)), labels[rows], folds[rows])
        best = int(errors.argmin())
        names = tuple(POOLINGS[p] for p in poolings)
        tried.append(Choice(tuple(layers[n] for n in run), names, float(STRENGTHS[best]), float(errors[best])))
    chosen = min(tried, key=lambda c: c.error)
    index = [list(layers).index(layer) for layer in chosen.layers]
    pooled = [POOLINGS.index(p) for p in chosen.poolings]
    weights, bias = ridge(
        states[:, index][:, :, pooled].reshape(len(states), -1).astype(np.float64), labels, chosen.strength
    )
    return chosen, weights, bias, tried


def cross_validated(kernel: Floats, labels: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Mean squared errors of kernel ridge regression on left-out folds, for each of STRENGTHS. kernel: (rows, rows), labels with NaN."""
    errors, count = np.zeros(len(STRENGTHS)), 0
    for rated, outputs in _patterns(labels):
        for fold in np.unique(folds):
            held, kept = rated & (folds == fold), rated & (folds != fold)
            if not held.any() or not kept.any():
                continue
            values, vectors = np.linalg.eigh(kernel[np.ix_(kept, kept)])
            y = labels[np.ix_(kept, outputs)]
            mean = y.mean(axis=0)
            projected = vectors.T @ (y - mean)
            across = kernel[np.ix_(held, kept)] @ vectors
            truth = labels[np.ix_(held, outputs)] - mean
            for n, strength in enumerate(STRENGTHS):
                predicted = across @ (projected / (np.maximum(values, 0) + strength)[:, None])
                errors[n] += ((predicted - truth) ** 2).sum()
            count += truth.size
    if not count:
        raise ValueError("no rating to cross-validate a probe on: ratings of at least two prompts are needed")
    return errors / count


def ridge(states: Floats, labels: Floats, strength: float) -> tuple[Floats, Floats]:
    """Weights (outputs, features) and bias (outputs,) of ridge regression on standardised states, for states as they are.

    Solved over rows or features, whichever are fewer. An output without labels gets zeros.
    """
    standard, centre, scale = _standard(states)
    features = states.shape[1]
    weights, bias = np.zeros((labels.shape[1], features)), np.zeros(labels.shape[1])
    for rated, outputs in _patterns(labels):
        x, y = standard[rated], labels[np.ix_(rated, outputs)]
        mean = y.mean(axis=0)
        if len(x) < features:
            found = x.T @ np.linalg.solve(x @ x.T + strength * features * np.eye(len(x)), y - mean)
        else:
            found = np.linalg.solve(x.T @ x + strength * features * np.eye(features), x.T @ (y - mean))
        weights[outputs] = (found / scale[:, None]).T
        bias[outputs] = mean - weights[outputs] @ centre
    return weights, bias


def _patterns(labels: Floats) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]]:
    """Outputs that have the same rows rated, with these rows."""
    patterns, pattern_of = np.unique(np.isfinite(labels), axis=1, return_inverse=True)
    for number, rated in enumerate(patterns.T):
        if rated.any():
            yield rated, np.flatnonzero(pattern_of == number)


def _standard(states: Floats) -> tuple[Floats, Floats, Floats]:
    """States with mean 0 and standard deviation 1, with what was subtracted, and divided by. A constant column becomes 0."""
    centre, scale = states.mean(axis=0), states.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    return (states - centre) / scale, centre, scale


def _sample(folds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """At most MOST_ROWS rows, evenly over the data: neighbours, which share a prompt, mostly stay together."""
    if len(folds) <= MOST_ROWS:
        return np.arange(len(folds))
    starts = np.linspace(0, len(folds) - 2, MOST_ROWS // 2).astype(np.int64)
    return np.unique(np.concatenate([starts, starts + 1]))
