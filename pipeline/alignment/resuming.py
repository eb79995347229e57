"""Checkpoints of a training loop of our own: weights, the optimiser's moments, the curve. Imported only by workers.

A loop that draws by seed and step alone goes on from the last whole checkpoint and ends as if it had not been cut off.
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from upath import UPath

from pipeline.store import replacing

Curve = list[dict[str, Any]]
"""Rows of what is told while a method trains: `step`, `part` (train, development, watched), and figures, which differ by the part."""


def noted(curve: Curve, tracker: Any, step: int, part: str, figures: Mapping[str, float], begun: float) -> None:
    """Add a row to a curve, with the seconds since `begun` (of `time.perf_counter`), and its figures to a tracker, if there is one."""
    row = {**figures, "seconds": time.perf_counter() - begun}
    curve.append({"step": step, "part": part, **row})
    if tracker:
        tracker.add({f"{part}_{name}": value for name, value in row.items()}, step)


def table_of(curve: Curve) -> pa.Table:
    """A curve as a table with the figures of all its rows, null where a row has none."""
    names = dict.fromkeys(name for row in curve for name in row)
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in curve])


class Checkpoints:
    """The last whole checkpoint of a loop in a folder. models: those that are trained, by name; optimisers: theirs, by the same names."""

    def __init__(self, work: Path, models: Mapping[str, Any], optimisers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._work, self._models, self._optimisers = work, models, optimisers

    def save(self, step: int, curve: Curve) -> None:
        """Keep what there is after `step` steps, whole or not at all; older checkpoints are removed."""
        self._work.mkdir(parents=True, exist_ok=True)
        with replacing(UPath(self._work / f"step-{step}")) as folder:
            folder.mkdir()
            place = Path(str(folder))
            for name, model in self._models.items():
                trained = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
                save_file(trained, place / f"{name}.safetensors")
                save_file(self._moments(name), place / f"{name}-moments.safetensors")
            (place / "curve.json").write_text(json.dumps(curve))
        for other in self._work.glob("step-*"):
            if other.name != f"step-{step}":
                shutil.rmtree(other)

    def last(self) -> tuple[int, Curve]:
        """Put the last checkpoint into models and optimisers: how many steps it had, and the curve until then; 0 where there is none."""
        steps = [int(p.name.removeprefix("step-")) for p in self._work.glob("step-*") if (p / "curve.json").is_file()]
        if not steps:
            return 0, []
        place = self._work / f"step-{max(steps)}"
        for name, model in self._models.items():
            model.load_state_dict(load_file(place / f"{name}.safetensors"), strict=False)
            self._set_moments(name, load_file(place / f"{name}-moments.safetensors"))
        return max(steps), json.loads((place / "curve.json").read_text())

    def _moments(self, name: str) -> dict[str, torch.Tensor]:
        state = self._optimisers[name].state_dict()["state"]
        return {
            f"{n}.{what}": torch.as_tensor(v).cpu().contiguous() for n, of in state.items() for what, v in of.items()
        }

    def _set_moments(self, name: str, kept: Mapping[str, torch.Tensor]) -> None:
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in kept.items():
            n, _, what = key.partition(".")
            state.setdefault(int(n), {})[what] = value
        self._optimisers[name].load_state_dict({**self._optimisers[name].state_dict(), "state": state})
