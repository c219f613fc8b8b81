"""Step for step equal to a second implementation: diffusers' schedulers, with the same network and the same noise.

Their t counts from 0 (t = 0 is the paper's t = 1), and their tables are float32. The tables are replaced by the same numbers in
float64, and so is the float32 in which some schedulers compute, so that equality means 1e-10. Where they deviate from their papers,
a comment at the test says how, and how the test accounts for it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unstir.denoiser import ChangeProcess, NetDenoiser
from unstir.process import Process
from unstir.processes import EDM, LinearVP
from unstir.samplers import (
    DDIM,
    DDPM,
    DEIS,
    LMS,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp2S,
    DPMpp3M,
    DPMpp3MSDE,
    DPMSolver2,
    DPMSolver3,
    Euler,
    EulerAncestral,
    Heun,
    UniPC,
)
from unstir.samplers.exponential import Expansion, X0InLogSNR
from unstir.samplers.grids import Leading, Uniform
from unstir.sampling import SampleNoise, Sampler, trajectory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DEISMultistepScheduler,
        DPMSolverMultistepScheduler,
        DPMSolverSinglestepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LMSDiscreteScheduler,
        UniPCMultistepScheduler,
    )
    from diffusers.schedulers import (
        scheduling_ddim,
        scheduling_ddpm,
        scheduling_dpmsolver_multistep,
        scheduling_euler_ancestral_discrete,
        scheduling_euler_discrete,
    )

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
        return self.at_level(x, ((1 - TABLE[int(t)]) / TABLE[int(t)]).sqrt())

    def at_level(self, x: Tensor, level: Tensor) -> Tensor:
        """At the noise level sigma / alpha."""
        F: Tensor = self(x, level.log().div(4).clamp(-2.5, 2.5).expand(len(x)))
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


# ---- fast solvers --------------------------------------------------------------------------------------------------------------

TRAILING = Uniform()


class Float64Torch:
    """The torch that a scheduler sees: what it asks to be float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def in_float64(monkeypatch: pytest.MonkeyPatch, module: ModuleType, draws: Iterator[Tensor]) -> None:
    """Makes a module of diffusers compute in float64, and draw these numbers."""
    monkeypatch.setattr(module, "torch", Float64Torch())
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(draws))


def level(times: Tensor) -> Tensor:
    return PROCESS.sigma(times) / PROCESS.alpha(times)


def exactly(kind: Any, times: Tensor, **config: Any) -> Any:
    """A scheduler whose noise levels are ours at these times (trailing stops), in float64."""
    scheduler = scheduler_of(kind, len(times) - 1, timestep_spacing="trailing", **config)
    torch.testing.assert_close(scheduler.sigmas.double(), level(times), rtol=1e-4, atol=1e-6)
    scheduler.sigmas = level(times)
    return scheduler


def path_of(net: Net, sampler: Sampler, times: Tensor) -> tuple[list[Tensor], Iterator[Tensor]]:
    x, rng, draws = start()
    return [step.x_s for step in trajectory(NetDenoiser(net, PROCESS), sampler, times, x, rng)], draws


def their_path(scheduler: Any, net: Net) -> list[Tensor]:
    """For schedulers that work in DDPM's coordinates."""
    x, path = start()[0], []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(x, t), t, x).prev_sample
        path.append(x)
    return path


def in_edm(path: list[Tensor], times: Tensor) -> list[Tensor]:
    """Our path in EDM's coordinates, x / alpha."""
    return [x / alpha for x, alpha in zip(path, PROCESS.alpha(times[1:]))]


@dataclass(frozen=True)
class HalfSecondDifference(X0InLogSNR):
    """The weight of the second difference as in their code of 3M (and that of the paper): half of the parabola's."""

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        m = super().moments(process, t, s, count)
        return torch.stack([*m[:2], m[2] / 2]) if count == 3 else m


@dataclass(frozen=True)
class OtherSign(HalfSecondDifference):
    """... and as in their code of 3M for the SDE, where the last term of (1 - exp(-2h) - 2h) / (2h)² + 1/2 has the other sign."""

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        m = super().moments(process, t, s, count)
        return torch.stack([*m[:2], m[2] - process.alpha(s)]) if count == 3 else m


@dataclass(frozen=True)
class Their3M(DPMpp3M):
    def scheme(self) -> tuple[Expansion, int]:
        return HalfSecondDifference(single="bh2"), 3


@dataclass(frozen=True)
class Their3MSDE(DPMpp3MSDE):
    def scheme(self) -> tuple[Expansion, int]:
        return OtherSign(self.eta, "bh2"), 3


