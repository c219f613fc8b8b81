"""Learning to tell classes apart: what trains the classifier whose features samples are judged in."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from unstir.errors import UserError
from unstir.objectives.objective import Batch, Loss, Objective
from unstir.sampling import SampleNoise


@dataclass(frozen=True)
class ClassificationObjective(Objective):
    """Cross-entropy with smoothed labels, of a module that gives the logits of its classes. It is not in ``OBJECTIVES``: recipes
    train denoisers.

    Equation:
        L = -sum_k q_k log softmax(f(x))_k,   q_k = (1 - smoothing) [k = label] + smoothing / K
    Source:
        Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567
    """

    label: str = "label"
    """Which condition of the batch is the class."""
    smoothing: float = 0.1
    """Share of the belief that is spread evenly over all classes."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UserError(f"label smoothing must lie in [0, 1), not {self.smoothing}")

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise) -> Loss:
        label = batch.cond[self.label]
        logits = module(batch.x).float()
        total = F.cross_entropy(logits, label, reduction="none", label_smoothing=self.smoothing)
        return Loss(total, {"loss": total, "accuracy": (logits.argmax(1) == label).float()})
