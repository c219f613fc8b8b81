"""The training loop, as a generator of steps. It knows a module, an Objective and batches, and nothing else.

Everything random in a step is a pure function of (seed, step, position in the batch), and so is the data order. A run that is
killed and resumed is therefore bit for bit the run that was not, and two processes that share a batch do what one would.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.objectives import Batch, Companion, Loss, Objective
from unstir.objectives.objective import loss_of
from unstir.sampling import SampleNoise, mix_seed
from unstir.training.config import TrainingConfig, learning
from unstir.training.ema import AveragedModel
from unstir.training.guard import diagnose
from unstir.training.layout import Layout, Replicated

DrawBatch = Callable[[int, list[int], SampleNoise], Batch]
"""(step, positions in the global batch, rng) -> the samples at those positions."""


class _LossModule(nn.Module):
    """The objective as a module's forward pass, which is where data-parallel wrappers synchronise gradients."""

    def __init__(self, objective: Objective, module: nn.Module, companion: Companion | None) -> None:
        super().__init__()
        self.objective = objective
        self.module = module
        self.apart = (companion,)  # not a submodule: the loop itself keeps it the same everywhere, in every layout

    def forward(self, batch: Batch, rng: SampleNoise) -> Loss:
        return loss_of(self.objective, self.module, batch, rng, *self.apart)


def _arranged(value: Any, like: Tensor) -> Any:
    """What an optimiser remembers of a parameter, in that parameter's order of memory (channels-last, say): fused optimisers
    take the two for the same without a look."""
    same = isinstance(value, Tensor) and value.shape == like.shape
    return torch.empty_like(like).copy_(value) if same else value


class TrainingState:
    """All that changes during training: weights, their average, the optimiser's memory, how far it got.

    Args:
        layout: what of it each process holds; by default everything.
        companion: the objective's, where it has one; each process holds all of it.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainingConfig,
        layout: Layout | None = None,
        companion: Companion | None = None,
    ) -> None:
        self.layout = layout or Replicated()
        self.module = module
        if companion is not None:
            companion.begin(module)
        self.averaged = AveragedModel(module, config.average)
        self.layout.place(module, self.averaged)
        self.optimizer = config.optimizer.build(module, config.learning_rate)
        self.companion = companion
        self.companion_optimizer: torch.optim.Optimizer | None = None
        if companion is not None:
            companion.to(next(module.parameters()).device)
            learned = learning(companion)
            self.companion_optimizer = torch.optim.Adam(learned, config.learning_rate) if learned else None
        self.step = 0
        self.seconds = 0.0

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The module's, and the companion's where anything of it is learned."""
        return [self.optimizer] if self.companion_optimizer is None else [self.optimizer, self.companion_optimizer]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only. For the main process to write, but to be called on all: they may share the tensors."""
        state: dict[str, Any] = {
            "module": self.module.state_dict(),
            "averaged": self.averaged.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        if self.companion is not None:
            optimizer = self.companion_optimizer
            state["companion"] = self.companion.state_dict()
            state["companion_optimizer"] = {} if optimizer is None else optimizer.state_dict()
        return self.layout.gather(state)

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
        self._load_companion(state)
        self.step, self.seconds = state["step"], state["seconds"]

    def _load_companion(self, state: dict[str, Any]) -> None:
        if self.companion is None:
            return
        if "companion" not in state:  # the objective is a new one, chosen on resuming
            self.companion.begin(self.module)
            return
        self.companion.load_state_dict(state["companion"])
        if self.companion_optimizer is not None:
            self.companion_optimizer.load_state_dict(state["companion_optimizer"])


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
        loss = _LossModule(self.objective, self.state.module, self.state.companion)
        self._wrapped = self.state.layout.wrap(loss, self.accelerator)
        self.state.averaged.to(self.accelerator.device)
        self._parameters = learning(self.state.module)

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
        return replace(batch, x=batch.x.to(device, non_blocking=True), cond=moved), rng

    def _backward(self) -> tuple[Tensor, dict[str, Tensor], list[Mapping[str, Tensor]]]:
        """Gradients of the mean loss over the batch; -> its mean and its parts' means over this process's share, and what the companion
        is to take in of each piece of it."""
        pieces = self.config.accumulate
        means: dict[str, Tensor] = {}
        seen: list[Mapping[str, Tensor]] = []
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
            seen.append(loss.seen)
        return total, means, seen

    def _average_companion(self) -> None:
        """Makes the gradients of the companion's parameters means over all processes."""
        if self.state.companion is None or self.accelerator.num_processes == 1:
            return
        for parameter in self.state.companion.parameters():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    def _tell_companion(self, seen: list[Mapping[str, Tensor]]) -> None:
        """Shows the companion what was seen of the whole batch, in its order."""
        if self.state.companion is not None and seen[0]:
            self.state.companion.take_in({name: self._everyones([piece[name] for piece in seen]) for name in seen[0]})

    def _everyones(self, pieces: list[Tensor]) -> Tensor:
        """Values of this process's pieces, (n,) each -> those of the whole batch, on the CPU."""
        rows = torch.stack(pieces).detach()
        if self.accelerator.num_processes > 1:
            rows = self.accelerator.gather(rows.to(self.accelerator.device))
        return rows.T.flatten().cpu()  # sample k of row r is number k * rows + r: see ``_positions``

    def _diagnose(self) -> UserError:
        """What is wrong with this step, from the first piece of the batch in which it shows."""
        error: UserError | None = None
        module = self.state.layout.whole(self.state.module)  # each process looks on its own
        self._seed()
        for piece in range(self.config.accumulate):
            batch, rng = self._piece(piece)
            error, found = diagnose(module, self.objective, batch, rng, self.state.step + 1, self.state.companion)
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
        if state.companion is not None:
            state.companion.at(fraction)
        learning_rate = config.learning_rate_at(fraction, state.step)
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group.get("lr_scale", 1.0)
            optimizer.zero_grad(set_to_none=True)
        loss, parts, seen = self._backward()
        self._average_companion()
        norm = state.layout.clip(self._parameters, config.gradient_clip or float("inf"))
        # All processes hold the same gradient, so all stop together (the loss is each one's own). On a GPU this waits for the
        # step: a run that goes on with broken weights costs a night.
        if not bool(torch.isfinite(norm + loss if self.accelerator.num_processes == 1 else norm)):
            raise self._diagnose()
        for optimizer in state.optimizers:
            optimizer.step()
        self._tell_companion(seen)
        state.step += 1
        if state.companion is not None:
            state.companion.follow(state.module, state.step)
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