@pytest.mark.parametrize("steps", [16, 25])  # with fewer than 15 theirs lowers the order in the last step but one
@pytest.mark.parametrize(
    ("sampler", "algorithm", "order"),
    [
        (DPMpp2M(), "dpmsolver++", 2),
        (Their3M(), "dpmsolver++", 3),
        (DPMpp2MSDE(), "sde-dpmsolver++", 2),
        (Their3MSDE(), "sde-dpmsolver++", 3),
    ],
)
def test_dpm_solver_multistep(
    sampler: Sampler, algorithm: str, order: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, times = Net(), TRAILING.times(PROCESS, steps)
    path, draws = path_of(net, sampler, times)
    scheduler = exactly(DPMSolverMultistepScheduler, times, algorithm_type=algorithm, solver_order=order)
    in_float64(monkeypatch, scheduling_dpmsolver_multistep, draws)
    assert_same(path, their_path(scheduler, net), **EXACT)


@pytest.mark.parametrize(
    ("sampler", "algorithm", "order"),
    [(DPMpp2S(), "dpmsolver++", 2), (DPMSolver2(), "dpmsolver", 2), (DPMSolver3(), "dpmsolver", 3)],
)
def test_dpm_solver_singlestep(sampler: Sampler, algorithm: str, order: int) -> None:
    # Theirs asks at stops of the grid, wherever they lie in log-SNR; so the grid gets stops where the papers want them.
    net, times = Net(), PROCESS.t_at_noise_ratio(torch.linspace(3, -3, 7, dtype=torch.float64).exp())
    path, _ = path_of(net, sampler, times)
    fractions = torch.arange(order, dtype=torch.float64) / order
    logs = level(times).log()
    levels = torch.cat([(logs[:-1, None] + fractions * logs.diff()[:, None]).flatten(), logs[-1:]]).exp()
    scheduler = scheduler_of(
        DPMSolverSinglestepScheduler,
        len(levels) - 1,
        algorithm_type=algorithm,
        solver_order=order,
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    scheduler.sigmas, scheduler.timesteps = levels, torch.arange(len(levels) - 1)
    x, theirs = start()[0], []
    for i, rho in enumerate(levels[:-1]):
        if order == 3:
            # The paper finds its second inner point with the exact weight of the first difference, and the end with the second
            # difference alone: that is their "heun" for the former and their "midpoint" for the latter.
            scheduler.register_to_config(solver_type="heun" if scheduler.order_list[i] == 2 else "midpoint")
        x = scheduler.step(net.at_level(x, rho), scheduler.timesteps[i], x).prev_sample
        theirs.append(x)
    assert_same(path, theirs[order - 1 :: order], rtol=1e-8, atol=1e-8)  # our times are found by bisection


# To the data, theirs needs lower_order_final: that is our first-order last step, but for order 3 also a second-order one before it;
# and with bh1 it is NaN, 0 times the infinite B(h).
@pytest.mark.parametrize(
    ("variant", "order", "last"),
    [("bh2", 1, "zero"), ("bh2", 2, "zero"), *((v, p, "sigma_min") for v in ("bh1", "bh2") for p in (1, 2, 3))],
)
def test_unipc(variant: Any, order: Any, last: str) -> None:
    net, times = Net(), TRAILING.times(PROCESS, 12)
    times = times if last == "zero" else torch.cat([times[:-1], torch.ones(1, dtype=torch.float64)])
    path, _ = path_of(net, UniPC(order, variant), times)
    scheduler = exactly(
        UniPCMultistepScheduler,
        times,
        solver_order=order,
        solver_type=variant,
        final_sigmas_type=last,
        lower_order_final=last == "zero",
    )
    assert_same(path, their_path(scheduler, net), **EXACT)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(order: Any) -> None:
    # Theirs ends at t = 1; it integrates in log rho, where the paper's tAB-DEIS is in time (tests/test_papers.py).
    net, times = Net(), TRAILING.times(PROCESS, 16)
    times = torch.cat([times[:-1], torch.ones(1, dtype=torch.float64)])
    path, _ = path_of(net, DEIS(order), times)
    scheduler = exactly(DEISMultistepScheduler, times, solver_order=order)
    assert_same(path, their_path(scheduler, net), **EXACT)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms(order: Any) -> None:
    net, times = Net(), TRAILING.times(PROCESS, 12)
    path, _ = path_of(net, LMS(order), times)
    scheduler = exactly(LMSDiscreteScheduler, times)
    x, theirs = start()[0] / PROCESS.alpha(times[0]), []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(scheduler.scale_model_input(x, t), t), t, x, order=order).prev_sample
        theirs.append(x)
    assert_same(in_edm(path, times), theirs, rtol=1e-8, atol=1e-8)  # they integrate numerically


def test_euler_ancestral(monkeypatch: pytest.MonkeyPatch) -> None:
    net, times = Net(), TRAILING.times(PROCESS, 12)
    path, draws = path_of(net, EulerAncestral(), times)
    scheduler = exactly(EulerAncestralDiscreteScheduler, times)
    in_float64(monkeypatch, scheduling_euler_ancestral_discrete, draws)
    x, theirs = start()[0] / PROCESS.alpha(times[0]), []
    for t in scheduler.timesteps:
        x = scheduler.step(net.at(scheduler.scale_model_input(x, t), t), t, x).prev_sample
        theirs.append(x)
    assert_same(in_edm(path, times), theirs, **EXACT)


@pytest.mark.parametrize("churn", [0.0, 3.0])
def test_euler(churn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their pipelines ask the network before the noise is added, at (x, sigma); the paper, and so this test, at (x_hat, sigma_hat).
    net, steps, limits = Net(), 12, (0.05, 100.0)
    times = TRAILING.times(PROCESS, steps)
    path, draws = path_of(net, Euler(churn / steps, *limits, 1.003), times)
    scheduler = exactly(EulerDiscreteScheduler, times)
    x, theirs = start()[0] / PROCESS.alpha(times[0]), []
    for t, sigma in zip(scheduler.timesteps, level(times)):
        gamma = churn / steps if limits[0] <= sigma <= limits[1] else 0.0
        z = next(draws) if gamma else torch.zeros_like(x)
        hat = sigma * (1 + gamma)
        x_hat = x + (hat**2 - sigma**2).sqrt() * 1.003 * z
        in_float64(monkeypatch, scheduling_euler_discrete, iter([z]))
        eps = net.at_level(x_hat / (hat**2 + 1).sqrt(), hat)
        scheduler.is_scale_input_called = True  # or it warns
        x = scheduler.step(eps, t, x, churn, *limits, 1.003).prev_sample
        theirs.append(x)
    assert_same(in_edm(path, times), theirs, rtol=1e-8, atol=1e-8)  # our t_hat is found by bisection
