"""Text to pictures, trained for real on pictures that a word order tells: "red over blue" is not "blue over red"."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import unstir
from unstir.cli import run

COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
PAIRS = list(itertools.permutations(COLOURS, 2))
UNET = ["--network.channels", "16", "--network.head-channels", "16", "--network.middle", "2"]
DIT = ["--network.depth", "4", "--network.width", "64", "--network.heads", "4", "--network.patch", "2"]
RECIPES = {
    "unet": ["glide", *UNET],
    "unet-efficient": ["glide", *UNET, "--network.efficient"],
    "dit": ["dit", *DIT, "--data.text", "bytes", "--data.no-labels", "--data.groups", "0"],
}


def pictures(pairs: list[tuple[str, str]]) -> torch.Tensor:
    """(n, 3, 8, 8): one colour over another."""
    halves = torch.tensor([[COLOURS[upper], COLOURS[lower]] for upper, lower in pairs])  # (n, 2, 3)
    return halves.permute(0, 2, 1).repeat_interleave(4, 2)[..., None].expand(-1, -1, -1, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_draws_what_the_caption_says(name: str, tmp_path: Path) -> None:
    noise = 20 * np.random.default_rng(0).normal(size=(120, 8, 8, 3))
    pairs = [PAIRS[i % 6] for i in range(120)]
    clean = 127.5 + 100 * pictures(pairs).permute(0, 2, 3, 1).numpy()
    captions = np.array([f"{upper} over {lower}" for upper, lower in pairs])
    np.savez(tmp_path / "halves.npz", x=np.clip(clean + noise, 0, 255).astype(np.uint8), text=captions)
    # Much noise: two colours are soon seen, and what is seen need not be read.
    run(["train", *RECIPES[name], "--network.text-width", "32", "--data", str(tmp_path / "halves.npz"), "--out",
         str(tmp_path / "run"), "--training.steps", "300", "--training.batch-size", "32", "--objective.times.mean", "1.0"])  # fmt: skip
    asked = PAIRS * 4
    drawn = unstir.load(tmp_path / "run").sample(24, text=[f"{upper} over {lower}" for upper, lower in asked])
    distances = torch.cdist(drawn.flatten(1), (100 / 127.5) * pictures(PAIRS).flatten(1))  # (24, 6)
    right = distances.argmin(1) == torch.tensor([PAIRS.index(pair) for pair in asked])
    assert int(right.sum()) >= 22  # chance: 4
