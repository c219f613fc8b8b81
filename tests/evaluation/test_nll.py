"""Likelihoods of data in their own units, by both methods, against densities and probabilities that are known."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unstir.data import Condition, DataConfig, Dataset, DataSpec, Report, load
from unstir.data.builtin import GAUSSIANS_MEANS, GAUSSIANS_STD
from unstir.denoiser import MixtureDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.evaluation.nll import NLL, NegativeLogLikelihood, Ode, Variational, conditions_of
from unstir.evaluation.report import Report as EvaluationReport
from unstir.model import Model
from unstir.prediction import Prediction
from unstir.processes import EDM, VP, LinearVP
from unstir.recipes import Recipe


class Exact(NetDenoiser):
    """A network that has learnt a mixture perfectly."""

    def __init__(self, exact: MixtureDenoiser) -> None:
        super().__init__(nn.Linear(1, 1), exact.process)
        self.exact = exact
        self.precisions: list[Any] = []

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        self.precisions.append(self.autocast)
        return self.exact(x_t, t, **cond)


def model_of(spec: DataSpec, means: Tensor, stds: Tensor, weights: Tensor | None = None, process: Any = None) -> Model:
    """A perfect model of a mixture that is given in the data's units."""
    offset, scale = (torch.tensor(values) for values in (spec.offset, spec.scale))
    ends = [*spec.shape[:1], *[1] * (len(spec.shape) - 1)]
    inner = (means - offset.reshape(ends)) / scale.reshape(ends), stds / scale.reshape(ends)
    return Model(Exact(MixtureDenoiser(process or VP(), *(v.float() for v in inner), weights)), spec, Recipe())


def dataset(x: np.ndarray[Any, Any], spec: DataSpec, **conditions: Any) -> Dataset:
    return Dataset("known", spec, x, dict(conditions), "0", Report("known"))


def judge(model: Model, data: Dataset, method: Any, n: int = 0, **kwargs: Any) -> NLL:
    name = {Ode: "ode", Variational: "variational"}[type(method)]
    return NegativeLogLikelihood(name, method, **kwargs)(model, data, n, Accelerator(cpu=True))


def gaussians() -> tuple[Dataset, Model, Tensor]:
    """The built-in set of eight Gaussians, its perfect model, and the true -log density of its samples in the data's units."""
    data = load(DataConfig(source="gaussians"))
    means = torch.from_numpy(GAUSSIANS_MEANS)
    model = model_of(data.spec, means, torch.full((8, 1), GAUSSIANS_STD).double())
    x = torch.from_numpy(np.array(data.x)).double()
    squares = (x.unsqueeze(1) - means).square().sum(2) / GAUSSIANS_STD**2
    log_density = (-0.5 * squares).logsumexp(1) - math.log(8 * 2 * math.pi * GAUSSIANS_STD**2)
    return data, model, -log_density


def true_mean(data: Dataset, nll: Tensor, n: int) -> float:
    from unstir.evaluation.samples import order

    return float(nll[torch.from_numpy(order(len(data))[:n])].mean())


def test_both_methods_find_the_density_of_eight_gaussians() -> None:
    data, model, nll = gaussians()
    assert model.spec.scale[0] < 0.9  # or its units would prove nothing
    found = judge(model, data, Ode(), 300, match_conditions=False)
    wanted = true_mean(data, nll, 300)
    assert found.nats == pytest.approx(wanted, abs=0.01 * 2 * math.log(2))
    assert found.bits_per_dim == pytest.approx(found.nats / (2 * math.log(2)))
    assert 0.02 < found.error < 0.1
    assert (found.n, found.method, found.data, found.given) == (300, "ode", "gaussians", ())
    bound = judge(model, data, Variational(steps=200, terms=0, noise="large"), 300, match_conditions=False)
    assert -0.02 < bound.nats - found.nats < 0.15
    terms = bound.extra["terms"]
    assert sum(terms.values()) == pytest.approx(bound.bits_per_dim, abs=1e-6)
    sampled = judge(model, data, Variational(steps=200, terms=30, noise="large"), 300, match_conditions=False)
    assert "terms" not in sampled.extra
    assert abs(sampled.nats - bound.nats) < 8 * sampled.error * math.log(2)
    # the posterior's variance is too small for a chain of 200 steps
    fixed = judge(model, data, Variational(steps=200, terms=50), 300, match_conditions=False)
    assert fixed.nats - bound.nats > 0.2


