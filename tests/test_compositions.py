"""Everything goes with everything: process × parameterisation × sampler × guidance, grid, and process × process.

All of it iterates the tables, so that a new entry is tested with no test written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from numeric import scalar
from torch import Tensor, nn

from unstir.denoiser import ChangeProcess, Denoiser, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.guidance import (
    AutoGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClipX0,
    DynamicThreshold,
    FunctionGuidance,
    LogProb,
    OnlyKnown,
    SimilarityGuidance,
)
from unstir.parameterization import PARAMETERIZATIONS
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, CosineVP, RectifiedFlow
from unstir.samplers import GRIDS, SAMPLERS
from unstir.samplers.grids import Uniform
from unstir.sampling import SampleNoise, sample

SIGMA_DATA = 0.7
GUIDANCE: dict[str, Callable[[Denoiser], Denoiser]] = {
    "none": lambda denoiser: denoiser,
    "cfg": lambda denoiser: ClassifierFreeGuidance(denoiser, 2.5),
    "cfg+clip": lambda denoiser: ClipX0(ClassifierFreeGuidance(denoiser, 2.5)),
    "rescaled": lambda denoiser: ClassifierFreeGuidance(denoiser, 2.5, rescale=0.7),
    "autoguidance": lambda denoiser: AutoGuidance(denoiser, blurred(denoiser.process), 1.8),
    "classifier": lambda denoiser: ClassifierGuidance(denoiser, perfect_classifier(denoiser.process), 1.7),
    "similarity": lambda denoiser: SimilarityGuidance(denoiser, to_the_right, 0.6),
    "function": lambda denoiser: FunctionGuidance(denoiser, to_the_left, 0.6),
    "function of x_t": lambda denoiser: FunctionGuidance(denoiser, to_the_left, 0.6, on="x_t"),
    "dynamic": lambda denoiser: DynamicThreshold(ClassifierFreeGuidance(denoiser, 4.0), 60.0),
    "all": lambda denoiser: DynamicThreshold(
        FunctionGuidance(
            ClassifierGuidance(
                ClassifierFreeGuidance(AutoGuidance(denoiser, blurred(denoiser.process), 1.5), 2.5, rescale=0.5),
                perfect_classifier(denoiser.process),
            ),
            to_the_left,
        ),
        90.0,
    ),
}
IN_RUNS = ("none", "cfg", "cfg+clip")
"""What is tried together with every sampler; the others' beliefs are compared instead, of which samplers know nothing."""
# Every sampler with its defaults, and what else may draw noise.
CHEAPER: dict[str, dict[str, Any]] = {"rk45": {"rtol": 0.01, "atol": 0.01}, "annealed_langevin": {"repeats": 2}}
VARIANTS: list[tuple[str, dict[str, Any]]] = [(name, CHEAPER.get(name, {})) for name in SAMPLERS]
VARIANTS += [("ddpm", {"noise": "large"}), ("ddim", {"eta": 0.7}), ("heun", {"churn": 0.2})]
VARIANTS += [("unipc", {"order": 3, "variant": "bh1"}), ("deis", {"order": 4, "variable": "time"})]
SAYS_NOTHING_OF_X_0 = ("eps", "score")  # at alpha = 0
ROUGH = (
    "euler_maruyama",
    "reverse_diffusion",
    "pc",
)  # plain solvers of the SDE: still far from the data in a dozen steps


@cache
def process_of(name: str) -> Process:
    return PROCESSES[name]()


def mixture(process: Process) -> MixtureDenoiser:
    means = torch.tensor([[0.8, -0.2], [-0.5, 0.4], [0.1, -1.0]], dtype=torch.float64)
    return MixtureDenoiser(process, means, torch.tensor([[0.2], [0.4], [0.3]], dtype=torch.float64))


def blurred(process: Process) -> MixtureDenoiser:
    """A worse model of the same data."""
    exact = mixture(process)
    return MixtureDenoiser(process, 0.9 * exact.means, 1.5 * exact.stds)


