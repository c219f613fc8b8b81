"""The reverse SDE: Euler-Maruyama and reverse diffusion by their exact moments, predictor and corrector, and a second implementation."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from numeric import Fast, f64, scalar
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VE, VP, GeometricLadder, GivenVP, LinearVP, RectifiedFlow, SubVP
from unstir.samplers import DDPM, EulerMaruyama, PredictorCorrector, ReverseDiffusion
from unstir.samplers.grids import Karras, Uniform
from unstir.samplers.predictor_corrector import snr_step_size
from unstir.samplers.sde import reverse_drift
from unstir.sampling import SampleNoise, Sampler, sample

MEAN, STD = 0.7, 0.4


class Impulses(SampleNoise):
    """Draw i is 1 in row i and 0 elsewhere. What is affine in its noise has row 0 as its mean, and the others' squared distances
    from it add up to its variance."""

    def normal_like(self, x: Tensor) -> Tensor:
        self.draws += 1
        return torch.nn.functional.one_hot(torch.tensor(self.draws), len(x)).to(x.dtype).reshape(-1, 1)


def moments(process: Process, sampler: Sampler, times: Tensor, rows: int = 310) -> tuple[float, float]:
    """(mean, std) of the samples, exactly, from exact x at times[0] of Gaussian data."""
    rng, t = Impulses(0, range(rows)), times[0]
    exact = GaussianDenoiser(process, f64(MEAN), f64(STD))
    start = rng.normal_like(torch.zeros(rows, 1, dtype=torch.float64))
    x = process.alpha(t) * MEAN + (process.alpha(t) * STD).hypot(process.sigma(t)) * start
    x = sample(exact, sampler, times, x, rng)
    assert rng.draws < rows
    return float(x[0]), float((x - x[0]).square().sum().sqrt())


def between(process: Process, steps: int, high: float = 10.0, low: float = 0.05) -> Tensor:
    top = min(high, float(process.sigma(scalar(process.t_max)) / process.alpha(scalar(process.t_max))))
    return process.t_at_noise_ratio(torch.linspace(math.log(top), math.log(low), steps + 1, dtype=torch.float64).exp())


def truth(process: Process, s: Tensor) -> tuple[float, float]:
    return float(process.alpha(s) * MEAN), float((process.alpha(s) * STD).hypot(process.sigma(s)))


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), EDM()])
def test_reverse_drift_is_song_et_als(process: Process) -> None:
    t, x = scalar(0.4 * process.t_max), f64(0.3, -1.1).reshape(2, 1)
    prediction = GaussianDenoiser(process, f64(MEAN), f64(STD))(x, t)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    beta = 0.1 + 0.4 * 19.9
    integral = 0.1 * 0.4 + 0.4**2 * 19.9 / 2
    f, g_squared = {
        VP: (-beta / 2, beta),
        SubVP: (-beta / 2, beta * (1 - math.exp(-2 * integral))),
        VE: (0.0, 2 * math.log(5000) * sigma**2),
        EDM: (0.0, 2 * float(t)),
    }[type(process)]
    score = -(x - alpha * MEAN) / ((alpha * STD) ** 2 + sigma**2)
    torch.testing.assert_close(reverse_drift(process, prediction, t), f * x - g_squared * score)


@pytest.mark.parametrize("sampler", [EulerMaruyama(), ReverseDiffusion()])
@pytest.mark.parametrize("name", PROCESSES)
def test_weak_order_one(name: str, sampler: Sampler) -> None:
    """The errors of mean and standard deviation, known without any sampling noise, halve with the step.

    Under geometric noise Euler-Maruyama happens to have almost no first-order error, and four betas are a kinked process: there
    errors fall faster.
    """
    process = PROCESSES[name]()
    errors = []
    for steps in (80, 160):
        times = between(process, steps)
        got, true = moments(process, sampler, times), truth(process, times[-1])
        errors.append((abs(got[0] - true[0]), abs(got[1] - true[1])))
    for which in (0, 1):
        sizes = [error[which] for error in errors]
        if sizes[0] > 1e-9:  # some have the mean right at any step
            assert sizes[1] < 0.02
            assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.1) or sizes[0] / sizes[1] > 2


def test_moments_by_monte_carlo() -> None:
    """The same once with real noise: within its error bars of the exact moments of the discretised equation."""
    process, n = VP(), 5000
    times, rng = between(process, 50), Fast(0, n)
    t = times[0]
    exact = GaussianDenoiser(process, f64(MEAN), f64(STD))
    x = process.alpha(t) * MEAN + (process.alpha(t) * STD).hypot(process.sigma(t)) * rng.normal_like(
        torch.zeros(n, 1, dtype=torch.float64)
    )
    x = sample(exact, EulerMaruyama(), times, x, rng)
    mean, std = moments(process, EulerMaruyama(), times)
    assert float(x.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(n))
    assert float(x.std()) == pytest.approx(std, abs=4 * std / math.sqrt(2 * n))


def test_whole_steps_have_the_slope_of_the_step_below() -> None:
    # g(t)² of DDPM's chain is about beta_t: Euler-Maruyama of all of its steps is then close to ancestral sampling.
    process = LinearVP()
    t = torch.arange(101, 1001, 100, dtype=torch.float64)
    beta = process.beta[t.long()]
    torch.testing.assert_close(process.diffusion_squared(t), beta, rtol=0.02, atol=0)
    torch.testing.assert_close(process.drift(t), -beta / 2, rtol=0.02, atol=0)
    # Where neighbouring steps differ, the slope at t is that of t - 1 .. t, in which sampling goes down.
    uneven, t = GivenVP((0.1, 0.6, 0.1, 0.5)), f64(1, 2, 3, 4)
    for slope in (uneven.drift, uneven.diffusion_squared):
        torch.testing.assert_close(slope(t), slope(t - 1e-9), rtol=1e-6, atol=0)
        assert (slope(t[:3]) / slope(t[:3] + 1e-9) - 1).abs().min() > 0.3


def test_euler_maruyama_forgets_pure_noise() -> None:
    process = RectifiedFlow()
    exact = GaussianDenoiser(process, f64(MEAN), f64(STD))
    s, n = scalar(0.6), 5000
    x = EulerMaruyama().step(exact, torch.full((n, 1), 2.0).double(), scalar(1.0), s, {}, {}, Fast(0, n))
    assert float(x.mean()) == pytest.approx(0.4 * MEAN, abs=4 * 0.6 / math.sqrt(n))
    assert float(x.std()) == pytest.approx(0.6, abs=4 * 0.6 / math.sqrt(2 * n))


@pytest.mark.parametrize("sampler", [EulerMaruyama(), ReverseDiffusion()])
def test_from_pure_noise(sampler: Sampler) -> None:
    process = RectifiedFlow()
    mean, std = moments(process, sampler, torch.cat([f64(1.0), between(process, 300)]))
    true = truth(process, between(process, 1)[-1])
    assert mean == pytest.approx(true[0], abs=0.02)
    assert std == pytest.approx(true[1], rel=0.05)


def test_reverse_diffusion_has_ddpms_mean_where_noise_explodes() -> None:
    process = EDM()
    exact = GaussianDenoiser(process, f64(MEAN), f64(STD))
    x = f64(0.5, -3).reshape(2, 1)

    class Silent(SampleNoise):
        def normal_like(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    silent = Silent(0, range(2))
    for t, s in ((20.0, 7.0), (1.0, 0.2), (0.5, 0.0)):
        steps = [
            sampler.step(exact, x, scalar(t), scalar(s), {}, {}, silent) for sampler in (ReverseDiffusion(), DDPM())
        ]
        torch.testing.assert_close(*steps)


# ---- predictor and corrector ---------------------------------------------------------------------------------------------------


def test_step_size_by_hand() -> None:
    eps = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[60.0, 80.0]]], dtype=torch.float64)
    scales = torch.tensor(1.0), torch.tensor(2.0, dtype=torch.float64)
    got = snr_step_size(Prediction(eps, eps, eps, *scales), snr=0.16)
    # epsilon = 2 (r sqrt(2) / |g|)² with g = -eps / 2, in units of sigma² = 4.
    by_hand = [2 * (0.16 * math.sqrt(2) / (norm / 2)) ** 2 / 4 for norm in (5, 100)]
    assert got.shape == (3, 1, 1)
    torch.testing.assert_close(got.flatten(), f64(by_hand[0], 1.0, by_hand[1]))


@pytest.mark.parametrize("predictor", [ReverseDiffusion(), DDPM("large"), DDPM()])
@pytest.mark.parametrize("process", [VE(), VP(), SubVP()])
def test_the_corrector_corrects(process: Process, predictor: Sampler) -> None:
    """At few steps the predictor's spread is wrong, and nearer to right with a few corrections after each."""
    times = between(process, 10)
    true = truth(process, times[-1])[1]
    alone = abs(moments(process, predictor, times)[1] - true)
    mended = PredictorCorrector(predictor, corrections=6, snr=0.3, adaptive=False)
    assert alone > 0.02 * true
    assert abs(moments(process, mended, times)[1] - true) < 0.5 * alone
    none = replace(mended, corrections=0)
    assert moments(process, none, times) == pytest.approx(moments(process, predictor, times), rel=1e-12)


