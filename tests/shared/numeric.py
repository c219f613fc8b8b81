"""Numbers in double precision, noise for thousands of samples, and equality in any nesting: what many tests need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unstir.sampling import SampleNoise


def f64(*numbers: float) -> Tensor:
    """(N,) float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def scalar(t: float) -> Tensor:
    """() float64, as times are."""
    return torch.tensor(t, dtype=torch.float64)


class Fast(SampleNoise):
    """The same interface, all samples from one generator: for thousands of them."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__(seed, range(count))
        self.generator = torch.Generator().manual_seed(seed)

    def normal_like(self, x: Tensor) -> Tensor:
        self.draws += 1
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    def uniform(self) -> Tensor:
        return torch.rand(len(self.indices), generator=self.generator, dtype=torch.float64)


def same_states(ours: Any, theirs: Any) -> bool:
    """Whether states of training are equal to the bit in any nesting; the seconds they took may differ."""
    if isinstance(ours, Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same_states(ours[k], theirs[k]) for k in ours if k != "seconds")
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same_states, ours, theirs))
    return bool(ours == theirs)


def assert_close_states(ours: Any, theirs: Any, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """States of training, equal up to float error in any nesting; the seconds they took may differ."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            if key != "seconds":
                assert_close_states(ours[key], theirs[key], rtol, atol)
    elif isinstance(theirs, list):
        for a, b in zip(ours, theirs, strict=True):
            assert_close_states(a, b, rtol, atol)
    elif isinstance(theirs, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
    else:
        assert ours == theirs
