"""The linear denoiser against closed forms, and what a network around it starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unstir.data import Condition, DataSpec
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.linear import LEAST, CorrectingDenoiser, LinearDenoiser, RestDenoiser
from unstir.networks import MLPConfig, UNetConfig
from unstir.objectives import Batch, DenoisingObjective
from unstir.process import Process
from unstir.processes import EDM, VP, RectifiedFlow
from unstir.recipes.recipe import DenoiserConfig
from unstir.sampling import SampleNoise

SIZE = 6
PROCESSES = [VP(), EDM(), RectifiedFlow()]


def gaussian(n: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(samples, their mean, their covariance)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    x = torch.randn(n, SIZE, generator=generator, dtype=torch.float64) @ mix.T + torch.arange(SIZE)
    return x, x.mean(0), torch.cov(x.T, correction=0)


def fitted(process: Process, components: int, x: torch.Tensor) -> LinearDenoiser:
    linear = LinearDenoiser(process, tuple(x.shape[1:]), components).double()
    linear.fit(x)
    return linear


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_it_is_the_conditional_expectation_of_a_gaussian(process: Process, fraction: float) -> None:
    x, mean, cov = gaussian()
    linear = fitted(process, SIZE, x)
    t = process.time_of_fraction(torch.tensor([fraction], dtype=torch.float64)) if fraction else torch.zeros(1).double()
    x_t = torch.linspace(-2, 3, SIZE, dtype=torch.float64).unsqueeze(0)
    a, s = process.alpha(t), process.sigma(t)
    S = a**2 * cov + s**2 * torch.eye(SIZE, dtype=torch.float64)
    solved = torch.linalg.solve(S, (x_t - a * mean).squeeze(0))
    prediction = linear(x_t, t)
    torch.testing.assert_close(prediction.x_0.squeeze(0), mean + a * cov @ solved, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(prediction.eps.squeeze(0), s * solved, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(x_t, a * prediction.x_0 + s * prediction.eps, atol=1e-9, rtol=1e-9)
    spread = linear.spread(*process.scales(t, x_t))
    expected = (torch.trace(cov @ torch.linalg.inv(S)) / SIZE).sqrt()
    torch.testing.assert_close(spread.reshape(()), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("components", [0, 1, 3])
def test_the_rest_gets_the_mean_of_the_other_variances(components: int) -> None:
    """Tipping & Bishop 1999, eq. 8."""
    x, _, cov = gaussian()
    linear = fitted(VP(), components, x)
    values = torch.linalg.eigvalsh(cov).flip(0)
    torch.testing.assert_close(linear.variances, values[:components])
    torch.testing.assert_close(linear.rest, values[components:].mean())


def test_it_has_the_gaussian_denoiser_s_belief_where_the_covariance_is_diagonal() -> None:
    x, mean, _ = gaussian()
    process, t = VP(), torch.tensor([0.4], dtype=torch.float64)
    linear = fitted(process, 0, x)
    exact = GaussianDenoiser(process, mean, linear.rest.sqrt())
    x_t = x[:1] + 1
    torch.testing.assert_close(linear(x_t, t).x_0, exact(x_t, t).x_0)


def test_more_numbers_than_the_exact_method_takes_find_the_same_components() -> None:
    """Data of rank 5 in 1,200 dimensions: the randomised method must find them, and 3 of its 8 directions stay unused."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(1200, 5, generator=generator, dtype=torch.float64)).Q
    z = torch.randn(300, 5, generator=generator, dtype=torch.float64) * torch.tensor([5.0, 4, 3, 2, 1])
    x = z @ basis.T
    linear = fitted(EDM(), 8, x)
    centred = z - z.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(z)).flip(0)
    torch.testing.assert_close(linear.variances[:5], values, rtol=1e-6, atol=1e-6)
    assert float(linear.variances[5:].max()) <= LEAST
    assert float(linear.rest) == pytest.approx(LEAST)
    again = fitted(EDM(), 8, x)
    assert torch.equal(linear.directions, again.directions)


def test_fewer_samples_than_components() -> None:
    x, mean, _ = gaussian(n=3)
    linear = fitted(VP(), SIZE, x)
    x_t, t = x.clone(), torch.tensor([1e-3], dtype=torch.float64)
    assert torch.isfinite(linear(x_t, t).x_0).all()
    torch.testing.assert_close(linear.mean, mean)
    assert int((linear.directions.square().sum(1) > 0.5).sum()) == 2  # three points span a plane