def test_conditions_are_told() -> None:
    """Knowing which of the eight it is saves log 8 nats."""
    data, model, nll = gaussians()
    found = judge(model, data, Ode(), 200)
    assert found.given == ("label",)
    assert found.nats == pytest.approx(true_mean(data, nll, 200) - math.log(8), abs=0.03)


BITS = DataSpec("points", (1,), "uint8", (3.5,), (3.5,), bounds=(-1.0, 1.0))


def test_whole_numbers_of_three_bits() -> None:
    """A known density, and by it a known probability for each number, which the ODE's dequantised likelihood bounds: more draws bring it
    nearer to its mean, not to the probability."""
    mean, std = 3.2, 1.6
    x = np.repeat(np.arange(8, dtype=np.uint8), 40)[:, None]
    model = model_of(BITS, torch.tensor([[mean]]), torch.tensor([[std]]))
    seen = torch.distributions.Normal(mean, math.sqrt(std**2 + 1 / 12))  # at the noise level of the dequantisation
    edges = torch.arange(9) - 0.5
    p = seen.cdf(edges[1:]) - seen.cdf(edges[:-1])
    # E_u log density over the bins: what dequantisation can reach for this density
    u = (torch.arange(2000) + 0.5) / 2000 - 0.5
    reached = torch.stack([seen.log_prob(k + u).mean() for k in range(8)])
    assert (reached < p.log()).all()
    found = judge(model, dataset(x, BITS), Ode(1e-4, clip=False), 320)
    assert found.nats == pytest.approx(float(-reached.mean()), abs=0.05)
    repeated = judge(model, dataset(x, BITS), Ode(1e-4, clip=False), 320, repeats=4)
    assert repeated.nats == pytest.approx(float(-reached.mean()), abs=0.02)
    assert repeated.nats > float(-p.log().mean())
    assert repeated.error < found.error


def test_a_model_of_whole_numbers_finds_their_probabilities() -> None:
    """One that knows that there is nothing between them: the bound comes down to -log P."""
    p = torch.tensor([0.05, 0.05, 0.1, 0.3, 0.2, 0.15, 0.1, 0.05])
    x = np.repeat(np.arange(8, dtype=np.uint8), (p * 400).int().tolist())[:, None]
    model = model_of(BITS, torch.arange(8.0).unsqueeze(1), torch.full((8, 1), 1e-3), p)
    entropy = float(-(p * p.log()).sum())
    bound = judge(model, dataset(x, BITS), Variational(steps=200, terms=0), 400)
    assert -0.02 < bound.nats - entropy < 0.1
    assert abs(bound.extra["terms"]["data"]) < 1e-3  # by the last step the number is told
    # the ODE: by its own noise and a decoder the same; evenly over the bins what the numbers look like with noise of that variance
    decoded = judge(model, dataset(x, BITS), Ode(1e-4, dequantization="gaussian"), 400, repeats=2)
    assert decoded.nats == pytest.approx(entropy, abs=0.02)
    spread = judge(model, dataset(x, BITS), Ode(1e-4), 400, repeats=2)
    u = (torch.arange(500) + 0.5) / 500 - 0.5
    y = torch.arange(8.0)[:, None] + u  # (8, 500)
    log_density = (p.log() + torch.distributions.Normal(torch.arange(8.0), 12**-0.5).log_prob(y[..., None])).logsumexp(
        2
    )
    assert spread.nats == pytest.approx(float(-(p * log_density.mean(1)).sum()), abs=0.03)
    assert spread.nats > entropy + 0.03


def test_bit_depth_only_moves_the_bits() -> None:
    """The same density seen with 8 and with 12 bits: 4 bits/dim more, by either method."""
    values = {}
    for bits in (8, 12):
        half = (2**bits - 1) / 2
        spec = DataSpec("image", (1, 5, 5), "uint16", (half,), (half,), channels_last=True, bounds=(-1.0, 1.0))
        rng = np.random.default_rng(0)
        x = np.clip(np.rint(half + 0.3 * half * rng.standard_normal((64, 5, 5, 1))), 0, 2 * half).astype(np.uint16)
        model = model_of(spec, torch.full((1, 1, 5, 5), half), torch.full((1, 1, 1, 1), 0.3 * half))
        for method in (Ode(probes=4), Variational(steps=200, terms=0, noise="large")):
            values[bits, type(method)] = judge(model, dataset(x, spec), method, 64).bits_per_dim
    assert values[12, Ode] - values[8, Ode] == pytest.approx(4, abs=0.06)
    # The chain ends at a noise of 2 of 4,095: the last bits are guessed.
    assert values[12, Variational] - values[8, Variational] == pytest.approx(4.1, abs=0.1)
    entropy = math.log2(0.3 * 255 / 2 * math.sqrt(2 * math.pi * math.e))
    assert values[8, Ode] == pytest.approx(entropy, abs=0.12)
    assert values[8, Ode] < values[8, Variational] + 0.02


