"""What the fast solvers' docstrings claim: which of them are each other, what a step costs, where they fall back to first order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numeric import f64
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, RectifiedFlow
from unstir.samplers import (
    DDIM,
    DDPM,
    DEIS,
    LMS,
    SAMPLERS,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp2S,
    DPMpp2SAncestral,
    DPMpp3M,
    DPMpp3MSDE,
    DPMSolver2,
    DPMSolver3,
    EulerAncestral,
    UniPC,
)
from unstir.samplers.grids import Karras, Uniform
from unstir.sampling import SampleNoise, Sampler, encode, sample

SOLVERS: list[Sampler] = [
    DPMSolver2(),
    DPMSolver3(),
    DPMpp2S(),
    DPMpp2M(),
    DPMpp3M(),
    UniPC(),
    UniPC(3, "bh1"),
    DEIS(),
    DEIS(4, "time"),
    LMS(),
]
NOISY: list[Sampler] = [EulerAncestral(), DPMpp2SAncestral(), DPMpp2MSDE(), DPMpp3MSDE()]


class Counted(Denoiser):
    """A mixture, and how often it was asked."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.exact = MixtureDenoiser(process, torch.stack([f64(0.8, -0.2), f64(-0.5, 0.4)]), f64(0.3).reshape(1, 1))
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        self.times.append(float(t))
        return self.exact(x_t, t)


def run(process: Process, sampler: Sampler, steps: int = 5) -> Tensor:
    rng = SampleNoise(3, range(5))
    x = process.prior_sample(rng.normal((2,), torch.float64))
    return sample(Counted(process), sampler, Uniform().times(process, steps), x, rng)


