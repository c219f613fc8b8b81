"""What every contender can do, and the settings that all of them are measured in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unstir.training.devices import best_device, keep_freed_memory

Pictures = np.ndarray[Any, Any]
"""(N, H, W, C) uint8."""


@dataclass(frozen=True)
class Setting:
    """What is done to a library beside importing it."""

    allocator: bool = False
    """glibc keeps freed memory, as ``unstir train`` has it."""
    bf16: bool = False
    """The network under bf16 autocast, in the memory layout that is faster for it."""

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context that the network's forward pass runs in."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)


SETTINGS = {"installed": Setting(), "allocator": Setting(True), "bf16": Setting(True, True)}
"""As a user gets it; with the allocator set; with that and bf16: the best that can be made of a peer without changing its code."""


@dataclass(frozen=True)
class Tuning:
    """How a peer is trained; the defaults of each are in its own file, found by ``time_to_quality.py --tune``."""

    learning_rate: float = 1e-3
    batch_size: int = 32
    ema: float = 0.99
    """Decay of the averaged weights, per step."""
    cosine: bool = True
    """The learning rate falls to 0 along half a cosine (after 5 % warm-up), instead of staying."""

    def factor(self, fraction: float) -> float:
        """On the learning rate, when so much of the run is done."""
        warm = min(1.0, (fraction + 1e-3) / 0.05)
        return warm * (1 + float(np.cos(np.pi * fraction))) / 2 if self.cosine else warm


class Contender(ABC):
    """A network, its loss and its sampler, as its library has them.

    Args:
        pictures: (N, H, W, C) uint8 to train on, already in memory.
        setting: what is done to the library.
        tuning: how it is trained.
        seed: of everything random.

    Attributes:
        sampler: what ``sample`` runs, for tables.
    """

    sampler: str

    def __init__(self, pictures: Pictures, setting: Setting, tuning: Tuning | None = None, seed: int = 0) -> None:
        self.pictures, self.setting, self.tuning = pictures, setting, tuning or self.tuned()
        self.device = best_device()
        if setting.allocator:
            keep_freed_memory()
        torch.manual_seed(seed)
        self.build(seed)

    @classmethod
    def tuned(cls) -> Tuning:
        """The best way known to train it for a few minutes."""
        return Tuning()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        _, height, width, channels = self.pictures.shape
        return channels, height, width

    @abstractmethod
    def build(self, seed: int) -> None:
        """Makes network, optimiser and average."""

    @abstractmethod
    def train_step(self, fraction: float = 0.5) -> float:
        """One complete step on the next batch, -> the loss; ``fraction`` of the run is done."""

    @abstractmethod
    def sample(self, n: int, steps: int) -> Pictures:
        """n pictures from the averaged weights."""

    @abstractmethod
    def forward(self, x: Tensor) -> object:
        """The network alone, for counting."""

    @abstractmethod
    def network(self) -> nn.Module:
        """The network alone, for counting."""

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(parameter.numel() for parameter in self.network().parameters())

    @torch.no_grad()
    def flops(self) -> int:
        """Of one picture's forward pass: two for each multiplication and addition of convolutions and matrix products."""
        network = self.network()
        was_training = network.training
        network.eval()
        # PyTorch does not count its fused attention on CPUs: written out, it does.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.forward(torch.zeros(1, *self.shape, device=self.device))
        network.train(was_training)
        return int(counter.get_total_flops())


class Peer(Contender):
    """What the peers' training scripts have in common: a tensor of pictures, a loss, clipping, an optimiser, an average."""

    optimizer: torch.optim.Optimizer
    net: nn.Module
    layout: torch.memory_format = torch.contiguous_format
    """Under bf16: the faster of the two for this network, measured."""

    def build(self, seed: int) -> None:
        layout = self.layout if self.setting.bf16 else torch.contiguous_format
        x = torch.tensor(self.pictures, device=self.device).movedim(3, 1).float()
        self.x = (x / 127.5 - 1).contiguous(memory_format=layout)  # (N, C, H, W)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.assemble()
        self.net.to(memory_format=layout)  # type: ignore[call-overload]

    @abstractmethod
    def assemble(self) -> None:
        """Makes ``net``, ``optimizer`` and the average."""

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """Of a batch in [-1, 1]."""

    @abstractmethod
    def update_average(self) -> None:
        """Takes the weights into the average."""

    @abstractmethod
    def draw(self, n: int, steps: int) -> Tensor:
        """n pictures in [-1, 1] from the averaged weights."""

    def network(self) -> nn.Module:
        return self.net

    def train_step(self, fraction: float = 0.5) -> float:
        rows = torch.randint(len(self.x), (self.tuning.batch_size,), generator=self.generator, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.tuning.learning_rate * self.tuning.factor(fraction)
        self.net.train()
        with self.setting.autocast(self.device):
            loss = self.loss(self.x[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_average()
        return float(loss.detach())

    @torch.no_grad()
    def sample(self, n: int, steps: int) -> Pictures:
        pieces = []
        for start in range(0, n, 64):
            with self.setting.autocast(self.device):
                pieces.append(self.draw(min(64, n - start), steps).float())
        x = torch.cat(pieces).clamp(-1, 1).movedim(1, 3)
        return ((x + 1) * 127.5).round().byte().cpu().numpy()
