"""Where the training state lives when several processes train: all of it on each of them, or a share of it on each.

Checkpoints and weights are whole either way, so that a run may go on in the other layout, or on another number of processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.training.ema import AveragedModel


class Layout(ABC):
    """What each process holds. All methods but ``no_sync`` may talk to the other processes: call them on all."""

    @abstractmethod
    def place(self, module: nn.Module, averaged: AveragedModel) -> None:
        """Brings weights and average to where they stay, in place; the optimiser is built afterwards."""

    @abstractmethod
    def wrap(self, loss: nn.Module, accelerator: Accelerator) -> nn.Module:
        """A loss of the placed module, whose gradients come out as means over all processes."""

    @abstractmethod
    def no_sync(self, wrapped: nn.Module, accelerator: Accelerator) -> AbstractContextManager[Any]:
        """Around the pieces of a batch but the last."""

    @abstractmethod
    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """Shortens the gradient to ``limit``; -> the length it had, of all parameters on all processes together."""

    @abstractmethod
    def whole(self, module: nn.Module) -> nn.Module:
        """The module, or its average, such as one process alone can use it. Not to be changed: it may be the original."""

    @abstractmethod
    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state with whole tensors, to be written by the main process; on others some may be missing."""

    @abstractmethod
    def scatter(self, values: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse: this process's share of whole tensors, laid out as those of the same names and shapes in ``like``."""


class Replicated(Layout):
    """Everything on every process; gradients are averaged between them (DDP). One process alone is the simplest case of it.

    Args:
        device: to train on; by default where the module is.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def place(self, module: nn.Module, averaged: AveragedModel) -> None:
        module.to(device=self.device)
        averaged.to(device=self.device)

    def wrap(self, loss: nn.Module, accelerator: Accelerator) -> nn.Module:
        wrapped: nn.Module = accelerator.prepare(loss)
        return wrapped

    def no_sync(self, wrapped: nn.Module, accelerator: Accelerator) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = accelerator.no_sync(wrapped)
        return context

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def whole(self, module: nn.Module) -> nn.Module:
        return module

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    def scatter(self, values: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
        return dict(values)


def layout_of(shard: bool, accelerator: Accelerator) -> Layout:
    """The layout of a run.

    Raises:
        UserError: one process cannot share anything out.
    """
    if not shard:
        return Replicated(accelerator.device)
    if accelerator.num_processes == 1:
        raise UserError(
            "training.shard spreads the training state over several processes, and there is one: start it with "
            "torchrun --nproc_per_node 2 -m unstir train ..., or give --training.no-shard"
        )
    from unstir.training.sharding import Sharded  # loads half as much again of PyTorch

    return Sharded(accelerator)
