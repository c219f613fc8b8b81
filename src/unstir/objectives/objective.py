"""The fourth word: an Objective, (denoiser, batch, rng) -> per-sample loss with its parts named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.denoiser import Denoiser
from unstir.process import Process
from unstir.sampling import SampleNoise


@dataclass(frozen=True)
class Batch:
    """x (B, ...) in model units, and conditions by name, (B, ...) each.

    Args:
        always: the conditions that drop-out leaves alone.
        captions: the conditions that are captions.
    """

    x: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    always: frozenset[str] = frozenset()
    captions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Loss:
    """What a batch cost.

    Args:
        total: (B,) the loss of each sample, whose mean is minimised.
        parts: (B,) each, by name, for the record.
        log_snr: (B,) at which noise level each sample was trained, so that a loss that is not finite can be placed.
        seen: (B,) each, by name: what the objective's companion is to take in after the step.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    log_snr: Tensor | None = None
    seen: Mapping[str, Tensor] = field(default_factory=dict)


class Companion(nn.Module):
    """What an Objective learns or remembers while it trains: parameters, which Adam changes together with the network's weights, and
    buffers.

    Training holds it beside the module: it is in the checkpoints, comes back to the bit, and is the same on all processes. It is
    not part of the model.
    """

    def begin(self, module: nn.Module) -> None:
        """Called with the module as it is before the first step, whole on every process; here it does nothing."""

    def at(self, fraction: float) -> None:
        """Called before every step with the fraction of the training that is done; here it does nothing."""

    def take_in(self, seen: Mapping[str, Tensor]) -> None:
        """Called after every step with ``Loss.seen`` of the whole batch, in the batch's order, on the CPU; here it does nothing."""

    def follow(self, module: nn.Module, step: int) -> None:
        """Called after every step with the module as it is now, and the number of steps done, this one included. The average takes the
        weights in afterwards, with what is changed of them here. Here it does nothing."""


class Objective(ABC):
    """What training minimises. A new one is a frozen dataclass and a line in ``OBJECTIVES``."""

    trains: ClassVar[type[nn.Module]] = nn.Module
    """The kind of module that it is for."""

    def fitted(self, spec: DataSpec) -> Objective:
        """This objective with the fields that it takes from the data; most take none."""
        return self

    def described(self, spec: DataSpec) -> DataSpec:
        """The description of the data with what this objective tells the module beside their conditions; most tell nothing."""
        return spec

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        """A fresh companion, for an objective that learns or remembers something itself; most do not.

        Args:
            teacher: of an objective that learns from another run (a ``DistillationObjective``): what that one trained, with all that
                guides it around it.
        """
        return None

    @abstractmethod
    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        """The loss of every sample of the batch; all randomness comes from ``rng``.

        Args:
            companion: this objective's, during training; an objective that has none is called without.
        """


def loss_of(
    objective: Objective, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None
) -> Loss:
    """The objective's loss, with its companion where it has one."""
    return objective(module, batch, rng) if companion is None else objective(module, batch, rng, companion)
