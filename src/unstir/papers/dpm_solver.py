"""DPM-Solver: Lu, Zhou, Bao, Chen, Li & Zhu 2022, https://arxiv.org/abs/2206.00927. lambda_t = log(alpha_t / sigma_t).

alpha, sigma and t_lambda (the inverse of lambda) are functions of time, t the decreasing times t_0 .. t_M.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EpsTheta = Callable[[Tensor, Tensor], Tensor]
Scale = Callable[[Tensor], Tensor]


def algorithm_1(eps_theta: EpsTheta, x_T: Tensor, t: Tensor, alpha: Scale, sigma: Scale, t_lambda: Scale) -> Tensor:
    """DPM-Solver-2.

    Equation:
        x_{t_i} = alpha_{t_i} / alpha_{t_{i-1}} x_{t_{i-1}} - sigma_{t_i} (exp(h_i) - 1) eps_theta(u_i, s_i)
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, algorithm 1, https://arxiv.org/abs/2206.00927
    """
    lambda_ = alpha(t).log() - sigma(t).log()
    x = x_T  # line 1
    for i in range(1, len(t)):  # line 2
        h = lambda_[i] - lambda_[i - 1]
        s = t_lambda((lambda_[i - 1] + lambda_[i]) / 2)  # line 3
        u = alpha(s) / alpha(t[i - 1]) * x - sigma(s) * torch.expm1(h / 2) * eps_theta(x, t[i - 1])  # line 4
        x = alpha(t[i]) / alpha(t[i - 1]) * x - sigma(t[i]) * torch.expm1(h) * eps_theta(u, s)  # line 5
    return x  # line 7


def algorithm_2(eps_theta: EpsTheta, x_T: Tensor, t: Tensor, alpha: Scale, sigma: Scale, t_lambda: Scale) -> Tensor:
    """DPM-Solver-3.

    Equation:
        x_{t_i} = alpha_{t_i} / alpha_{t_{i-1}} x_{t_{i-1}} - sigma_{t_i} (exp(h) - 1) eps_theta(x_{t_{i-1}}) - sigma_{t_i} / r_2 ((exp(h) - 1) / h - 1) D_{2i}
    Source:
        Lu, Zhou, Bao, Chen, Li & Zhu 2022, algorithm 2, https://arxiv.org/abs/2206.00927
    """
    lambda_ = alpha(t).log() - sigma(t).log()
    x, r_1, r_2 = x_T, 1 / 3, 2 / 3  # line 1
    for i in range(1, len(t)):  # line 2
        h, a = lambda_[i] - lambda_[i - 1], alpha(t[i - 1])
        s_1, s_2 = t_lambda(lambda_[i - 1] + r_1 * h), t_lambda(lambda_[i - 1] + r_2 * h)  # line 3
        eps = eps_theta(x, t[i - 1])
        u_1 = alpha(s_1) / a * x - sigma(s_1) * torch.expm1(r_1 * h) * eps  # line 4
        D_1 = eps_theta(u_1, s_1) - eps  # line 5
        u_2 = alpha(s_2) / a * x - sigma(s_2) * torch.expm1(r_2 * h) * eps  # line 6
        u_2 = u_2 - sigma(s_2) * r_2 / r_1 * (torch.expm1(r_2 * h) / (r_2 * h) - 1) * D_1
        D_2 = eps_theta(u_2, s_2) - eps  # line 7
        x = alpha(t[i]) / a * x - sigma(t[i]) * torch.expm1(h) * eps  # line 8
        x = x - sigma(t[i]) / r_2 * (torch.expm1(h) / h - 1) * D_2
    return x  # line 10
