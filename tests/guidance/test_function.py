"""Guidance by any function, against what is known in closed form: Gaussian data and a quadratic loss."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from numeric import f64
from torch import Tensor, nn

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.guidance import ClassifierFreeGuidance, FunctionGuidance
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, RectifiedFlow

MEAN, STD = torch.tensor([0.8, -0.3], dtype=torch.float64), torch.tensor([0.5, 1.2], dtype=torch.float64)
TARGET, NOISE = torch.tensor([-0.4, 1.0], dtype=torch.float64), 0.3
X_T = torch.tensor([[0.3, -1.0], [1.2, 0.7], [-2.0, 0.1]], dtype=torch.float64)


def gaussian(process: Process) -> GaussianDenoiser:
    return GaussianDenoiser(process, MEAN, STD)


def times(process: Process) -> Tensor:
    return process.t_at_noise_ratio(f64(0.1, 0.8, 3.0))


def distance(x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    return (x - TARGET).square().sum(1) / 2


@pytest.mark.parametrize("name", PROCESSES)
def test_the_gradient_goes_through_the_denoiser(name: str) -> None:
    """x_0(x_t) of a Gaussian is linear with slope alpha std² / v, v = alpha² std² + sigma²: the gradient of |x_0 - y|² / 2 is known."""
    process, scale = PROCESSES[name](), 0.6
    t = times(process)
    with torch.no_grad():
        got = FunctionGuidance(gaussian(process), distance, scale)(X_T, t)
    plain = gaussian(process)(X_T, t)
    slope = plain.alpha * STD**2 / (plain.alpha**2 * STD**2 + plain.sigma**2)
    gradient = slope * (plain.x_0 - TARGET)
    torch.testing.assert_close(got.eps, plain.eps + scale * plain.sigma * gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.score_shift, -scale * gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.alpha * got.x_0 + got.sigma * got.eps, X_T)
    assert not got.x_0.requires_grad


@pytest.mark.parametrize("name", PROCESSES)
def test_a_measurement_s_likelihood_gives_the_exact_posterior(name: str) -> None:
    """y = x_0 + noise: p(y | x_t) = N(x_0(x_t), noise² + var(x_0 | x_t)), and guided by it the prior's denoiser is the posterior's."""
    process = PROCESSES[name]()
    t = times(process)
    prior = gaussian(process)

    def unlikely(x_0: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        alpha, sigma = process.scales(t, x_0)
        uncertain = sigma**2 * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return ((x_0 - TARGET).square() / (NOISE**2 + uncertain)).sum(1) / 2

    precision = 1 / STD**2 + 1 / NOISE**2
    posterior = GaussianDenoiser(process, (MEAN / STD**2 + TARGET / NOISE**2) / precision, precision.rsqrt())
    got, wanted = FunctionGuidance(prior, unlikely)(X_T, t), posterior(X_T, t)
    torch.testing.assert_close(got.x_0, wanted.x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.eps, wanted.eps, rtol=1e-9, atol=1e-9)


def test_of_x_t_the_denoiser_is_not_differentiated() -> None:
    process, t = RectifiedFlow(), f64(0.2, 0.5, 0.8)
    modes = []

    class Spy(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
            modes.append((torch.is_grad_enabled(), x_t.requires_grad))
            return gaussian(process)(x_t, t)

    with torch.no_grad():
        got = FunctionGuidance(Spy(process), distance, 2.0, on="x_t")(X_T, t)
    plain = gaussian(process)(X_T, t)
    torch.testing.assert_close(got.eps, plain.eps + 2.0 * plain.sigma * (X_T - TARGET))
    assert modes == [(False, False)]


def test_two_functions_add_up_in_either_order() -> None:
    process, t = VP(), f64(0.1, 0.4, 0.8)
    other = lambda x, t, cond: x[:, 1] ** 4  # noqa: E731
    one = FunctionGuidance(FunctionGuidance(gaussian(process), distance, 0.5, on="x_t"), other, 0.2, on="x_t")
    two = FunctionGuidance(FunctionGuidance(gaussian(process), other, 0.2, on="x_t"), distance, 0.5, on="x_t")
    with torch.no_grad():
        torch.testing.assert_close(one(X_T, t).x_0, two(X_T, t).x_0)


def test_one_through_the_other() -> None:
    """The outer function sees the belief that the inner one has guided, with the inner gradient as a constant."""
    process, t = VP(), f64(0.1, 0.4, 0.8)
    inner = FunctionGuidance(gaussian(process), distance, 0.5)
    with torch.no_grad():
        got, by_inner = FunctionGuidance(inner, distance, 0.3)(X_T, t), inner(X_T, t)
    plain = gaussian(process)(X_T, t)
    slope = plain.alpha * STD**2 / (plain.alpha**2 * STD**2 + plain.sigma**2)
    wanted = by_inner.eps + 0.3 * plain.sigma * slope * (by_inner.x_0 - TARGET)
    torch.testing.assert_close(got.eps, wanted, rtol=1e-9, atol=1e-9)
    assert not got.eps.requires_grad


def test_around_classifier_free_guidance_it_sees_the_guided_belief() -> None:
    means = torch.tensor([[0.8, -0.2], [-0.5, 1.4]], dtype=torch.float64)
    exact = MixtureDenoiser(VP(), means, f64(0.3).reshape(1, 1))
    free, t, label = ClassifierFreeGuidance(exact, 3.0), f64(0.4)[0], torch.tensor([0, 1, 1])
    with torch.no_grad():
        got = FunctionGuidance(free, distance, 0.4)(X_T, t, label=label)
    h, shifts = 1e-6, []
    for axis in torch.eye(2, dtype=torch.float64) * h:
        up, down = (distance(free(X_T + step, t, label=label).x_0, t, {}) for step in (axis, -axis))
        shifts.append(-0.4 * (up - down) / (2 * h))
    torch.testing.assert_close(got.score_shift, torch.stack(shifts, 1), rtol=1e-5, atol=1e-7)


def test_a_network_collects_no_gradients() -> None:
    network = nn.Linear(2, 2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = network

        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return self.layer(x)

    denoiser = NetDenoiser(Net(), EDM(), "x_0")
    denoiser.autocast = torch.bfloat16
    loss = lambda x, t, cond: x.square().sum(1)  # noqa: E731
    with torch.no_grad():
        got = FunctionGuidance(denoiser, loss, 0.1)(X_T.float(), f64(0.5)[0])
    assert network.weight.grad is None
    assert not got.x_0.requires_grad
    assert got.score_shift is not None
    assert got.score_shift.abs().max() > 0
    assert got.score_shift.dtype == torch.float32


def test_what_depends_on_nothing_changes_nothing_and_a_wrong_shape_is_told() -> None:
    t = f64(0.5)[0]
    for on in ("x_0", "x_t"):
        constant = lambda x, t, cond: torch.ones(len(x), dtype=x.dtype)  # noqa: E731
        got = FunctionGuidance(gaussian(EDM()), constant, 3.0, on=on)(X_T, t)  # type: ignore[arg-type]
        assert torch.equal(got.x_0, gaussian(EDM())(X_T, t).x_0)
        with pytest.raises(ValueError, match=r"a number for each sample, \(3,\), not \(\)"):
            FunctionGuidance(gaussian(EDM()), lambda x, t, cond: x.sum(), on=on)(X_T, t)  # type: ignore[arg-type]
