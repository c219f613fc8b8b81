"""What an objective learns and remembers while it trains: checkpointed, the same on all processes, and in every layout."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from launch import alone, check_in_two_processes, one_of_two
from numeric import assert_close_states, same_states
from torch import Tensor, nn

from unstir.denoiser import NetDenoiser
from unstir.objectives import (
    Batch,
    Companion,
    ConsistencyObjective,
    DenoisingObjective,
    HybridObjective,
    KarrasPairs,
    LearnedUncertainty,
    LogNormal,
    Objective,
    VariationalObjective,
)
from unstir.objectives.variational import LossHistory
from unstir.processes import EDM, LinearVP, Process
from unstir.training.config import TrainingConfig
from unstir.training.ema import ExponentialAverage
from unstir.training.layout import Layout, Replicated
from unstir.training.loop import Loop, TrainingState

DATA = torch.randn(64, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CONFIG = TrainingConfig(steps=14, batch_size=8, learning_rate=1e-2, warmup=0.1)
CHAIN = LinearVP(steps=4, beta_end=0.9)
CASES: dict[str, tuple[Process, Objective]] = {
    "uncertainty": (EDM(), DenoisingObjective("F", LearnedUncertainty(16), LogNormal())),
    "resampled": (CHAIN, VariationalObjective()),
    "hybrid with uncertainty": (CHAIN, HybridObjective(weight=LearnedUncertainty(16))),
    "consistency": (EDM(), ConsistencyObjective()),  # the fraction that is done decides the pairs
    "averaged target": (EDM(), ConsistencyObjective(pairs=KarrasPairs(4, 30, "square-root"), target_decay=0.8)),
}


class Tiny(nn.Module):
    def __init__(self, out: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 4 * out)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(torch.cat([x.flatten(1), c_noise[:, None]], 1)))
        return self.last(hidden).reshape(len(x), -1, 4)


def new_loop(case: str, config: TrainingConfig, accelerator: Any, layout: Layout | None = None) -> Loop:
    process, objective = CASES[case]
    torch.manual_seed(0)
    learned = isinstance(objective, (VariationalObjective, HybridObjective))
    module = NetDenoiser(Tiny(1 + learned), process, "eps" if learned else "edm", learn_variance=learned).double()
    state = TrainingState(module, config, layout, objective.companion(process))

    def draw(step: int, positions: list[int], rng: object) -> Batch:
        return Batch(DATA[torch.tensor(positions) + 8 * (step % 8)])

    return Loop(state, objective, draw, config, accelerator)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop", [1, 7, 13])
def test_stopped_and_resumed_is_the_run_that_never_stopped(case: str, stop: int, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    whole = new_loop(case, CONFIG, accelerator)
    losses = [float(p.loss) for p in whole]
    half = new_loop(case, CONFIG, accelerator)
    first = [float(p.loss) for p in itertools.islice(half, stop)]
    torch.save(half.state.state_dict(), tmp_path / "checkpoint.pt")
    other = new_loop(case, CONFIG, accelerator)
    other.state.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert first + [float(p.loss) for p in other] == losses
    ours, theirs = other.state.state_dict(), whole.state.state_dict()
    assert "companion" in ours
    assert same_states(ours, theirs)


def test_the_history_decides_before_the_end() -> None:
    """Or the tests above would prove little of it."""
    loop = new_loop("resampled", CONFIG, Accelerator(cpu=True))
    history = loop.state.companion
    assert isinstance(history, LossHistory)
    for _ in itertools.islice(loop, 7):
        assert int(history.counts.sum()) == min(8 * loop.state.step, 40)
    assert (history.counts == 10).all()
    p = history.probabilities()
    assert float(p.max() - p.min()) > 0.05


def test_what_is_learned_is_learned() -> None:
    """By Adam, with the learning rate of the step."""
    loop = new_loop("uncertainty", CONFIG, Accelerator(cpu=True))
    companion = loop.state.companion
    assert companion is not None
    (weights,) = companion.parameters()
    optimizer = torch.optim.Adam([mine := nn.Parameter(weights.detach().clone())], 1.0)
    for progress in loop:
        optimizer.param_groups[0]["lr"] = progress.learning_rate
        mine.grad = weights.grad
        optimizer.step()
        assert torch.equal(mine, weights)
    assert weights.detach().abs().mean() > 0.01


@pytest.mark.parametrize("case", CASES)
def test_accumulated_pieces_are_one_batch(case: str) -> None:
    whole = new_loop(case, CONFIG, alone())
    pieces = new_loop(case, replace(CONFIG, accumulate=4), alone())
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a.loss, b.loss)
    assert_close_states(pieces.state.state_dict(), whole.state.state_dict())


def test_a_checkpoint_without_a_companion_gives_a_fresh_one() -> None:
    """Where the objective was changed on resuming."""
    loop = new_loop("uncertainty", CONFIG, alone())
    state = copy.deepcopy(loop.state.state_dict())
    del state["companion"], state["companion_optimizer"]
    loop.state.load_state_dict(state)
    assert torch.equal(loop.state.companion.weights, torch.zeros(16))  # type: ignore[union-attr, arg-type]


def test_it_is_no_part_of_the_module() -> None:
    loop = new_loop("uncertainty", CONFIG, alone())
    next(iter(loop))
    assert not any("weights" in name and "frequencies" in name for name in loop.state.module.state_dict())
    assert set(loop.state.averaged.module.state_dict()) == set(loop.state.module.state_dict())
    assert len(loop.state.optimizer.param_groups[0]["params"]) == 4


class Doubling(Companion):
    """Makes every weight twice as large after every step."""

    @torch.no_grad()
    def follow(self, module: nn.Module, step: int) -> None:
        torch._foreach_mul_(list(module.parameters()), 2.0)


def test_the_average_sees_the_weights_as_the_companion_left_them() -> None:
    """Of an average that remembers nothing, the last weights are all there is."""
    config = replace(CONFIG, steps=3, average=ExponentialAverage(rate=0.0))
    torch.manual_seed(0)
    module = NetDenoiser(Tiny(1), EDM(), "edm").double()

    def draw(step: int, positions: list[int], rng: object) -> Batch:
        return Batch(DATA[torch.tensor(positions)])

    objective = DenoisingObjective("F", times=LogNormal())
    loop = Loop(TrainingState(module, config, companion=Doubling()), objective, draw, config, alone())
    for _ in loop:
        for seen, weight in zip(loop.state.averaged.module.parameters(), module.parameters(), strict=True):
            assert torch.equal(seen, weight)


# ---- two processes -----------------------------------------------------------------------------------------------------------


def each_process() -> None:
    """What each of the two launched processes does: both layouts against one process."""
    from unstir.training.sharding import Sharded

    with one_of_two() as accelerator:
        config = replace(CONFIG, accumulate=2)
        for case in CASES:
            one = new_loop(case, config, alone(), Replicated())
            for _ in one:
                pass
            wanted = one.state.state_dict()
            for layout in (Replicated(), Sharded(accelerator)):
                two = new_loop(case, config, accelerator, layout)
                for _ in two:
                    pass
                found = two.state.state_dict()
                if accelerator.is_main_process:
                    assert_close_states(found, wanted)
                assert_close_states(found["companion"], wanted["companion"])
            print(case, flush=True)


def test_two_processes_train_what_one_does() -> None:
    check_in_two_processes(__file__)


if __name__ == "__main__":
    each_process()
