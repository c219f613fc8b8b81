"""Learning to be a tight variational bound: L_hybrid and L_vlb of improved DDPM, for any process on any chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.denoiser import Denoiser
from unstir.likelihood.decoder import DiscretizedDecoder, GaussianDecoder, is_discrete
from unstir.likelihood.variational import Chain, Noise, bits_per_dim, chain_times
from unstir.objectives.denoising import Space, believe, squared_error
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.times import spread
from unstir.objectives.weighting import Constant, Weight
from unstir.process import Process
from unstir.sampling import SampleNoise

HISTORY = 10  # losses of each step that are remembered
UNIFORM = 0.001  # share of the draws that no history decides, so that no step is forgotten (as in the paper's code)


@lru_cache(maxsize=16)
def _chain(process: Process, steps: int, noise: Noise, bin_width: float) -> Chain:
    decoder = DiscretizedDecoder(torch.tensor(bin_width, dtype=torch.float64)) if bin_width else GaussianDecoder()
    return Chain(process, chain_times(process, steps), noise, decoder)


@dataclass(frozen=True)
class ChainObjective(Objective):
    """What objectives on a reverse chain have in common."""

    trains: ClassVar[type[nn.Module]] = Denoiser

    steps: int = 0
    """Steps of the chain. 0: those of a process in whole steps; of any other 1,000, equal in log-SNR."""
    bin_width: float | None = None
    """Distance of whole numbers in model units, 2/255 for pictures of bytes: the last step is then decoded to them; 0 for real numbers.
    Default: what the data are."""
    dropout: float = 0.0
    """Fraction of samples whose conditions are dropped, which makes the model usable with and without them (guidance)."""
    stratified: bool = True
    """Spread the steps evenly over each batch: the same distribution, less noise in the gradient."""

    def fitted(self, spec: DataSpec) -> Objective:
        if self.bin_width is not None:
            return self
        return replace(self, bin_width=1 / spec.scale[0] if is_discrete(spec) and spec.bounds else 0.0)

    def chain(self, process: Process, noise: Noise) -> Chain:
        """The reverse chain of a process."""
        return _chain(process, self.steps, noise, self.bin_width or 0.0)

    def draw_steps(self, chain: Chain, rng: SampleNoise, probabilities: Tensor) -> Tensor:
        """(B,) steps of the chain, drawn with these probabilities (K,)."""
        # u = 0 is the data's end, as in ``UniformTimes``.
        below = torch.searchsorted(probabilities.flip(0).cumsum(0), spread(rng, self.stratified), right=True)
        return len(chain) - 1 - below.clamp(max=len(chain) - 1)


def _uniform(count: int) -> Tensor:
    return torch.full((count,), 1 / count, dtype=torch.float64)


@dataclass(frozen=True)
class HybridObjective(ChainObjective):
    """The simple loss, and a little of the variational bound, which trains the reverse step's variance alone: the bound's gradient does
    not reach the means.

    Equation:
        L_hybrid = L_simple + lambda L_vlb,   L_vlb = K E_i[L_i] in bits/dim with the belief about x_0 and eps held fixed
    Source:
        Nichol & Dhariwal 2021, eq. 16, https://arxiv.org/abs/2102.09672
    """

    space: Space = "eps"
    """Where the simple loss is measured."""
    weight: Weight = field(default_factory=Constant)
    """Weight of each noise level in the simple loss."""
    vlb_weight: float = 0.001
    """The paper's lambda."""

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        return self.weight.companion()

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Denoiser)
        chain = self.chain(module.process, "learned")
        i = self.draw_steps(chain, rng, _uniform(len(chain)))
        t = chain.times[i]
        prediction, eps = believe(module, batch, t, rng, self.dropout)
        log_snr = module.process.log_snr(t)
        simple = self.weight.weigh(squared_error(module, prediction, batch.x, eps, self.space), log_snr, companion)
        held = replace(prediction, x_0=prediction.x_0.detach(), eps=prediction.eps.detach())
        vlb = bits_per_dim(len(chain) * chain.term(held, batch.x, eps, i), batch.x[0].numel())
        total = simple + self.vlb_weight * vlb
        return Loss(total, {"loss": total, "simple": simple, "vlb": vlb}, log_snr)


class LossHistory(Companion):
    """The last losses of every step of a chain, and how often each step should be drawn so that the estimate of their sum varies least.

    Args:
        steps: K.
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(steps, HISTORY, dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """(K,) float64 on the CPU; all the same until every step was drawn ten times.

        Equation:
            p_i proportional to sqrt(E[L_i²])
        Source:
            Nichol & Dhariwal 2021, eq. 18, https://arxiv.org/abs/2102.09672
        """
        even = _uniform(len(self.counts))
        if bool((self.counts < HISTORY).any()):
            return even
        root = self.losses.double().square().mean(1).sqrt().cpu()
        return (1 - UNIFORM) * root / root.sum() + UNIFORM * even

    def take_in(self, seen: Mapping[str, Tensor]) -> None:
        losses, counts = self.losses.cpu(), self.counts.cpu()
        for i, loss in zip(seen["step"].tolist(), seen["loss"].tolist(), strict=True):
            losses[i] = losses[i].roll(-1)
            losses[i, -1] = loss
            counts[i] += 1
        self.losses.copy_(losses)
        self.counts.copy_(counts.clamp(max=HISTORY))


@dataclass(frozen=True)
class VariationalObjective(ChainObjective):
    """The variational bound itself in bits/dim, without L_T, which nothing can change. Its terms differ by orders of magnitude, so the
    steps are drawn in proportion to what they were seen to cost.

    Equation:
        L_vlb = E_{i ~ p}[L_i / p_i],   p_i proportional to sqrt(E[L_i²]) over the last ten losses of step i
    Source:
        Nichol & Dhariwal 2021, eqs. 4 and 18, https://arxiv.org/abs/2102.09672
    """

    noise: Noise = "learned"
    """Standard deviation of the reverse steps: learned, or fixed to the posterior's or the forward step's (large)."""
    resampled: bool = True
    """Draw the steps by their losses; without, uniformly."""

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        return LossHistory(len(self.chain(process, self.noise))) if self.resampled else None

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Denoiser)
        chain = self.chain(module.process, self.noise)
        K = len(chain)
        p = companion.probabilities() if isinstance(companion, LossHistory) else _uniform(K)
        i = self.draw_steps(chain, rng, p)
        prediction, eps = believe(module, batch, chain.times[i], rng, self.dropout)
        bits = bits_per_dim(K * chain.term(prediction, batch.x, eps, i), batch.x[0].numel())
        total = bits / (K * p[i]).to(bits.dtype).to(bits.device)
        seen = {"step": i, "loss": bits.detach()}
        return Loss(total, {"loss": total, "vlb": total}, module.process.log_snr(chain.times[i]), seen)
