"""Known parts: on a Gaussian the exact conditional is known, and every sampler here is affine in its noise, so its moments are exact too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from numeric import f64
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.editing.reconstruction import ReconstructionGuidance
from unstir.linear import LinearDenoiser
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, RectifiedFlow
from unstir.samplers import DDPM, SAMPLERS
from unstir.samplers.repaint import RePaint, go_up
from unstir.samplers.replacement import Known, Replacement
from unstir.sampling import Cond, Memory, SampleNoise, Sampler, sample

MEAN, STD, RHO, Y = f64(0.3, -0.5), f64(1.0, 0.7), 0.8, 1.4
COVARIANCE = torch.diag(STD) @ torch.tensor([[1, RHO], [RHO, 1]], dtype=torch.float64) @ torch.diag(STD)
WANTED_MEAN = float(MEAN[1] + RHO * STD[1] / STD[0] * (Y - MEAN[0]))
WANTED_STD = float(STD[1]) * math.sqrt(1 - RHO**2)


def gaussian(process: Process, mean: Tensor = MEAN, covariance: Tensor = COVARIANCE) -> LinearDenoiser:
    """The exact denoiser of correlated Gaussian data."""
    exact = LinearDenoiser(process, tuple(mean.shape), len(mean)).double()
    variances, directions = torch.linalg.eigh(covariance)
    exact.mean.copy_(mean)
    exact.variances.copy_(variances)
    exact.directions.copy_(directions.T)
    return exact


def first_known(y: float = Y) -> Known:
    """Coordinate 0 is y; what stands in coordinate 1 must not matter."""
    mask = f64(1, 0)
    return Known(f64(y, 77).reshape(1, 2), lambda x: mask * x, lambda x: (1 - mask) * x)


def grid(process: Process, steps: int) -> Tensor:
    """Equal steps of log-SNR from a noise level of 20, or what there is, to 0.02, and from there to the data."""
    high = min(float(process.sigma(f64(process.t_max)) / process.alpha(f64(process.t_max))), 20.0)
    ratios = torch.linspace(math.log(high), math.log(0.02), steps, dtype=torch.float64).exp()
    return torch.cat([process.t_at_noise_ratio(ratios), f64(0)])


class Impulses(SampleNoise):
    """All draws are zero but for a 1 in entry c of draw d, in row 1 + 2 d + c.

    Runs that are affine in their noise thus give exact moments: row 0 is the mean, the differences from it the factors of the covariance.
    """

    def normal_like(self, x: Tensor) -> Tensor:
        impulse = torch.zeros_like(x)
        for c in range(2):
            row = 1 + 2 * self.draws + c
            if row < len(x):
                impulse[row, c] = 1
        self.draws += 1
        return impulse


def moments(run: Callable[[SampleNoise, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(mean (2,), covariance (2, 2)) of what ``run(rng, like)`` gives, which draws all its noise as ``rng.normal_like``."""
    dry = Impulses(0, [0])
    run(dry, torch.zeros(1, 2, dtype=torch.float64))
    x = run(Impulses(0, [0]), torch.zeros(1 + 2 * dry.draws, 2, dtype=torch.float64))
    assert x.isfinite().all()
    return x[0], (x[1:] - x[0]).T @ (x[1:] - x[0])


def conditional(
    process: Process,
    sampler: Sampler,
    steps: int = 20,
    wrap: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
) -> tuple[float, float]:
    """Errors of the mean and of the standard deviation of coordinate 1, in units of the true one."""
    times, known, denoiser = grid(process, steps), first_known(), wrap(gaussian(process))

    def run(rng: SampleNoise, like: Tensor) -> Tensor:
        eps = rng.normal_like(like)
        x = known.put(process.prior_sample(eps, times[0]), process.add_noise(known.x_0, times[0], eps))
        x = sample(denoiser, sampler, times, x, rng)
        assert torch.equal(x[:, 0], torch.full_like(x[:, 0], Y))  # to the bit
        return x

    mean, covariance = moments(run)
    return abs(float(mean[1]) - WANTED_MEAN) / WANTED_STD, abs(float(covariance[1, 1].sqrt()) - WANTED_STD) / WANTED_STD


def error(process: Process, sampler: Sampler, steps: int = 20) -> float:
    """The distance of the two normal distributions (2-Wasserstein), in units of the true standard deviation."""
    return math.hypot(*conditional(process, sampler, steps))


def test_the_oracle_is_the_conditional_expectation() -> None:
    process, t = VP(), f64(0.4)[0]
    x_t = f64(0.2, -1.1).reshape(1, 2)
    alpha, sigma = process.alpha(t), process.sigma(t)
    posterior = torch.linalg.inv(torch.linalg.inv(COVARIANCE) + alpha**2 / sigma**2 * torch.eye(2, dtype=torch.float64))
    x_0 = posterior @ (torch.linalg.inv(COVARIANCE) @ MEAN + alpha / sigma**2 * x_t[0])
    torch.testing.assert_close(gaussian(process)(x_t, t).x_0[0], x_0)


