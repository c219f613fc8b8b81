"""What a network's raw output F means: some linear mix of the data and the noise, k F = a x_0 + b eps.

A parameterisation is the coefficients (a, b, k) as functions of (alpha, sigma). Together with x_t = alpha x_0 + sigma eps this
is one 2x2 system, solved in one place for all of them:

    det = alpha b - sigma a,      x_0 = (b x_t - sigma k F) / det,      eps = (alpha k F - a x_t) / det

so there are no n² conversion functions, and no sampler ever asks what the network meant. k is 1 except for the score, whose
mix b = -1/sigma would blow up at the data; with k = sigma it holds there too.

Where the output does not determine a quantity at all (det = 0: eps-prediction at alpha = 0 says nothing of x_0, x_0-prediction
at sigma = 0 says nothing of eps), that quantity is set to 0, the mean of standardised data and of noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Coefficients = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Parameterization:
    """k F = a x_0 + b eps.

    Args:
        coefficients: (alpha, sigma, sigma_data) -> (a, b, k), in the shape of alpha. ``sigma_data`` is the standard deviation
            of the data, which only EDM's preconditioning looks at.
    """

    coefficients: Callable[[Tensor, Tensor, float], Coefficients]

    def solve(self, F: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
        """The belief about (x_0, eps) that the output F stands for; 0 where F does not determine it.

        Equation:
            x_0 = (b x_t - sigma k F) / (alpha b - sigma a),   eps = (alpha k F - a x_t) / (alpha b - sigma a)
        Source:
            the 2x2 system of x_t = alpha x_0 + sigma eps and k F = a x_0 + b eps
        """
        a, b, k = self.coefficients(alpha, sigma, sigma_data)
        det = alpha * b - sigma * a
        inverse = torch.where(det == 0, torch.zeros_like(det), 1 / det)
        # With det = 0 the equation for x_0 (or eps) is empty, and what remains of the system gives the other one directly.
        x_0_scale = torch.where((det == 0) & (a != 0), k / a, -sigma * k * inverse)
        eps_scale = torch.where((det == 0) & (b != 0), k / b, alpha * k * inverse)
        return b * inverse * x_t + x_0_scale * F, eps_scale * F - a * inverse * x_t

    def mix(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
        """The output F that stands for (x_0, eps): what a network is trained to give.

        Equation:
            F = (a x_0 + b eps) / k
        Source:
            Salimans & Ho 2022, section 4 and appendix D, https://arxiv.org/abs/2202.00512
        """
        a, b, k = self.coefficients(alpha, sigma, sigma_data)
        return (a * x_0 + b * eps) / k


def _eps(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Coefficients:
    return torch.zeros_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha)


def _x_0(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Coefficients:
    return torch.ones_like(alpha), torch.zeros_like(alpha), torch.ones_like(alpha)


def _v(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Coefficients:
    return -sigma, alpha, torch.ones_like(alpha)


def _score(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Coefficients:
    return torch.zeros_like(alpha), -torch.ones_like(alpha), sigma


def _flow(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Coefficients:
    return -torch.ones_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha)


def edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Coefficients:
    """EDM's preconditioning, for any alpha, with the divisions by sigma cancelled so that it holds at sigma = 0.

    It is -v for data of unit variance, and in general v measured in units of the data.

    Equation:
        D = c_skip x_t + c_out F,   c_skip = alpha sigma_data² / (alpha² sigma_data² + sigma²),   c_out = sigma sigma_data / sqrt(alpha² sigma_data² + sigma²)
        hence   F = (sigma / sigma_data · x_0 - alpha sigma_data · eps) / sqrt(alpha² sigma_data² + sigma²)
    Source:
        Karras, Aittala, Aila & Laine 2022, table 1 and eq. 7, https://arxiv.org/abs/2206.00364
    """
    total = (alpha.square() * sigma_data**2 + sigma.square()).sqrt()
    return sigma / (sigma_data * total), -alpha * sigma_data / total, torch.ones_like(alpha)


PARAMETERIZATIONS: dict[str, Parameterization] = {
    "eps": Parameterization(_eps),
    "x_0": Parameterization(_x_0),
    "v": Parameterization(_v),
    "score": Parameterization(_score),
    "flow": Parameterization(_flow),
    "edm": Parameterization(edm),
}
