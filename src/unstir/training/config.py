"""How long, how fast and with what a model is trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.training.ema import Average, PowerAverage
from unstir.training.muon import Muon

Precision = Literal["auto", "fp32", "bf16"]


class Decay(ABC):
    """The learning rate's way down, as a factor. A new one is a frozen dataclass and a line in ``DECAYS``."""

    @abstractmethod
    def __call__(self, fraction: float) -> float:
        """Fraction of the run that is done, in [0, 1] -> factor on the learning rate."""


@dataclass(frozen=True)
class ConstantDecay(Decay):
    """No way down: DDPM's choice, which leaves the smoothing to the average of the weights."""

    def __call__(self, fraction: float) -> float:
        return 1.0


@dataclass(frozen=True)
class LinearDecay(Decay):
    """Flat until ``start``, then straight down to 0 at the end."""

    start: float = 0.0
    """Fraction of the run that is flat."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise UserError(f"the linear decay's start must lie in [0, 1), not {self.start}")

    def __call__(self, fraction: float) -> float:
        return min(1.0, (1 - fraction) / (1 - self.start))


@dataclass(frozen=True)
class CosineDecay(Decay):
    """Half a cosine, from 1 to 0."""

    def __call__(self, fraction: float) -> float:
        return (1 + math.cos(math.pi * fraction)) / 2


DECAYS: dict[str, type[Decay]] = {"constant": ConstantDecay, "linear": LinearDecay, "cosine": CosineDecay}


class OptimizerConfig(ABC):
    """What turns gradients into steps. A new one is a frozen dataclass and a line in ``OPTIMIZERS``."""

    @abstractmethod
    def build(self, module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """The optimiser of this module's parameters, but for frozen ones (those that require no gradient)."""


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that training changes: all that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


