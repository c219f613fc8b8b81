"""The binomial process of Sohl-Dickstein et al. 2015, against its own chain written out with transition matrices, and by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numeric import Fast, f64, scalar
from torch import Tensor

from unstir.binomial import (
    BitDenoiser,
    BitFlip,
    BitObjective,
    BitSampler,
    EnumeratedDenoiser,
    bit_divergence,
    bits_of,
    bound,
    heartbeats,
    posterior_mean,
    reverse_mean,
)
from unstir.objectives import Batch
from unstir.samplers.grids import Uniform
from unstir.sampling import SampleNoise, sample

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
PATTERNS = torch.tensor([[1, 1, -1], [-1, 1, 1], [-1, -1, -1]], dtype=torch.float64)
STATES = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)


def chain(T: int, s: int, t: int) -> np.ndarray:
    """[i, j] = q(x_t = j | x_s = i) for bits 0 and 1, multiplied out step by step with the paper's kernel."""
    matrix = np.eye(2)
    for step in range(s + 1, t + 1):
        beta = 1 / (T - step + 1)
        one = [0 * (1 - beta) + 0.5 * beta, 1 * (1 - beta) + 0.5 * beta]
        matrix = matrix @ np.array([[1 - one[0], one[0]], [1 - one[1], one[1]]])
    return matrix


def test_marginals_are_the_chain() -> None:
    process = BitFlip(7)
    for t in range(8):
        alpha, sigma = float(process.alpha(scalar(t))), float(process.sigma(scalar(t)))
        np.testing.assert_allclose(chain(7, 0, t)[:, 1], [(1 - alpha) / 2, (1 + alpha) / 2], atol=1e-12)
        assert sigma == pytest.approx(math.sqrt(1 - alpha**2), abs=1e-12)


def test_noise_flips_as_many_bits_as_it_should() -> None:
    process, n = BitFlip(10), 40_000
    x_0 = torch.where(torch.arange(n) % 3 == 0, 1.0, -1.0).reshape(1, n)
    for t in (1, 4, 10):
        x_t = process.add_noise(x_0, scalar(t), Fast(t, 1).normal_like(x_0))
        assert set(x_t.unique().tolist()) == {-1.0, 1.0}
        flipped = float((x_t != x_0).double().mean())
        expected = chain(10, 0, t)[1, 0]
        assert flipped == pytest.approx(expected, abs=4 * math.sqrt(expected / n))
    assert torch.equal(process.add_noise(x_0, scalar(0), torch.randn(1, n)), x_0)
    coins = process.prior_sample(Fast(0, 1).normal_like(x_0))
    assert float(coins.mean()) == pytest.approx(0, abs=4 / math.sqrt(n))
    torch.testing.assert_close(process.prior_log_prob(x_0), torch.tensor([-n * math.log(2)]))


def test_posterior_by_bayes() -> None:
    T, process = 9, BitFlip(9)
    for t, s in ((9, 8), (9, 3), (5, 4), (6, 1), (4, 0), (1, 0)):
        for i, j in itertools.product((0, 1), repeat=2):  # x_0 and x_t as bits 0 and 1
            joint = np.array([chain(T, 0, s)[i, k] * chain(T, s, t)[k, j] for k in (0, 1)])
            expected = joint[1] / joint.sum()
            mean = posterior_mean(process, f64(2 * j - 1).reshape(1, 1), f64(2 * i - 1), scalar(t), scalar(s))
            assert float((1 + mean) / 2) == pytest.approx(expected, abs=1e-12)


def test_exact_belief_by_enumeration() -> None:
    T, process = 6, BitFlip(6)
    exact = EnumeratedDenoiser(process, PATTERNS, WEIGHTS)
    for t in (1, 3, 6):
        q = chain(T, 0, t)
        for x_t in STATES:
            bits = lambda x: ((x + 1) / 2).long().tolist()  # noqa: E731
            joint = np.array(
                [w * math.prod(q[i, j] for i, j in zip(bits(m), bits(x_t))) for w, m in zip(WEIGHTS.tolist(), PATTERNS)]
            )
            expected = (joint[:, None] * PATTERNS.numpy()).sum(0) / joint.sum()
            got = exact(x_t.unsqueeze(0), scalar(t))
            np.testing.assert_allclose(got.x_0[0].numpy(), expected, atol=1e-12)
            torch.testing.assert_close(got.alpha * got.x_0 + got.sigma * got.eps, x_t.unsqueeze(0))


