"""The adaptive solver of the probability-flow ODE: against the closed form, against scipy, both ways, at both ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numeric import f64, scalar
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser
from unstir.process import Process
from unstir.processes import PROCESSES, VP, CosineVP
from unstir.samplers import DDIM, RK45, Heun
from unstir.samplers.grids import Uniform
from unstir.samplers.rk45 import flow, lowest
from unstir.sampling import SampleNoise, encode, sample, trajectory

ENDS = {**{name: process() for name, process in PROCESSES.items()}, "zero-terminal-snr": CosineVP(beta_max=1)}


def gaussian(process: Process) -> GaussianDenoiser:
    return GaussianDenoiser(process, f64(0.5, -1, 0.2), f64(0.3, 0.6, 0.9))


def mixture(process: Process) -> MixtureDenoiser:
    means = torch.stack([f64(0.8, -0.2), f64(-0.5, 0.4)])
    return MixtureDenoiser(process, means, f64(0.3).reshape(1, 1))


def start(process: Process, t: Tensor, size: int = 3) -> Tensor:
    eps = torch.randn(4, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return process.alpha(t).hypot(process.sigma(t)) * eps


def no_noise() -> SampleNoise:
    return SampleNoise(0, range(4))


@pytest.mark.parametrize("name", ENDS)
def test_closed_form_from_end_to_end(name: str) -> None:
    """From t_max (where alpha may be 0) to t_min, and back: the error is of the tolerance's size and falls with it."""
    process = ENDS[name]
    exact = gaussian(process)
    top, low = scalar(process.t_max), scalar(process.t_min)
    x = start(process, top)
    wanted = exact.flow_map(x, top, low)
    errors = []
    for tolerance in (1e-5, 1e-7, 1e-9):
        got = flow(exact, x, top, low, {}, tolerance, tolerance)
        errors.append(float((got - wanted).abs().max()))
        back = flow(exact, got, low, top, {}, tolerance, tolerance)
        scale = float(process.alpha(top).hypot(process.sigma(top)))
        # On the way up an error at the data grows with the spread of x_t over the data's.
        assert float((back - x).abs().max()) < 100 * tolerance * scale / 0.3
        assert errors[-1] < 100 * tolerance
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10


@pytest.mark.parametrize("name", ENDS)
def test_the_sampler_is_the_flow_and_the_last_belief(name: str) -> None:
    process = ENDS[name]
    exact = mixture(process)
    times = Uniform().times(process, 3)
    x = start(process, times[0], 2)
    got = sample(exact, RK45(1e-8, 1e-8), times, x, no_noise())
    low = lowest(process)
    assert float(low) == process.t_min or float(process.sigma(low) / process.alpha(low)) == pytest.approx(1e-3)
    wanted = exact(flow(exact, x, times[0], low, {}, 1e-8, 1e-8), low).x_0
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("process", [VP(), PROCESSES["edm"](), PROCESSES["sub-vp"]()])
def test_scipy_in_the_papers_own_form(process: Process) -> None:
    """A second implementation, of another form: dx/dt = f x - g²/2 score, by scipy's solver with the processes' f and g²."""
    integrate = pytest.importorskip("scipy.integrate")
    exact = mixture(process)
    top, low = scalar(process.t_max), scalar(max(process.t_min, 1e-3))
    x = start(process, top, 2)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        now, state = scalar(t), torch.from_numpy(y.reshape(4, 2))
        change = process.drift(now) * state - 0.5 * process.diffusion_squared(now) * exact(state, now).score
        return change.detach().numpy().ravel()

    solution = integrate.solve_ivp(
        slope, (float(top), float(low)), x.numpy().ravel(), method="DOP853", rtol=1e-10, atol=1e-10
    )
    wanted = torch.from_numpy(solution.y[:, -1].reshape(4, 2))
    torch.testing.assert_close(flow(exact, x, top, low, {}, 1e-9, 1e-9), wanted, rtol=0, atol=1e-6)


def test_steps_follow_the_tolerance() -> None:
    exact = mixture(VP())
    times = Uniform().times(VP(), 1)
    cost = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        steps = list(trajectory(exact, RK45(tolerance, tolerance), times, start(VP(), times[0], 2), no_noise()))
        assert len(steps) == 1
        cost.append(steps[0].evaluations)
    assert 10 < cost[0] < cost[1] < cost[2] < 1000
    # Fifth order: a hundredth of the error for 100^(1/5) = 2.5 times the steps.
    assert cost[2] / cost[1] < 4


