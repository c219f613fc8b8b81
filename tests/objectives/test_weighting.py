"""Weights: by hand, the same loss in several spaces, by one flag, and one that is learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unstir.cli.arguments import parse
from unstir.denoiser import NetDenoiser
from unstir.objectives import (
    P2,
    WEIGHTS,
    Batch,
    Constant,
    DenoisingObjective,
    EDMWeight,
    LearnedUncertainty,
    LogNormal,
    MinSNR,
    SigmoidWeight,
    SNRPlusOne,
    TruncatedSNR,
)
from unstir.objectives.weighting import Uncertainty
from unstir.processes import EDM, LinearVP
from unstir.recipes import Recipe
from unstir.sampling import SampleNoise

SNR = torch.tensor([0.0, 0.01, 1.0, 4.0, 30.0, 1e6], dtype=torch.float64)


def test_by_hand() -> None:
    log_snr = SNR.log()
    torch.testing.assert_close(Constant()(log_snr), torch.ones(6).double())
    torch.testing.assert_close(P2()(log_snr), 1 / (1 + SNR))
    torch.testing.assert_close(P2(k=0.5, gamma=2)(log_snr), 1 / (0.5 + SNR) ** 2)
    torch.testing.assert_close(MinSNR()(log_snr), torch.tensor([0, 0.01, 1, 4, 5, 5]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(MinSNR(gamma=2)(log_snr)[3:], torch.full((3,), 2.0).double())
    torch.testing.assert_close(SigmoidWeight(bias=0.5)(log_snr), math.exp(0.5) / (math.exp(0.5) + SNR))
    torch.testing.assert_close(TruncatedSNR()(log_snr), torch.tensor([1, 1, 1, 4, 30, 1e6]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(SNRPlusOne()(log_snr), 1 + SNR)
    sigma = SNR[1:] ** -0.5
    torch.testing.assert_close(EDMWeight(0.3)(log_snr[1:]), (sigma**2 + 0.09) / (sigma * 0.3) ** 2)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_weight_is_finite_at_both_ends(name: str) -> None:
    weight = WEIGHTS[name]()(torch.tensor([-torch.inf, -30, 0, 30, torch.inf], dtype=torch.float64))
    assert weight.isfinite().all()
    assert (weight >= 0).all()


@pytest.mark.parametrize("name", WEIGHTS)
def test_one_flag(name: str) -> None:
    assert parse(Recipe(), ["--objective.weight", name], "x").objective.weight == WEIGHTS[name]()  # type: ignore[attr-defined]
    assert (
        parse(Recipe(), ["--objective", "hybrid", "--objective.weight", name], "x").objective.weight == WEIGHTS[name]()
    )  # type: ignore[attr-defined]
    p2 = parse(Recipe(), ["--objective.weight", "p2", "--objective.weight.gamma", "0.5"], "x")
    assert p2.objective.weight == P2(gamma=0.5)  # type: ignore[attr-defined]


# ---- one loss in several spaces ----------------------------------------------------------------------------------------------


class Net(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.sin(2 * x) + c_noise.reshape(-1, 1)


X_0 = torch.linspace(-1.5, 1.5, 64, dtype=torch.float64).reshape(32, 2)


class By(Constant):
    """A weight that is any function of the signal-to-noise ratio."""

    def __init__(self, function) -> None:
        object.__setattr__(self, "function", function)

    def __call__(self, log_snr: Tensor) -> Tensor:
        return self.function(log_snr.exp())


def total(objective: DenoisingObjective, denoiser: NetDenoiser) -> Tensor:
    return objective(denoiser, Batch(X_0), SampleNoise(1, range(32))).total


def test_min_snr_in_the_spaces_eps_and_v() -> None:
    denoiser = NetDenoiser(Net(), LinearVP(), "v")
    wanted = total(DenoisingObjective("x_0", MinSNR(5)), denoiser)
    eps = total(DenoisingObjective("eps", By(lambda snr: snr.clamp(max=5) / snr)), denoiser)
    v = total(DenoisingObjective("v", By(lambda snr: snr.clamp(max=5) / (snr + 1))), denoiser)
    torch.testing.assert_close(eps, wanted)
    torch.testing.assert_close(v, wanted)


def test_edm_s_lambda_is_1_in_the_network_s_own_space() -> None:
    denoiser = NetDenoiser(Net(), EDM(), "edm", sigma_data=0.4)
    F = total(DenoisingObjective("F", times=LogNormal()), denoiser)
    torch.testing.assert_close(total(DenoisingObjective("x_0", EDMWeight(0.4), LogNormal()), denoiser), F)


def test_sigmoid_and_its_papers_form_for_x_0() -> None:
    """Hoogeboom et al. 2024: sigmoid(b - lambda) of eps is e^b sigmoid(lambda - b) of x_0."""
    denoiser = NetDenoiser(Net(), LinearVP(), "v")
    wanted = total(DenoisingObjective("eps", SigmoidWeight(-2.0)), denoiser)
    x_0 = total(DenoisingObjective("x_0", By(lambda snr: math.exp(-2) * torch.sigmoid(snr.log() + 2))), denoiser)
    torch.testing.assert_close(x_0, wanted)


# ---- what is learned ---------------------------------------------------------------------------------------------------------


def test_uncertainty_by_hand() -> None:
    weight, log_snr = LearnedUncertainty(16), torch.linspace(-8, 8, 32, dtype=torch.float64)
    companion, error = weight.companion(), torch.linspace(0.1, 3, 32, dtype=torch.float64)
    assert isinstance(companion, Uncertainty)
    assert torch.equal(weight.weigh(error, log_snr, None), error)
    torch.testing.assert_close(weight.weigh(error, log_snr, companion), error)  # u begins at 0
    companion.weights.data.copy_(torch.randn(16, generator=torch.Generator().manual_seed(0)))
    c_noise = (-log_snr / 8).float()
    features = math.sqrt(2) * torch.cos(c_noise[:, None] * companion.frequencies + companion.phases)
    u = (features @ companion.weights / 4).double()
    torch.testing.assert_close(weight.weigh(error, log_snr, companion), error / u.exp() + u, rtol=1e-5, atol=1e-6)
    again = weight.companion()
    assert isinstance(again, Uncertainty)
    assert torch.equal(again.frequencies, companion.frequencies)


def test_uncertainty_learns_the_error_of_each_noise_level() -> None:
    """Errors with means from 0.01 to 10, and an exponential spread: exp(u) comes to their mean."""
    weight = LearnedUncertainty()
    companion = weight.companion()
    assert companion is not None
    optimizer = torch.optim.Adam(companion.parameters(), 3e-2)
    generator = torch.Generator().manual_seed(0)

    def mean(log_snr: Tensor) -> Tensor:
        return 10 ** (-0.5 - 1.5 * torch.tanh(log_snr / 4))

    for step in range(600):
        log_snr = 24 * torch.rand(256, generator=generator) - 12
        error = mean(log_snr) * -torch.rand(256, generator=generator).log()
        for group in optimizer.param_groups:
            group["lr"] = 3e-2 * (1 - step / 600)
        optimizer.zero_grad()
        weight.weigh(error, log_snr, companion).mean().backward()
        optimizer.step()
    log_snr = torch.linspace(-10, 10, 21)
    difference = (companion(log_snr) - mean(log_snr).log()).detach()
    assert float(difference.abs().max()) < 0.4
    assert float(difference.abs().mean()) < 0.12


def test_uncertainty_in_the_objective() -> None:
    objective = DenoisingObjective("F", LearnedUncertainty(), LogNormal())
    companion = objective.companion(EDM())
    assert isinstance(companion, Uncertainty)
    companion.weights.data.fill_(0.3)
    denoiser = NetDenoiser(Net(), EDM(), "edm")
    loss = objective(denoiser, Batch(X_0), SampleNoise(1, range(32)), companion)
    plain = DenoisingObjective("F", times=LogNormal())(denoiser, Batch(X_0), SampleNoise(1, range(32)))
    torch.testing.assert_close(loss.parts["error"], plain.total)
    assert loss.log_snr is not None
    u = companion(loss.log_snr).double()
    torch.testing.assert_close(loss.total, plain.total * (-u).exp() + u)
    assert DenoisingObjective().companion(EDM()) is None
