"""Training state in shards, for networks that are too large to be held whole by every process."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate

from unstir.trainable import Trainable
from unstir.training.config import HasInnerWeights
from unstir.training.ema import AveragedModel
from unstir.training.layout import Layout


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _share(value: Any, like: Any) -> Any:
    """This process's rows of a value that every process has; no words are exchanged."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    everywhere = DTensor.from_local(value.to(like.device), like.device_mesh, [Replicate()], run_check=False)
    return everywhere.redistribute(placements=like.placements)


def _filled(module: nn.Module, parameters: Iterable[nn.Parameter], buffers: Iterable[Tensor]) -> nn.Module:
    """A copy of a module with these tensors in place of its own, which are not copied."""
    old = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(a): b for a, b in zip(old, chain(parameters, buffers), strict=True)})


class Sharded(Layout):
    """A share of everything on each process: rows of weights, gradients, averages and optimiser memory.

    A block's weights are gathered just before it computes, forwards or backwards, and dropped after; gradients go straight to
    those who keep their rows, for every piece of a batch, so that nobody ever holds the whole gradient.

    Source:
        Rajbhandari et al. 2020 (ZeRO, stage 3), https://arxiv.org/abs/1910.02054; Zhao et al. 2023, https://arxiv.org/abs/2304.11277

    Args:
        accelerator: of several processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        self._skeleton: nn.Module = nn.Identity()  # the module without numbers

    def place(self, module: nn.Module, averaged: AveragedModel) -> None:
        # The root of the shards must answer with tensors, through which its backward pass is noticed: not a denoiser,
        # which answers with a Prediction; and its inputs are moved to the device, where times do not belong.
        root = module.network if isinstance(module, Trainable) else module
        assert len(list(root.parameters())) == len(list(module.parameters())), "there are weights beside the network's"
        self._skeleton = _filled(
            module,
            [nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()],
            [torch.empty_like(b, device="meta") for b in module.buffers()],
        )
        for parameter in root.parameters():
            parameter.data = parameter.data.contiguous()  # rows cannot be cut out of channels-last memory
        blocks = [part for part in root.modules() if isinstance(part, HasInnerWeights) and part is not root]
        # It says so of views, such as a reshaped output, because they must not be changed in place; nobody does.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        for part in reversed([root, *blocks]):  # from the innermost to the outermost; each takes what is left
            fully_shard(part, mesh=self._mesh)
        module.to(self.accelerator.device)
        shares = [nn.Parameter(p.detach().clone(), requires_grad=False) for p in module.parameters()]
        averaged.module = _filled(averaged.module, shares, [b.clone() for b in module.buffers()])

    def wrap(self, loss: nn.Module, accelerator: Accelerator) -> nn.Module:
        return loss

    def no_sync(self, wrapped: nn.Module, accelerator: Accelerator) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        return _full(torch.nn.utils.clip_grad_norm_(parameters, limit))

    @torch.no_grad()
    def whole(self, module: nn.Module) -> nn.Module:
        device = self.accelerator.device
        parameters = [  # in the memory layout that they had before they were shared out
            nn.Parameter(torch.empty_like(shape, device=device).copy_(_full(p)), p.requires_grad)
            for shape, p in zip(self._skeleton.parameters(), module.parameters(), strict=True)
        ]
        buffers = [b.clone() for b in module.buffers()]
        for buffer in buffers:  # BatchNorm's statistics may differ; the main process's are those that are saved
            torch.distributed.broadcast(buffer, src=0)
        return _filled(self._skeleton, parameters, buffers).train(module.training)

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        gathered: dict[str, Any] = self._gather(state)
        return gathered

    def _gather(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._gather(part) for key, part in value.items()}
        if isinstance(value, DTensor):
            full = value.full_tensor()
            return full.cpu() if self.accelerator.is_main_process else None
        return value

    def scatter(self, values: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _share(value, like.get(name)) for name, value in values.items()}
