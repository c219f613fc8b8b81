"""Against overexposure: guidance made the belief's contrast larger than data have, and this takes it back."""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.prediction import Prediction


def _std(x: Tensor) -> Tensor:
    """(B, ...) -> (B, 1...) the standard deviation over all entries of each sample."""
    return x.flatten(1).std(1, correction=0).reshape(-1, *[1] * (x.ndim - 1))


def restore_std(guided: Prediction, plain: Prediction, phi: float) -> Prediction:
    """The guided belief with the standard deviation that x_0 had before guidance (phi = 1), or between (0: as guided).

    The paper rescales its network's output, v; here it is x_0, whose contrast is what overexposure is, under every parameterisation.

    Equation:
        x_0 <- phi · x_0 std(x_0^cond) / std(x_0) + (1 - phi) x_0,   std over all entries of a sample
    Source:
        Lin, Liu, Li & Yang 2024, section 3.4, eqs. 15-16, https://arxiv.org/abs/2305.08891
    """
    if phi == 0:
        return guided
    before, after = _std(plain.x_0), _std(guided.x_0)
    ratio = torch.where(after > 0, before / after, torch.ones_like(after))  # a flat picture has nothing to rescale
    return guided.with_x_0((phi * ratio + 1 - phi) * guided.x_0)
