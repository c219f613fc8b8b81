"""Conditions that one of several models knows and another does not."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction


class OnlyKnown(Denoiser):
    """Passes on only the conditions of these names: the class that a classifier guides by may be news to the model it guides."""

    def __init__(self, denoiser: Denoiser, names: Iterable[str]) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.names = frozenset(names)

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        return self.denoiser(x_t, t, **{name: value for name, value in cond.items() if name in self.names})
