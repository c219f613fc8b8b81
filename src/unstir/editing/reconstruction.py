"""Reconstruction guidance: the belief is moved until it explains what is known."""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.guidance import FunctionGuidance
from unstir.process import Process
from unstir.samplers.replacement import Known


def surprise(process: Process, known: Known, x_0: Tensor, t: Tensor) -> Tensor:
    """-log q(y | x_t) (B,), up to a constant, if y were x_0 with normal noise of the level sigma / alpha at t.

    Equation:
        alpha_t² / (2 sigma_t²) ||A x_0 - y||²
    Source:
        Ho, Salimans, Gritsenko, Chan, Norouzi & Fleet 2022, section 3.1, https://arxiv.org/abs/2204.03458
    """
    alpha, sigma = process.scales(t, x_0)
    weight = torch.where(sigma > 0, alpha / sigma, torch.zeros_like(sigma)).square() / 2  # at the data all is decided
    return (weight * known.project(x_0 - known.x_0).square()).flatten(1).sum(1)


class ReconstructionGuidance(FunctionGuidance):
    """Moves the belief down the gradient, through the denoiser, of its distance from the known part.

    The unknown part thus hears of the known one, which a sampler that merely replaces the known part never tells it. How surprising y
    is where x_0 is believed in is right where the noise is small against the data's spread, and understated where it is not. Each call
    costs a gradient: about three times the time, and the memory of training.

    Equation:
        x_0 <- x_0 - scale alpha_t / 2 grad_{x_t} ||A x_0(x_t) - y||²
    Source:
        Ho, Salimans, Gritsenko, Chan, Norouzi & Fleet 2022, section 3.1, https://arxiv.org/abs/2204.03458; Chung et al. 2023 (without the weight alpha_t), https://arxiv.org/abs/2209.14687

    Args:
        denoiser: any that can be differentiated; clipping goes around this, because a clipped belief has no gradient.
        known: what is known.
        scale: the paper's w_r. 1 is what the assumption above gives, and too timid; the paper, too, found more to be better.
    """

    def __init__(self, denoiser: Denoiser, known: Known, scale: float = 4.0) -> None:
        super().__init__(denoiser, lambda x_0, t, cond: surprise(denoiser.process, known, x_0, t), scale)