def test_a_sample_depends_on_its_own_number_alone() -> None:
    exact, times = mixture(VP()), Uniform().times(VP(), 2)
    x = start(VP(), times[0], 2)
    alone = sample(exact, RK45(1e-4, 1e-4), times, x[2:3], SampleNoise(0, [2]))
    torch.testing.assert_close(sample(exact, RK45(1e-4, 1e-4), times, x, no_noise())[2:3], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ENDS)
def test_no_ends_meet_nan(name: str) -> None:
    """Single precision, and a belief that is clipped: finite from pure noise to the data, and to every time between."""
    from unstir.guidance import ClipX0

    process = ENDS[name]
    exact = ClipX0(MixtureDenoiser(process, torch.tensor([[0.8, -0.2], [-0.5, 0.4]]), torch.tensor([[0.3]])))
    times = Uniform().times(process, 4)
    x = start(process, times[0], 2).float()
    steps = list(trajectory(exact, RK45(1e-3, 1e-3), times, x, no_noise()))
    assert all(bool(step.x_s.isfinite().all()) for step in steps)
    assert steps[-1].x_s.dtype == torch.float32


# ---- encoding ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENDS)
def test_encoding_is_the_flow_upwards(name: str) -> None:
    """Data of a Gaussian go to where the closed form takes them, from the smallest noise at which they can be asked about."""
    process = ENDS[name]
    exact = gaussian(process)
    x_0 = exact.means[0] + exact.stds[0] * torch.randn(
        4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    times = Uniform().times(process, 3)
    got = encode(exact, RK45(1e-9, 1e-9), times, x_0, no_noise())
    wanted = exact.flow_map(x_0, scalar(0), times[0])
    # leave_data undoes the last step of decoding, the belief; the flow over the same stretch differs by the second order in sigma.
    first = float(process.sigma(lowest(process)))
    scale = float(process.alpha(times[0]).hypot(process.sigma(times[0])))
    torch.testing.assert_close(got, wanted, rtol=0, atol=scale * (20 * first**2 + 1e-6))


def round_trip(denoiser: Denoiser, sampler: DDIM | Heun | RK45, steps: int, x_0: Tensor) -> float:
    times = Uniform().times(denoiser.process, steps)
    rng = SampleNoise(0, range(len(x_0)))
    latent = encode(denoiser, sampler, times, x_0, rng)
    assert rng.draws == 0
    return float((sample(denoiser, sampler, times, latent, rng) - x_0).abs().max())


DATA = torch.tensor([[0.9, -0.1], [-0.4, 0.2], [0.6, -0.5], [-0.8, 0.7]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["linear", "vp", "rectified-flow"])
@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (Heun(), 2)])
def test_the_round_trip_closes_as_steps_grow(name: str, sampler: DDIM | Heun, order: int) -> None:
    errors = [round_trip(mixture(PROCESSES[name]()), sampler, steps, DATA) for steps in (25, 100, 400)]
    assert errors[1] < errors[0] / 1.9**order
    assert errors[2] < errors[1] / 1.9**order
    assert errors[2] < 0.1


@pytest.mark.parametrize("name", ENDS)
def test_the_round_trip_closes_with_the_tolerance(name: str) -> None:
    process = ENDS[name]
    errors = [round_trip(mixture(process), RK45(tol, tol), 3, DATA) for tol in (1e-3, 1e-5, 1e-7)]
    floor = 10 * float(process.sigma(lowest(process))) ** 4 / 0.3**4  # what leave_data leaves
    scale = min(float(process.sigma(scalar(process.t_max)) / process.alpha(scalar(process.t_max))), 100.0)
    assert errors[0] < 1
    assert errors[1] < 1e-3 * scale + floor
    assert errors[2] < 1e-5 * scale + floor


def test_encoding_keeps_latents_normal() -> None:
    """Many data of a mixture, encoded, are what decoding starts from: standard normal noise, as far as their moments say."""
    exact = mixture(VP())
    n, generator = 2000, torch.Generator().manual_seed(0)
    which = torch.arange(n) % 2
    x_0 = exact.means[which] + 0.3 * torch.randn(n, 2, dtype=torch.float64, generator=generator)
    latent = encode(exact, RK45(1e-4, 1e-4), Uniform().times(VP(), 1), x_0, SampleNoise(0, range(n)))
    torch.testing.assert_close(latent.mean(0), torch.zeros(2).double(), rtol=0, atol=4 / math.sqrt(n))
    torch.testing.assert_close(latent.T @ latent / n, torch.eye(2).double(), rtol=0, atol=6 / math.sqrt(n))
    assert float((latent**4).mean()) == pytest.approx(3, abs=0.5)
