"""Groups of similar samples in data that have no labels, so that a model can be guided all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unstir.data.dataset import Dataset
from unstir.data.spec import Condition

SMALLEST = 50  # samples a group on average: fewer say little of what they have in common
COMPONENTS = 64  # principal components in which samples are compared
LEARNT_FROM = (10_000, 2**26)  # samples, and numbers in them, from which components and centres are found
ROUNDS = 25


def with_groups(dataset: Dataset, groups: int) -> Dataset:
    """The data set with a condition ``group``, where it has no classes, no captions that are read, and enough samples; else as it is.

    Nobody has to know the groups: a sample that is asked for without one gets one at random, in the data's proportions.

    Source:
        Hu et al. 2023, "Self-guided diffusion models", section 3.1 (with k-means in pixels' principal components instead of a
        network's features), https://arxiv.org/abs/2210.06462
    """
    groups = min(groups, len(dataset) // SMALLEST)
    said = any(c.kind == "class" or (c.kind == "text" and c.seen) for c in dataset.spec.conditions.values())
    if groups < 2 or said:
        return dataset
    member = find_groups(dataset, groups)
    frequencies = np.bincount(member, minlength=groups) / len(member)
    condition = Condition("class", groups, frequencies=tuple(frequencies.tolist()))
    spec = replace(dataset.spec, conditions={**dataset.spec.conditions, "group": condition})
    return replace(dataset, spec=spec, conditions={**dataset.conditions, "group": member})


def find_groups(dataset: Dataset, groups: int) -> npt.NDArray[np.int64]:
    """(N,) the group of every sample: k-means on its first principal components. The same for the same data.

    Equation:
        minimise over centres c:  sum_i min_k |z_i - c_k|²,   z = V^T (x - mean)
    Source:
        Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489
    """
    generator = torch.Generator().manual_seed(0)
    most = min(LEARNT_FROM[0], max(groups, LEARNT_FROM[1] // dataset.spec.dimensions), len(dataset))
    some = torch.randperm(len(dataset), generator=generator)[:most].sort().values
    x = dataset.samples(some).flatten(1)  # (n, D)
    mean = x.mean(0)
    with torch.random.fork_rng(devices=[]):  # the method is randomised, the result must not be
        torch.manual_seed(0)
        _, _, V = torch.svd_lowrank(x - mean, q=min(COMPONENTS, *x.shape))  # (D, components)
    centres = _centres((x - mean) @ V, groups, generator)
    at_once = max(1, LEARNT_FROM[1] // 8 // dataset.spec.dimensions)
    parts = [
        torch.cdist((dataset.samples(rows).flatten(1) - mean) @ V, centres).argmin(1)
        for rows in np.array_split(np.arange(len(dataset)), -(-len(dataset) // at_once))
    ]
    return torch.cat(parts).numpy()


def _centres(z: Tensor, groups: int, generator: torch.Generator) -> Tensor:
    """(groups, components) by Lloyd's rounds; a centre that lost all its samples begins anew at one of them."""
    centres = z[torch.randperm(len(z), generator=generator)[:groups]]
    for _ in range(ROUNDS):
        nearest = torch.cdist(z, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=groups)
        centres = torch.zeros_like(centres).index_add_(0, nearest, z) / counts.clamp(min=1).unsqueeze(1)
        lost = counts == 0
        centres[lost] = z[torch.randint(len(z), (int(lost.sum()),), generator=generator)]
    return centres
