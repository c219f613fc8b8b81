"""How often a CLIP finds the caption of a picture, and the picture of a caption, by noise level."""

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

from unstir.clip import Clip
from unstir.conditioning.text import tidy
from unstir.data import Dataset
from unstir.retrieval import TOP, caption_ranks, chance, picture_ranks, shares
from unstir.sampling import SampleNoise
from unstir.training.checkpoint import write_atomically

LEVELS = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Noise levels sigma / alpha at which it is measured; 0: the data themselves."""
SAMPLES = 2000
"""Most samples among which is searched."""
AT_ONCE = 250

Shares = Mapping[int, float]
"""k -> how often the right one is among the nearest k."""


@dataclass(frozen=True)
class Retrieval:
    """What was found among some samples and their distinct captions.

    Args:
        of: what they are: "held-out" or "training".
        samples, distinct: how many pictures and how many captions.
        captions: by noise level, of the caption of each picture among all captions.
        pictures: by noise level, of a picture of each caption among all pictures.
        chance_captions, chance_pictures: the same for somebody who guesses.
    """

    of: str
    samples: int
    distinct: int
    captions: Mapping[float, Shares]
    pictures: Mapping[float, Shares]
    chance_captions: Shares
    chance_pictures: Shares

    def lines(self) -> tuple[tuple[str, str], ...]:
        """For a person: (what, how often)."""
        samples, captions = f"{self.samples:,} {self.of} pictures", f"{self.distinct:,} captions"
        return (
            ("captions", f"found for {samples} among {captions}: {_text(self.captions, self.chance_captions)}"),
            ("pictures", f"found for {captions} among {samples}: {_text(self.pictures, self.chance_pictures)}"),
        )

    def numbers(self) -> dict[str, float]:
        """For metrics.jsonl."""
        name = f"{self.of.replace('-', '_')}_retrieval"
        return {f"{name}[top {k}, noise {level:g}]": found[k] for level, found in self.captions.items() for k in TOP}

    def to_json(self, step: int) -> dict[str, Any]:
        """Plain values."""
        return {
            "step": step,
            "of": self.of,
            "samples": self.samples,
            "distinct": self.distinct,
            "captions": _plain(self.captions),
            "pictures": _plain(self.pictures),
            "chance": {
                key: {str(k): found for k, found in by_chance.items()}
                for key, by_chance in (("captions", self.chance_captions), ("pictures", self.chance_pictures))
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Retrieval:
        """The inverse of ``to_json``."""
        captions, pictures = (
            {float(level): _shares(found) for level, found in values[key].items()} for key in ("captions", "pictures")
        )
        by_chance = [_shares(values["chance"][key]) for key in ("captions", "pictures")]
        return cls(values["of"], int(values["samples"]), int(values["distinct"]), captions, pictures, *by_chance)


def _text(levels: Mapping[float, Shares], by_chance: Shares) -> str:
    """'0.412 clean, 0.400 at noise 0.1 (chance 0.010); 0.700 among the nearest 5 (chance 0.050)': the last of the least noise."""
    first, most = TOP
    found = ", ".join(
        f"{found[first]:.3f} {f'at noise {level:g}' if level else 'clean'}" for level, found in levels.items()
    )
    nearest = levels[min(levels)][most]
    return f"{found} (chance {by_chance[first]:.3f}); {nearest:.3f} among the nearest {most} (chance {by_chance[most]:.3f})"


def _plain(levels: Mapping[float, Shares]) -> dict[str, dict[str, float]]:
    return {f"{level:g}": {str(k): share for k, share in found.items()} for level, found in levels.items()}


def _shares(values: Mapping[str, float]) -> dict[int, float]:
    return {int(k): float(share) for k, share in values.items()}


@torch.no_grad()
def measure(
    clip: Clip, dataset: Dataset, rows: npt.NDArray[np.int64], of: str, seed: int, accelerator: Accelerator
) -> Retrieval:
    """Retrieval at every level, among at most SAMPLES of the rows; every process sees its share of the pictures. The noise is the same each
    time.

    A level that the CLIP's process does not have is measured at the nearest time that it has.
    """
    if len(rows) > SAMPLES:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLES).round().astype(np.int64)]
    distinct, own = np.unique([tidy(dataset.captions[row]) for row in rows], return_inverse=True)
    numbers = torch.from_numpy(own).to(accelerator.device)
    vectors = clip.understood(distinct.tolist())
    process = clip.process
    found, sought = {}, {}
    for level in LEVELS:
        t = process.snap(process.t_at_noise_ratio(torch.tensor(level, dtype=torch.float64)))
        t = t.clamp(process.t_min, process.t_max) if level else torch.zeros_like(t)
        pictures = _pictures(clip, dataset, rows, t, seed, accelerator)
        similarity = pictures @ vectors.mT
        found[level] = shares(caption_ranks(similarity, numbers))
        sought[level] = shares(picture_ranks(similarity, numbers))
    by_chance = chance(len(distinct), [1]), chance(len(rows), np.bincount(own).tolist())
    return Retrieval(of, len(rows), len(distinct), found, sought, *by_chance)


def _pictures(
    clip: Clip, dataset: Dataset, rows: npt.NDArray[np.int64], t: Tensor, seed: int, accelerator: Accelerator
) -> Tensor:
    """(N, width) vectors of all rows noised to time t; each process works out some of them."""
    places = np.arange(accelerator.process_index, len(rows), accelerator.num_processes)
    vectors = torch.zeros(len(rows), clip.width, device=accelerator.device)
    for start in range(0, len(places), AT_ONCE):
        part = places[start : start + AT_ONCE]
        x_0 = dataset.samples(rows[part]).to(accelerator.device)
        eps = SampleNoise(seed, rows[part].tolist()).normal_like(x_0)
        vectors[torch.from_numpy(part).to(vectors.device)] = clip.pictures(clip.process.add_noise(x_0, t, eps), t)
    everyones: Tensor = accelerator.reduce(vectors, reduction="sum")
    return everyones


def write_retrieval(path: Path, found: Retrieval, step: int) -> None:
    """Writes retrieval.json."""
    write_atomically(path, lambda file: file.write((json.dumps(found.to_json(step), indent=2) + "\n").encode()))


def read_retrieval(path: Path) -> Retrieval | None:
    """What retrieval.json says; None where there is none."""
    try:
        return Retrieval.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
