"""Progressive Distillation for Fast Sampling of Diffusion Models: Salimans & Ho 2022, https://arxiv.org/abs/2202.00512; and of guided
models: Meng et al. 2023, https://arxiv.org/abs/2210.03142."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Model = Callable[[Tensor, float], Tensor]
"""x-hat(z_t, t)."""
Scale = Callable[[float], Tensor]
"""alpha or sigma of a time in [0, 1]."""


def algorithm_2_loss(
    x_hat_theta: Model, x_hat_eta: Model, x: Tensor, i: int, N: int, eps: Tensor, alpha: Scale, sigma: Scale
) -> tuple[Tensor, Tensor]:
    """Algorithm 2, the body of its inner loop: -> (x~, the loss of each entry with the truncated SNR's weight).

    Equation:
        L_theta = w(lambda_t) ||x~ - x_hat_theta(z_t)||²,   w = max(alpha_t² / sigma_t², 1)
    Source:
        Salimans & Ho 2022, algorithm 2, and section 4 for w, https://arxiv.org/abs/2202.00512

    Args:
        x_hat_theta, x_hat_eta: student and teacher.
        x: data.
        i: 1..N, of the student's N steps.
    """
    t = i / N  # t = i/N, i ~ Cat[1, 2, ..., N]
    z_t = alpha(t) * x + sigma(t) * eps  # add noise to data
    t1, t2 = t - 0.5 / N, t - 1 / N  # 2 steps of DDIM with teacher: t' and t''
    x_t = x_hat_eta(z_t, t)
    z_t1 = alpha(t1) * x_t + sigma(t1) / sigma(t) * (z_t - alpha(t) * x_t)  # z_t'
    x_t1 = x_hat_eta(z_t1, t1)
    z_t2 = alpha(t2) * x_t1 + sigma(t2) / sigma(t1) * (z_t1 - alpha(t1) * x_t1)  # z_t''
    ratio = sigma(t2) / sigma(t)
    x_tilde = (z_t2 - ratio * z_t) / (alpha(t2) - ratio * alpha(t))  # teacher x-hat target
    snr = alpha(t) ** 2 / sigma(t) ** 2  # lambda_t = log[alpha_t² / sigma_t²]
    return x_tilde, snr.clamp(min=1) * (x_tilde - x_hat_theta(z_t, t)) ** 2


def guided(x_hat_c: Tensor, x_hat: Tensor, w: Tensor) -> Tensor:
    """What a student with the guidance strength as an input is taught.

    Equation:
        x_hat^w(z_t) = (1 + w) x_hat_c(z_t) - w x_hat(z_t),   w ~ U[w_min, w_max]
    Source:
        Meng et al. 2023, section 3.1, https://arxiv.org/abs/2210.03142
    """
    return (1 + w) * x_hat_c - w * x_hat
