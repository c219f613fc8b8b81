"""NetDenoiser's wiring, and the exact denoisers against densities computed in other ways."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from numeric import f64
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from unstir.denoiser import C_NOISE_LIMIT, ChangeProcess, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, LinearVP, RectifiedFlow

MEANS = torch.tensor([[0.8, -0.2], [-0.5, 1.4], [0.1, -1.0]], dtype=torch.float64)
STDS = torch.tensor([[0.2, 0.5], [0.4, 0.3], [0.9, 0.3]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def noisy(process: Process, t: Tensor) -> MixtureSameFamily:
    """q(x_t), by torch.distributions."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    components = Independent(Normal(alpha * MEANS, ((alpha * STDS) ** 2 + sigma**2).sqrt()), 1)
    return MixtureSameFamily(Categorical(WEIGHTS), components)


def points() -> Tensor:
    return torch.tensor([[0.3, -1.0], [1.2, 0.7], [-2.0, 0.1], [0.0, 0.0]], dtype=torch.float64)


class Echo(nn.Module):
    """Gives what the test says, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.asked = (x, c_noise)
        return self.answer(x)


# ---- NetDenoiser ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_what_the_network_is_told(sigma_data: float) -> None:
    network = Echo(torch.zeros_like)
    x_t = torch.randn(2, 3, 4, dtype=torch.float64)
    NetDenoiser(network, EDM(), "edm", sigma_data=sigma_data)(x_t, f64(0.5, 20))
    assert network.asked is not None
    x, c_noise = network.asked
    assert x.dtype == c_noise.dtype == torch.float32  # its precision, not the sampler's
    sigma = f64(0.5, 20).reshape(2, 1, 1)
    torch.testing.assert_close(x, (x_t / (sigma**2 + sigma_data**2).sqrt()).float())  # c_in of table 1
    torch.testing.assert_close(c_noise, f64(math.log(0.5) / 4, math.log(20) / 4).float())  # c_noise of table 1


def test_variance_preserving_input_is_not_scaled() -> None:
    network = Echo(torch.zeros_like)
    x_t = torch.randn(1, 3)
    NetDenoiser(network, LinearVP())(x_t, torch.tensor(400.0, dtype=torch.float64))
    assert network.asked is not None
    torch.testing.assert_close(network.asked[0], x_t)


@pytest.mark.parametrize("process", PROCESSES)
def test_c_noise_is_finite_at_both_ends(process: str) -> None:
    denoiser = NetDenoiser(Echo(torch.zeros_like), PROCESSES[process]())
    ends = denoiser.c_noise(f64(0, denoiser.process.t_max))
    assert float(ends[0]) == -C_NOISE_LIMIT
    assert -C_NOISE_LIMIT < float(ends[1]) <= C_NOISE_LIMIT


def test_learned_variance_is_split_off() -> None:
    network = Echo(lambda x: torch.cat([2 * x, torch.full_like(x, -0.5)], dim=1))
    x_t = torch.randn(2, 3, 4)
    prediction = NetDenoiser(network, LinearVP(), "eps", learn_variance=True)(x_t, f64(3, 500))
    torch.testing.assert_close(prediction.eps, 2 * x_t)
    assert prediction.variance_fraction is not None
    torch.testing.assert_close(prediction.variance_fraction, torch.full_like(x_t, 0.25))  # (v + 1) / 2
    assert NetDenoiser(Echo(torch.zeros_like), LinearVP())(x_t, f64(3, 500)).variance_fraction is None


def test_belief_explains_x_t() -> None:
    for name in ("eps", "x_0", "v", "flow", "edm", "score"):
        x_t = torch.randn(2, 3, dtype=torch.float64)
        p = NetDenoiser(Echo(torch.sin), RectifiedFlow(), name, sigma_data=0.5)(x_t, f64(0.3, 0.9))
        torch.testing.assert_close(p.alpha * p.x_0 + p.sigma * p.eps, x_t, rtol=1e-6, atol=1e-6)


def test_float64_network_is_asked_in_float64() -> None:
    network = nn.Linear(3, 3).double()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = network

        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            assert x.dtype == c_noise.dtype == torch.float64
            out: Tensor = self.layer(x)
            return out

    x_t = torch.randn(2, 3, dtype=torch.float64)
    assert NetDenoiser(Net(), VP())(x_t, f64(0.3, 0.9)).x_0.dtype == torch.float64


# ---- exact denoisers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES)
def test_mixture_density_and_score(process: str) -> None:
    p = PROCESSES[process]()
    denoiser = MixtureDenoiser(p, MEANS, STDS, WEIGHTS)
    for t in (0.0, 0.1 * p.t_max, 0.6 * p.t_max):
        time = torch.tensor(t, dtype=torch.float64)
        x_t = points().requires_grad_()
        density: Tensor = noisy(p, time).log_prob(x_t)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(denoiser.log_prob(x_t, time), density, rtol=1e-11, atol=1e-11)
        if t > 0:
            (score,) = torch.autograd.grad(density.sum(), x_t)
            torch.testing.assert_close(denoiser(x_t.detach(), time).score, score, rtol=1e-9, atol=1e-9)


def test_mixture_belief_by_numerical_integration() -> None:
    process, time, x_t = RectifiedFlow(), torch.tensor(0.4, dtype=torch.float64), 0.35
    means, stds = MEANS[:, :1], STDS[:, :1]
    prior = MixtureSameFamily(Categorical(WEIGHTS), Normal(means[:, 0], stds[:, 0]))
    x_0 = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    likelihood = -((x_t - 0.6 * x_0) ** 2) / (2 * 0.4**2)
    weight: Tensor = (prior.log_prob(x_0) + likelihood).exp()  # type: ignore[no-untyped-call]
    p = MixtureDenoiser(process, means, stds, WEIGHTS)(f64(x_t).reshape(1, 1), time)
    assert float(p.x_0) == pytest.approx(float((weight * x_0).sum() / weight.sum()), rel=1e-9)
    assert float(p.eps) == pytest.approx(float((weight * (x_t - 0.6 * x_0) / 0.4).sum() / weight.sum()), rel=1e-9)


def test_mixture_of_one_label_is_that_component() -> None:
    denoiser, t = MixtureDenoiser(VP(), MEANS, STDS, WEIGHTS), torch.tensor(0.3, dtype=torch.float64)
    label = torch.tensor([2, 0, -1, 1])
    got, whole = denoiser(points(), t, label=label), denoiser(points(), t)
    for i, k in enumerate(label.tolist()):
        alone = GaussianDenoiser(VP(), MEANS[k], STDS[k])(points()[i : i + 1], t)
        torch.testing.assert_close(got.x_0[i], whole.x_0[i] if k < 0 else alone.x_0[0])
        torch.testing.assert_close(got.eps[i], whole.eps[i] if k < 0 else alone.eps[0])


def test_times_of_each_sample() -> None:
    denoiser, t = MixtureDenoiser(LinearVP(), MEANS, STDS), f64(3, 100, 500, 1000)
    together = denoiser(points(), t)
    for i in range(4):
        alone = denoiser(points()[i : i + 1], t[i])
        torch.testing.assert_close(together.x_0[i], alone.x_0[0])
        torch.testing.assert_close(together.eps[i], alone.eps[0])
    torch.testing.assert_close(denoiser.log_prob(points(), t)[2], denoiser.log_prob(points(), t[2])[2])


@pytest.mark.parametrize("process", PROCESSES)
def test_flow_map_follows_the_ode(process: str) -> None:
    p = PROCESSES[process]()
    denoiser = GaussianDenoiser(p, MEANS[0], STDS[0])
    t = torch.tensor(0.4567 * p.t_max, dtype=torch.float64)
    s = t - 1e-6 * p.t_max
    x_s, x_t = denoiser.flow_map(points(), t, s), points()
    torch.testing.assert_close(denoiser.flow_map(x_s, s, t), x_t)
    # dx/dt = f x - g²/2 grad log q, Song et al. 2021, eq. 13.
    velocity = p.drift(t) * x_t - 0.5 * p.diffusion_squared(t) * denoiser(x_t, t).score
    torch.testing.assert_close((x_t - x_s) / (t - s), velocity, rtol=1e-4, atol=1e-6)


def test_change_process_by_hand() -> None:
    # A variance-preserving model in EDM's coordinates: x / sqrt(1 + sigma²), Karras et al. 2022, table 1 (VP).
    inner = MixtureDenoiser(LinearVP(), MEANS, STDS)
    t = torch.tensor(300.0, dtype=torch.float64)
    sigma = inner.process.sigma(t) / inner.process.alpha(t)
    p = ChangeProcess(inner, EDM())(points(), sigma)
    torch.testing.assert_close(p.x_0, inner(points() / (1 + sigma**2).sqrt(), t).x_0)
    torch.testing.assert_close(p.x_0 + sigma * p.eps, points())