def test_moments_without_a_known_part_are_the_data_s() -> None:
    process = VP()
    times = grid(process, 400)
    mean, covariance = moments(
        lambda rng, like: sample(
            gaussian(process), DDPM(), times, process.prior_sample(rng.normal_like(like), times[0]), rng
        )
    )
    torch.testing.assert_close(mean, MEAN, atol=0.02, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0.03, rtol=0)


@pytest.mark.parametrize("process", PROCESSES)
def test_resampling_approaches_the_exact_conditional(process: str) -> None:
    errors = [
        error(PROCESSES[process](), RePaint(Replacement(DDPM("large"), first_known()), resamplings=u))
        for u in (1, 3, 9)
    ]
    assert errors[0] > 0.3  # replacement alone is biased
    for more, less in itertools.pairwise(errors):
        assert less < 0.4 * more
    assert errors[-1] < 0.07


@pytest.mark.parametrize("name", PROCESSES)
def test_replaced_is_the_known_part_with_the_noise_of_that_time(name: str) -> None:
    process = PROCESSES[name]()
    t, s = (process.t_at_noise_ratio(f64(ratio))[0] for ratio in (2.0, 0.6))

    def step(sampler: Sampler) -> tuple[Tensor, Tensor]:
        denoiser = gaussian(process)
        return moments(lambda rng, like: sampler.step(denoiser, rng.normal_like(like), t, s, {}, {}, rng))

    mean, covariance = step(Replacement(DDPM(), first_known()))
    plain_mean, plain_covariance = step(DDPM())
    torch.testing.assert_close(mean, torch.stack([process.alpha(s) * Y, plain_mean[1]]))
    wanted = torch.diag(torch.stack([process.sigma(s) ** 2, plain_covariance[1, 1]]))  # of no concern to each other
    torch.testing.assert_close(covariance, wanted)


def test_one_resampling_is_replacement() -> None:
    plain = Replacement(DDPM(), first_known())
    assert conditional(VP(), RePaint(plain, resamplings=1)) == conditional(VP(), plain)
    assert conditional(VP(), RePaint(plain, resamplings=1, jump=7)) == conditional(VP(), plain)


# What a consistency sampler takes for a sample is a mean here: it needs another denoiser (tests/samplers/test_consistency_sampler.py).
@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"consistency"}))
def test_any_sampler_goes_inside(name: str) -> None:
    plain = Replacement(SAMPLERS[name](), first_known())
    few, many = error(EDM(), plain), error(EDM(), RePaint(plain, resamplings=5))
    assert many < 0.45 * few