def test_the_corrector_corrects_by_the_papers_rule() -> None:
    """The same with the step measured by each sample's own score, in as many dimensions as a small picture has."""
    process, n, D = VE(), 300, 64
    std = torch.linspace(0.1, 0.9, D, dtype=torch.float64)
    exact = GaussianDenoiser(process, torch.zeros(D, dtype=torch.float64), std)
    times = between(process, 12)
    wrong = {}
    for name, sampler in {"p": ReverseDiffusion(), "pc": PredictorCorrector(corrections=6)}.items():
        rng = Fast(0, n)
        t = times[0]
        x = (process.alpha(t) * std).hypot(process.sigma(t)) * rng.normal_like(torch.zeros(n, D, dtype=torch.float64))
        x = sample(exact, sampler, times, x, rng)
        expected = (std.square() + process.sigma(times[-1]).square()).sum()
        wrong[name] = abs(float(x.square().sum(1).mean() / expected) - 1)
    assert wrong["p"] > 0.1
    assert wrong["pc"] < 0.6 * wrong["p"]


@pytest.mark.parametrize("sampler", [EulerMaruyama(), ReverseDiffusion(), PredictorCorrector(DDPM())])
def test_the_last_step_is_the_belief(sampler: Sampler) -> None:
    process = VP()
    exact = GaussianDenoiser(process, f64(MEAN), f64(STD))
    x, rng = f64(0.1, 0.9).reshape(2, 1), SampleNoise(0, range(2))
    got = sampler.step(exact, x, scalar(0.3), scalar(0.0), {}, {}, rng)
    torch.testing.assert_close(got, exact(x, scalar(0.3)).x_0)
    assert rng.draws == 0


