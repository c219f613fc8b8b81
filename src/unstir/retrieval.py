"""Finding the caption of a picture among many, and the picture of a caption: how often that succeeds, and how often by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOP = (1, 5)
"""Among how many of the nearest the right one may be."""


def caption_ranks(similarity: Tensor, own: Tensor) -> Tensor:
    """Similarities (N, M) of pictures to distinct captions, and the number (N,) of each picture's own -> (N,) how many other captions are at
    least as near. What is equal counts against it: a model that says the same of everything finds nothing."""
    right = similarity.gather(1, own.unsqueeze(1))
    return (similarity >= right).sum(1) - 1


def picture_ranks(similarity: Tensor, own: Tensor) -> Tensor:
    """The same the other way round -> (M,) how many pictures of other captions are at least as near as the nearest of a caption's own. All
    captions must have a picture."""
    is_own = own.unsqueeze(1) == torch.arange(similarity.shape[1], device=own.device)  # (N, M)
    nearest = similarity.masked_fill(~is_own, -torch.inf).amax(0)
    return ((similarity >= nearest) & ~is_own).sum(0)


def shares(ranks: Tensor, top: Sequence[int] = TOP) -> dict[int, float]:
    """How often the right one is among the nearest k, for each k."""
    return {k: float((ranks < k).double().mean()) for k in top}


def chance(of: int, right: Sequence[int], top: Sequence[int] = TOP) -> dict[int, float]:
    """How often one of the right ones is among k that are drawn blindly out of ``of``; ``right``: how many there are, each time.

    Equation:
        1 - C(N - m, k) / C(N, k)
    Source:
        the hypergeometric distribution; Feller 1968, section II.6
    """
    return {k: sum(1 - math.comb(of - m, k) / math.comb(of, min(k, of)) for m in right) / len(right) for k in top}
