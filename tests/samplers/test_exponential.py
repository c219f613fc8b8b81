"""The algebra of the fast solvers: a step is exact wherever the belief is a polynomial of the kind that it assumes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numeric import f64
from torch import Tensor

from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import PROCESSES, VP, CosineVP, RectifiedFlow
from unstir.samplers.deis import EpsInRho, EpsInTime
from unstir.samplers.exponential import (
    FIRST_MOMENTS,
    EpsInLogSNR,
    Expansion,
    Node,
    X0Ancestral,
    X0InLogSNR,
    advance,
    exponential_moments,
    half_log_snr,
    weights,
)


def integral(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """∫_a^b f by 80 points, exact to rounding for what is smooth."""
    u, w = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(80))
    return (b - a) / 2 * (w * f(a + (u + 1) / 2 * (b - a))).sum()


@pytest.mark.parametrize("c", [1e-8, -1e-4, 0.03, -0.5, 0.9999, 1.0001, -1.0001, 3.0, -6.0, 25.0])
def test_moments(c: float) -> None:
    c_ = f64(c)[0]
    wanted = [integral(lambda u, k=k: c_ * torch.exp(-c_ * (1 - u)) * u**k, f64(0)[0], f64(1)[0]) for k in range(4)]
    torch.testing.assert_close(exponential_moments(c_, 4), torch.stack(wanted), rtol=1e-12, atol=0)


def test_the_simpler_first_moments() -> None:
    for c in (1e-3, -1e-3):
        m = exponential_moments(f64(c)[0], 2)
        for rule in FIRST_MOMENTS.values():
            assert float(rule(f64(c)[0], m)) == pytest.approx(c / 2, rel=1e-3)
    m = exponential_moments(f64(2)[0], 2)
    found = {name: float(rule(f64(2)[0], m)) for name, rule in FIRST_MOMENTS.items()}
    e = math.exp(-2)
    assert found == pytest.approx({"exact": 1 - (1 - e) / 2, "bh1": 1, "bh2": (1 - e) / 2})


def test_weights_are_exact_for_polynomials() -> None:
    places, moments = f64(-0.7, 1.0, -1.9), exponential_moments(f64(0.8)[0], 4)
    w = weights(places, moments)
    for k in (1, 2, 3):
        torch.testing.assert_close((w * places**k).sum(), moments[k])


def solution(
    expansion: Expansion, process: Process, P: Callable[[Tensor], Tensor], x: Tensor, t: Tensor, s: Tensor
) -> Tensor:
    """x_s by numerical integration over lambda, where the expansion's belief is P(its variable)."""
    a, b = half_log_snr(process, t), half_log_snr(process, s)
    alpha_t, sigma_t, alpha_s, sigma_s = process.alpha(t), process.sigma(t), process.alpha(s), process.sigma(s)

    def belief(l: Tensor) -> Tensor:
        return P(expansion.position(process, process.t_at_log_snr(2 * l)))

    if isinstance(expansion, X0InLogSNR):
        rate = 1 + expansion.eta
        return sigma_s / sigma_t * torch.exp(expansion.eta * (a - b)) * x + alpha_s * integral(
            lambda l: rate * torch.exp(-rate * (b - l)) * belief(l), a, b
        )
    return alpha_s / alpha_t * x - sigma_s * integral(lambda l: torch.exp(b - l) * belief(l), a, b)


