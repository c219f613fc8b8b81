"""Weights, by hand."""

from __future__ import annotations

import pytest
import torch

from unstir.objectives import P2, WEIGHTS, Constant, MinSNR

SNR = torch.tensor([0.0, 0.01, 1.0, 4.0, 30.0, 1e6], dtype=torch.float64)


def test_by_hand() -> None:
    log_snr = SNR.log()
    torch.testing.assert_close(Constant()(log_snr), torch.ones(6).double())
    torch.testing.assert_close(P2()(log_snr), 1 / (1 + SNR))
    torch.testing.assert_close(P2(k=0.5, gamma=2)(log_snr), 1 / (0.5 + SNR) ** 2)
    torch.testing.assert_close(MinSNR()(log_snr), torch.tensor([0, 0.01, 1, 4, 5, 5]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(MinSNR(gamma=2)(log_snr)[3:], torch.full((3,), 2.0).double())


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_weight_is_finite_at_both_ends(name: str) -> None:
    weight = WEIGHTS[name]()(torch.tensor([-torch.inf, -30, 0, 30, torch.inf], dtype=torch.float64))
    assert weight.isfinite().all()
    assert (weight >= 0).all()