class Visits(Sampler):
    """Writes down where it was sent."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.memories: list[int] = []

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        denoiser(x_t, t)
        self.steps.append((float(t), float(s)))
        self.memories.append(memory.get("steps", 0))
        memory["steps"] = self.memories[-1] + 1
        return x_t


@pytest.mark.parametrize(
    ("jump", "wanted"),
    [
        (1, [(5, 4), (5, 4), (4, 3), (4, 3), (3, 2), (3, 2), (2, 1), (2, 1), (1, 0)]),
        (2, [(5, 4), (4, 3), (5, 4), (4, 3), (3, 2), (2, 1), (3, 2), (2, 1), (1, 0)]),
        (3, [(5, 4), (4, 3), (3, 2), (5, 4), (4, 3), (3, 2), (2, 1), (2, 1), (1, 0)]),
        (9, [(5, 4), (4, 3), (3, 2), (2, 1), (5, 4), (4, 3), (3, 2), (2, 1), (1, 0)]),
    ],
)
def test_every_stretch_is_walked_again_and_the_last_step_once(jump: int, wanted: list[tuple[int, int]]) -> None:
    visits, process = Visits(), EDM()
    rng = SampleNoise(0, [0])
    sample(gaussian(process), RePaint(visits, 2, jump), f64(5, 4, 3, 2, 1, 0), torch.zeros(1, 2).double(), rng)
    assert visits.steps == wanted
    # A multistep method starts anew wherever the way up ended, and may go on from there into the next stretch.
    restarts = [step for step, memory in zip(visits.steps, visits.memories) if memory == 0]
    assert restarts[0] == (5, 4)
    assert len(restarts) == 1 + rng.draws


def test_resampling_must_be_positive() -> None:
    for settings in ({"resamplings": 0}, {"jump": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            RePaint(DDPM(), **settings)


@pytest.mark.parametrize("name", PROCESSES)
def test_go_up_is_the_forward_process(name: str) -> None:
    # In one leap or in two, noise added to x_s = alpha_s x_0 + sigma_s eps gives x_t's own mean and variance.
    process = PROCESSES[name]()
    s, m, t = (process.t_at_noise_ratio(f64(ratio))[0] for ratio in (0.1, 0.5, 2.0))
    for stops in ([s, t], [s, m, t]):

        def run(rng: SampleNoise, like: Tensor, stops: list[Tensor] = stops) -> Tensor:
            x = process.add_noise(torch.full_like(like, 3.0), stops[0], rng.normal_like(like))
            for low, high in itertools.pairwise(stops):
                x = go_up(process, x, low, high, rng)
            return x

        mean, covariance = moments(run)
        torch.testing.assert_close(mean, (3 * process.alpha(t)).expand(2))
        torch.testing.assert_close(covariance, process.sigma(t) ** 2 * torch.eye(2, dtype=torch.float64))


# ---- reconstruction guidance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.7])
@pytest.mark.parametrize("name", PROCESSES)
def test_guided_belief_of_a_gaussian(name: str, scale: float) -> None:
    """x_0 + scale alpha²/sigma² C_{0|t} A^T (y - A x_0), because the Jacobian of the belief is alpha / sigma² C_{0|t}."""
    process = PROCESSES[name]()
    denoiser, known = gaussian(process), first_known()
    x_t = f64(0.4, -1.3, 2.0, 0.1).reshape(2, 2)
    for ratio in (0.05, 0.7, 5.0):
        t = process.t_at_noise_ratio(f64(ratio))[0]
        alpha, sigma = process.alpha(t), process.sigma(t)
        posterior = torch.linalg.inv(
            torch.linalg.inv(COVARIANCE) + alpha**2 / sigma**2 * torch.eye(2, dtype=torch.float64)
        )
        plain = denoiser(x_t, t)
        off = torch.stack([Y - plain.x_0[:, 0], torch.zeros(2, dtype=torch.float64)], 1)
        x_0 = plain.x_0 + scale * alpha**2 / sigma**2 * off @ posterior
        with torch.no_grad():
            guided = ReconstructionGuidance(denoiser, known, scale)(x_t, t)
        torch.testing.assert_close(guided.x_0, x_0, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(alpha * guided.x_0 + sigma * guided.eps, x_t, rtol=1e-8, atol=1e-9)
        assert not guided.x_0.requires_grad


def test_guidance_at_both_ends() -> None:
    process = RectifiedFlow()
    denoiser = ReconstructionGuidance(gaussian(process), first_known())
    x = f64(0.4, -1.3).reshape(1, 2)
    for t in (0.0, 1.0):
        got, plain = denoiser(x, f64(t)[0]), gaussian(process)(x, f64(t)[0])
        torch.testing.assert_close(got.x_0, plain.x_0)  # nothing to learn at the data, nothing to lean on in pure noise
        torch.testing.assert_close(got.eps, plain.eps)


class Labelled(Denoiser):
    """Another belief for every label, and a time for every sample."""

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        x_0 = x_t * alpha + cond["label"].reshape(-1, 1)
        return Prediction(x_t, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma, torch.zeros_like(x_t))


def test_guidance_passes_conditions_and_times_on() -> None:
    process = VP()
    x_t, t, label = f64(0.3, 0.1, 1.0, -2.0).reshape(2, 2), f64(0.2, 0.9), f64(1, -1)
    got = ReconstructionGuidance(Labelled(process), first_known(), 1.0)(x_t, t, label=label)
    assert got.variance_fraction is not None
    for i in range(2):
        alone = ReconstructionGuidance(Labelled(process), first_known(), 1.0)(
            x_t[i : i + 1], t[i], label=label[i : i + 1]
        )
        torch.testing.assert_close(got.x_0[i : i + 1], alone.x_0)
    alpha = process.alpha(t)
    plain = x_t[:, 0] * alpha + label
    # d/dx of (alpha x + label - y)² is 2 alpha (...), times alpha / 2.
    torch.testing.assert_close(got.x_0[:, 0], plain - alpha**2 * (plain - Y))


@pytest.mark.parametrize("process", [EDM(), VP(), RectifiedFlow()])
def test_guidance_mends_replacement_without_resampling(process: Process) -> None:
    plain = Replacement(DDPM(), first_known())
    errors = [
        math.hypot(
            *conditional(process, plain, wrap=lambda d, scale=scale: ReconstructionGuidance(d, first_known(), scale))
        )
        for scale in (0.0, 1.0, 2.0)
    ]
    assert errors[0] == pytest.approx(error(process, plain))
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.7 * errors[1]
