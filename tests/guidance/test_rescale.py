"""CFG rescale: standard deviations, and diffusers' form of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unstir.denoiser import MixtureDenoiser
from unstir.guidance import ClassifierFreeGuidance, restore_std
from unstir.prediction import Prediction
from unstir.processes import VP

SHAPE = (3, 2, 4, 4)
T = torch.tensor(0.4, dtype=torch.float64)


def exact() -> MixtureDenoiser:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, *SHAPE[1:], dtype=torch.float64, generator=generator)
    return MixtureDenoiser(VP(), means, torch.tensor(0.5, dtype=torch.float64).reshape(1, 1, 1, 1))


X_T = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABEL = torch.tensor([0, 2, 1])


def std(x: Tensor) -> Tensor:
    return x.flatten(1).std(1)


def test_phi_1_keeps_the_standard_deviation_of_the_conditional_belief() -> None:
    cond = exact()(X_T, T, label=LABEL)
    got = ClassifierFreeGuidance(exact(), 5.0, rescale=1.0)(X_T, T, label=LABEL)
    plain = ClassifierFreeGuidance(exact(), 5.0)(X_T, T, label=LABEL)
    torch.testing.assert_close(std(got.x_0), std(cond.x_0))
    assert (std(plain.x_0) > 1.05 * std(cond.x_0)).all()
    torch.testing.assert_close(got.alpha * got.x_0 + got.sigma * got.eps, X_T)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, 1.0])
def test_it_is_diffusers_formula_for_x_0(phi: float) -> None:
    diffusers = pytest.importorskip("diffusers.guiders.guider_utils")
    cond = exact()(X_T, T, label=LABEL)
    plain = ClassifierFreeGuidance(exact(), 5.0)(X_T, T, label=LABEL)
    got = ClassifierFreeGuidance(exact(), 5.0, rescale=phi)(X_T, T, label=LABEL)
    torch.testing.assert_close(got.x_0, diffusers.rescale_noise_cfg(plain.x_0, cond.x_0, phi))


def test_a_flat_belief_and_a_single_number_stay() -> None:
    one = torch.ones((), dtype=torch.float64)
    for x_0 in (torch.full((2, 3), 4.0).double(), torch.tensor([[4.0], [-2.0]], dtype=torch.float64)):
        belief = Prediction(x_0, x_0, torch.zeros_like(x_0), one, one)
        assert torch.equal(restore_std(belief, belief, 1.0).x_0, x_0)
