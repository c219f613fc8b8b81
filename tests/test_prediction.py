"""One belief under every name, and the 2x2 system behind all parameterisations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unstir.parameterization import PARAMETERIZATIONS
from unstir.prediction import Prediction

FLOATS = st.floats(-3, 3)


def f64(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


def belief(alpha: float, sigma: float) -> Prediction:
    x_0, eps = torch.tensor([[0.3, -2.0]], dtype=torch.float64), torch.tensor([[1.5, 0.4]], dtype=torch.float64)
    return Prediction(alpha * x_0 + sigma * eps, x_0, eps, f64(alpha), f64(sigma))


def test_names() -> None:
    p = belief(0.8, 0.6)
    torch.testing.assert_close(p.v, 0.8 * p.eps - 0.6 * p.x_0)
    torch.testing.assert_close(p.score, -(p.x_t - 0.8 * p.x_0) / 0.36)  # grad log N(x_t; alpha x_0, sigma²)
    torch.testing.assert_close(p.flow, p.eps - p.x_0)
    torch.testing.assert_close(
        0.8 * p.x_t - 0.6 * p.v, p.x_0
    )  # for alpha² + sigma² = 1, Salimans & Ho 2022, appendix D
    torch.testing.assert_close(0.6 * p.x_t + 0.8 * p.v, p.eps)


def test_outputs_are_the_names() -> None:
    p = belief(0.7, 1.3)
    for name in ("eps", "x_0", "v", "score", "flow"):
        F = PARAMETERIZATIONS[name].mix(p.x_0, p.eps, p.alpha, p.sigma, 1.0)
        torch.testing.assert_close(F, getattr(p, name))


def test_edm_preconditioning() -> None:
    # D = c_skip x + c_out F with the functions of Karras et al. 2022, table 1, as printed (alpha = 1).
    sigma, sigma_data = 1.7, 0.5
    x, F = torch.tensor([[0.2, -4.0]], dtype=torch.float64), torch.tensor([[1.1, 0.3]], dtype=torch.float64)
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma**2 + sigma_data**2) ** 0.5
    x_0, eps = PARAMETERIZATIONS["edm"].solve(F, x, f64(1), f64(sigma), sigma_data)
    torch.testing.assert_close(x_0, c_skip * x + c_out * F)
    torch.testing.assert_close(eps, (x - x_0) / sigma)


def test_edm_is_minus_v_for_unit_data() -> None:
    p = belief(0.8, 0.6)
    torch.testing.assert_close(PARAMETERIZATIONS["edm"].mix(p.x_0, p.eps, p.alpha, p.sigma, 1.0), -p.v)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(PARAMETERIZATIONS)),
    FLOATS,
    FLOATS,
    st.floats(0.01, 1),
    st.floats(0.01, 50),
    st.floats(0.1, 2),
)
def test_solve_undoes_mix(name: str, x_0: float, eps: float, alpha: float, sigma: float, sigma_data: float) -> None:
    parameterization = PARAMETERIZATIONS[name]
    scales = (f64(alpha), f64(sigma))
    F = parameterization.mix(f64(x_0), f64(eps), *scales, sigma_data)
    got = parameterization.solve(F, f64(alpha * x_0 + sigma * eps), *scales, sigma_data)
    torch.testing.assert_close(torch.stack(got), torch.stack([f64(x_0), f64(eps)]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_both_ends(name: str, sigma_data: float) -> None:
    """Whatever the output determines is right at alpha = 0 and sigma = 0, and the rest is 0."""
    parameterization = PARAMETERIZATIONS[name]
    for alpha, sigma in ((0.0, 1.0), (0.0, 0.7), (1.0, 0.0)):
        p = belief(alpha, sigma)
        F = parameterization.mix(p.x_0, p.eps, p.alpha, p.sigma, sigma_data)
        F = torch.zeros_like(F) if name == "score" and sigma == 0 else F  # infinite there, by definition
        x_0, eps = parameterization.solve(F, p.x_t, p.alpha, p.sigma, sigma_data)
        no_x_0, no_eps = alpha == 0 and name in ("eps", "score"), sigma == 0 and name in ("x_0", "score")
        torch.testing.assert_close(x_0, torch.zeros_like(x_0) if no_x_0 else p.x_0)
        torch.testing.assert_close(eps, torch.zeros_like(eps) if no_eps else p.eps)


def test_with_x_0_and_with_eps_keep_x_t() -> None:
    p = belief(0.7, 1.3)
    for q in (p.with_x_0(p.x_0.clamp(-1, 1)), p.with_eps(p.eps + 0.5)):
        torch.testing.assert_close(q.alpha * q.x_0 + q.sigma * q.eps, p.x_t)
    torch.testing.assert_close(p.with_x_0(p.x_0 + 1).x_0, p.x_0 + 1)
    torch.testing.assert_close(p.with_eps(p.eps + 1).eps, p.eps + 1)
    torch.testing.assert_close(p.with_x_0(p.x_0 + 1).with_eps(p.eps).x_0, p.x_0)


def test_with_x_0_and_with_eps_at_the_ends() -> None:
    data, noise = belief(1, 0), belief(0, 1)
    torch.testing.assert_close(data.with_x_0(data.x_0 + 1).eps, data.eps)
    torch.testing.assert_close(data.with_eps(data.eps + 1).x_0, data.x_0)
    torch.testing.assert_close(noise.with_eps(noise.eps + 1).x_0, noise.x_0)
    torch.testing.assert_close(noise.with_x_0(noise.x_0 + 1).eps, noise.eps)
    # An x_0 that does not change leaves eps alone to the last bit, however small sigma is.
    tiny = belief(1, 1e-30)
    assert torch.equal(tiny.with_x_0(tiny.x_0).eps, tiny.eps)


def test_extrapolate() -> None:
    p = belief(0.7, 1.3)
    q = p.with_x_0(p.x_0 + 1)
    for scale, wanted in ((0.0, p), (1.0, q), (3.0, p.with_x_0(p.x_0 + 3))):
        got = p.extrapolate(q, scale)
        torch.testing.assert_close(got.x_0, wanted.x_0)
        torch.testing.assert_close(got.eps, wanted.eps)
        torch.testing.assert_close(got.alpha * got.x_0 + got.sigma * got.eps, p.x_t)


def test_a_shift_of_the_score() -> None:
    p, gradient = belief(0.8, 0.6), torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    got = p.shift_score(gradient)
    torch.testing.assert_close(got.score, p.score + gradient)
    torch.testing.assert_close(0.8 * got.x_0 + 0.6 * got.eps, p.x_t)
    assert torch.equal(got.score_shift, gradient)  # type: ignore[arg-type]
    twice = got.shift_score(2 * gradient)
    torch.testing.assert_close(twice.score_shift, 3 * gradient)
    for alpha, sigma in ((1.0, 0.0), (0.0, 1.0)):  # at the ends nothing is divided by 0
        end = belief(alpha, sigma).shift_score(gradient)
        torch.testing.assert_close(alpha * end.x_0 + sigma * end.eps, end.x_t - sigma**2 * (alpha == 0) * gradient)
        assert end.x_0.isfinite().all()


@pytest.mark.parametrize("shifts", [(None, None), (1.0, None), (None, 1.0), (1.0, -3.0)])
def test_shifts_are_extrapolated_like_the_beliefs(shifts: tuple[float | None, float | None]) -> None:
    plain, gradient = belief(0.8, 0.6), torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    a, b = (plain if shift is None else plain.shift_score(shift * gradient) for shift in shifts)
    got = a.extrapolate(b, 2.5)
    if shifts == (None, None):
        assert got.score_shift is None
    else:
        torch.testing.assert_close(got.score, plain.score + got.score_shift)


def test_detached() -> None:
    x = torch.ones(1, 2, requires_grad=True)
    p = Prediction(x, 2 * x, 3 * x, f64(1.0), f64(1.0)).shift_score(x).detach()
    assert not any(value.requires_grad for value in (p.x_t, p.x_0, p.eps, p.score_shift) if value is not None)
    assert p.variance_fraction is None
