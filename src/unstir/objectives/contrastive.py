"""Learning which picture and which caption belong together, by contrast with all others of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.clip import Clip
from unstir.errors import UserError
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.times import LogNormal, Times, spread
from unstir.sampling import SampleNoise


def same_captions(text: Tensor) -> Tensor:
    """(B, ...) encoded captions -> (B, B) bool: which are the same."""
    rows = text.flatten(1)
    rows = (
        rows.nan_to_num(nan=torch.inf) if rows.is_floating_point() else rows
    )  # the null that ends a caption equals nothing
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    same: Tensor = group.unsqueeze(0) == group.unsqueeze(1)
    return same


def contrastive_loss(logits: Tensor, same: Tensor) -> Tensor:
    """The mean of two cross-entropies of each pair: which caption is the picture's, which picture is the caption's.

    Pairs with one caption are each other's positives, and share the target evenly: the paper, with a batch of 32,768 out of 400 million
    pairs, takes all captions for different, which in a small data set would punish what is right.

    Equation:
        L_n = -1/2 sum_m q_nm (log softmax_m(l_n.) + log softmax_m(l_.n)),   q_nm = [c_n = c_m] / #{k: c_k = c_n}
    Source:
        Radford et al. 2021, figure 3, https://arxiv.org/abs/2103.00020 (there q_nm = [n = m]); several positives: Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362

    Args:
        logits: (B, B), pictures down, captions across.
        same: (B, B) bool: which captions are the same.

    Returns:
        (B,), whose mean is the paper's loss.
    """
    q = same.to(logits.dtype)
    q = q / q.sum(1, keepdim=True)  # symmetric, for all of a group have one count
    which_caption = F.cross_entropy(logits, q, reduction="none")
    which_picture = F.cross_entropy(logits.mT, q, reduction="none")
    return (which_caption + which_picture) / 2


@dataclass(frozen=True)
class ContrastiveObjective(Objective):
    """The contrast of the pairs of a batch, of a CLIP that sees its pictures at all noise levels.

    The batch is what it learns from: each picture is told from as many captions as there are samples in it. Where several processes share a batch, or it
    is worked through in pieces, each contrasts the pairs that it has, so that N of them are a batch of an N-th: give a larger one.

    Equation:
        L = E[contrast of f(x_t) and g(c) over the batch],   x_t = alpha_t x_0 + sigma_t eps
    Source:
        Radford et al. 2021, figure 3, https://arxiv.org/abs/2103.00020; on noised pictures: Nichol et al. 2022, on noised CLIP models, https://arxiv.org/abs/2112.10741
    """

    trains: ClassVar[type[nn.Module]] = Clip

    times: Times = field(default_factory=lambda: LogNormal(-0.5, 1.5))
    """Distribution of training times."""
    clean: float = 0.2
    """Fraction of the pictures that are shown without noise, for judging finished samples."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def __post_init__(self) -> None:
        if not 0 <= self.clean <= 1:
            raise UserError(f"the fraction of clean pictures must lie in [0, 1], not {self.clean}")

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Clip)
        process, text = module.process, batch.cond[module.text]
        t = self.times.quantile(process, spread(rng, self.stratified))
        t = torch.where(rng.uniform() < self.clean, 0.0, t)
        pictures, captions = module(process.add_noise(batch.x, t, rng.normal_like(batch.x)), t, text)
        logits = pictures @ captions.mT
        same = same_captions(text)
        total = contrastive_loss(logits, same)
        found = same.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        parts = {"loss": total, "accuracy": found.to(total.dtype), "scale": captions.norm(dim=1)}
        return Loss(total, parts, process.log_snr(t))
