"""How often a noisy classifier is right, by noise level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from unstir.data import Dataset
from unstir.noisy_classifier import NoisyClassifier
from unstir.sampling import SampleNoise
from unstir.training.checkpoint import write_atomically

LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Noise levels sigma / alpha at which accuracy is measured."""
SAMPLES = 2000
"""Most samples on which it is measured, at each level."""
AT_ONCE = 250


@dataclass(frozen=True)
class Accuracy:
    """Shares of samples that were classified right.

    Args:
        levels: by noise level sigma / alpha.
        samples: how many, at each level.
    """

    levels: Mapping[float, float]
    samples: int

    @property
    def overall(self) -> float:
        """The mean over the levels."""
        return sum(self.levels.values()) / len(self.levels)

    def text(self, of: str) -> str:
        """For a person."""
        parts = ", ".join(f"{share:.3f} at noise {level:g}" for level, share in self.levels.items())
        return f"{self.overall:.3f} of {self.samples:,} {of} samples ({parts})"

    def numbers(self, of: str) -> dict[str, float]:
        """For metrics.jsonl."""
        name = f"{of.replace('-', '_')}_accuracy"
        return {name: self.overall, **{f"{name}[{level:g}]": share for level, share in self.levels.items()}}


@torch.no_grad()
def measure(
    classifier: NoisyClassifier, dataset: Dataset, rows: npt.NDArray[np.int64], seed: int, accelerator: Accelerator
) -> Accuracy:
    """Accuracy at every level, of at most SAMPLES of the rows; every process counts its share. The noise is the same each time.

    A level that the classifier's process does not have is measured at the nearest time that it has.
    """
    if len(rows) > SAMPLES:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLES).round().astype(np.int64)]
    process = classifier.process
    ratios = torch.tensor(LEVELS, dtype=torch.float64)
    times = process.snap(process.t_at_noise_ratio(ratios)).clamp(process.t_min, process.t_max)
    right = torch.zeros(len(LEVELS), device=accelerator.device)
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    for start in range(0, len(mine), AT_ONCE):
        part = mine[start : start + AT_ONCE]
        x_0, cond = dataset.batch(part)
        x_0, label = x_0.to(accelerator.device), cond[classifier.label].to(accelerator.device)
        rng = SampleNoise(seed, part.tolist())
        for level, t in enumerate(times):
            right[level] += _right(classifier, process.add_noise(x_0, t, rng.normal_like(x_0)), t, label)
    right = accelerator.reduce(right, reduction="sum")
    shares = (right / len(rows)).tolist()
    return Accuracy(dict(zip(LEVELS, shares, strict=True)), len(rows))


def _right(classifier: NoisyClassifier, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
    logits: Tensor = classifier(x_t, t)
    return (logits.argmax(1) == label).sum()


def write_accuracy(path: Path, found: Accuracy, of: str, step: int) -> None:
    """Writes accuracy.json."""
    contents = {
        "step": step,
        "of": of,
        "samples": found.samples,
        "overall": found.overall,
        "levels": {f"{level:g}": share for level, share in found.levels.items()},
    }
    write_atomically(path, lambda file: file.write((json.dumps(contents, indent=2) + "\n").encode()))


def read_accuracy(path: Path) -> str | None:
    """What accuracy.json says, for a person; None where there is none."""
    if not path.is_file():
        return None
    try:
        contents: dict[str, Any] = json.loads(path.read_text("utf-8"))
        levels = {float(level): float(share) for level, share in contents["levels"].items()}
        return Accuracy(levels, int(contents["samples"])).text(str(contents["of"]))
    except (ValueError, KeyError, TypeError):
        return None