def test_units_of_each_channel() -> None:
    """A signal whose channels have other units: the density of the numbers as they came."""
    spec = DataSpec("signal", (2, 3), "float32", (1.0, -5.0), (0.5, 20.0))
    rng = np.random.default_rng(1)
    scale, offset = np.array([0.5, 20.0])[:, None], np.array([1.0, -5.0])[:, None]
    x = (offset + scale * rng.standard_normal((200, 2, 3))).astype(np.float32)
    model = model_of(spec, torch.tensor(np.broadcast_to(offset, (1, 2, 3)).copy()), torch.tensor(np.broadcast_to(scale, (1, 2, 3)).copy()))  # fmt: skip
    wanted = (0.5 * ((x - offset) / scale) ** 2 + np.log(scale) + 0.5 * math.log(2 * math.pi)).sum((1, 2)).mean()
    assert judge(model, dataset(x, spec), Ode(), 200).nats == pytest.approx(wanted, abs=0.06)
    bound = judge(model, dataset(x, spec), Variational(steps=150, terms=0, noise="large"), 200).nats
    assert -0.1 < bound - wanted < 0.4


def test_the_process_hardly_matters() -> None:
    data, _, nll = gaussians()
    for process in (EDM(), LinearVP()):
        model = model_of(data.spec, torch.from_numpy(GAUSSIANS_MEANS), torch.full((8, 1), GAUSSIANS_STD).double(), process=process)  # fmt: skip
        found = judge(model, data, Ode(), 100, match_conditions=False)
        assert found.nats == pytest.approx(true_mean(data, nll, 100), abs=0.01 * 2 * math.log(2) + 0.01)


def test_full_precision_and_back() -> None:
    data, model, _ = gaussians()
    model.denoiser.autocast = torch.bfloat16
    judge(model, data, Ode(tolerance=1e-2), 4)
    assert model.denoiser.autocast == torch.bfloat16
    assert isinstance(model.denoiser, Exact)
    assert set(model.denoiser.precisions) == {None}


def test_the_report() -> None:
    nll = NLL(3.14159, 2.71828, 0.01234, "ode", 7, "digits (test)", ("label",), {"tolerance": 1e-5}, held_out=False)
    report = EvaluationReport.of_likelihood("runs/x", nll, {})
    assert report.lines() == [
        "runs/x: the likelihood of 7 samples of digits (test)",
        "  nll[ode, digits (test) given label, n=7]  3.1416 ± 0.01 bits/dim, 2.7183 nats a sample",
        "warning: nll on the data that the model was trained on: --data or --split names others that it has not seen",
    ]
    written = json.loads(json.dumps(report.to_json()))["nll"]
    assert {key: written[key] for key in ("bits_per_dim", "nats", "method", "error")} == {
        "bits_per_dim": 3.14159,
        "nats": 2.71828,
        "method": "ode",
        "error": 0.01234,
    }
    alone = dataclasses.replace(nll, error=math.nan)
    assert EvaluationReport.of_likelihood("runs/x", alone, {}).to_json()["nll"]["error"] is None


def test_conditions_that_do_not_fit() -> None:
    spec = dataclasses.replace(BITS, conditions={"label": Condition("class", 3)})
    x = np.zeros((4, 1), np.uint8)
    assert conditions_of(dataset(x, spec, label=np.array([0, 1, 2, 1])), spec)["label"].tolist() == [0, 1, 2, 1]
    with pytest.raises(UserError, match="classes that the model does not know"):
        conditions_of(dataset(x, spec, label=np.array([0, 1, 3, 1])), spec)
    found = dataclasses.replace(spec, conditions={"label": Condition("class", 3, frequencies=(0.2, 0.3, 0.5))})
    assert conditions_of(dataset(x, found, label=np.array([0, 1, 2, 1])), found) == {}  # groups are nobody's condition
    with pytest.raises(UserError, match="fewer than -n 5"):
        judge(model_of(BITS, torch.zeros(1, 1), torch.ones(1, 1)), dataset(x, BITS), Ode(), 5)
