"""The variational bound: closed forms under every process, above the true density and down to it, estimates that are right on average."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser
from unstir.errors import UserError
from unstir.likelihood import (
    Chain,
    DiscretizedDecoder,
    GaussianDecoder,
    bits_per_dim,
    chain_times,
    variational_bound,
)
from unstir.prediction import Prediction
from unstir.processes import EDM, PROCESSES, VP, CosineVP, LinearVP, RectifiedFlow
from unstir.samplers.grids import Karras, LogSNR, Uniform
from unstir.sampling import SampleNoise

MEAN, STD = torch.tensor([0.4, -0.7, 0.1, 0.0]).double(), torch.tensor([0.5, 0.3, 0.8, 1.2]).double()


def gaussian(n: int, seed: int = 0) -> Tensor:
    return MEAN + STD * SampleNoise(seed, range(n)).normal((4,), torch.float64)


class Learned(Denoiser):
    """An exact belief with a variance fraction beside it."""

    def __init__(self, exact: Denoiser, fraction: float) -> None:
        super().__init__(exact.process)
        self.exact, self.fraction = exact, fraction

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction = self.exact(x_t, t, **cond)
        return replace(prediction, variance_fraction=torch.full_like(x_t, self.fraction))


def expected_terms(chain: Chain, noise: str, fraction: float) -> Tensor:
    """(K,) what the steps cost on average with the exact denoiser of the Gaussian: its error is the posterior variance of x_0."""
    process, times = chain.process, chain.times
    terms = []
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        a, sigma = process.alpha(t), process.sigma(t)
        error = STD**2 * sigma**2 / (a**2 * STD**2 + sigma**2)  # E[(x_0 - E[x_0 | x_t])²]
        large = process.transition_std(t, s)
        if i == len(chain) - 1:
            small = sigma / a.hypot(sigma)
            std = {"posterior": small, "large": small, "learned": large**fraction * small ** (1 - fraction)}[noise]
            terms.append((0.5 * error / std**2 + std.log() + 0.5 * math.log(2 * math.pi)).sum())
            continue
        small = process.posterior_std(t, s)
        std = {"posterior": small, "large": large, "learned": large**fraction * small ** (1 - fraction)}[noise]
        gain = (
            (process.alpha(s) / process.sigma(s)) ** 2 - (a / sigma) ** 2
        ) * small**2  # of the mean for each of x_0, squared
        terms.append(((std / small).log() + (small**2 + gain * error) / (2 * std**2) - 0.5).sum())
    return torch.stack(terms)


@pytest.mark.parametrize("name", PROCESSES)
def test_terms_under_every_process(name: str) -> None:
    """Against their expectation in closed form, with the posterior's, the large and a learned variance."""
    process, n = PROCESSES[name](), 4000
    exact = GaussianDenoiser(process, MEAN, STD)
    for noise, fraction in (("posterior", 0.0), ("large", 0.0), ("learned", 0.3)):
        chain = Chain(process, chain_times(process, 6), noise)  # type: ignore[arg-type]
        assert len(chain) <= 6
        bound = variational_bound(Learned(exact, fraction), chain, gaussian(n), SampleNoise(1, range(n)))
        wanted = expected_terms(chain, noise, fraction)
        spread = bound.steps.std(1) / math.sqrt(n)
        assert ((bound.steps.mean(1) - wanted).abs() < 4.5 * spread + 1e-9).all()
        a, sigma = process.alpha(chain.times[0]), process.sigma(chain.times[0])
        prior = 0.5 * (a / sigma) ** 2 * (MEAN**2 + STD**2).sum()
        assert float(bound.prior.mean()) == pytest.approx(float(prior), rel=0.1, abs=1e-12)


@pytest.mark.parametrize("name", ["vp", "edm", "rectified-flow"])
def test_more_steps_come_down_to_the_true_density(name: str) -> None:
    """In closed form, so that no noise hides the order: the excess over the entropy is positive and falls like 1 / K."""
    process = PROCESSES[name]()
    entropy = float((STD.log() + 0.5 * math.log(2 * math.pi * math.e)).sum())
    excess = []
    for steps in (16, 64, 256):
        chain = Chain(process, chain_times(process, steps))
        a, sigma = process.alpha(chain.times[0]), process.sigma(chain.times[0])
        prior = 0.5 * (a / sigma) ** 2 * (MEAN**2 + STD**2).sum()
        excess.append(float(expected_terms(chain, "posterior", 0).sum() + prior) - entropy)
    assert excess[0] > excess[1] > excess[2] > 0
    assert excess[2] == pytest.approx(0.25 * excess[1], rel=0.15)
    assert excess[2] / 4 < 0.25  # nats for each number