def test_reverse_step_by_enumeration() -> None:
    # Each bit of x_s given all of x_t, from the joint distribution of x_0, x_s and x_t, multiplied out.
    T, t, s, process = 6, 5, 2, BitFlip(6)
    exact = EnumeratedDenoiser(process, PATTERNS, WEIGHTS)
    down, up = chain(T, 0, s), chain(T, s, t)
    got = reverse_mean(process, exact(STATES, scalar(t)), scalar(t), scalar(s))
    for row, x_t in enumerate(STATES):
        mean, total = torch.zeros(3, dtype=torch.float64), 0.0
        for w, m in zip(WEIGHTS.tolist(), PATTERNS):
            for x_s in STATES:
                p = w
                for a, b, c in zip(m, x_s, x_t):
                    i, j, k = (int((bit + 1) / 2) for bit in (a, b, c))
                    p *= down[i, j] * up[j, k]
                mean, total = mean + p * x_s, total + p
        torch.testing.assert_close(got[row], mean / total, rtol=0, atol=1e-12)


def test_divergence() -> None:
    mean, believed = torch.rand(4, 2, 3).double() * 2 - 1, torch.rand(4, 2, 3).double() * 2 - 1
    p, q = (torch.distributions.Bernoulli(probs=(1 + m) / 2) for m in (mean, believed))
    expected = torch.distributions.kl_divergence(p, q).sum((1, 2))
    torch.testing.assert_close(bit_divergence(mean, believed), expected)
    certain = bit_divergence(f64(1, -1).reshape(2, 1), f64(0.5, 0.5).reshape(2, 1))
    torch.testing.assert_close(certain, f64(-math.log(0.75), -math.log(0.25)))


def test_bits_of_their_mean() -> None:
    noise = Fast(0, 1).normal_like(torch.zeros(5, 20_000))
    mean = torch.tensor([-1.0, -0.4, 0.0, 0.9, 1.0]).reshape(5, 1).expand_as(noise)
    bits = bits_of(mean, noise)
    torch.testing.assert_close(bits.mean(1), mean[:, 0], rtol=0, atol=4 / math.sqrt(20_000))
    assert bool((bits[0] == -1).all() and (bits[4] == 1).all())


def sampled_distribution(steps: int) -> Tensor:
    """(8,) the exact distribution of what the sampler gives, its transition matrices multiplied out."""
    process = BitFlip(96)
    exact = EnumeratedDenoiser(process, PATTERNS, WEIGHTS)
    p = torch.full((8,), 1 / 8, dtype=torch.float64)
    for t, s in itertools.pairwise(Uniform().times(process, steps)):
        mean = reverse_mean(process, exact(STATES, t), t, s)  # (8, 3)
        move = ((1 + mean.unsqueeze(1) * STATES) / 2).prod(2)  # (8, 8): from, to
        p = p @ move
    return p


def true_distribution() -> Tensor:
    p = torch.zeros(8, dtype=torch.float64)
    for w, m in zip(WEIGHTS, PATTERNS):
        p[int((m == STATES).all(1).nonzero())] += w
    return p


def test_exact_belief_gives_exact_samples_in_the_limit_of_many_steps() -> None:
    wrong = [float((sampled_distribution(n) - true_distribution()).abs().sum() / 2) for n in (12, 24, 48, 96)]
    for coarse, fine in itertools.pairwise(wrong):
        assert fine < 0.62 * coarse  # first order
    assert wrong[-1] < 0.02


def test_samples_by_chi_square() -> None:
    n, steps = 4000, 24
    rng = Fast(3, n)
    process = BitFlip(96)
    exact = EnumeratedDenoiser(process, PATTERNS, WEIGHTS)
    x = process.prior_sample(rng.normal_like(torch.zeros(n, 3, dtype=torch.float64)))
    x = sample(exact, BitSampler(), Uniform().times(process, steps), x, rng)
    counts = torch.stack([(x == state).all(1).sum() for state in STATES]).double()
    expected = n * sampled_distribution(steps)
    assert float(((counts - expected).square() / expected).sum()) < 26  # 7 degrees of freedom: 1 in 2000


