"""Multistep consistency sampling: with the exact consistency function of a Gaussian its samples are the data's, in any number of steps."""

from __future__ import annotations

import pytest
import torch
from numeric import Fast, f64
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser
from unstir.objectives.discretization import karras
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES
from unstir.samplers import DDIM, SAMPLERS, Consistency
from unstir.samplers.grids import Karras
from unstir.sampling import SampleNoise, encode, sample, trajectory

MEAN, STD = f64(0.6, -0.3), f64(0.9, 0.4)
N = 40_000


class Exact(Denoiser):
    """The consistency function of N(MEAN, STD²): the end of the probability flow from x_t."""

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        gaussian = GaussianDenoiser(self.process, MEAN, STD)
        x_0 = gaussian.flow_map(x_t, t, torch.zeros_like(t))
        alpha, sigma = self.process.scales(t, x_t)
        return Prediction(x_t, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)


def start_from(process: Process, t: Tensor, noise: Tensor) -> Tensor:
    """x_t of the Gaussian itself: the prior is another one by the data's part in it."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    return alpha * MEAN + (alpha * STD).hypot(sigma) * noise


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("process", PROCESSES)
def test_moments(process: str, steps: int) -> None:
    here = PROCESSES[process]()
    times, rng = karras(here, sigma_min=0.3).times(here, steps), Fast(1, N)
    x_T = start_from(here, times[0], rng.normal_like(torch.empty(N, 2, dtype=torch.float64)))
    ours = sample(Exact(here), Consistency(), times, x_T, rng)
    # Five standard errors of a mean and of a standard deviation.
    assert bool(((ours.mean(0) - MEAN).abs() < 5 * STD / N**0.5).all())
    assert bool(((ours.std(0) / STD - 1).abs() < 5 / (2 * N) ** 0.5).all())
    assert rng.draws == steps  # the last step, to the data, draws nothing


def test_with_a_diffusion_models_belief_it_is_not_the_data() -> None:
    """Which is why it is for consistency models: a mean over all data has no variance."""
    times, rng = Karras().times(EDM(), 1), Fast(1, 4000)
    x_T = start_from(EDM(), times[0], rng.normal_like(torch.empty(4000, 2, dtype=torch.float64)))
    x = sample(GaussianDenoiser(EDM(), MEAN, STD), Consistency(), times, x_T, rng)
    assert float(x.std(0).max()) < 0.02


def test_noise_is_drawn_anew_at_every_stop() -> None:
    times, z = f64(80, 7, 0.8, 0), Fast(3, 5)
    x_T = 80 * z.normal_like(torch.empty(5, 2, dtype=torch.float64))
    steps = list(trajectory(Exact(EDM()), Consistency(), times, x_T, z))
    replayed = Fast(3, 5)
    replay = [replayed.normal_like(torch.empty(5, 2, dtype=torch.float64)) for _ in range(3)]
    for step, noise in zip(steps[:-1], replay[1:], strict=True):
        torch.testing.assert_close(step.x_s, step.prediction.x_0 + step.s * noise)
    torch.testing.assert_close(steps[-1].x_s, steps[-1].prediction.x_0)
    assert [step.evaluations for step in steps] == [1, 1, 1]


def test_one_step_of_it_is_one_of_ddim() -> None:
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times, rng = f64(80, 0), SampleNoise(0, range(4))
    torch.testing.assert_close(
        sample(Exact(EDM()), Consistency(), times, 80 * x, rng), sample(Exact(EDM()), DDIM(), times, 80 * x, rng)
    )
    assert rng.draws == 0
    assert SAMPLERS["consistency"] is Consistency


def test_it_does_not_walk_up() -> None:
    module = Exact(EDM())
    with pytest.raises(ValueError, match="does not walk up"):
        sample(module, Consistency(), f64(0.1, 1.0), torch.zeros(1, 2, dtype=torch.float64), SampleNoise(0, [0]))
    with pytest.raises(ValueError, match="does not walk up"):
        encode(
            module, Consistency(), f64(2.0, 1.0, 0.1, 0), torch.zeros(1, 2, dtype=torch.float64), SampleNoise(0, [0])
        )
