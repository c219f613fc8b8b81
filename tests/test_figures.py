"""The figure of points: what it shows is what the process and the model say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unstir import figures
from unstir.data import DataConfig, load
from unstir.denoiser import NetDenoiser
from unstir.model import Model
from unstir.recipes import RECIPES


def test_the_panels_are_data_noise_and_the_way_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = load(DataConfig(source="swiss-roll"))
    recipe = RECIPES["swiss-roll"]

    class Zero(nn.Module):
        """F = 0: under EDM's preconditioning the exact denoiser of a Gaussian with the data's standard deviation."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
            return 0 * x

    model = Model(NetDenoiser(Zero(), recipe.process, "edm", sigma_data=1.0), dataset.spec, recipe)
    seen: dict[str, list] = {}

    def keep(data, diffused, reversed_, positions, vectors, times):  # type: ignore[no-untyped-def]
        seen.update(data=data, diffused=diffused, reversed=reversed_, at=positions, drift=vectors)
        from PIL import Image

        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(figures, "sohl_dickstein_figure", keep)
    assert figures.write_figure(model, dataset, tmp_path) == tmp_path / "trajectory.png"
    np.testing.assert_array_equal(seen["diffused"][0], seen["data"])
    # The middle column is at sigma/alpha = 0.4, drawn at the data's scale: x_0 is 1 / sqrt(1 + 0.4²) of it.
    share = (seen["diffused"][1] * seen["data"]).sum() / (seen["data"] ** 2).sum()
    assert share == pytest.approx(1 / np.sqrt(1 + 0.4**2), rel=0.03)
    assert seen["reversed"][0].std() == pytest.approx(1.0, rel=0.05)  # the Gaussian that this model believes in
    # The belief of a Gaussian model at noise level s is x / (1 + s²), and the arrows stand at x / sqrt(1 + s²).
    for drift, level in zip(seen["drift"], (0.1, 0.4), strict=False):
        np.testing.assert_allclose(drift, (1 / np.hypot(1, level) - 1) * seen["at"][0], atol=1e-5)


def test_other_data_has_no_such_figure(tmp_path: Path) -> None:
    dataset = load(DataConfig(source="digits", cache=str(tmp_path)))
    assert figures.write_figure(None, dataset, tmp_path) is None  # type: ignore[arg-type]
