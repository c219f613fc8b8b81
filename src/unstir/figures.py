"""Figures of papers, drawn with one's own model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unstir.data import Dataset
from unstir.media.files import replacing
from unstir.media.plot import sohl_dickstein_figure
from unstir.model import Model
from unstir.sampling import SampleNoise

MIDDLE = 0.4  # noise level sigma / alpha of the middle column: the roll is half gone


def write_figure(model: Model, dataset: Dataset, folder: Path) -> Path | None:
    """Writes the figure of points in the plane into the folder; does nothing for other data."""
    if dataset.spec.kind != "points" or dataset.spec.shape != (2,):
        return None
    path = folder / "trajectory.png"
    picture = point_figure(model, dataset)
    with replacing(path) as file:
        picture.save(file, format="PNG")
    return path


def point_figure(model: Model, dataset: Dataset, n: int = 2000):  # type: ignore[no-untyped-def]
    """Figure 1 of Sohl-Dickstein et al. 2015 with this model: data diffused, noise reversed, and the drift that does it.

    Everything is drawn at the scale of the data, x_t / sqrt(alpha² + sigma²), so that every process can be seen. The drift is
    where the belief about x_0 draws x_t, x_0 - x_t / alpha.

    Source:
        Sohl-Dickstein et al. 2015, figure 1, https://arxiv.org/abs/1503.03585

    Args:
        model: of points in the plane.
        dataset: that it was trained on.
        n: points in each cloud.
    """
    process = model.denoiser.process
    middle = process.snap(process.t_at_noise_ratio(torch.tensor(MIDDLE, dtype=torch.float64)))
    stops = [torch.tensor(t, dtype=torch.float64) for t in (0.0, float(middle), process.t_max)]

    def shown(x: Tensor, t: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        alpha, sigma = process.scales(t, x)
        return (x / alpha.hypot(sigma)).cpu().numpy()

    rng = SampleNoise(0, range(n))
    x_0 = dataset.samples(np.arange(n) % len(dataset))
    eps = rng.normal_like(x_0)
    diffused = [shown(process.add_noise(x_0, t, eps), t) for t in stops]

    states: list[tuple[Tensor, Tensor]] = []
    for step in model.trajectory(range(n)):
        states += [(step.t, step.x_t), (step.s, step.x_s)]
    nearest = [min(states, key=lambda state: abs(float(_level(model, state[0]) - _level(model, t)))) for t in stops]
    reversed_ = [shown(x, t) for t, x in nearest]

    side = np.linspace(-2.2, 2.2, 16, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    drift = [_drift(model, torch.from_numpy(grid), t) for t in (stops[1] / 4, stops[1], stops[2])]
    titles = ("data", f"sigma/alpha = {MIDDLE:g}", "noise")
    return sohl_dickstein_figure(x_0.numpy(), diffused, reversed_, [grid] * 3, drift, titles)


def _level(model: Model, t: Tensor) -> Tensor:
    return model.denoiser.process.log_snr(t).clamp(-20, 20)


@torch.no_grad()
def _drift(model: Model, grid: Tensor, t: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Arrows at the grid's points, which are at the scale of the data."""
    alpha, sigma = model.denoiser.process.scales(t, grid)
    at = grid.to(model.device)
    prediction = model.denoiser(at * alpha.hypot(sigma).to(at.device), t)
    return (prediction.x_0 - at).cpu().numpy()
