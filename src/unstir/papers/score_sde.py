"""Score-Based Generative Modeling through Stochastic Differential Equations: Song et al. 2021, https://arxiv.org/abs/2011.13456.

Algorithms 2 and 3 (predictors) inside algorithm 1, with algorithms 4 and 5 as correctors. sigma[i], beta[i], i = 0..N are the
scales, sigma[0] = 0 and beta[0] = 0 the data's; z[i] is the predictor's noise in going to x_i, z_c[i][j] the j-th corrector's there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

STheta = Callable[[Tensor, int], Tensor]
"""(x, i) -> the score at step i."""


def step_size(g: Tensor, r: float, alpha: Tensor | float) -> Tensor:
    """(B,) epsilon of each sample; ||z|| stands as sqrt(d), which the text recommends for small batches.

    Equation:
        epsilon = 2 alpha (r ||z||_2 / ||g||_2)²,   alpha = 1 (VE) or 1 - beta_i (VP)
    Source:
        Song et al. 2021, algorithms 4 and 5, line 6, https://arxiv.org/abs/2011.13456
    """
    d = g[0].numel()
    epsilon: Tensor = 2 * alpha * (r * math.sqrt(d) / g.flatten(1).norm(dim=1)) ** 2
    return epsilon


def _correct(s: STheta, x: Tensor, i: int, z: list[Tensor], r: float, alpha: Tensor | float) -> Tensor:
    for z_j in z:  # algorithms 4 and 5, line 3
        g = s(x, i)  # line 5
        epsilon = step_size(g, r, alpha).reshape(-1, *[1] * (x.ndim - 1))  # line 6
        x = x + epsilon * g + (2 * epsilon).sqrt() * z_j  # line 7
    return x


def pc_ve(s: STheta, x: Tensor, z: list[Tensor], z_c: list[list[Tensor]], sigma: Tensor, r: float) -> Tensor:
    """PC sampling for the VE SDE; x is x_N of line 1. Nothing corrects x_0, where there is no score.

    Equation:
        x_i = x_{i+1} + (sigma_{i+1}² - sigma_i²) s(x_{i+1}) + sqrt(sigma_{i+1}² - sigma_i²) z
    Source:
        Song et al. 2021, algorithms 2 and 4, https://arxiv.org/abs/2011.13456
    """
    for i in range(len(sigma) - 2, -1, -1):  # line 2
        difference = sigma[i + 1] ** 2 - sigma[i] ** 2
        x = x + difference * s(x, i + 1)  # line 3
        if i > 0:
            x = x + difference.sqrt() * z[i]  # lines 4-5
            x = _correct(s, x, i, z_c[i], r, 1.0)  # lines 6-8
    return x


def pc_vp(
    s: STheta, x: Tensor, z: list[Tensor], z_c: list[list[Tensor]], beta: Tensor, r: float
) -> tuple[Tensor, Tensor]:
    """PC sampling for the VP SDE: (x_1, x_0); x is x_N of line 1. No noise is added to x_0.

    Equation:
        x_i = (2 - sqrt(1 - beta_{i+1})) x_{i+1} + beta_{i+1} s(x_{i+1}) + sqrt(beta_{i+1}) z
    Source:
        Song et al. 2021, algorithms 3 and 5, https://arxiv.org/abs/2011.13456
    """
    x_1 = x
    for i in range(len(beta) - 2, -1, -1):  # line 2
        x_1, x = x, (2 - (1 - beta[i + 1]).sqrt()) * x + beta[i + 1] * s(x, i + 1)  # line 3
        if i > 0:
            x = x + beta[i + 1].sqrt() * z[i]  # lines 4-5
            x = _correct(s, x, i, z_c[i], r, 1 - beta[i])  # lines 6-8
    return x_1, x
