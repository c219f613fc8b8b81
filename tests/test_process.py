"""The processes at the papers' numbers, and everything that is derived from alpha and sigma against closed forms."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import f64
from torch import Tensor

from unstir.process import Process
from unstir.processes import (
    EDM,
    PROCESSES,
    VE,
    VP,
    CosineVP,
    DiscreteVP,
    GeometricLadder,
    GivenVP,
    LinearVP,
    RectifiedFlow,
    SigmoidVP,
    SubVP,
)

INF = math.inf


@cache
def process_of(name: str) -> Process:
    return PROCESSES[name]()


def inside(process: Process, count: int = 7) -> Tensor:
    """Times strictly between the ends, off the whole steps of processes that have them."""
    return process.t_max * torch.linspace(0.013, 0.973, count, dtype=torch.float64)


# ---- the papers' numbers -------------------------------------------------------------------------------------------------------


def test_ddpm_table() -> None:
    process = LinearVP()
    assert (float(process.beta[1]), float(process.beta[1000])) == (1e-4, 0.02)
    assert float(process.alpha_bar[0]) == 1
    assert float(process.alpha_bar[1000]) == pytest.approx(4.0358e-5, rel=1e-4)  # "D_KL(q(x_T|x_0) || N(0, I)) ~ 1e-5"
    product = math.prod(1 - (1e-4 + (t - 1) / 999 * (0.02 - 1e-4)) for t in range(1, 301))
    t = f64(300)
    torch.testing.assert_close(process.alpha(t), f64(math.sqrt(product)), rtol=1e-12, atol=0)
    torch.testing.assert_close(process.sigma(t), f64(math.sqrt(1 - product)), rtol=1e-12, atol=0)


def test_cosine_table() -> None:
    def f(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    process = CosineVP()
    for t in (1, 2, 250, 500, 990):
        assert float(process.alpha_bar[t]) == pytest.approx(f(t) / f(0), rel=1e-9)
    assert float(process.beta[1000]) == 0.999
    assert float(process.beta[1:].min()) == pytest.approx(4.1e-5, rel=0.02)  # openai's betas_for_alpha_bar starts so
    assert float(CosineVP(beta_max=1).alpha(f64(1000))) == 0


def test_sigmoid_table() -> None:
    process = SigmoidVP()
    assert float(process.alpha_bar[500]) == pytest.approx(0.5, abs=1e-9)  # symmetric for start = -end
    high, low = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))
    u = 1 / (1 + math.exp(-(-3 + 0.2 * 6)))
    assert float(process.alpha_bar[200]) == pytest.approx((high - u) / (high - low), rel=1e-9)


def test_given_betas() -> None:
    process = GivenVP((0.1, 0.2, 1.0))
    torch.testing.assert_close(process.alpha(f64(0, 1, 2, 3)), f64(1, 0.9, 0.72, 0).sqrt(), rtol=0, atol=1e-15)
    torch.testing.assert_close(process.sigma(f64(0, 1, 2, 3)), f64(0, 0.1, 0.28, 1).sqrt(), rtol=0, atol=1e-15)
    for betas in ((), (0.1, 0.0), (0.1, 1.5)):
        with pytest.raises(ValueError, match="betas"):
            GivenVP(betas)


def test_small_sigma_keeps_its_digits() -> None:
    process = GivenVP((1e-12, 1e-12, 0.5))
    torch.testing.assert_close(process.sigma(f64(1, 2)), f64(1e-6, math.sqrt(2e-12)), rtol=1e-9, atol=0)


def test_sdes() -> None:
    t = f64(0.1, 0.5, 1.0)
    alpha = torch.exp(-(t**2) * 19.9 / 4 - t * 0.05)
    for process in (VP(), SubVP()):
        torch.testing.assert_close(process.alpha(t), alpha, rtol=1e-12, atol=0)
    torch.testing.assert_close(VP().sigma(t), (1 - alpha**2).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(SubVP().sigma(t), 1 - alpha**2, rtol=1e-12, atol=0)
    torch.testing.assert_close(VE().sigma(f64(1e-9, 0.5, 1)), f64(0.01, math.sqrt(0.5), 50), rtol=1e-6, atol=0)
    torch.testing.assert_close(GeometricLadder().sigma(f64(0.5, 1, 10)), f64(0.005, 0.01, 50), rtol=1e-12, atol=0)
    ladder = GeometricLadder().sigma(torch.arange(1, 11, dtype=torch.float64))
    torch.testing.assert_close(ladder[1:] / ladder[:-1], torch.full((9,), 5000 ** (1 / 9)).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(RectifiedFlow().add_noise(f64(2), f64(0.25), f64(-1)), f64(0.75 * 2 - 0.25))
    torch.testing.assert_close(EDM().add_noise(f64(2), f64(3), f64(-1)), f64(-1))


def test_vp_is_the_limit_of_ddpm() -> None:
    # beta(t) = T beta_t: beta_min = 0.1, beta_max = 20 are DDPM's 1e-4 and 0.02 times 1000 (Song et al., appendix B).
    t = f64(0.2, 0.5, 0.8)
    torch.testing.assert_close(LinearVP().alpha(1000 * t), VP().alpha(t), rtol=0.02, atol=0)


# ---- for all of them -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_ends_and_monotony(name: str) -> None:
    process = process_of(name)
    zero = f64(0)
    assert float(process.alpha(zero)) == 1
    assert float(process.sigma(zero)) == 0
    assert float(process.log_snr(zero)) == INF
    t = torch.linspace(0, process.t_max, 2001, dtype=torch.float64)
    log_snr = process.log_snr(t)
    assert (log_snr[1:] < log_snr[:-1]).all()
    ratio = process.alpha(t) / process.sigma(t)
    torch.testing.assert_close(log_snr, 2 * ratio.log(), rtol=1e-9, atol=1e-9)
    assert 0 <= process.t_min < process.t_max


@pytest.mark.parametrize("name", PROCESSES)
def test_t_at_log_snr_is_the_inverse(name: str) -> None:
    process = process_of(name)
    t = inside(process)
    torch.testing.assert_close(process.t_at_log_snr(process.log_snr(t)), t, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(process.t_at_noise_ratio(process.sigma(t) / process.alpha(t)), t, rtol=1e-9, atol=1e-12)
    ends = process.t_at_log_snr(f64(INF, -INF))
    assert ends.tolist() == [0, process.t_max]
    beyond = float(process.log_snr(f64(process.t_max))) - 3
    assert float(process.t_at_log_snr(f64(beyond))) == process.t_max


def test_cleaner_than_the_smallest_noise_of_ve_is_just_above_the_data() -> None:
    process = VE()
    t = process.t_at_noise_ratio(f64(1e-3, 1e-9, 0))
    assert (t[:2] > 0).all()
    torch.testing.assert_close(process.sigma(t), f64(0.01, 0.01, 0))


@settings(max_examples=25, deadline=None)
@given(st.floats(-8, 16))
def test_bisection_equals_closed_forms(log_snr: float) -> None:
    value = f64(log_snr)
    for process in map(process_of, PROCESSES):
        torch.testing.assert_close(
            Process.t_at_log_snr(process, value), process.t_at_log_snr(value), rtol=1e-9, atol=1e-20
        )
    # VP: alpha² = sigmoid(lambda), a quadratic equation in t.
    log_alpha = float(torch.nn.functional.logsigmoid(value)) / 2
    t = (-0.05 + math.sqrt(0.05**2 - 19.9 * log_alpha)) * 2 / 19.9
    torch.testing.assert_close(VP().t_at_log_snr(value), f64(min(t, 1)), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", PROCESSES)
def test_drift_and_diffusion_by_finite_differences(name: str) -> None:
    process, h = process_of(name), 1e-5
    t = inside(process)
    if (t - t.round()).abs().min() < 2 * h:
        t = t + 0.1
    alpha, (before, after) = process.alpha(t), (t - h, t + h)
    f = (process.alpha(after) - process.alpha(before)) / (2 * h) / alpha
    d_square = (process.sigma(after) ** 2 - process.sigma(before) ** 2) / (2 * h)
    torch.testing.assert_close(process.drift(t), f, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        process.diffusion_squared(t), d_square - 2 * f * process.sigma(t) ** 2, rtol=1e-5, atol=1e-7
    )


def test_drift_and_diffusion_of_the_papers() -> None:
    t = inside(VP())
    beta = 0.1 + t * 19.9
    integral = 0.1 * t + t**2 * 19.9 / 2
    for process in (VP(), SubVP()):
        torch.testing.assert_close(process.drift(t), -beta / 2, rtol=1e-10, atol=0)
    torch.testing.assert_close(VP().diffusion_squared(t), beta, rtol=1e-10, atol=0)
    torch.testing.assert_close(SubVP().diffusion_squared(t), beta * (1 - torch.exp(-2 * integral)), rtol=1e-9, atol=0)
    torch.testing.assert_close(VE().drift(t), torch.zeros_like(t))
    sigma_squared = (0.01 * 5000**t) ** 2
    torch.testing.assert_close(VE().diffusion_squared(t), sigma_squared * 2 * math.log(5000), rtol=1e-10, atol=0)
    torch.testing.assert_close(EDM().diffusion_squared(80 * t), 160 * t, rtol=1e-12, atol=0)
    torch.testing.assert_close(RectifiedFlow().drift(t), -1 / (1 - t), rtol=1e-12, atol=0)
    torch.testing.assert_close(RectifiedFlow().diffusion_squared(t), 2 * t / (1 - t), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", [name for name in PROCESSES if issubclass(PROCESSES[name], DiscreteVP)])
def test_ddpm_posterior(name: str) -> None:
    process = process_of(name)
    assert isinstance(process, DiscreteVP)
    T = len(process.beta) - 1
    t = torch.tensor([1, 2, T // 2 + 1, T - 1, T])
    beta, alpha_bar = process.beta, process.alpha_bar
    torch.testing.assert_close(process.transition_std(t.double(), t.double() - 1) ** 2, beta[t], rtol=1e-9, atol=1e-14)
    beta_tilde = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t]  # eq. 7
    torch.testing.assert_close(
        process.posterior_std(t.double(), t.double() - 1) ** 2, beta_tilde, rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_transition_and_posterior_by_bayes(name: str) -> None:
    process = process_of(name)
    t, s = inside(process)[1:], inside(process)[:-1]
    # The joint of (x_s, x_t) given x_0 has variances sigma_s², sigma_t² and covariance ratio sigma_s².
    ratio, var_s, var_t = process.alpha(t) / process.alpha(s), process.sigma(s) ** 2, process.sigma(t) ** 2
    torch.testing.assert_close(ratio**2 * var_s + process.transition_std(t, s) ** 2, var_t, rtol=1e-10, atol=0)
    conditional = var_s - (ratio * var_s) ** 2 / var_t
    torch.testing.assert_close(process.posterior_std(t, s) ** 2, conditional, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", PROCESSES)
def test_prior(name: str) -> None:
    process = process_of(name)
    x = torch.randn(4, 2, 3, dtype=torch.float64) * process.prior_std()
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), process.sigma(f64(process.t_max))[0])
    log_prob: Tensor = normal.log_prob(x)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(process.prior_log_prob(x), log_prob.sum((1, 2)), rtol=1e-9, atol=0)
    torch.testing.assert_close(process.prior_sample(x), process.sigma(f64(process.t_max)) * x)


@pytest.mark.parametrize("name", PROCESSES)
def test_prior_where_a_grid_starts_lower(name: str) -> None:
    process = process_of(name)
    eps = torch.randn(3, 2, dtype=torch.float64)
    end, t = f64(process.t_max)[0], f64(0.8 * process.t_max)[0]
    torch.testing.assert_close(process.prior_sample(eps, end), process.prior_sample(eps), rtol=1e-12, atol=0)
    # As spread out as data of unit variance, but for the data that the prior leaves out at t_max already.
    left_out = process.prior_std() / float(process.alpha(end).hypot(process.sigma(end)))
    spread = process.alpha(t).hypot(process.sigma(t)) * left_out
    torch.testing.assert_close(process.prior_sample(eps, t), spread * eps)


def test_prior_in_numbers() -> None:
    one = f64(1.0)
    torch.testing.assert_close(
        EDM().prior_sample(one, f64(20)[0]), one * math.hypot(1, 20), rtol=1e-4, atol=0
    )  # not 80
    torch.testing.assert_close(LinearVP().prior_sample(one, f64(801)[0]), LinearVP().prior_sample(one))


@pytest.mark.parametrize("name", PROCESSES)
def test_times_of_fractions(name: str) -> None:
    process = process_of(name)
    u = torch.linspace(0, 1, 10_000, dtype=torch.float64)[:-1]
    t = process.time_of_fraction(u)
    assert (t[1:] >= t[:-1]).all()
    assert float(t[0]) == process.t_min
    assert float(t.mean()) == pytest.approx((process.t_min + process.t_max) / 2, rel=0.01)
    if float(process.snap(f64(0.25))) == 0:
        assert torch.equal(t, t.round())
        assert float(t[-1]) == process.t_max


def test_scales_follow_the_data() -> None:
    process, x = LinearVP(), torch.ones(2, 3, 4)
    alpha, sigma = process.scales(f64(10, 500), x)
    assert alpha.shape == sigma.shape == (2, 1, 1)
    assert alpha.dtype == torch.float32
    torch.testing.assert_close(alpha.flatten().double(), process.alpha_bar[[10, 500]].sqrt(), rtol=1e-6, atol=0)
    eps = torch.full_like(x, 2)
    one = process.add_noise(x[1:], torch.tensor(500.0, dtype=torch.float64), eps[1:])
    torch.testing.assert_close(process.add_noise(x, f64(10, 500), eps)[1:], one)