@pytest.mark.parametrize(
    ("sampler", "same"),
    [
        (DEIS(1), DDIM()),
        (DEIS(1, "rho"), DDIM()),
        (DEIS(1, "time"), DDIM()),
        (LMS(1), DDIM()),
        (UniPC(1, corrector=False), DDIM()),
        (UniPC(2, corrector=False), DPMpp2M()),
        (DEIS(3, "rho"), LMS(3)),
        (EulerAncestral(), DDPM()),
        (EulerAncestral(0.4), DDIM(0.4)),
        (DPMpp2MSDE(0.0), DPMpp2M()),
        (DPMpp3MSDE(0.0), DPMpp3M()),
        (DPMpp2SAncestral(0.0), DPMpp2S()),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", PROCESSES)
def test_families(name: str, sampler: Sampler, same: Sampler) -> None:
    process = PROCESSES[name]()
    torch.testing.assert_close(run(process, sampler), run(process, same), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_first_step_is_first_order(name: str) -> None:
    process = PROCESSES[name]()
    for sampler in (DPMpp3M(), UniPC(), DEIS(), LMS()):
        torch.testing.assert_close(run(process, sampler, 1), run(process, DDIM(), 1), rtol=1e-8, atol=1e-8)
    for sampler in (DPMpp2MSDE(), DPMpp3MSDE()):
        torch.testing.assert_close(run(process, sampler, 1), run(process, DDPM(), 1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_first_steps_of_the_sde_are_ddpm(name: str) -> None:
    process = PROCESSES[name]()
    times, x = process.t_at_noise_ratio(f64(2.0, 1.1)), f64(0.3, -1).reshape(1, 2)
    got, wanted = (sample(Counted(process), s, times, x, SampleNoise(0, [0])) for s in (DPMpp2MSDE(), DDPM()))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("sampler", [*SOLVERS, *NOISY], ids=str)
@pytest.mark.parametrize("process", [VP(), RectifiedFlow()], ids=str)
def test_evaluations(process: Process, sampler: Sampler) -> None:
    # Steps of an infinite stretch of log-SNR have no inside: those to the data, and, for rectified flow, from pure noise.
    denoiser, times = Counted(process), Uniform().times(process, 6)
    x = process.prior_sample(SampleNoise(0, [0]).normal((2,), torch.float64))
    sample(denoiser, sampler, times, x, SampleNoise(1, [0]))
    inner = {DPMSolver2: 1, DPMpp2S: 1, DPMpp2SAncestral: 1, DPMSolver3: 2}.get(type(sampler), 0)
    infinite = 1 + isinstance(process, RectifiedFlow)
    assert len(denoiser.times) == 6 + inner * (6 - infinite)
    assert min(denoiser.times) > 0
    asked = dict.fromkeys(
        t for t in denoiser.times if t in times.tolist()
    )  # the ancestral one's inner point is s itself
    assert list(asked) == times[:-1].tolist()


@pytest.mark.parametrize("sampler", [*SOLVERS, *NOISY], ids=str)
def test_the_last_step_is_the_belief(sampler: Sampler) -> None:
    # To the data there is nothing to add: alone, every sampler gives x_0, whatever its order and noise.
    exact = GaussianDenoiser(VP(), f64(0.5, -1), f64(0.3, 0.9))
    t, x, rng = f64(0.4)[0], f64(0.2, 0.1).reshape(1, 2), SampleNoise(0, [0])
    torch.testing.assert_close(sampler.step(exact, x, t, f64(0)[0], {}, {}, rng), exact(x, t).x_0)
    assert rng.draws == 0


def test_the_corrector_moves_x_but_asks_no_more() -> None:
    # One step from a place that UniP-1 reached: what UniC-1 makes of it, written out.
    process = EDM()
    denoiser, times = Counted(process), f64(4, 2, 1)
    x = f64(1.5, -3).reshape(1, 2)
    got = sample(denoiser, UniPC(1), times, x, SampleNoise(0, [0]))
    first = denoiser(x, times[0]).x_0
    predicted = x / 2 + first / 2  # sigma_s / sigma_t = 1/2
    second = denoiser(predicted, times[1]).x_0
    corrected = predicted + (second - first) / 4  # a_1 B(h) = (1 - exp(-h)) / 2
    torch.testing.assert_close(got, corrected / 2 + second / 2)


def test_2s_ancestral_is_k_diffusions() -> None:
    # Its lines written out: sigma_up and sigma_down, the point half way down in log sigma, and the noise.
    denoiser, x, eta = Counted(EDM()), f64(1.5, -3).reshape(1, 2), 0.8
    t, s = f64(4.0)[0], f64(2.5)[0]
    got = DPMpp2SAncestral(eta).step(denoiser, x, t, s, {}, {}, SampleNoise(7, [0]))
    up = eta * (s**2 * (t**2 - s**2) / t**2).sqrt()
    down = (s**2 - up**2).sqrt()
    h = (t / down).log()
    middle = t * torch.exp(-h / 2)
    x_2 = middle / t * x - torch.expm1(-h / 2) * denoiser(x, t).x_0
    wanted = down / t * x - torch.expm1(-h) * denoiser(x_2, middle).x_0
    torch.testing.assert_close(got, wanted + up * SampleNoise(7, [0]).normal((2,), torch.float64))


@pytest.mark.parametrize("sampler", SOLVERS, ids=str)
def test_higher_order_is_nearer(sampler: Sampler) -> None:
    # With 24 evaluations each, on EDM's grid down to the data.
    process = EDM()
    exact = GaussianDenoiser(process, f64(0.5, -1), f64(0.3, 0.9))
    x = process.prior_sample(SampleNoise(0, range(4)).normal((2,), torch.float64))
    wanted = exact.flow_map(x, f64(80)[0], f64(0)[0])
    cost = {DPMSolver2: 2, DPMpp2S: 2, DPMSolver3: 3}.get(type(sampler), 1)

    def error(sampler: Sampler, steps: int) -> float:
        times = Karras().times(process, steps)
        return float((sample(exact, sampler, times, x, SampleNoise(0, range(4))) - wanted).abs().max())

    assert error(sampler, 24 // cost) < 0.7 * error(DDIM(), 24)


@pytest.mark.parametrize("sampler", [DPMSolver2(), DPMSolver3(), DPMpp2S(), DPMpp2M(), DPMpp3M(), DEIS()], ids=str)
def test_they_encode(sampler: Sampler) -> None:
    # Up from the data and down again.
    exact = GaussianDenoiser(VP(), f64(0.5, -1), f64(0.3, 0.9))
    x = exact.means[0] + exact.stds[0] * SampleNoise(5, range(4)).normal((2,), torch.float64)

    def error(steps: int) -> float:
        times = Karras(sigma_min=0.01).times(VP(), steps)
        latent = encode(exact, sampler, times, x, SampleNoise(0, range(4)))
        return float((sample(exact, sampler, times, latent, SampleNoise(0, range(4))) - x).abs().max())

    assert error(40) < min(0.02, error(10))


@pytest.mark.parametrize("sampler", NOISY, ids=str)
def test_what_draws_noise_does_not_encode(sampler: Sampler) -> None:
    exact = GaussianDenoiser(VP(), f64(0.5, -1), f64(0.3, 0.9))
    with pytest.raises(ValueError, match=r"only with eta = 0|eta = 0 can"):
        sampler.step(exact, f64(0, 0).reshape(1, 2), f64(0.1)[0], f64(0.2)[0], {}, {}, SampleNoise(0, [0]))


@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc", "deis", "lms", "dpmpp_3m_sde"])
def test_memory_is_fresh_for_each_run(name: str) -> None:
    first, second = (run(VP(), SAMPLERS[name]()) for _ in range(2))
    assert torch.equal(first, second)


def test_memory_holds_no_more_than_the_order_needs() -> None:
    memory: dict[str, Any] = {}
    x = f64(0.3, -1).reshape(1, 2)
    for t, s in zip(f64(0.9, 0.8, 0.7, 0.6), f64(0.8, 0.7, 0.6, 0.5)):
        x = LMS(3).step(Counted(VP()), x, t, s, {}, memory, SampleNoise(0, [0]))
    assert len(memory["past"]) == 2