def perfect_classifier(process: Process) -> LogProb:
    exact = mixture(process)

    def log_prob(x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return exact.log_posterior(x_t, t).gather(1, cond["label"].clamp(min=0)[:, None])[:, 0] * (cond["label"] >= 0)

    return log_prob


def to_the_left(x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    return x[:, 0].square() + x[:, 0]


def to_the_right(x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    return -to_the_left(x, t, cond)


class PerfectNet(nn.Module):
    """Gives the very F that stands for what ``exact`` believes; c_in x_t alone does not tell it t, so it is told."""

    def __init__(self, exact: MixtureDenoiser, parameterization: str) -> None:
        super().__init__()
        self.exact = exact
        self.parameterization = PARAMETERIZATIONS[parameterization]
        self.told: tuple[Tensor, Tensor] | None = None
        self.anchor = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # by which NetDenoiser knows the precision

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        assert self.told is not None
        x_t, t = self.told
        belief = self.exact(x_t, t, **({} if label is None else {"label": label}))
        assert bool(((x * (belief.alpha**2 * SIGMA_DATA**2 + belief.sigma**2).sqrt() - x_t).abs() < 1e-9).all())
        return self.parameterization.mix(belief.x_0, belief.eps, belief.alpha, belief.sigma, SIGMA_DATA)


class Told(NetDenoiser):
    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        assert isinstance(self.network, PerfectNet)
        self.network.told = (x_t, t)
        return super().forward(x_t, t, **cond)


def net_denoiser(exact: MixtureDenoiser, parameterization: str) -> NetDenoiser:
    return Told(PerfectNet(exact, parameterization), exact.process, parameterization, sigma_data=SIGMA_DATA)


LABELS = {"label": torch.tensor([0, 2, 1])}


def run(
    denoiser: Denoiser, sampler: str, settings: dict[str, Any], times: Tensor, cond: dict[str, Tensor] = LABELS
) -> Tensor:
    rng = SampleNoise(7, range(3))
    x = denoiser.process.prior_sample(rng.normal((2,), torch.float64))
    return sample(denoiser, SAMPLERS[sampler](**settings), times, x, rng, cond)


@pytest.mark.parametrize(("sampler", "settings"), VARIANTS, ids=[f"{name}-{settings}" for name, settings in VARIANTS])
@pytest.mark.parametrize("process", PROCESSES)
def test_parameterization_cannot_matter(process: str, sampler: str, settings: dict[str, Any]) -> None:
    exact = mixture(process_of(process))
    times = Uniform().times(exact.process, 4)
    blind = bool(exact.process.alpha(times[0]) == 0)
    for guide in (GUIDANCE[name] for name in IN_RUNS):
        wanted = [run(guide(exact), sampler, settings, times[skip:]) for skip in range(1 + blind)]
        assert wanted[0].isfinite().all()
        for name in PARAMETERIZATIONS:
            skip = int(blind and name in SAYS_NOTHING_OF_X_0)
            got = run(guide(net_denoiser(exact, name)), sampler, settings, times[skip:])
            torch.testing.assert_close(got, wanted[skip], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("guide", GUIDANCE)
@pytest.mark.parametrize("process", PROCESSES)
def test_parameterization_cannot_matter_to_guidance(process: str, guide: str) -> None:
    exact = mixture(process_of(process))
    t = exact.process.t_at_noise_ratio(torch.tensor([0.1, 0.6, 2.0], dtype=torch.float64))
    x_t = torch.tensor([[0.3, -1.2], [1.5, 0.1], [-2.0, 0.4]], dtype=torch.float64)
    with torch.no_grad():
        wanted = GUIDANCE[guide](exact)(x_t, t, **LABELS)
        for name in PARAMETERIZATIONS:
            got = GUIDANCE[guide](net_denoiser(exact, name))(x_t, t, **LABELS)
            torch.testing.assert_close(got.x_0, wanted.x_0, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(got.eps, wanted.eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(wanted.alpha * wanted.x_0 + wanted.sigma * wanted.eps, x_t)
    if guide != "none":
        assert not torch.allclose(wanted.x_0, exact(x_t, t, **LABELS).x_0, atol=1e-3)


@pytest.mark.parametrize(("sampler", "settings"), VARIANTS, ids=[f"{name}-{settings}" for name, settings in VARIANTS])
@pytest.mark.parametrize("process", PROCESSES)
def test_a_perfect_classifier_makes_the_unconditional_model_conditional(
    process: str, sampler: str, settings: dict[str, Any]
) -> None:
    exact = mixture(process_of(process))
    times = Uniform().times(exact.process, 4)
    # Pure noise says nothing of the class, nor does its gradient: there a classifier cannot guide.
    times = times[1:] if bool(exact.process.alpha(times[0]) == 0) else times
    guided = ClassifierGuidance(OnlyKnown(exact, ()), perfect_classifier(exact.process))
    wanted, unguided = run(exact, sampler, settings, times), run(OnlyKnown(exact, ()), sampler, settings, times)
    torch.testing.assert_close(run(guided, sampler, settings, times), wanted, rtol=1e-7, atol=1e-7)
    assert not torch.allclose(unguided, wanted, atol=1e-2)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize(
    "process", [RectifiedFlow(), CosineVP(beta_max=1)], ids=["rectified-flow", "zero-terminal-snr"]
)
def test_pure_noise(process: Process, name: str) -> None:
    exact, t = mixture(process), scalar(process.t_max)
    assert process.alpha(t) == 0
    x_t = torch.tensor([[0.3, -1.2], [2.0, 0.1]], dtype=torch.float64)
    got, wanted = net_denoiser(exact, name)(x_t, t), exact(x_t, t)
    torch.testing.assert_close(wanted.x_0, exact.means.mean(0).expand(2, 2))
    torch.testing.assert_close(wanted.eps, x_t)
    torch.testing.assert_close(got.eps, wanted.eps)
    torch.testing.assert_close(got.x_0, torch.zeros_like(x_t) if name in SAYS_NOTHING_OF_X_0 else wanted.x_0)
    for sampler, settings in VARIANTS:
        assert run(net_denoiser(exact, name), sampler, settings, Uniform().times(process, 3)).isfinite().all()


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("process", PROCESSES)
def test_at_the_data(process: str, name: str) -> None:
    x_t = torch.tensor([[0.3, -1.2]], dtype=torch.float64)

    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return torch.zeros_like(x)

    prediction = NetDenoiser(Zero(), process_of(process), name, sigma_data=SIGMA_DATA)(x_t, scalar(0))
    # An x_0-network is believed also there; all others can only repeat x_t.
    torch.testing.assert_close(prediction.x_0, torch.zeros_like(x_t) if name == "x_0" else x_t)
    assert prediction.eps.isfinite().all()


@pytest.mark.parametrize("steps", [1, 2, 12])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", PROCESSES)
def test_every_grid_and_sampler_arrives(process: str, grid: str, steps: int) -> None:
    exact = GaussianDenoiser(process_of(process), torch.tensor([0.7, -0.4]).double(), torch.tensor(0.05).double())
    times = GRIDS[grid]().times(exact.process, steps)
    assert times.dtype == torch.float64
    assert len(times) <= steps + 1
    assert times[0] <= exact.process.t_max
    assert times[-1] == 0
    assert (times[1:] < times[:-1]).all()
    if exact.process.snap(scalar(0.25)) == 0 and grid not in ("karras", "log-snr"):
        torch.testing.assert_close(times, times.round(), rtol=0, atol=0)
    elif exact.process.snap(scalar(0.25)) != 0:
        assert len(times) == steps + 1
    alpha, sigma = exact.process.alpha(times[0]), exact.process.sigma(times[0])
    eps = SampleNoise(7, range(3)).normal((2,), torch.float64)
    for sampler, settings in VARIANTS:
        x = alpha * exact.means[0] + (alpha * 0.05).hypot(sigma) * eps
        x = sample(exact, SAMPLERS[sampler](**settings), times, x, SampleNoise(8, range(3)))
        assert x.isfinite().all()
        # DDIM is good at anything; on the other grids, large noise or Heun's rule over a long stretch is known to be bad.
        if sampler in ROUGH:
            continue
        if steps == 12 and (sampler == "ddim" or (grid in ("karras", "log-snr") and not settings)):
            assert (x - exact.means[0]).abs().max() < 6 * 0.05


def ratios() -> Tensor:
    return torch.linspace(
        -3, 1, 9, dtype=torch.float64
    ).exp()  # sigma / alpha from 0.05 to 2.7: all processes have these


@pytest.mark.parametrize("trained", PROCESSES)
@pytest.mark.parametrize("asked", PROCESSES)
def test_change_process(trained: str, asked: str) -> None:
    inner, wanted = mixture(process_of(trained)), mixture(process_of(asked))
    changed = ChangeProcess(inner, process_of(asked))
    t = process_of(asked).t_at_noise_ratio(ratios())
    x_t = torch.linspace(-2, 2, 18, dtype=torch.float64).reshape(9, 2)
    label = torch.tensor([0, 1, 2, -1, 0, 1, 2, -1, 0])
    for name in ("x_t", "x_0", "eps", "score", "v"):
        got = getattr(changed(x_t, t, label=label), name)
        torch.testing.assert_close(got, getattr(wanted(x_t, t, label=label), name), rtol=1e-7, atol=1e-8)


def test_change_process_beyond_the_end() -> None:
    # EDM ends at a noise level of 80, where rectified flow's pure noise is asked for: the answer is that of the end.
    changed = ChangeProcess(mixture(EDM()), RectifiedFlow())
    x_1 = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    torch.testing.assert_close(changed(x_1, scalar(1)).x_0, mixture(EDM())((1 + 80**2) ** 0.5 * x_1, scalar(80)).x_0)
