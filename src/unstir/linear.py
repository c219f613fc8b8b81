"""The best linear denoiser of the data, or of what a condition leaves open of them, and a network that corrects it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from unstir.denoiser import Denoiser, NetDenoiser
from unstir.prediction import Prediction
from unstir.process import Process

EXACT = 1024  # numbers in a sample up to which the whole covariance is decomposed; beyond, a randomised method finds the first ones
LEAST = 1e-6  # variance of a direction in which the data do not vary: a pixel that is always white


class Wiener(Denoiser, ABC):
    """A linear denoiser that knows how wrong it is, and needs no training but a look at the data."""

    reads: tuple[str, ...] = ()
    """The conditions that it must be given."""
    one_size: bool = False
    """Whether it is for samples of one size alone."""

    @abstractmethod
    def fit(self, x: Tensor, **cond: Tensor) -> None:
        """Takes what it has to know from samples (N, *shape) and their conditions (N, ...)."""

    @abstractmethod
    def spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """How wrong the belief is, in the shape of alpha: the root-mean-square error of x_0 is sigma · spread, of eps alpha · spread."""


class LinearDenoiser(Wiener):
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

    one_size = True
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
    def fit(self, x: Tensor, **cond: Tensor) -> None:
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
        """As for all.

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


class RestDenoiser(Wiener):
    """The best linear denoiser of data that a condition on their grid already tells most of: only the rest, of which nothing but its
    variance is known, is still to be found in x_t.

    Equation:
        x_0 = b + r,   b = m + k (c - mean c),   r ~ N(0, rest I),   k = cov(x_0, c) / var(c),   rest = var(x_0 - b)
        E[x_0 | x_t, c] = b + alpha rest / S (x_t - alpha b),   E[eps | x_t, c] = sigma / S (x_t - alpha b),   S = alpha² rest + sigma²
    Source:
        the conditional expectation of a Gaussian (Rasmussen & Williams 2006, eq. A.6), its covariance k² var(c) + rest on the diagonal

    Args:
        process: under which x_t is noisy.
        name: of the condition (B, *shape).
    """

    gain: Tensor
    offset: Tensor
    rest: Tensor

    def __init__(self, process: Process, name: str) -> None:
        super().__init__(process)
        self.reads = (name,)
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def fit(self, x: Tensor, **cond: Tensor) -> None:
        """Takes gain, offset and rest from samples (N, *shape) and this condition of theirs, over all entries."""
        given = cond[self.reads[0]].to(x)
        centred = given - given.mean()
        gain = (x * centred).mean() / centred.square().mean().clamp(min=LEAST)
        offset = x.mean() - gain * given.mean()
        self.gain.copy_(gain)
        self.offset.copy_(offset)
        self.rest.copy_((x - offset - gain * given).square().mean().clamp(min=LEAST))

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        known = self.offset.to(x_t.dtype) + self.gain.to(x_t.dtype) * cond[self.reads[0]].to(x_t)
        rest, difference = self.rest.to(x_t.dtype), x_t - alpha * known
        total = alpha.square() * rest + sigma.square()
        return Prediction(x_t, known + alpha * rest / total * difference, sigma / total * difference, alpha, sigma)

    def spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """As for all.

        Equation:
            spread² = rest / (alpha² rest + sigma²)
        Source:
            Rasmussen & Williams 2006, eq. A.6; c_out of Karras et al. 2022, table 1, is sigma · spread
        """
        rest = self.rest.to(alpha.dtype)
        return (rest / (alpha.square() * rest + sigma.square())).sqrt()


class CorrectingDenoiser(NetDenoiser):
    """A network that learns what the best linear denoiser gets wrong, in units of how wrong it is.

    EDM's preconditioning is the case in which nothing is known of the data but one standard deviation: c_skip x_t is then the
    linear denoiser's belief. Here more is known, the data's mean and principal components or a condition that they are close to, so
    that the network starts nearer to the goal and is left with what is not Gaussian. It sees the linear belief beside x_t.

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
        self, network: nn.Module, linear: Wiener, *, sigma_data: float = 1.0, learn_variance: bool = False
    ) -> None:
        super().__init__(network, linear.process, "edm", sigma_data=sigma_data, learn_variance=learn_variance)
        self.linear = linear
        self.fits_to = linear.reads

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        linear = self.linear(x_t, t, **{name: cond[name] for name in self.fits_to})
        inputs = torch.cat([self.c_in(linear.alpha, linear.sigma) * x_t, linear.x_0 / self.sigma_data], 1)
        F, fraction = self.ask(inputs, t, cond)
        wrong = self.linear.spread(linear.alpha, linear.sigma) * F
        x_0, eps = linear.x_0 + linear.sigma * wrong, linear.eps - linear.alpha * wrong
        return Prediction(x_t, x_0, eps, linear.alpha, linear.sigma, fraction)

    def fit(self, x_0: Tensor, **cond: Tensor) -> None:
        device = next(self.linear.buffers()).device
        self.linear.fit(x_0.to(device), **{name: cond[name].to(device) for name in self.fits_to})

    def raw_error(self, x_0_error: Tensor, eps_error: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        norm = self.linear.spread(alpha, sigma) * (alpha.square() + sigma.square())
        return (sigma * x_0_error - alpha * eps_error) / norm
