"""Learning to denoise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from unstir.conditioning.null import drop
from unstir.denoiser import Denoiser, NetDenoiser
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.times import Times, UniformTimes, spread
from unstir.objectives.weighting import Constant, Weight
from unstir.parameterization import PARAMETERIZATIONS
from unstir.prediction import Prediction
from unstir.process import Process
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
        EDM2           F     1 / exp(u(t)), learned log-normal
        rectified flow flow  1                      logit-normal

    Equation:
        L = E_{x_0, eps, t} [ w(t) · mean over entries of (y - y_hat)² ],   y = a_t x_0 + b_t eps in the chosen space
    Source:
        Ho, Jain & Abbeel 2020, eq. 14 and algorithm 1, https://arxiv.org/abs/2006.11239; Karras et al. 2022, eq. 8, https://arxiv.org/abs/2206.00364
    """

    trains: ClassVar[type[nn.Module]] = Denoiser

    space: Space = "eps"
    """Where the error is measured: the name of a parameterisation, or F for the network's own output."""
    weight: Weight = field(default_factory=Constant)
    """Weight of each noise level."""
    times: Times = field(default_factory=UniformTimes)
    """Distribution of training times."""
    dropout: float = 0.0
    """Fraction of samples whose conditions are dropped, which makes the model usable with and without them (guidance)."""
    caption_dropout: float = 0.0
    """Fraction of samples whose captions alone are dropped besides, so that the other conditions are learned without their help (unCLIP: 0.5)."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def draw_times(self, denoiser: Denoiser, rng: SampleNoise) -> Tensor:
        """(B,) float64 training times."""
        return self.times.quantile(denoiser.process, spread(rng, self.stratified))

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        return self.weight.companion()

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Denoiser)
        t = self.draw_times(module, rng)
        prediction, eps = believe(module, batch, t, rng, self.dropout, self.caption_dropout)
        error = squared_error(module, prediction, batch.x, eps, self.space)
        log_snr = module.process.log_snr(t)
        total = self.weight.weigh(error, log_snr, companion)
        return Loss(total, {"loss": total} if companion is None else {"loss": total, "error": error}, log_snr)


def believe(
    denoiser: Denoiser, batch: Batch, t: Tensor, rng: SampleNoise, dropout: float, caption_dropout: float = 0.0
) -> tuple[Prediction, Tensor]:
    """What a denoiser believes of the batch noised to times t (B,), and the noise (B, ...); some samples lose their conditions."""
    eps = rng.normal_like(batch.x)
    cond = told_or_not(batch, rng, dropout)
    if caption_dropout > 0 and batch.captions & cond.keys():
        dropped = (rng.uniform() < caption_dropout).to(batch.x.device)
        cond |= {name: drop(value, dropped) for name, value in cond.items() if name in batch.captions}
    return denoiser(denoiser.process.add_noise(batch.x, t, eps), t, **cond), eps


def told_or_not(batch: Batch, rng: SampleNoise, dropout: float) -> dict[str, Tensor]:
    """The batch's conditions; a fraction of the samples lose theirs, but for those that are always told."""
    cond = dict(batch.cond)
    if dropout == 0:
        return cond
    dropped = (rng.uniform() < dropout).to(batch.x.device)
    return cond | {name: drop(value, dropped) for name, value in cond.items() if name not in batch.always}


def squared_error(denoiser: Denoiser, prediction: Prediction, x_0: Tensor, eps: Tensor, space: Space) -> Tensor:
    """(B,) the mean over entries of the belief's squared error in a space."""
    errors = (prediction.x_0 - x_0, prediction.eps - eps, prediction.alpha, prediction.sigma)
    if space == "F":  # what F means is the network's own business
        assert isinstance(denoiser, NetDenoiser)
        error = denoiser.raw_error(*errors)
    else:
        error = PARAMETERIZATIONS[space].mix(*errors, sigma_data=1.0)
    return error.square().flatten(1).mean(1)
