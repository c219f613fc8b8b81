"""RePaint: Lugmayr, Danelljan, Romero, Yu, Timofte & Van Gool 2022, https://arxiv.org/abs/2201.09865.

Tables beta and alpha_bar have T + 1 entries and DDPM's indices: beta[0] = 0 and alpha_bar[0] = 1 are the data. Two slips of the printed box are
mended as the paper's eq. 8a and its released code have it: line 5 noises with the standard deviation, at time t - 1, and line 10
goes up by beta_t.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def algorithm_1(
    eps_theta: Callable[[Tensor, int], Tensor],
    x_T: Tensor,
    x_0: Tensor,
    m: Tensor,
    beta: Tensor,
    U: int,
    noise: Callable[[], Tensor],
) -> Tensor:
    """Inpainting with resampling.

    Equation:
        x_{t-1} = m x_{t-1}^known + (1 - m) x_{t-1}^unknown;   if u < U and t > 1:   x_t ~ N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    Source:
        Lugmayr et al. 2022, algorithm 1, https://arxiv.org/abs/2201.09865

    Args:
        x_T: line 1, standard normal.
        x_0: the image. m: 1 where it is known.
        U: number of resamplings.
        noise: draws standard normal noise: z of line 6, eps of line 4, then that of line 10, again and again.
    """
    alpha = 1 - beta
    alpha_bar = alpha.cumprod(0)
    x = x_T  # line 1
    for t in range(len(beta) - 1, 0, -1):  # line 2
        for u in range(1, U + 1 if t > 1 else 2):  # line 3; at t = 1 nothing changes from one u to the next
            z = noise() if t > 1 else torch.zeros_like(x)  # line 6
            eps = noise() if t > 1 else torch.zeros_like(x)  # line 4
            known = alpha_bar[t - 1].sqrt() * x_0 + (1 - alpha_bar[t - 1]).sqrt() * eps  # line 5
            sigma = ((1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t]).sqrt()
            mean = (x - beta[t] / (1 - alpha_bar[t]).sqrt() * eps_theta(x, t)) / alpha[t].sqrt()
            unknown = mean + sigma * z  # line 7
            x = m * known + (1 - m) * unknown  # line 8
            if u < U and t > 1:  # line 9
                x = (1 - beta[t]).sqrt() * x + beta[t].sqrt() * noise()  # line 10
    return x  # line 14