class TrueVariance(Denoiser):
    """An exact belief about a Gaussian of one standard deviation, and the variance that the true reverse steps of a chain have."""

    def __init__(self, exact: GaussianDenoiser, chain: Chain) -> None:
        super().__init__(exact.process)
        self.exact, self.chain = exact, chain

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        process, times = self.process, self.chain.times
        i = int((times == t.flatten()[0]).nonzero()[0, 0])
        t, s, std = times[i], times[i + 1], float(self.exact.stds.flatten()[0])
        a, sigma = process.alpha(t), process.sigma(t)
        error = std**2 * sigma**2 / (a**2 * std**2 + sigma**2)
        small, large = process.posterior_std(t, s), process.transition_std(t, s)
        gain = (process.alpha(s) / process.sigma(s)) ** 2 - (a / sigma) ** 2
        true = small * (1 + gain * error).sqrt()
        fraction = (true / small).log() / (large / small).log() if s > 0 else torch.zeros(())
        return replace(self.exact(x_t, t), variance_fraction=fraction.expand_as(x_t))


@pytest.mark.parametrize("name", ["linear", "cosine", "vp", "sub-vp"])
def test_with_the_true_variance_a_few_steps_are_enough(name: str) -> None:
    """The reverse steps of a Gaussian are Gaussians: where the chain has them, the bound is the entropy, however few they are. (The
    noise it begins with is all that is wrong.)"""
    process, n, std = PROCESSES[name](), 20_000, 0.6
    exact = GaussianDenoiser(process, torch.zeros(2).double(), torch.tensor(std).double())
    chain = Chain(process, chain_times(process, 5, LogSNR()), "learned")
    x_0 = std * SampleNoise(0, range(n)).normal((2,), torch.float64)
    bound = variational_bound(TrueVariance(exact, chain), chain, x_0, SampleNoise(1, range(n)))
    entropy = 2 * (math.log(std) + 0.5 * math.log(2 * math.pi * math.e))
    assert abs(float(bound.total.mean()) - entropy) < 4 * float(bound.total.std()) / math.sqrt(n) + 1e-3
    fixed = variational_bound(exact, replace(chain, noise="posterior"), x_0, SampleNoise(1, range(n)))
    assert float(fixed.total.mean()) > entropy + 0.1


def test_it_bounds_each_mixture_sample_s_density_on_average() -> None:
    process, n = VP(), 500
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).double()
    exact = MixtureDenoiser(process, means, torch.tensor([[0.2], [0.4]]).double())
    rng = SampleNoise(3, range(n))
    component = (rng.uniform() * 2).long()
    x_0 = means[component] + exact.stds[component] * rng.normal((2,), torch.float64)
    nll = -exact.log_prob(x_0, torch.tensor(0.0).double())
    bounds = {}
    for steps in (25, 100, 1000):
        bound = variational_bound(
            exact, Chain(process, chain_times(process, steps)), x_0, SampleNoise(4, range(n)), terms=100
        )
        bounds[steps] = (bound.total - nll).mean(), bound.total.std() / math.sqrt(n)
    assert bounds[25][0] > bounds[100][0] > -2 * bounds[100][1]
    assert -3 * bounds[1000][1] < bounds[1000][0] < 0.2


def test_a_part_of_the_terms_is_right_on_average() -> None:
    process, n = VP(), 3000
    exact = GaussianDenoiser(process, MEAN, STD)
    chain = Chain(process, chain_times(process, 40))
    wanted = expected_terms(chain, "posterior", 0).sum()
    x_0 = gaussian(n)
    for terms in (1, 7, 39):  # 1 is taken for 2
        total = variational_bound(exact, chain, x_0, SampleNoise(5, range(n)), terms=terms).steps.sum(0)
        assert abs(float(total.mean() - wanted)) < 4 * float(total.std()) / math.sqrt(n)


