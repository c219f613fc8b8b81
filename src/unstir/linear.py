"""The best linear denoiser of the data, which needs no training, and a network that corrects it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unstir.denoiser import Denoiser, NetDenoiser
from unstir.prediction import Prediction
from unstir.process import Process

EXACT = 1024  # numbers in a sample up to which the whole covariance is decomposed; beyond, a randomised method finds the first ones
LEAST = 1e-6  # variance of a direction in which the data do not vary: a pixel that is always white


class LinearDenoiser(Denoiser):
    """The best linear denoiser of data with a known mean and covariance: a Wiener filter, exact where the data are Gaussian.

    The covariance is kept as probabilistic principal components: k directions with variances of their own, and one variance for
    all the rest, C = V diag(variances) V^T + rest (I - V V^T). Projections cost 4 k D operations a sample.

    Equation:
        E[x_0 | x_t] = mu + alpha C S^-1 (x_t - alpha mu),   E[eps | x_t] = sigma S^-1 (x_t - alpha mu),   S = alpha² C + sigma² I
    Source:
        Wiener 1949, "Extrapolation, interpolation, and smoothing of stationary time series"; the covariance: Tipping & Bishop 1999, eqs. 4-8, https://doi.org/10.1111/1467-9868.00196

    Args:
        process: under which x_t is noisy.
        shape: of a sample.
        components: k.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, process: Process, shape: tuple[int, ...], components: int) -> None:
        super().__init__(process)
        self.components = components
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("directions", torch.zeros(components, self.mean.numel()))  # (k, D)
        self.register_buffer("variances", torch.ones(components))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Takes mean and covariance from samples (N, *shape); directions beyond the samples' rank stay unused."""
        flat = x.flatten(1).to(self.mean.dtype)
        centred = flat - flat.mean(0)
        n, size = centred.shape
        count = min(self.components, n - 1, size)
        variances, directions = _principal(centred, count)
        unexplained = centred.square().sum() / n - variances.sum()
        rest = (unexplained / max(size - count, 1)).clamp(min=LEAST)
        self.mean.copy_(flat.mean(0).reshape(self.mean.shape))
        self.directions.zero_()[:count] = directions
        self.variances.fill_(rest)[:count] = variances.clamp(min=LEAST)
        self.rest.copy_(rest)

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        mean, V = self.mean.to(x_t.dtype), self.directions.to(x_t.dtype)
        variances, rest = self.variances.to(x_t.dtype), self.rest.to(x_t.dtype)
        a, s = (alpha.reshape(-1, 1), sigma.reshape(-1, 1)) if alpha.ndim else (alpha, sigma)
        difference = (x_t - alpha * mean).flatten(1)  # (B, D)
        inner = difference @ V.T  # (B, k)
        precision = 1 / (a.square() * variances + s.square())  # (B or 1, k), of S along the directions
        precision_rest = 1 / (a.square() * rest + s.square())  # (B, 1) or ()
        inverse = precision_rest * difference + ((precision - precision_rest) * inner) @ V  # S^-1 (x_t - alpha mu)
        filtered = (
            rest * precision_rest * difference + ((variances * precision - rest * precision_rest) * inner) @ V
        )  # C S^-1
        x_0 = mean + alpha * filtered.reshape(x_t.shape)
        return Prediction(x_t, x_0, sigma * inverse.reshape(x_t.shape), alpha, sigma)

    def spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """How wrong the belief is, in the shape of alpha: the root-mean-square error of x_0 is sigma · spread, of eps alpha · spread.

        Equation:
            spread² = tr(C S^-1) / D
        Source:
            Rasmussen & Williams 2006, eq. A.6 (one part of a Gaussian given the other): the posterior covariance is sigma² C S^-1
        """
        a, s = alpha.reshape(-1, 1).square(), sigma.reshape(-1, 1).square()
        variances, rest = self.variances.to(alpha.dtype), self.rest.to(alpha.dtype)
        size = self.mean.numel()
        total = (variances / (a * variances + s)).sum(1, keepdim=True)  # (B, 1)
        total = total + (size - len(variances)) * rest / (a * rest + s)
        return (total / size).sqrt().reshape(alpha.shape)


def _principal(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(variances (count,), directions (count, D)) of the largest principal components of (N, D), largest first."""
    n, size = centred.shape
    if size <= EXACT:
        values, vectors = torch.linalg.eigh(centred.T @ centred / n)
        return values.flip(0)[:count], vectors.flip(1)[:, :count].T
    with torch.random.fork_rng(devices=[]):  # the method is randomised, the result must not be
        torch.manual_seed(0)
        _, values, vectors = torch.svd_lowrank(centred, q=min(count + 8, n, size), niter=3)
    return values[:count].square() / n, vectors[:, :count].T


class CorrectingDenoiser(NetDenoiser):
    """A network that learns what the best linear denoiser gets wrong, in units of how wrong it is.

    EDM's preconditioning is the case in which nothing is known of the data but one standard deviation: c_skip x_t is then the
    linear denoiser's belief. Here the data's mean and principal components are known as well, so that the network starts
    nearer to the goal and is left with what is not Gaussian. It sees the linear belief beside x_t.

    Equation:
        x_0 = x_lin + sigma spread F,   eps = eps_lin - alpha spread F,   F = network(c_in x_t, x_lin / sigma_data, c_noise)
    Source:
        Karras et al. 2022, eq. 7 and appendix B.6, with a full covariance in place of sigma_data² I, https://arxiv.org/abs/2206.00364

    Args:
        network: ``(x, c_noise, **cond) -> F``; x (B, 2C, ...).
        linear: to be corrected.
        sigma_data: standard deviation of the data. learn_variance: as in NetDenoiser.
    """

    def __init__(
        self, network: nn.Module, linear: LinearDenoiser, *, sigma_data: float = 1.0, learn_variance: bool = False
    ) -> None:
        super().__init__(network, linear.process, "edm", sigma_data=sigma_data, learn_variance=learn_variance)
        self.linear = linear

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        linear = self.linear(x_t, t)
        inputs = torch.cat([self.c_in(linear.alpha, linear.sigma) * x_t, linear.x_0 / self.sigma_data], 1)
        F, fraction = self.ask(inputs, t, cond)
        wrong = self.linear.spread(linear.alpha, linear.sigma) * F
        x_0, eps = linear.x_0 + linear.sigma * wrong, linear.eps - linear.alpha * wrong
        return Prediction(x_t, x_0, eps, linear.alpha, linear.sigma, fraction)

    def fit(self, x_0: Tensor) -> None:
        self.linear.fit(x_0.to(self.linear.mean.device))

    def raw_error(self, x_0_error: Tensor, eps_error: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        norm = self.linear.spread(alpha, sigma) * (alpha.square() + sigma.square())
        return (sigma * x_0_error - alpha * eps_error) / norm
