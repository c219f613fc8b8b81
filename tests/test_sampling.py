"""The loop, and the noise that makes every sample its own."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser
from unstir.processes import EDM, VP
from unstir.samplers import DDIM, DDPM, DPMpp2M, Euler, Heun
from unstir.samplers.grids import Karras, Uniform
from unstir.sampling import SampleNoise, Sampler, encode, mix_seed, sample, trajectory

STOCHASTIC = [DDPM(), DDIM(0.5), Heun(churn=0.3)]


def denoiser() -> Denoiser:
    means = torch.tensor([[0.8, -0.2], [-0.5, 0.4]], dtype=torch.float64)
    return MixtureDenoiser(VP(), means, torch.tensor([[0.3], [0.5]], dtype=torch.float64))


def draw(sampler: Sampler, indices: list[int], seed: int = 5) -> Tensor:
    rng = SampleNoise(seed, indices)
    x = VP().prior_sample(rng.normal((2,), torch.float64))
    return sample(denoiser(), sampler, Uniform().times(VP(), 6), x, rng)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_a_sample_depends_on_its_own_number_alone(sampler: Sampler) -> None:
    of_64 = draw(sampler, list(range(64)))
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(draw(sampler, list(range(8))), of_64[:8])
    close(draw(sampler, [7]), of_64[7:8])
    close(draw(sampler, [40, 7, 63]), of_64[[40, 7, 63]])
    batches = [draw(sampler, list(range(i, min(i + 10, 64)))) for i in range(0, 64, 10)]
    close(torch.cat(batches), of_64)
    assert len({tuple(row) for row in of_64.tolist()}) == 64
    assert not torch.allclose(draw(sampler, [7], seed=6), of_64[7:8])


def test_slices_of_two_processes_are_the_whole() -> None:
    whole, parts = SampleNoise(1, range(8)), [SampleNoise(1, range(4), total=8), SampleNoise(1, range(4, 8), total=8)]
    assert whole.total == parts[0].total == parts[1].total == 8
    for _ in range(3):
        assert torch.equal(whole.normal((3, 2)), torch.cat([part.normal((3, 2)) for part in parts]))
        assert torch.equal(whole.uniform(), torch.cat([part.uniform() for part in parts]))


def test_draws_are_fresh_and_of_the_right_distribution() -> None:
    rng = SampleNoise(0, range(2000))
    first, second, u = rng.normal((4,)), rng.normal((4,)), rng.uniform()
    assert rng.draws == 3
    both = torch.cat([first, second], dim=1).double()
    # Standard normal and uncorrelated: within samples, between samples, between draws (standard error 0.02).
    torch.testing.assert_close(both.mean(0), torch.zeros(8).double(), rtol=0, atol=0.1)
    torch.testing.assert_close(both.T @ both / 2000, torch.eye(8).double(), rtol=0, atol=0.12)
    assert float((both[1:] * both[:-1]).mean()) == pytest.approx(0, abs=0.03)
    torch.testing.assert_close(u.sort().values, (torch.arange(2000) + 0.5).double() / 2000, rtol=0, atol=0.05)


def test_precision_follows_x() -> None:
    for dtype, wanted in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ):
        assert SampleNoise(0, [0]).normal_like(torch.zeros(1, 2, dtype=dtype)).dtype == wanted
    half, single = (
        SampleNoise(0, [0]).normal_like(torch.zeros(1, 2, dtype=d)) for d in (torch.bfloat16, torch.float32)
    )
    assert torch.equal(half, single.bfloat16())


def test_mix_seed() -> None:
    seeds = {mix_seed(*parts) for parts in itertools.product(range(20), range(100), range(20))}
    assert len(seeds) == 20 * 100 * 20
    assert len({mix_seed(1, 2), mix_seed(2, 1), mix_seed(1, 2, 0), mix_seed(0, 1, 2), mix_seed(-1, 2)}) == 5
    assert all(0 <= seed < 2**64 for seed in seeds)
    # One bit of the input changes about half of the output's.
    changed = [bin(mix_seed(3, i, 1) ^ mix_seed(3, i ^ (1 << b), 1)).count("1") for i in range(50) for b in range(16)]
    assert sum(changed) / len(changed) == pytest.approx(32, abs=0.5)


def test_splitmix64_reference() -> None:
    # The first outputs of the published generator for the seed 1234567, whose state is this constant times the count.
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix_seed((1234567 + golden * count) & mask) for count in range(3)] == published


def test_trajectory_says_what_happened() -> None:
    exact = GaussianDenoiser(VP(), torch.tensor([0.5, -1]).double(), torch.tensor([0.3, 0.9]).double())
    times = Uniform().times(VP(), 5)
    x = torch.randn(3, 2, dtype=torch.float64)
    steps = list(trajectory(exact, Heun(), times, x, SampleNoise(0, range(3))))
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert torch.equal(steps[0].x_t, x)
    for step, (t, s) in zip(steps, itertools.pairwise(times)):
        assert (float(step.t), float(step.s)) == (float(t), float(s))
        wanted = exact(step.x_t, step.t)  # the first of Heun's two
        for name in ("x_t", "x_0", "eps", "alpha", "sigma"):
            torch.testing.assert_close(getattr(step.prediction, name), getattr(wanted, name))
        torch.testing.assert_close(step.x_s, Heun().step(exact, step.x_t, t, s, {}, {}, SampleNoise(0, range(3))))
    for before, after in itertools.pairwise(steps):
        assert torch.equal(before.x_s, after.x_t)
    assert torch.equal(sample(exact, Heun(), times, x, SampleNoise(0, range(3))), steps[-1].x_s)


def test_multistep_memory_is_fresh_for_each_run() -> None:
    sampler, exact = DPMpp2M(), denoiser()
    times, x = Uniform().times(VP(), 5), torch.randn(3, 2, dtype=torch.float64)
    first, second = (sample(exact, sampler, times, x, SampleNoise(0, range(3))) for _ in range(2))
    assert torch.equal(first, second)


def test_conditions_reach_the_denoiser() -> None:
    rng = SampleNoise(0, range(4))
    x = VP().prior_sample(rng.normal((2,), torch.float64))
    got = sample(denoiser(), DDIM(), Uniform().times(VP(), 30), x, rng, {"label": torch.tensor([0, 1, 0, 1])})
    alone = GaussianDenoiser(VP(), torch.tensor([0.8, -0.2]).double(), torch.tensor(0.3).double())
    torch.testing.assert_close(got[::2], sample(alone, DDIM(), Uniform().times(VP(), 30), x[::2], rng))


def test_no_gradients_inside_and_no_change_of_mode_outside() -> None:
    exact = denoiser()
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    for step in trajectory(exact, DDIM(), Uniform().times(VP(), 3), x, SampleNoise(0, [0])):
        assert torch.is_grad_enabled()
        assert not step.x_s.requires_grad


@pytest.mark.parametrize("times", [[1.0, 0.5, 0.5, 0.0], [0.5, 0.7, 0.0], [0.1, 0.4, 0.4], [0.1, 0.4, 0.2]])
def test_times_that_turn_or_stop_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="strictly monotone"):
        next(
            trajectory(
                denoiser(), DDIM(), torch.tensor(times).double(), torch.zeros(1, 2).double(), SampleNoise(0, [0])
            )
        )


def test_evaluations_are_counted() -> None:
    x = torch.zeros(1, 2).double()
    for sampler, wanted in ((DDIM(), [1, 1, 1]), (Heun(), [2, 2, 1])):
        steps = trajectory(denoiser(), sampler, Uniform().times(VP(), 3), x, SampleNoise(0, [0]))
        assert [step.evaluations for step in steps] == wanted


# ---- upwards -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [DDIM(), Euler(), Heun(), DPMpp2M()])
def test_solvers_of_the_ode_walk_up(sampler: Sampler) -> None:
    exact = GaussianDenoiser(VP(), torch.tensor([0.5, -1]).double(), torch.tensor([0.3, 0.9]).double())
    x = torch.tensor([[0.4, -0.2], [1.0, -2.0]]).double()
    rng = SampleNoise(0, range(2))
    errors = []
    for steps in (50, 200):
        up = VP().t_at_noise_ratio(torch.linspace(-3, 3, steps + 1).double().exp())
        got = sample(exact, sampler, up, x, rng)
        errors.append(float((got - exact.flow_map(x, up[0], up[-1])).abs().max()))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3
    assert rng.draws == 0


def test_the_first_step_of_encoding_undoes_the_last_of_decoding() -> None:
    exact = denoiser()
    x_0 = torch.tensor([[0.7, -0.1], [-0.3, 0.9]]).double()
    wrong = []
    for sigma in (0.04, 0.02):
        t = VP().t_at_noise_ratio(torch.tensor(sigma).double())
        x_t = DDIM().leave_data(exact, x_0, t, {})
        alpha, noise = VP().scales(t, x_0)
        torch.testing.assert_close(x_t, alpha * x_0 + noise * exact(alpha * x_0, t).eps)
        wrong.append(float((exact(x_t, t).x_0 - x_0).abs().max()))
    assert wrong[1] < wrong[0] / 15  # fourth order: a sixteenth


@pytest.mark.parametrize("steps", [1, 5])
def test_encode_is_that_step_and_the_reversed_walk(steps: int) -> None:
    times = Uniform().times(VP(), steps)
    x_0 = torch.tensor([[0.7, -0.1], [-0.3, 0.9]]).double()
    cond = {"label": torch.tensor([0, 1])}
    x = DDIM().leave_data(denoiser(), x_0, times[-2], cond)
    for t, s in itertools.pairwise(times[:-1].flip(0)):
        x = DDIM().step(denoiser(), x, t, s, cond, {}, SampleNoise(0, range(2)))
    got = encode(denoiser(), DDIM(), times, x_0, SampleNoise(0, range(2)), cond)
    torch.testing.assert_close(got, x, rtol=1e-12, atol=1e-12)
    # A grid that stops above the data is reversed from there.
    torch.testing.assert_close(encode(denoiser(), DDIM(), times[:-1], x_0, SampleNoise(0, range(2)), cond), got)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_what_draws_noise_cannot_encode(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match=r"only a deterministic sampler|only with eta = 0"):
        encode(denoiser(), sampler, Uniform().times(VP(), 4), torch.zeros(1, 2).double(), SampleNoise(0, [0]))


def test_encoding_needs_a_walk_to_reverse() -> None:
    for times in ([0.1, 0.5], [0.0]):
        with pytest.raises(ValueError, match=r"decrease strictly|no time above"):
            encode(denoiser(), DDIM(), torch.tensor(times).double(), torch.zeros(1, 2).double(), SampleNoise(0, [0]))


def test_edm_from_noise_to_a_distribution() -> None:
    # The whole path once, by its result: the mean and spread of samples of a known Gaussian.
    exact = GaussianDenoiser(EDM(), torch.tensor([0.5]).double(), torch.tensor([0.25]).double())
    rng = SampleNoise(0, range(1000))
    x = EDM().prior_sample(rng.normal((1,), torch.float64))
    got = sample(exact, Heun(), Karras().times(EDM(), 18), x, rng)
    assert float(got.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(got.std()) == pytest.approx(0.25, rel=0.08)


def test_every_seed_is_a_seed_of_its_own() -> None:
    """Negative and huge ones too; a run's seeds in training are hashes over all 64 bits."""
    seeds = [0, 1, -1, -2, 2**63 - 1, 2**63 + 1, 2**63 + 2, 2**64 - 500]
    draws = torch.stack([SampleNoise(seed, [5]).normal((4,))[0] for seed in seeds])
    assert len(draws.unique(dim=0)) == len(seeds)


def test_streams_of_one_batch_are_those_of_a_new_generator() -> None:
    """The stream of (seed, sample, draw) is Philox with that key and counter, however the batch was put together."""
    import numpy as np

    noise = SampleNoise(7, [3, 9, 4])
    noise.uniform()
    drawn = noise.normal((5,))
    for row, index in zip(drawn, [3, 9, 4], strict=True):
        philox = np.random.Philox(counter=[0, 0, 0, 2], key=np.array([7, index], np.uint64))
        expected = np.random.Generator(philox).standard_normal(5, dtype=np.float32)
        np.testing.assert_array_equal(row.numpy(), expected)
