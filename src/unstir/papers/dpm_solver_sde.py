"""SDE-DPM-Solver++: Lu, Zhou, Bao, Chen, Li & Zhu 2022, https://arxiv.org/abs/2211.01095. lambda_t = log(alpha_t / sigma_t)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sample_2m(
    x_theta: Callable[[Tensor, int], Tensor], x_T: Tensor, z: list[Tensor], alpha: Tensor, sigma: Tensor
) -> Tensor:
    """SDE-DPM-Solver++(2M); x_theta(x, i) predicts the data at time t_i, where the scales are alpha[i], sigma[i]; z[i] is the noise in x_{t_i}.

    The paper has no box for it, only the update. The last step to the data (sigma_{t_M} = 0) is first order, as in algorithm 2.

    Equation:
        x_{t_i} = sigma_{t_i} / sigma_{t_{i-1}} exp(-h_i) x_{t_{i-1}} + alpha_{t_i} (1 - exp(-2 h_i)) D_i + sigma_{t_i} sqrt(1 - exp(-2 h_i)) z_i
        D_i = x_theta(x_{t_{i-1}}) + 1 / (2 r_i) (x_theta(x_{t_{i-1}}) - x_theta(x_{t_{i-2}})),   r_i = h_{i-1} / h_i
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022 (SDE-DPM-Solver++(2M)), https://arxiv.org/abs/2211.01095
    """
    lambda_ = alpha.log() - sigma.log()
    x, Q = x_T, []
    for i in range(1, len(alpha)):
        h = lambda_[i] - lambda_[i - 1]
        Q.append(x_theta(x, i - 1))
        D = Q[-1]
        if i > 1 and torch.isfinite(h):
            r = (lambda_[i - 1] - lambda_[i - 2]) / h
            D = D + 1 / (2 * r) * (Q[-1] - Q[-2])
        noise = sigma[i] * (1 - torch.exp(-2 * h)).sqrt() * z[i] if sigma[i] > 0 else torch.zeros_like(x)
        x = sigma[i] / sigma[i - 1] * torch.exp(-h) * x + alpha[i] * (1 - torch.exp(-2 * h)) * D + noise
    return x
