"""The fourth word: an Objective, (denoiser, batch, rng) -> per-sample loss with its parts named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from unstir.sampling import SampleNoise


@dataclass(frozen=True)
class Batch:
    """x (B, ...) in model units, and conditions by name, (B, ...) each."""

    x: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """What a batch cost.

    Args:
        total: (B,) the loss of each sample, whose mean is minimised.
        parts: (B,) each, by name, for the record.
        log_snr: (B,) at which noise level each sample was trained, so that a loss that is not finite can be placed.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    log_snr: Tensor | None = None


class Objective(ABC):
    """What training minimises. A new one is a frozen dataclass and a line in ``OBJECTIVES``."""

    @abstractmethod
    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise) -> Loss:
        """The loss of every sample of the batch; all randomness comes from ``rng``."""
