"""Step for step equal to a second implementation: diffusers' schedulers, with the same network and the same noise.

Their t counts from 0 (t = 0 is the paper's t = 1), and their tables are float32. Where the scheduler allows it, its table is
replaced by the same numbers in float64, so that equality means 1e-10; where it computes in float32 itself, 1e-5 of the values.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unstir.denoiser import ChangeProcess, NetDenoiser
from unstir.processes import EDM, LinearVP
from unstir.samplers import DDIM, DDPM, DPMpp2M, Heun
from unstir.samplers.grids import Leading, Uniform
from unstir.sampling import SampleNoise, Sampler, trajectory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        HeunDiscreteScheduler,
    )
    from diffusers.schedulers import scheduling_ddim, scheduling_ddpm

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROCESS = LinearVP()
SHAPE = (2, 3)
INDICES = [0, 5]
GRIDS = {"trailing": Uniform(), "leading": Leading()}
TABLE = PROCESS.alpha_bar[1:]
EXACT = {"rtol": 1e-9, "atol": 1e-10}


class Net(nn.Module):
    """F (B, 2, 3), or with a raw variance (B, 4, 3)."""

    def __init__(self, learn_variance: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        out = 12 if learn_variance else 6
        self.first = nn.Parameter(torch.randn(6, 16, generator=generator, dtype=torch.float64) * 0.4)
        self.last = nn.Parameter(torch.randn(16, out, generator=generator, dtype=torch.float64) * 0.4)

    @torch.no_grad()
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return (torch.tanh(x.flatten(1) @ self.first + c_noise[:, None]) @ self.last).reshape(len(x), -1, 3)

    def at(self, x: Tensor, t: Tensor | float) -> Tensor:
        """As diffusers calls it: with its own time, a whole number from 0."""
        assert float(t) == int(t)
        alpha_bar = TABLE[int(t)]
        F: Tensor = self(x, ((1 - alpha_bar) / alpha_bar).log().div(8).clamp(-2.5, 2.5).expand(len(x)))
        return F


def start(scale: float = 1.0) -> tuple[Tensor, SampleNoise, Iterator[Tensor]]:
    """x, the sampler's random numbers, and the very same ones for diffusers."""
    rng, replay = SampleNoise(1, INDICES), SampleNoise(1, INDICES)
    draws = iter(lambda: replay.normal(SHAPE, torch.float64), None)
    next(draws)
    return scale * rng.normal(SHAPE, torch.float64), rng, draws


def ours(net: Net, sampler: Sampler, grid: str, steps: int, **kwargs: Any) -> tuple[list[Tensor], Iterator[Tensor]]:
    x, rng, draws = start()
    times = GRIDS[grid].times(PROCESS, steps)
    return [step.x_s for step in trajectory(NetDenoiser(net, PROCESS, **kwargs), sampler, times, x, rng)], draws


def assert_same(path: list[Tensor], theirs: list[Tensor], rtol: float, atol: float) -> None:
    assert len(path) == len(theirs)
    for a, b in zip(path, theirs):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def scheduler_of(kind: Any, steps: int, **config: Any) -> Any:
    """With DDPM's betas, its table of alpha_bar in float64, and nothing clipped."""
    scheduler = kind(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **config)
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(), TABLE, rtol=1e-4, atol=0
    )  # theirs is a float32 product
    scheduler.alphas_cumprod = TABLE
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("noise", "variance_type"), [("posterior", "fixed_small"), ("large", "fixed_large"), ("learned", "learned_range")]
)
def test_ddpm(noise: Any, variance_type: str, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = noise == "learned"
    net = Net(learned)
    path, draws = ours(net, DDPM(noise), grid, 20, learn_variance=learned)
    # On trailing stops they add noise also in the step to the data, which "trailing" reaches from t > 0; the paper does not.
    draws = itertools.chain(itertools.islice(draws, 19), itertools.repeat(torch.zeros(2, *SHAPE)))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(draws))
    scheduler = scheduler_of(DDPMScheduler, 20, variance_type=variance_type, clip_sample=False, timestep_spacing=grid)
    x, theirs = start()[0], []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(x, t), t, x).prev_sample
        theirs.append(x)
    assert_same(path, theirs, **EXACT)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim(eta: float, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    path, draws = ours(net, DDIM(eta), grid, 20)
    monkeypatch.setattr(scheduling_ddim, "randn_tensor", lambda *args, **kwargs: next(draws))
    scheduler = scheduler_of(DDIMScheduler, 20, clip_sample=False, timestep_spacing=grid)
    x, theirs = start()[0], []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(x, t), t, x, eta=eta).prev_sample
        theirs.append(x)
    assert_same(path, theirs, **EXACT)


@pytest.mark.parametrize("grid", GRIDS)
def test_heun(grid: str) -> None:
    # They work in EDM's coordinates with a network of DDPM's: ChangeProcess, which finds our times for their sigmas.
    net, steps = Net(), 12
    times = GRIDS[grid].times(PROCESS, steps)
    sigmas = PROCESS.sigma(times) / PROCESS.alpha(times)
    denoiser = ChangeProcess(NetDenoiser(net, PROCESS), EDM(sigma_max=1000.0))
    x, rng, _ = start(float(sigmas[0]))
    path = [step.x_s for step in trajectory(denoiser, Heun(), sigmas, x, rng)]

    scheduler = scheduler_of(HeunDiscreteScheduler, steps, timestep_spacing=grid)
    doubled = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    torch.testing.assert_close(scheduler.sigmas.double(), doubled, rtol=1e-5, atol=0)  # theirs are float32
    scheduler.sigmas = doubled
    theirs = []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(scheduler.scale_model_input(x, t), t), t, x).prev_sample
        if scheduler.state_in_first_order:
            theirs.append(x)
    assert_same(path, [*theirs, x], rtol=1e-8, atol=1e-8)  # the step to the data is a half one


@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize("grid", ["trailing"])
def test_dpm_solver(grid: str, steps: int) -> None:
    net = Net()
    path, _ = ours(net, DPMpp2M(), grid, steps)
    scheduler = scheduler_of(
        DPMSolverMultistepScheduler,
        steps,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
        timestep_spacing=grid,
    )
    x, theirs = start()[0], []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(x, t), t, x).prev_sample
        theirs.append(x)
    # They take every step in float32, of values up to 10.
    assert_same(path, theirs, rtol=2e-5, atol=2e-5)