def test_a_sample_s_bound_is_its_own() -> None:
    """Of (seed, number) alone, whatever else is in the batch."""
    process = LinearVP(steps=20)
    exact, chain, x_0 = GaussianDenoiser(process, MEAN, STD), Chain(process, chain_times(process)), gaussian(5)
    for terms in (0, 4):
        many = variational_bound(exact, chain, x_0, SampleNoise(2, range(5)), terms=terms)
        few = variational_bound(exact, chain, x_0[3:4], SampleNoise(2, [3]), terms=terms)
        torch.testing.assert_close(few.total, many.total[3:4])


def test_rates_are_what_was_told_before() -> None:
    process, n = LinearVP(steps=12, beta_end=0.5), 8
    chain = Chain(process, chain_times(process))
    bound = variational_bound(GaussianDenoiser(process, MEAN, STD), chain, gaussian(n), SampleNoise(0, range(n)))
    assert bound.rates.shape == bound.steps.shape == bound.squared_errors.shape == (12, n)
    torch.testing.assert_close(bound.rates[0], bound.prior)
    torch.testing.assert_close(bound.rates[5], bound.prior + bound.steps[:5].sum(0))
    torch.testing.assert_close(bound.rates[-1] + bound.steps[-1], bound.total)
    assert bound.squared_errors[0].mean() > bound.squared_errors[-1].mean()


def test_bytes_end_in_their_own_bins() -> None:
    """A belief that is exactly right names the byte; one that is wrong by a bin does not."""
    process = LinearVP()
    chain = Chain(process, chain_times(process), decoder=DiscretizedDecoder(torch.tensor(2 / 255, dtype=torch.float64)))
    x_0 = (torch.tensor([[3.0, 255, 0, 100]]).double() - 127.5) / 127.5
    i = torch.tensor([len(chain) - 1])
    a, sigma = process.scales(chain.times[i], x_0)
    right = Prediction(x_0, x_0, torch.zeros_like(x_0), a, sigma)
    cost = float(chain.term(right, x_0, torch.zeros_like(x_0), i))
    half = 1 / 255 / float(chain.last_std)
    inside, edge = math.erf(half / math.sqrt(2)), 0.5 + 0.5 * math.erf(half / math.sqrt(2))
    assert cost == pytest.approx(-2 * math.log(inside) - 2 * math.log(edge), rel=1e-9)
    wrong = replace(right, x_0=x_0 + 2 / 255)
    assert float(chain.term(wrong, x_0, torch.zeros_like(x_0), i)) > cost + 0.5


def test_chains() -> None:
    assert chain_times(LinearVP()).tolist() == list(range(1000, -1, -1))
    assert len(chain_times(CosineVP(steps=30))) == 31
    assert len(chain_times(EDM())) == 1001
    assert chain_times(EDM(), 20, Karras()).tolist() == Karras().times(EDM(), 20).tolist()
    assert chain_times(LinearVP(), 10).tolist() == Uniform().times(LinearVP(), 10).tolist()


def test_the_last_step_s_own_noise() -> None:
    """Of real numbers all that is left; of whole numbers that of the papers' code (beta_tilde_2), on finer grids no less than 1/sqrt(2)."""
    process, bins = LinearVP(), DiscretizedDecoder(torch.tensor(2 / 255, dtype=torch.float64))
    beta, alpha_bar = process.beta, process.alpha_bar
    beta_tilde_2 = (1 - alpha_bar[1]) / (1 - alpha_bar[2]) * beta[2]
    assert float(Chain(process, chain_times(process)).last_std) == pytest.approx(float(beta[1].sqrt()))
    assert float(Chain(process, chain_times(process), decoder=bins).last_std) == pytest.approx(
        float(beta_tilde_2.sqrt())
    )
    fine = Chain(EDM(), chain_times(EDM(), 2000), decoder=bins)
    assert float(fine.last_std) == pytest.approx(0.002 / math.sqrt(2), rel=1e-3)
    for decoder in (bins, GaussianDecoder()):  # pure noise, one step
        assert 0.7 < float(Chain(RectifiedFlow(), torch.tensor([1.0, 0.0]).double(), decoder=decoder).last_std) <= 1


def test_a_variance_that_nobody_learned() -> None:
    process = LinearVP(steps=5)
    chain = Chain(process, chain_times(process), "learned")
    with pytest.raises(UserError, match="learn-variance"):
        variational_bound(GaussianDenoiser(process, MEAN, STD), chain, gaussian(2), SampleNoise(0, range(2)))


def test_bits_per_dim() -> None:
    assert float(bits_per_dim(torch.tensor(8 * 12 * math.log(2)), 12)) == pytest.approx(8)
