"""UniPC: a multistep predictor, and a corrector that costs nothing because the next step's evaluation is its extra point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction
from unstir.samplers.exponential import X0InLogSNR, advance, node
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def explain(prediction: Prediction, x_t: Tensor) -> Prediction:
    """The same belief about the data, held of another x_t (B, ...): its noise is what remains."""
    return replace(prediction, x_t=x_t, eps=prediction.eps + (x_t - prediction.x_t) / prediction.sigma)


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniPC-p: order p + 1 with the corrector, one evaluation a step. The last step is only predicted.

    x_t arrives as it was predicted. The belief at it is asked once: it corrects x_t, and predicts x_s from there. Orders grow from 1
    in the first step; steps over an infinite stretch of log-SNR are DDIM's.

    Equation:
        UniP-p: x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) x_0(t) + alpha_s B(h) sum_{m<p} a_m / r_m (x_0(t_m) - x_0(t))
        UniC-p: the same with one more term, m = p, at t_p = s;   a = R^-1 psi / B(h), and a_1 = 1/2 where there is one term
    Source:
        Zhao, Bai, Rao, Zhou & Lu 2023, section 3 and appendix (data prediction), https://arxiv.org/abs/2302.04867
    """

    order: Literal[1, 2, 3] = 2
    """p: how many beliefs the predictor's polynomial goes through. The usual advice: 2 with guidance, 3 without."""
    variant: Literal["bh1", "bh2"] = "bh2"
    """B(h) = h or 1 - exp(-h). It matters only where there is one difference: in UniP-2 and UniC-1."""
    corrector: bool = True
    """Without it: UniP-p, of order p."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process, expansion = denoiser.process, X0InLogSNR(single=self.variant)
        here = denoiser(x_t, t, **cond)
        now = node(expansion, process, here, t)
        if self.corrector and memory:
            last, t_last, behind = memory["last"]
            here = explain(here, advance(expansion, process, last, t_last, t, [now, *behind]))
        past = memory.get("past", [])
        memory.update(last=(here, t, past), past=[now, *past][: self.order - 1])
        return advance(expansion, process, here, t, s, past)
