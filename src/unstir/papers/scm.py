"""Continuous-time consistency models in TrigFlow: Lu & Song 2024, https://arxiv.org/abs/2410.11081."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

F_theta = Callable[[Tensor, Tensor], Tensor]


def algorithm_1(
    F: F_theta, x_0: Tensor, z: Tensor, t: Tensor, sigma_d: float, r: float, c: float, dx_dt: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The unweighted loss (B,) and the tangent's length (B,) for data x_0 and noise z of the data's standard deviation; F(x_t / sigma_d, t).

    Args:
        t: (B, 1) in (0, pi / 2).
        r: the tangent's warm-up, 0 to 1.
        c: of the tangent's normalisation, 0.1.
        dx_dt: of the teacher's ODE, sigma_d F_pretrain; None: the data's.
    """
    x_t = t.cos() * x_0 + t.sin() * z
    dx_dt = t.cos() * z - t.sin() * x_0 if dx_dt is None else dx_dt
    # cos(t) sin(t) dF/dt by a Jacobian-vector product, its two parts rearranged (section 4.1).
    F_minus, dF = torch.func.jvp(F, (x_t / sigma_d, t), (t.cos() * t.sin() * dx_dt / sigma_d, t.cos() * t.sin()))  # type: ignore[misc]
    g = -(t.cos() ** 2) * (sigma_d * F_minus - dx_dt) - r * (t.cos() * t.sin() * x_t + sigma_d * dF)
    length = g.norm(dim=1, keepdim=True)
    g = (g / (length + c)).detach()
    loss = (F(x_t / sigma_d, t) - F_minus.detach() - g).square().mean(dim=1)
    return loss, length[:, 0].detach()