class Constant(nn.Module):
    """F is one number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, /, **cond: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(x), SIZE)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_an_untrained_network_leaves_the_linear_belief_and_its_error_is_of_unit_size(process: Process) -> None:
    """F = 0 gives the linear denoiser; the loss it then has in F is 1 on Gaussian data at every noise level."""
    x, _, _ = gaussian(n=20_000)
    linear = fitted(process, SIZE, x)
    denoiser = CorrectingDenoiser(Constant(0.0), linear)
    rng = SampleNoise(0, range(len(x)))
    for fraction in (0.2, 0.6, 0.95):
        t = process.time_of_fraction(torch.tensor(fraction, dtype=torch.float64))
        eps = rng.normal_like(x)
        x_t = process.add_noise(x, t, eps)
        p = denoiser(x_t, t)
        torch.testing.assert_close(p.x_0, linear(x_t, t).x_0)
        error = denoiser.raw_error(p.x_0 - x, p.eps - eps, p.alpha, p.sigma)
        assert float(error.detach().square().mean()) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_one_variance_makes_it_edm(process: Process) -> None:
    """With zero mean and nothing but one variance it is EDM's preconditioning to the bit of a rounding error."""
    x = torch.randn(50, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    linear = LinearDenoiser(process, (SIZE,), 0).double()
    linear.rest.fill_(0.7**2)
    correcting = CorrectingDenoiser(Constant(0.3), linear, sigma_data=0.7)
    edm = NetDenoiser(Constant(0.3), process, "edm", sigma_data=0.7)
    for fraction in (0.1, 0.5, 1.0):
        t = process.time_of_fraction(torch.tensor(fraction, dtype=torch.float64))
        eps = x.flip(0)
        x_t = process.add_noise(x, t, eps)
        one, other = correcting(x_t, t), edm(x_t, t)
        torch.testing.assert_close(one.x_0, other.x_0)
        torch.testing.assert_close(one.eps, other.eps)
        torch.testing.assert_close(
            correcting.raw_error(one.x_0 - x, one.eps - eps, one.alpha, one.sigma),
            edm.raw_error(other.x_0 - x, other.eps - eps, other.alpha, other.sigma),
        )


def test_a_recipe_builds_it_and_its_moments_are_saved_with_the_weights() -> None:
    x, mean, _ = gaussian()
    spec = DataSpec("points", (SIZE,), std=1.5)
    build = DenoiserConfig(linear_components=4).build
    denoiser = build(MLPConfig(width=16, depth=1), EDM(), spec)
    assert isinstance(denoiser, CorrectingDenoiser)
    assert denoiser.sigma_data == 1.5
    denoiser.fit(x.float())
    other = build(MLPConfig(width=16, depth=1), EDM(), spec)
    other.load_state_dict(denoiser.state_dict())
    assert isinstance(other, CorrectingDenoiser)
    torch.testing.assert_close(other.linear.mean, mean.float())
    loss = DenoisingObjective(space="F")(denoiser, Batch(x[:8].float()), SampleNoise(0, range(8)))
    assert float(loss.total.detach().mean()) > 0


def test_other_parameterisations_are_refused() -> None:
    with pytest.raises(UserError, match=r"works with denoiser\.parameterization edm, not v"):
        DenoiserConfig(parameterization="v", linear_components=4).build(MLPConfig(), EDM(), DataSpec("points", (SIZE,)))


# ---- what a condition tells of the data ------------------------------------------------------------------------------


def told(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, a condition c): x = 3 + 0.5 c + 0.2 noise, entry by entry, and c ~ N(-1, 1.5²)."""
    generator = torch.Generator().manual_seed(0)
    c, noise = torch.randn(2, n, SIZE, generator=generator, dtype=torch.float64)
    c = 1.5 * c - 1
    return 3 + 0.5 * c + 0.2 * noise, c


def fitted_rest(process: Process) -> RestDenoiser:
    linear = RestDenoiser(process, "low_res").double()
    linear.fit(told()[0], low_res=told()[1])
    return linear


def test_what_a_condition_tells_is_found_by_regression() -> None:
    x, c = told()
    linear = fitted_rest(VP())
    line = np.polynomial.Polynomial.fit(c.flatten().numpy(), x.flatten().numpy(), 1).convert().coef
    np.testing.assert_allclose([linear.offset, linear.gain], line, rtol=1e-9)
    np.testing.assert_allclose(
        linear.rest, np.var(x.flatten().numpy() - line[0] - line[1] * c.flatten().numpy()), rtol=1e-9
    )


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_beside_a_condition_it_is_the_conditional_expectation(process: Process, fraction: float) -> None:
    """Of the joint Gaussian of (x_0, c), solved as one system of x_t and c; a time for each sample."""
    linear = fitted_rest(process)
    gain, offset, rest, mean, var = *(float(v) for v in (linear.gain, linear.offset, linear.rest)), -0.7, 1.9
    t = process.time_of_fraction(torch.tensor([fraction], dtype=torch.float64)) if fraction else torch.zeros(1).double()
    x_t, c = torch.linspace(-2, 3, SIZE, dtype=torch.float64), torch.linspace(1, -2, SIZE, dtype=torch.float64)
    a, s = float(process.alpha(t)), float(process.sigma(t))
    own = gain**2 * var + rest  # var(x_0)
    S = torch.tensor([[a**2 * own + s**2, a * gain * var], [a * gain * var, var]], dtype=torch.float64)
    centred = torch.stack([x_t - a * (offset + gain * mean), c - mean])
    weights = torch.linalg.solve(
        S, torch.tensor([[a * own, s], [gain * var, 0.0]], dtype=torch.float64)
    )  # of x_0, of eps
    prediction = linear(x_t.unsqueeze(0), t, low_res=c.unsqueeze(0))
    torch.testing.assert_close(prediction.x_0[0], offset + gain * mean + weights[:, 0] @ centred, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(prediction.eps[0], weights[:, 1] @ centred, atol=1e-9, rtol=1e-9)
    explained = weights[0, 0] * a * own + weights[1, 0] * gain * var
    spread = linear.spread(*process.scales(t, x_t.unsqueeze(0)))
    if s:
        torch.testing.assert_close(s * spread.reshape(()), (own - explained).sqrt(), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_correcting_it_is_edm_for_what_is_left(process: Process) -> None:
    """With any output of the network the belief is the known part plus EDM's preconditioning of the rest."""
    x, c = (part[:3] for part in told())
    linear = fitted_rest(process)
    correcting = CorrectingDenoiser(Constant(0.3), linear, sigma_data=0.7)
    edm = NetDenoiser(Constant(0.3), process, "edm", sigma_data=float(linear.rest) ** 0.5)
    eps = torch.ones_like(x)
    t = process.time_of_fraction(torch.tensor([0.02, 0.4, 0.9], dtype=torch.float64))
    x_t = process.add_noise(x, t, eps)
    known = linear.offset + linear.gain * c
    one = correcting(x_t, t, low_res=c)
    other = edm(x_t - one.alpha * known, t)
    torch.testing.assert_close(one.x_0, known + other.x_0)
    torch.testing.assert_close(one.eps, other.eps)
    torch.testing.assert_close(
        correcting.raw_error(one.x_0 - x, one.eps - eps, one.alpha, one.sigma),
        edm.raw_error(other.x_0 - (x - known), other.eps - eps, other.alpha, other.sigma),
    )


def test_a_recipe_builds_it_for_a_condition_that_always_comes() -> None:
    low_res = Condition("grid", 0, shape=(1, 8), always=True)
    spec = DataSpec("signal", (1, 8), conditions={"low_res": low_res})
    config, network = DenoiserConfig(given="low_res"), UNetConfig(channels=8, multipliers=(1,), attention=(), middle=1)
    denoiser = config.build(network, EDM(), spec)
    assert isinstance(denoiser, CorrectingDenoiser)
    x = told()[0][:, None].repeat(1, 1, 2)[..., :8].float()
    denoiser.fit(x, low_res=2 * x - 1)
    other = config.build(network, EDM(), spec)
    other.load_state_dict(denoiser.state_dict())
    assert isinstance(other, CorrectingDenoiser)
    torch.testing.assert_close(other.linear.gain, torch.tensor(0.5))
    torch.testing.assert_close(other.linear.offset, torch.tensor(0.5))
    assert float(other.linear.rest) == pytest.approx(LEAST)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DenoiserConfig(given="low_ress"), "'low_ress' is none: did you mean low_res"),
        (DenoiserConfig(given="edges"), "'edges' is none: known: low_res"),
        (DenoiserConfig(given="low_res", linear_components=3), "corrects one linear denoiser"),
        (
            DenoiserConfig(given="low_res", parameterization="v"),
            r"denoiser\.given works with .* edm, not v; leave it out",
        ),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(config: DenoiserConfig, message: str) -> None:
    edges = Condition("grid", 0, shape=(1, 8))  # which may be left out
    low_res = Condition("grid", 0, shape=(1, 8), always=True)
    spec = DataSpec("signal", (1, 8), conditions={"edges": edges, "low_res": low_res})
    with pytest.raises(UserError, match=message):
        config.build(UNetConfig(channels=8), EDM(), spec)
