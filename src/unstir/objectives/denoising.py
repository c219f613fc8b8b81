"""Learning to denoise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from unstir.conditioning.null import drop
from unstir.denoiser import Denoiser, NetDenoiser
from unstir.objectives.objective import Batch, Loss, Objective
from unstir.objectives.times import Times, UniformTimes
from unstir.objectives.weighting import Constant, Weight
from unstir.parameterization import PARAMETERIZATIONS
from unstir.sampling import SampleNoise

Space = Literal["F", "eps", "x_0", "v", "flow"]


@dataclass(frozen=True)
class DenoisingObjective(Objective):
    """The weighted squared error of the belief about noised data, in the paper's own terms: where it is measured (``space``),
    how much each noise level counts (``weight``) and how often it is trained (``times``).

        DDPM           eps   1                      uniform
        P2             eps   1 / (k + snr)^gamma    uniform
        min-SNR        x_0   min(snr, gamma)        uniform
        EDM            F     1                      log-normal
        rectified flow flow  1                      logit-normal

    Equation:
        L = E_{x_0, eps, t} [ w(t) · mean over entries of (y - y_hat)² ],   y = a_t x_0 + b_t eps in the chosen space
    Source:
        Ho, Jain & Abbeel 2020, eq. 14 and algorithm 1, https://arxiv.org/abs/2006.11239; Karras et al. 2022, eq. 8, https://arxiv.org/abs/2206.00364
    """

    space: Space = "eps"
    """Where the error is measured: the name of a parameterisation, or F for the network's own output."""
    weight: Weight = field(default_factory=Constant)
    """Weight of each noise level."""
    times: Times = field(default_factory=UniformTimes)
    """Distribution of training times."""
    dropout: float = 0.0
    """Fraction of samples whose conditions are dropped, which makes the model usable with and without them (guidance)."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def draw_times(self, denoiser: Denoiser, rng: SampleNoise) -> Tensor:
        """(B,) float64 training times."""
        u = rng.uniform()
        if self.stratified:
            # Position i of the (global) batch draws from one of its `batch` equal slices, whichever process it is on.
            count = rng.total
            u = (torch.tensor(rng.indices, dtype=torch.float64) % count + u) / count
        return self.times.quantile(denoiser.process, u)

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise) -> Loss:
        assert isinstance(module, Denoiser)
        denoiser = module
        t = self.draw_times(denoiser, rng)
        eps = rng.normal_like(batch.x)
        cond = dict(batch.cond)
        if self.dropout > 0:
            dropped = (rng.uniform() < self.dropout).to(batch.x.device)
            cond = {name: drop(value, dropped) for name, value in cond.items()}
        prediction = denoiser(denoiser.process.add_noise(batch.x, t, eps), t, **cond)
        errors = (prediction.x_0 - batch.x, prediction.eps - eps, prediction.alpha, prediction.sigma)
        if self.space == "F":  # what F means is the network's own business
            assert isinstance(denoiser, NetDenoiser)
            error = denoiser.raw_error(*errors)
        else:
            error = PARAMETERIZATIONS[self.space].mix(*errors, sigma_data=1.0)
        log_snr = denoiser.process.log_snr(t)
        weight = self.weight(log_snr).to(error.dtype).to(error.device)
        total = weight * error.square().flatten(1).mean(1)
        return Loss(total, {"loss": total}, log_snr)
