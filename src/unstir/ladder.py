"""How to space noise levels and how far to step between them: what NCSNv2 reads off the data and their dimension.

Song & Ermon 2020, https://arxiv.org/abs/2006.09011, give five techniques, each a choice of its own here:

1. the largest noise level        ``largest_distance``     ``GeometricLadder(sigma_max=0)``, ``VE(sigma_max=0)``
2. the ratio between levels       ``ladder_ratio``         ``GeometricLadder(levels=0)``
3. a network divided by sigma     parameterization "eps": score = -F / sigma, so that F is of one size at all levels
4. the step size of the chain     ``langevin_step_size``   ``AnnealedLangevin(step_size=0)``
5. averaged weights               ``training.average``, and the last denoising step, ``AnnealedLangevin(denoise=True)``
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from unstir.errors import UserError

SAMPLES = 2048
"""Most samples whose distances are taken, two by two."""


def insist(fitted: bool, process: object) -> None:
    """Raises ValueError where a process is asked for noise levels that it leaves to the data."""
    if not fitted:
        raise ValueError(f"{process} leaves noise levels to the data: use its fitted(samples)")


def largest_distance(x_0: Tensor) -> float:
    """The largest distance between two of the samples (N, ...); of at most SAMPLES of them, evenly spread.

    With noise of this size every sample can turn into every other one, so that a chain started anywhere finds all modes; with
    less it stays where it began.

    Equation:
        sigma_1 = max over pairs i, j of |x_i - x_j|
    Source:
        Song & Ermon 2020, section 3.1, technique 1, https://arxiv.org/abs/2006.09011

    Raises:
        UserError: fewer than two different samples.
    """
    rows = torch.linspace(0, len(x_0) - 1, min(len(x_0), SAMPLES), dtype=torch.float64).round().long()
    flat = x_0[rows.to(x_0.device)].flatten(1).float()
    distance = float(torch.cdist(flat, flat).max()) if len(flat) > 1 else 0.0
    if not distance > 0:
        raise UserError(
            "the largest noise level is to be the largest distance between two samples, and these are all the same; "
            "give process.sigma-max a number"
        )
    return distance


def _overlap(ratio: float, dimensions: int) -> float:
    """How much of one level's noise has a radius within three deviations of the next larger level's: technique 2's left side."""
    shift = math.sqrt(2 * dimensions) * (ratio - 1)
    return 0.5 * (math.erf((shift + 3 * ratio) / math.sqrt(2)) - math.erf((shift - 3 * ratio) / math.sqrt(2)))


def ladder_ratio(dimensions: int, overlap: float = 0.5) -> float:
    """The ratio of neighbouring noise levels with which what one level leaves is at home under the next.

    In D dimensions noise of size sigma lies on a shell of radius sigma sqrt(D) and width sigma / sqrt(2). The shells of two
    levels must overlap, or the score of the lower one is asked where it was never learnt.

    Equation:
        Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma) = 0.5,   gamma = sigma_{i-1} / sigma_i
    Source:
        Song & Ermon 2020, section 3.2, technique 2, https://arxiv.org/abs/2006.09011

    Args:
        dimensions: D, numbers in one sample.
        overlap: the right side.
    """
    low, high = 1.0, 2.0
    # In few dimensions the shells always overlap and there is no such ratio: no more than 10 then.
    while _overlap(high, dimensions) > overlap and high < 10:
        high *= 1.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _overlap(middle, dimensions) > overlap else (low, middle)
    return min(low, 10.0)


def ladder_levels(sigma_min: float, sigma_max: float, dimensions: int) -> int:
    """The number of levels from sigma_max down to sigma_min at about the ratio of ``ladder_ratio``, at least 2."""
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ladder_ratio(dimensions))))


def left_over(step_size: float | Tensor, ratio: float, repeats: int) -> float | Tensor:
    """The variance that a chain of Langevin steps at one level ends with, over the variance it should have, sigma_i².

    It is exact for data in one point, where the score is linear. It exceeds 1 from above: what came down from the level before
    (ratio²) is not all gone, and a step that is not small adds some of its own.

    Equation:
        s_T² / sigma_i² = (1 - e)^(2 T) (gamma² - 2 / (2 - e)) + 2 / (2 - e),   e = epsilon / sigma_L² = alpha_i / sigma_i²
    Source:
        Song & Ermon 2020, section 3.4, https://arxiv.org/abs/2006.09011
    """
    own = 2 / (2 - step_size)
    return (1 - step_size) ** (2 * repeats) * (ratio**2 - own) + own


@functools.lru_cache(maxsize=1024)
def langevin_step_size(ratio: float, repeats: int) -> float:
    """The step size e = alpha_i / sigma_i² of so many Langevin steps at each level that leaves the variance nearest to right.

    Equation:
        e = argmin of s_T² / sigma_i²   (which is never below 1)
    Source:
        Song & Ermon 2020, section 3.4, technique 4, https://arxiv.org/abs/2006.09011

    Args:
        ratio: gamma, of neighbouring noise levels. repeats: T, steps at each level.
    """
    e = torch.logspace(-6, 0, 20_001, dtype=torch.float64)[:-1]
    found = left_over(e, min(ratio, 1e3), repeats)
    assert isinstance(found, Tensor)
    return float(e[found.argmin()])
