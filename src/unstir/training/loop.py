"""The training loop, as a generator of steps. It knows a module, an Objective and batches, and nothing else.

Everything random in a step is a pure function of (seed, step, position in the batch), and so is the data order. A run that is
killed and resumed is therefore bit for bit the run that was not, and two processes that share a batch do what one would.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.objectives import Batch, Loss, Objective
from unstir.sampling import SampleNoise, mix_seed
from unstir.training.config import TrainingConfig
from unstir.training.ema import AveragedModel
from unstir.training.guard import diagnose
from unstir.training.layout import Layout, Replicated

DrawBatch = Callable[[int, list[int], SampleNoise], Batch]
"""(step, positions in the global batch, rng) -> the samples at those positions."""


class _LossModule(nn.Module):
    """The objective as a module's forward pass, which is where data-parallel wrappers synchronise gradients."""

    def __init__(self, objective: Objective, module: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.module = module

    def forward(self, batch: Batch, rng: SampleNoise) -> Loss:
        return self.objective(self.module, batch, rng)


def _arranged(value: Any, like: Tensor) -> Any:
    """What an optimiser remembers of a parameter, in that parameter's order of memory (channels-last, say): fused optimisers
    take the two for the same without a look."""
    same = isinstance(value, Tensor) and value.shape == like.shape
    return torch.empty_like(like).copy_(value) if same else value


class TrainingState:
    """All that changes during training: weights, their average, the optimiser's memory, how far it got.

    Args:
        layout: what of it each process holds; by default everything.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig, layout: Layout | None = None) -> None:
        self.layout = layout or Replicated()
        self.module = module
        self.averaged = AveragedModel(module, config.average)
        self.layout.place(module, self.averaged)
        self.optimizer = config.optimizer.build(module, config.learning_rate)
        self.step = 0
        self.seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only. For the main process to write, but to be called on all: they may share the tensors."""
        return self.layout.gather(
            {
                "module": self.module.state_dict(),
                "averaged": self.averaged.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        for name, module in (("module", self.module), ("averaged", self.averaged.module)):
            module.load_state_dict(self.layout.scatter(state[name], module.state_dict()))
        # The optimiser's memory comes back, its settings stay those of the recipe, which may have been changed on purpose.
        settings = [{k: v for k, v in g.items() if k not in ("params", "time")} for g in self.optimizer.param_groups]
        parameters = dict(enumerate(p for group in self.optimizer.param_groups for p in group["params"]))
        memory = {}
        for number, tensors in state["optimizer"]["state"].items():
            scattered = self.layout.scatter(tensors, dict.fromkeys(tensors, parameters[number]))
            memory[number] = {name: _arranged(value, parameters[number]) for name, value in scattered.items()}
        self.optimizer.load_state_dict({**state["optimizer"], "state": memory})
        for group, kept in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(kept)
        self.step, self.seconds = state["step"], state["seconds"]


@dataclass(frozen=True)
class Progress:
    """What one step did.

    Args:
        step: optimiser steps done, counting this one.
        fraction: of the run that is done.
        loss: mean over this process's share of the batch; a tensor, so that reading it is the reader's choice to wait.
        parts: the loss's named parts, likewise.
        gradient_norm: before clipping.
        seconds: of the run so far.
    """

    step: int
    fraction: float
    loss: Tensor
    parts: dict[str, Tensor]
    gradient_norm: Tensor
    learning_rate: float
    seconds: float
    samples_per_second: float = 0.0


@dataclass
class Loop:
    """Iterate it to train.

    Args:
        paused: seconds between steps that are not to count as training; whoever iterates adds to it.

    Raises:
        UserError: if the batch cannot be shared out evenly, or the run has no length.
        NonFiniteError: when the loss or gradient is no longer finite.
    """

    state: TrainingState
    objective: Objective
    draw: DrawBatch
    config: TrainingConfig
    accelerator: Accelerator
    paused: float = 0.0

    def __post_init__(self) -> None:
        pieces = self.accelerator.num_processes * self.config.accumulate
        if self.config.batch_size % pieces:
            raise UserError(
                f"training.batch_size {self.config.batch_size} cannot be shared out over {self.accelerator.num_processes} "
                f"processes and {self.config.accumulate} accumulated pieces; make it a multiple of {pieces}"
            )
        self._wrapped = self.state.layout.wrap(_LossModule(self.objective, self.state.module), self.accelerator)
        self.state.averaged.to(self.accelerator.device)
        self._parameters = list(self.state.module.parameters())

    def _positions(self, piece: int) -> list[int]:
        """Which positions of the global batch are this process's, in this piece of it: every so-manieth, since neighbours in a
        stratified batch have neighbouring noise levels."""
        pieces = self.accelerator.num_processes * self.config.accumulate
        return list(
            range(self.accelerator.process_index * self.config.accumulate + piece, self.config.batch_size, pieces)
        )

    def _rng(self, positions: list[int]) -> SampleNoise:
        return SampleNoise(mix_seed(self.config.seed, self.state.step), positions, total=self.config.batch_size)

    def _piece(self, piece: int) -> tuple[Batch, SampleNoise]:
        positions = self._positions(piece)
        rng = self._rng(positions)
        batch = self.draw(self.state.step, positions, rng)
        device = self.accelerator.device
        moved = {name: value.to(device, non_blocking=True) for name, value in batch.cond.items()}
        return Batch(batch.x.to(device, non_blocking=True), moved), rng

    def _backward(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the mean loss over the batch; -> its mean and its parts' means over this process's share."""
        pieces = self.config.accumulate
        means: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.accelerator.device)
        for piece in range(pieces):
            batch, rng = self._piece(piece)
            last = piece == pieces - 1
            with contextlib.nullcontext() if last else self.state.layout.no_sync(self._wrapped, self.accelerator):
                loss: Loss = self._wrapped(batch, rng)
                mean = loss.total.mean() / pieces
                self.accelerator.backward(mean)
            total += mean.detach()
            for name, part in loss.parts.items():
                means[name] = means.get(name, torch.zeros_like(total)) + part.detach().mean() / pieces
        return total, means

    def _diagnose(self) -> UserError:
        """What is wrong with this step, from the first piece of the batch in which it shows."""
        error: UserError | None = None
        module = self.state.layout.whole(self.state.module)  # each process looks on its own
        self._seed()
        for piece in range(self.config.accumulate):
            batch, rng = self._piece(piece)
            error, found = diagnose(module, self.objective, batch, rng, self.state.step + 1)
            if found:
                return error
        assert error is not None
        return error

    def _seed(self) -> None:
        """Dropout inside the network uses the global generator: seeding it here makes it a function of the step as well."""
        torch.manual_seed(mix_seed(self.config.seed, self.state.step, 1 + self.accelerator.process_index) >> 1)

    def _step(self, fraction: float) -> Progress:
        state, config = self.state, self.config
        self._seed()
        learning_rate = config.learning_rate_at(fraction, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        state.optimizer.zero_grad(set_to_none=True)
        loss, parts = self._backward()
        norm = state.layout.clip(self._parameters, config.gradient_clip or float("inf"))
        # All processes hold the same gradient, so all stop together (the loss is each one's own). On a GPU this waits for the
        # step: a run that goes on with broken weights costs a night.
        if not bool(torch.isfinite(norm + loss if self.accelerator.num_processes == 1 else norm)):
            raise self._diagnose()
        state.optimizer.step()
        state.step += 1
        state.averaged.update(state.module, state.step)
        return Progress(state.step, fraction, loss, parts, norm, learning_rate, state.seconds)

    def _fraction(self) -> float:
        """The fraction done, by the main process's clock, so that all processes stop at the same step."""
        fraction = self.config.fraction(self.state.step, self.state.seconds)
        if self.accelerator.num_processes > 1 and self.config.minutes is not None:
            from accelerate.utils import broadcast

            shared = torch.tensor([fraction], dtype=torch.float32, device=self.accelerator.device)
            fraction = float(broadcast(shared, from_process=0))
        return fraction

    def __iter__(self) -> Iterator[Progress]:
        state = self.state
        begun, before = None, state.seconds
        state.module.train()
        while (fraction := self._fraction()) < 1:
            start = time.perf_counter()
            progress = self._step(fraction)
            now = time.perf_counter()
            begun = (
                begun or now
            )  # the first step loads libraries and builds kernels, for many seconds on a new installation
            state.seconds = before + now - begun - self.paused
            yield replace(
                progress,
                fraction=self.config.fraction(state.step, state.seconds),
                seconds=state.seconds,
                samples_per_second=self.config.batch_size / (now - start),
            )
            state.module.train()  # whoever looked at the model in between may have left it in another mode
