"""What the samplers' docstrings claim of each other. Their orders, moments and papers are tested elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from numeric import f64
from torch import Tensor

from unstir.denoiser import GaussianDenoiser, MixtureDenoiser
from unstir.process import Process
from unstir.processes import EDM, PROCESSES
from unstir.samplers import DDIM, DDPM, DPMpp2M, Euler, Heun
from unstir.samplers.ancestral import learned_std, mean_toward
from unstir.samplers.grids import Uniform
from unstir.samplers.ode import Churn
from unstir.sampling import SampleNoise, Sampler, sample


def mixture(process: Process) -> MixtureDenoiser:
    return MixtureDenoiser(process, torch.stack([f64(0.8, -0.2), f64(-0.5, 0.4)]), f64(0.3).reshape(1, 1))


def run(process: Process, sampler: Sampler, steps: int = 4) -> Tensor:
    rng = SampleNoise(3, range(5))
    x = process.prior_sample(rng.normal((2,), torch.float64))
    return sample(mixture(process), sampler, Uniform().times(process, steps), x, rng)


@pytest.mark.parametrize("name", PROCESSES)
def test_families(name: str) -> None:
    process = PROCESSES[name]()
    torch.testing.assert_close(run(process, Euler()), run(process, DDIM()), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(run(process, DDIM(eta=1)), run(process, DDPM()), rtol=1e-8, atol=1e-8)
    first = (run(process, DPMpp2M(), 1), run(process, DDIM(), 1))  # the first step is first order
    torch.testing.assert_close(*first, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_mean_toward_is_the_posterior_mean(name: str) -> None:
    # q(x_s | x_t, x_0): the product of N(x_s; alpha_s x_0, sigma_s²) and N(x_t; ratio x_s, std²) as functions of x_s.
    process = PROCESSES[name]()
    t, s = 0.7 * process.t_max * f64(1)[0], 0.4 * process.t_max * f64(1)[0]
    prediction = mixture(process)(f64(0.3, -1.1).reshape(1, 2), t)
    ratio, std, sigma_s = process.alpha(t) / process.alpha(s), process.transition_std(t, s), process.sigma(s)
    precision = 1 / sigma_s**2 + ratio**2 / std**2
    mean = (process.alpha(s) * prediction.x_0 / sigma_s**2 + ratio * prediction.x_t / std**2) / precision
    torch.testing.assert_close(mean_toward(process, prediction, s, process.posterior_std(t, s)), mean)
    # With all of x_s's noise fresh, only x_0 remains; with none, x_s lies on the line through x_0 and eps.
    torch.testing.assert_close(mean_toward(process, prediction, s, sigma_s), process.alpha(s) * prediction.x_0)
    torch.testing.assert_close(
        mean_toward(process, prediction, s, 0 * sigma_s), process.alpha(s) * prediction.x_0 + sigma_s * prediction.eps
    )


def test_learned_std() -> None:
    small, large = f64(0.1)[0], f64(0.4)[0]
    got = learned_std(small, large, f64(0, 0.5, 1))
    torch.testing.assert_close(got, f64(0.1, math.sqrt(0.1 * 0.4), 0.4))


def test_learned_noise_needs_a_learned_variance() -> None:
    with pytest.raises(ValueError, match="learned variance"):
        run(EDM(), DDPM("learned"))


def test_the_last_step_is_the_belief() -> None:
    # To the data there is nothing to add: every sampler gives x_0, whatever its noise.
    process = PROCESSES["vp"]()
    exact = GaussianDenoiser(process, f64(0.5, -1), f64(0.3, 0.9))
    t, x = f64(0.4)[0], f64(0.2, 0.1).reshape(1, 2)
    for sampler in (DDPM(), DDPM("large"), DDIM(), DDIM(1.0), Euler(), Heun(), DPMpp2M()):
        rng = SampleNoise(0, [0])
        got = sampler.step(exact, x, t, f64(0)[0], {}, {}, rng)
        torch.testing.assert_close(got, exact(x, t).x_0)
        assert rng.draws == 0


@pytest.mark.parametrize("name", PROCESSES)
def test_churn_keeps_the_marginals(name: str) -> None:
    # Stirring from t to t_hat turns q(x_t | x_0) into q(x_t_hat | x_0), by the noise level that was asked for.
    process = PROCESSES[name]()
    t = process.t_at_noise_ratio(f64(0.8)[0])
    x_hat, t_hat = Churn(churn=0.2).stir(process, f64(1.0).reshape(1, 1), t, SampleNoise(0, [0]))
    ratio = process.sigma(t_hat) / process.alpha(t_hat)
    assert float(ratio) == pytest.approx(0.8 * 1.2, rel=1e-9)
    z = SampleNoise(0, [0]).normal((1,), torch.float64)
    scale = process.alpha(t_hat) / process.alpha(t)
    torch.testing.assert_close(
        (scale * process.sigma(t)) ** 2 + ((x_hat - scale) / z)[0, 0] ** 2, process.sigma(t_hat) ** 2
    )


def test_churn_has_limits() -> None:
    x, t, noise = f64(1.0).reshape(1, 1), f64(2.0)[0], SampleNoise(0, [0])
    for churn in (Churn(), Churn(churn=0.2, churn_from=2.1), Churn(churn=0.2, churn_to=1.9)):
        assert churn.stir(EDM(), x, t, noise) == (x, t)
    assert noise.draws == 0
    assert float(Churn(churn=9).stir(EDM(), x, t, noise)[1]) == pytest.approx(2 * math.sqrt(2))  # gamma <= sqrt(2) - 1
    assert float(Churn(churn=9).stir(EDM(), x, f64(79.0)[0], noise)[1]) == 80  # never past the process's end
