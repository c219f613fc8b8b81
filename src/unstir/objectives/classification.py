"""Learning to tell classes apart: clean data, for the classifier whose features samples are judged in, and noisy data, for the
classifier by which samples are guided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.noisy_classifier import NoisyClassifier
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.times import LogNormal, Times, spread
from unstir.sampling import SampleNoise

UNLABELLED = -1


def cross_entropy(logits: Tensor, label: Tensor, smoothing: float, log_snr: Tensor | None = None) -> Loss:
    """The loss and the accuracy of logits (B, K) for labels (B,); samples without a label (-1) cost nothing.

    Equation:
        L = -sum_k q_k log softmax(f(x))_k,   q_k = (1 - smoothing) [k = label] + smoothing / K
    Source:
        Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567
    """
    total = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing, ignore_index=UNLABELLED)
    return Loss(total, {"loss": total, "accuracy": (logits.argmax(1) == label).float()}, log_snr)


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise UserError(f"label smoothing must lie in [0, 1), not {smoothing}")


@dataclass(frozen=True)
class ClassificationObjective(Objective):
    """Cross-entropy with smoothed labels, of a module that gives the logits of its classes. It is not in ``OBJECTIVES``: what recipes
    train sees noise.
    """

    label: str = "label"
    """Which condition of the batch is the class."""
    smoothing: float = 0.1
    """Share of the belief that is spread evenly over all classes."""

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        return cross_entropy(module(batch.x).float(), batch.cond[self.label], self.smoothing)


@dataclass(frozen=True)
class NoisyClassificationObjective(Objective):
    """Cross-entropy of a classifier that sees x_t at all noise levels.

    Equation:
        L = -E_{x_0, eps, t} log p(y | x_t),   x_t = alpha_t x_0 + sigma_t eps
    Source:
        Dhariwal & Nichol 2021, section 4, https://arxiv.org/abs/2105.05233
    """

    trains: ClassVar[type[nn.Module]] = NoisyClassifier

    times: Times = field(default_factory=lambda: LogNormal(-0.5, 1.5))
    """Distribution of training times."""
    smoothing: float = 0.0
    """Share of the belief that is spread evenly over all classes. More than 0 makes the gradient that guides smaller."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, NoisyClassifier)
        process = module.process
        t = self.times.quantile(process, spread(rng, self.stratified))
        x_t = process.add_noise(batch.x, t, rng.normal_like(batch.x))
        return cross_entropy(module(x_t, t), batch.cond[module.label], self.smoothing, process.log_snr(t))