EXPANSIONS: list[Expansion] = [X0InLogSNR(), X0InLogSNR(0.6), X0InLogSNR(1.0), EpsInLogSNR(), EpsInRho(), EpsInTime()]
SMOOTH = ("vp", "sub-vp", "edm", "rectified-flow", "ve")  # in time; the others are interpolated between whole steps


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
@pytest.mark.parametrize("name", PROCESSES)
def test_a_step_is_exact_for_polynomials(name: str, expansion: Expansion, degree: int) -> None:
    if isinstance(expansion, EpsInTime) and name not in SMOOTH:
        pytest.skip("kinks in time, where numerical integration is not exact")
    process = PROCESSES[name]()
    times = process.t_at_noise_ratio(f64(2.9, 2.2, 1.7, 0.9, 1.2, 0.8))
    t, s, others = times[2], times[3], times[[0, 1, 4, 5]][:degree]  # behind, inside and beyond the step
    centre, size = expansion.position(process, t), expansion.span(process, t, s).abs()

    def P(v: Tensor) -> Tensor:
        return torch.stack([(1 + k) * ((v - centre) / size) ** k for k in range(degree + 1)]).sum(0)

    x, (alpha, sigma) = f64(0.7), (process.alpha(t), process.sigma(t))
    value = P(centre).reshape(1)
    if isinstance(expansion, X0InLogSNR):
        here = Prediction(x, value, (x - alpha * value) / sigma, alpha, sigma)
    else:
        here = Prediction(x, (x - sigma * value) / alpha, value, alpha, sigma)
    nodes = [Node(expansion.position(process, u), P(expansion.position(process, u)).reshape(1)) for u in others]
    got = advance(expansion, process, here, t, s, nodes, expansion.std(process, t, s))
    torch.testing.assert_close(got[0], solution(expansion, process, P, x[0], t, s), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", PROCESSES)
def test_noise_of_the_sde(name: str) -> None:
    # eta = 1 is DDPM's noise; and whatever eta, what is not fresh is old: the marginal of x_s given x_0 stays sigma_s.
    process = PROCESSES[name]()
    t, s = process.t_at_noise_ratio(f64(1.7, 0.9))
    torch.testing.assert_close(X0InLogSNR(1.0).std(process, t, s), process.posterior_std(t, s))
    torch.testing.assert_close(X0Ancestral(1.0).std(process, t, s), process.posterior_std(t, s))
    std, h = X0InLogSNR(0.3).std(process, t, s), half_log_snr(process, s) - half_log_snr(process, t)
    torch.testing.assert_close(
        (process.sigma(s) * torch.exp(-0.3 * h)).square() + std.square(), process.sigma(s).square()
    )
    down = X0Ancestral(0.5).span(process, t, s) + half_log_snr(process, t)
    fresh = X0Ancestral(0.5).std(process, t, s) / process.alpha(s)
    torch.testing.assert_close(torch.exp(-2 * down) + fresh.square(), torch.exp(-2 * half_log_snr(process, s)))


@pytest.mark.parametrize("expansion", [X0InLogSNR(1.0), X0Ancestral(1.0)], ids=str)
def test_noise_is_not_drawn_on_the_way_up(expansion: Expansion) -> None:
    with pytest.raises(ValueError, match="cannot walk up"):
        expansion.std(VP(), f64(0.2)[0], f64(0.4)[0])


def ends(expansion: Expansion, process: Process, t: float, s: float, other: float) -> tuple[Tensor, Tensor]:
    """(the step from t to s with a wild belief at another time, DDIM's step)."""
    t_, s_, other_ = f64(t)[0], f64(s)[0], f64(other)[0]
    here = Prediction(f64(0.4), f64(0.3), f64(-1.2), process.alpha(t_), process.sigma(t_))
    std = expansion.std(process, t_, s_)
    got = advance(expansion, process, here, t_, s_, [Node(expansion.position(process, other_), f64(9))], std)
    old = (process.sigma(s_).square() - std.square()).clamp(min=0).sqrt()
    return got, process.alpha(s_) * here.x_0 + old * here.eps


@pytest.mark.parametrize("expansion", EXPANSIONS[:4], ids=str)
@pytest.mark.parametrize("name", PROCESSES)
def test_to_the_data_it_is_ddim(name: str, expansion: Expansion) -> None:
    process = PROCESSES[name]()
    torch.testing.assert_close(*ends(expansion, process, 0.5 * process.t_max, 0.0, 0.7 * process.t_max))


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
@pytest.mark.parametrize("process", [RectifiedFlow(), CosineVP(beta_max=1)], ids=str)
def test_from_pure_noise_it_is_ddim(process: Process, expansion: Expansion) -> None:
    assert process.alpha(f64(process.t_max)) == 0
    torch.testing.assert_close(*ends(expansion, process, process.t_max, 0.6 * process.t_max, 0.3 * process.t_max))
    if not isinstance(expansion, EpsInTime):  # which may use what was believed there
        torch.testing.assert_close(*ends(expansion, process, 0.6 * process.t_max, 0.2 * process.t_max, process.t_max))