@dataclass(frozen=True)
class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101); 0 decay is Adam."""

    beta_1: float = 0.9
    """Memory of the mean gradient."""
    beta_2: float = 0.99
    """Memory of the squared gradient."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""

    def build(self, module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        betas = (self.beta_1, self.beta_2)
        # fused: one kernel for all parameters instead of a dozen each
        return torch.optim.AdamW(learning(module), learning_rate, betas, weight_decay=self.weight_decay, fused=True)


@runtime_checkable
class HasInnerWeights(Protocol):
    """A block that knows which of its weights are hidden matrices."""

    def inner_weights(self) -> list[Tensor]: ...


@dataclass(frozen=True)
class MuonConfig(OptimizerConfig):
    """Muon for the matrices inside residual blocks and attention, Adam for the rest: learns faster in short runs."""

    lr_scale: float = 1.5
    """Muon's learning rate, as a multiple of Adam's (training.learning-rate)."""
    momentum: float = 0.95
    """Memory of Muon's gradient."""
    orthogonalization_steps: int = 4
    """Newton-Schulz steps."""
    orthogonalization_precision: Precision = "auto"
    """Of the Newton-Schulz steps; auto is bf16 where the hardware has it."""
    beta_1: float = 0.9
    """Adam's memory of the mean gradient."""
    beta_2: float = 0.99
    """Adam's memory of the squared gradient."""

    def build(self, module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        # A network without such blocks is trained by Adam alone.
        from unstir.training.devices import autocast_dtype  # the rules about devices, which know this module's types

        device = next(module.parameters()).device
        parts = (part.inner_weights() for part in module.modules() if isinstance(part, HasInnerWeights))
        inner = {id(weight): weight for weights in parts for weight in weights if weight.requires_grad}
        return Muon(
            inner.values(),
            [p for p in learning(module) if id(p) not in inner],
            learning_rate,
            lr_scale=self.lr_scale,
            momentum=self.momentum,
            steps=self.orthogonalization_steps,
            betas=(self.beta_1, self.beta_2),
            dtype=autocast_dtype(self.orthogonalization_precision, device),
        )


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {"adamw": AdamW, "muon": MuonConfig}


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and with what the model is trained."""

    steps: int | None = None
    """Length in optimiser steps. Training ends at whichever of steps, images and minutes comes first."""
    images: int | None = None
    """Length in training samples seen."""
    minutes: float | None = None
    """Length in minutes of wall-clock time."""
    batch_size: int = 64
    """Samples per step, over all processes and accumulated pieces together."""
    learning_rate: float = 1e-3
    """Learning rate after warm-up."""
    warmup: float = 0.02
    """Fraction of the run in which the learning rate grows from 0."""
    decay: Decay = field(default_factory=lambda: LinearDecay(0.3))
    """The learning rate's way down."""
    optimizer: OptimizerConfig = field(default_factory=AdamW)
    """What turns gradients into steps."""
    average: Average = field(default_factory=PowerAverage)
    """The running average of the weights (EMA) that sampling uses."""
    gradient_clip: float = 1.0
    """Longest gradient that is let through (0: any)."""
    accumulate: int = 1
    """Work through each batch in this many pieces, to save memory."""
    precision: Precision = "auto"
    """Of the network's arithmetic; auto is bf16 where the hardware has it. Weights and everything else are fp32."""
    compile: bool = False
    """Compile the network with torch.compile: a minute's wait, then faster steps."""
    shard: bool = False
    """Spread weights, gradients, averages and the optimiser's memory over the processes (FSDP), to train larger networks."""
    seed: int = 0
    """Of everything random: weights, data order, noise."""
    held_out: float = 0.0
    """Fraction of the samples that training never sees: a classifier is judged by them."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl (0: only one at the end)."""
    checkpoint_every: int = 1000
    """Steps between checkpoints (0: only at the end)."""
    keep: int = 3
    """Checkpoints that are kept."""
    sample_every: int = 0
    """Steps between pictures of samples in the run folder (0: only at the end)."""
    evaluate_every: int = 0
    """Steps between evaluations, which log a Fréchet distance (0: none). Their time does not count in training.minutes."""
    evaluate_samples: int = 500
    """Samples that each evaluation judges."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.accumulate < 1 or self.batch_size % self.accumulate:
            raise UserError(
                f"training.batch_size {self.batch_size} must be a positive multiple of training.accumulate {self.accumulate}"
            )
        for name, low in (
            ("checkpoint_every", 0),
            ("sample_every", 0),
            ("log_every", 0),
            ("keep", 1),
            ("seed", 0),
            ("evaluate_every", 0),
            ("evaluate_samples", 2),
        ):
            if getattr(self, name) < low:
                raise UserError(f"training.{name} must be at least {low}, not {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise UserError(f"training.held_out must lie in [0, 1), not {self.held_out}")
        if self.learning_rate <= 0 or self.warmup < 0 or self.gradient_clip < 0:
            raise UserError("training.learning_rate must be positive, warmup and gradient_clip at least 0")
        for name in ("steps", "images", "minutes"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"training.{name} must be positive, not {value}")

    def fraction(self, step: int, seconds: float) -> float:
        """How much of the run is done after so many steps and seconds, in [0, 1].

        Raises:
            UserError: if the run has no length at all.
        """
        parts = [
            done / planned
            for done, planned in (
                (step, self.steps),
                (step * self.batch_size, self.images),
                (seconds / 60, self.minutes),
            )
            if planned is not None
        ]
        if not parts:
            raise UserError("this run has no length: give --training.steps, --training.images or --training.minutes")
        return min(max(parts), 1.0)

    def learning_rate_at(self, fraction: float, step: int) -> float:
        """The learning rate when so much of the run is done; ``step`` counts from 0."""
        warm = min(1.0, fraction / self.warmup) if self.warmup > 0 else 1.0
        if step == 0 and self.warmup > 0:
            warm = max(warm, 1e-3)  # a first step of length 0 would be wasted
        return self.learning_rate * warm * self.decay(fraction)
