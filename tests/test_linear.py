"""The linear denoiser against closed forms, and what a network around it starts from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unstir.data import DataSpec
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.linear import LEAST, CorrectingDenoiser, LinearDenoiser
from unstir.networks import MLPConfig
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
    from unstir.errors import UserError

    with pytest.raises(UserError, match=r"works with denoiser\.parameterization edm, not v"):
        DenoiserConfig(parameterization="v", linear_components=4).build(MLPConfig(), EDM(), DataSpec("points", (SIZE,)))