def test_a_network_that_has_learnt_nothing_does_no_harm() -> None:
    class Nothing(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
            return Prediction(x_t, x_t, torch.zeros_like(x_t), *self.process.scales(t, x_t))

    process = VE()
    rng = SampleNoise(0, range(3))
    x = process.prior_sample(rng.normal((2,), torch.float64))
    got = sample(Nothing(process), PredictorCorrector(), Uniform().times(process, 20), x, rng)
    assert got.abs().max() < 50 * 50


def test_a_sample_depends_on_its_own_number_alone() -> None:
    process = VE()
    exact = GaussianDenoiser(process, torch.zeros(4, dtype=torch.float64), f64(0.3))

    def draw(indices: list[int]) -> Tensor:
        rng = SampleNoise(5, indices)
        x = process.prior_sample(rng.normal((4,), torch.float64))
        return sample(exact, PredictorCorrector(), Uniform().times(process, 8), x, rng)

    torch.testing.assert_close(draw([3]), draw([1, 3, 7])[1:2], rtol=1e-12, atol=1e-12)


class Replay(SampleNoise):
    """The draws of a list, one after the other."""

    def __init__(self, draws: list[Tensor]) -> None:
        super().__init__(0, range(len(draws[0])))
        self.left = iter(draws)

    def normal_like(self, x: Tensor) -> Tensor:
        return next(self.left)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_diffusers_ve_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictor and corrector as in diffusers' ScoreSdeVeScheduler, whose norms are a batch's means: of one sample, its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("diffusers")
        from diffusers.schedulers import scheduling_sde_ve

    process, D, snr = GeometricLadder(levels=6, sigma_min=0.1, sigma_max=5.0), 50, 0.2
    exact = GaussianDenoiser(process, torch.zeros(D, dtype=torch.float64), torch.linspace(0.2, 1, D).double())
    generator = torch.Generator().manual_seed(0)
    for level in (6, 4, 2):  # each to the level below it
        x, *draws = (torch.randn(1, D, dtype=torch.float64, generator=generator) for _ in range(4))
        x, t, s = 2 * level * x, scalar(level), scalar(level - 1)
        ours = PredictorCorrector(corrections=2, snr=snr).step(exact, x, t, s, {}, {}, Replay(draws))
        replay = Replay(draws)
        monkeypatch.setattr(scheduling_sde_ve, "randn_tensor", lambda *_, replay=replay, **__: next(replay.left))
        scheduler = scheduling_sde_ve.ScoreSdeVeScheduler(6, snr, 0.1, 5.0)
        scheduler.discrete_sigmas = process.sigma(torch.arange(1, 7, dtype=torch.float64))
        theirs = scheduler.step_pred(exact(x, t).score, (level - 1) / 5, x).prev_sample
        for z in draws[1:]:
            # They measure |z| and ours is sqrt(D), so their snr is changed by as much: then both are the same.
            scheduler.register_to_config(snr=snr * math.sqrt(D) / float(z.norm()))
            theirs = scheduler.step_correct(exact(theirs, s).score, theirs).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sampler", [ReverseDiffusion(), PredictorCorrector(corrections=2, adaptive=False)])
def test_from_noise_to_data(sampler: Sampler) -> None:
    exact, n = GaussianDenoiser(EDM(), f64(MEAN), f64(STD)), 2000
    rng = Fast(1, n)
    x = EDM().prior_sample(rng.normal_like(torch.zeros(n, 1, dtype=torch.float64)))
    x = sample(exact, sampler, Karras().times(EDM(), 100), x, rng)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(x.std()) == pytest.approx(STD, rel=0.1)


def test_the_command_line_reaches_the_predictor() -> None:
    from unstir.cli.arguments import parse
    from unstir.recipes import Recipe
    from unstir.recipes.serial import override, to_dict

    words = "--sampling.sampler pc --sampling.sampler.predictor ddpm --sampling.sampler.predictor.noise large --sampling.sampler.snr 0.1"
    recipe = parse(Recipe(), words.split(), "x")
    assert recipe.sampling.sampler == PredictorCorrector(DDPM("large"), snr=0.1)
    assert override(Recipe(), to_dict(recipe)) == recipe
