"""DPM-Solver++: Lu, Zhou, Bao, Chen, Li & Zhu 2022, https://arxiv.org/abs/2211.01095. lambda_t = log(alpha_t / sigma_t)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def algorithm_1(
    x_theta: Callable[[Tensor, Tensor], Tensor],
    x_T: Tensor,
    t: Tensor,
    s: Tensor,
    alpha: Callable[[Tensor], Tensor],
    sigma: Callable[[Tensor], Tensor],
) -> Tensor:
    """DPM-Solver++(2S); t_0 .. t_M decrease, and s_i lies between t_{i-1} and t_i (s[0] is not used).

    Equation:
        u_i = sigma_{s_i} / sigma_{t_{i-1}} x_{t_{i-1}} - alpha_{s_i} (exp(-r_i h_i) - 1) x_theta(x_{t_{i-1}}, t_{i-1})
        x_{t_i} = sigma_{t_i} / sigma_{t_{i-1}} x_{t_{i-1}} - alpha_{t_i} (exp(-h_i) - 1) D_i
    Source:
        Lu et al. 2022, algorithm 1, https://arxiv.org/abs/2211.01095
    """
    lambda_t, lambda_s = (alpha(times).log() - sigma(times).log() for times in (t, s))
    x = x_T  # line 1
    for i in range(1, len(t)):  # line 2
        h = lambda_t[i] - lambda_t[i - 1]  # line 3
        r = (lambda_s[i] - lambda_t[i - 1]) / h  # line 4
        Q = x_theta(x, t[i - 1])
        u = sigma(s[i]) / sigma(t[i - 1]) * x - alpha(s[i]) * torch.expm1(-r * h) * Q  # line 5
        D = (1 - 1 / (2 * r)) * Q + 1 / (2 * r) * x_theta(u, s[i])  # line 6
        x = sigma(t[i]) / sigma(t[i - 1]) * x - alpha(t[i]) * torch.expm1(-h) * D  # line 7
    return x  # line 9


def algorithm_2(x_theta: Callable[[Tensor, int], Tensor], x_T: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """DPM-Solver++(2M); x_theta(x, i) predicts the data at time t_i, where the scales are alpha[i], sigma[i], i = 0..M.

    The box stops before the data (sigma_{t_M} > 0). Where the last time is the data, h_M is infinite and the limit of line 9 with
    r_M = h_{M-1} / h_M = 0 does not exist; then the last step is first order, D_M = x_theta (the paper's code: lower_order_final).

    Equation:
        x_{t_i} = sigma_{t_i} / sigma_{t_{i-1}} x_{t_{i-1}} - alpha_{t_i} (exp(-h_i) - 1) D_i
        D_i = (1 + 1 / (2 r_i)) x_theta(x_{t_{i-1}}) - 1 / (2 r_i) x_theta(x_{t_{i-2}}),   r_i = h_{i-1} / h_i
    Source:
        Lu et al. 2022, algorithm 2, https://arxiv.org/abs/2211.01095
    """
    lambda_ = alpha.log() - sigma.log()
    M = len(alpha) - 1
    h = torch.cat([torch.zeros_like(lambda_[:1]), lambda_[1:] - lambda_[:-1]])  # line 1, h[0] is not used
    x = x_T  # line 2
    Q = [x_theta(x, 0)]  # lines 2-3
    x = sigma[1] / sigma[0] * x - alpha[1] * torch.expm1(-h[1]) * Q[0]  # line 4
    if M > 1:
        Q.append(x_theta(x, 1))  # line 5
    for i in range(2, M + 1):  # line 6
        r = h[i - 1] / h[i]  # line 7
        D = (1 + 1 / (2 * r)) * Q[i - 1] - 1 / (2 * r) * Q[i - 2] if torch.isfinite(h[i]) else Q[i - 1]  # line 8
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * torch.expm1(-h[i]) * D  # line 9
        if i < M:
            Q.append(x_theta(x, i))  # line 10
    return x  # line 12