def test_heartbeats() -> None:
    data = heartbeats()
    assert data.shape == (5, 20)
    assert ((data[2] + 1) / 2).int().tolist() == [0, 0, 1, 0, 0] * 4
    assert torch.equal(data.sum(1), torch.full((5,), 4.0 - 16.0))


def test_exact_belief_of_heartbeats_samples_every_phase_equally() -> None:
    n, process = 3000, BitFlip(400)
    rng, data = Fast(4, n), heartbeats(10)
    x = process.prior_sample(rng.normal_like(torch.zeros(n, 10)))
    x = sample(EnumeratedDenoiser(process, data), BitSampler(), Uniform().times(process, 400), x, rng)
    counts = torch.stack([(x == pattern).all(1).sum() for pattern in data]).double()
    assert float(counts.sum()) > 0.97 * n
    expected = float(counts.sum()) / 5
    assert float(((counts - expected).square() / expected).sum()) < 20  # 4 degrees of freedom: 1 in 2000


def test_the_bound_is_one_and_becomes_tight() -> None:
    data = heartbeats().double().repeat(30, 1)
    truth = math.log(5)
    gaps = []
    for T in (10, 40, 160):
        terms = bound(EnumeratedDenoiser(BitFlip(T), heartbeats().double()), data, Fast(T, len(data)))
        gap, error = float(terms.mean()) - truth, float(terms.std()) / math.sqrt(len(data))
        assert gap > -4 * error
        gaps.append(gap)
    assert gaps[1] < 0.6 * gaps[0]
    assert gaps[2] < 0.6 * gaps[1]
    assert gaps[2] < 0.15


def test_the_objective_is_the_bound_on_average() -> None:
    process, count = BitFlip(12), 4000
    exact = EnumeratedDenoiser(process, heartbeats().double())
    x = heartbeats().double().repeat(count // 5, 1)
    terms = bound(exact, x, Fast(1, count))
    loss = BitObjective()(exact, Batch(x), Fast(2, count))
    in_nats = loss.total * 20 * math.log(2)
    error = math.hypot(float(terms.std()), float(in_nats.std())) / math.sqrt(count)
    assert float(in_nats.mean()) == pytest.approx(float(terms.mean()), abs=4 * error)


@pytest.mark.slow
def test_a_trained_model_has_a_heartbeat() -> None:
    """The paper's experiment in seconds: a network, the loop as it is, and sequences that are right bit for bit."""
    from accelerate import Accelerator

    from unstir.data import DataSpec
    from unstir.networks import MLPConfig
    from unstir.training.config import TrainingConfig
    from unstir.training.loop import Loop, TrainingState

    data = heartbeats()
    torch.manual_seed(0)
    network = MLPConfig(width=64, depth=2).build(DataSpec("points", (20,)), 20)
    config = TrainingConfig(steps=1500, batch_size=64, learning_rate=2e-3)

    def draw(step: int, positions: list[int], rng: SampleNoise) -> Batch:
        return Batch(data[(rng.uniform() * 5).long()])

    process = BitFlip(500)
    state = TrainingState(BitDenoiser(network, process), config)
    for _ in Loop(state, BitObjective(), draw, config, Accelerator(cpu=True)):
        pass
    model = state.averaged.module
    n = 400
    rng = Fast(0, n)
    x = process.prior_sample(rng.normal_like(torch.zeros(n, 20)))
    x = sample(model, BitSampler(), Uniform().times(process, 500), x, rng)
    counts = torch.stack([(x == pattern).all(1).sum() for pattern in data])
    assert int(counts.sum()) >= 0.95 * n
    assert int(counts.min()) > 0.1 * n
    nats = bound(model, data.repeat(8, 1), Fast(1, 40)).mean()
    assert math.log2(5) - 0.1 < float(nats) / math.log(2) < math.log2(5) + 0.6  # the paper: 2.414 bits, the truth 2.322
