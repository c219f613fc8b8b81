"""Training with a teacher beside it: exact resumption, pieces of a batch, two processes in both layouts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from launch import alone, check_in_two_processes, one_of_two
from numeric import assert_close_states
from torch import Tensor, nn

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.denoiser import MixtureDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance
from unstir.objectives import Batch, ProgressiveObjective
from unstir.processes import EDM
from unstir.samplers.grids import Karras, Strided
from unstir.sampling import SampleNoise
from unstir.training.config import TrainingConfig
from unstir.training.layout import Layout
from unstir.training.loop import Loop, TrainingState

DATA = torch.randn(64, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CONFIG = TrainingConfig(steps=10, batch_size=8, learning_rate=1e-2, warmup=0.1)
OBJECTIVE = ProgressiveObjective(grid=Strided(Karras(), 8), steps=4, dropout=0.2, guidance_range=(0.5, 3.0))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor, **cond: Tensor) -> Tensor:
        told = [x.flatten(1), c_noise[:, None], label[:, None].to(x), cond[GUIDANCE_SCALE].to(x)]
        return self.last(torch.tanh(self.first(torch.cat(told, 1)))).reshape(len(x), -1, 4)


def teacher(shift: float = 0.0) -> ClassifierFreeGuidance:
    means = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 1, 4) + shift
    return ClassifierFreeGuidance(MixtureDenoiser(EDM(), means, torch.full((1, 1, 1), 0.4).double()), 2.0)


def new_loop(config: TrainingConfig, accelerator: Any, layout: Layout | None = None, shift: float = 0.0) -> Loop:
    torch.manual_seed(0)
    module = NetDenoiser(Tiny(), EDM(), "edm").double()
    state = TrainingState(module, config, layout, OBJECTIVE.companion(EDM(), teacher(shift)))

    def draw(step: int, positions: list[int], rng: SampleNoise) -> Batch:
        rows = torch.tensor(positions) + 8 * (step % 8)
        return Batch(DATA[rows], {"label": rows % 3})

    return Loop(state, OBJECTIVE, draw, config, accelerator)


@pytest.mark.parametrize("stop", [1, 6])
def test_stopped_and_resumed_is_the_run_that_never_stopped(stop: int, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    losses = [float(p.loss) for p in new_loop(CONFIG, accelerator)]
    half = new_loop(CONFIG, accelerator)
    first = [float(p.loss) for p in itertools.islice(half, stop)]
    torch.save(half.state.state_dict(), tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert list(saved["companion"]) == ["fingerprint"]
    other = new_loop(CONFIG, accelerator)
    other.state.load_state_dict(saved)
    assert first + [float(p.loss) for p in other] == losses
    assert len(set(losses)) == len(losses)
    with pytest.raises(UserError, match="not the teacher that this run began with"):
        new_loop(CONFIG, accelerator, shift=1e-9).state.load_state_dict(saved)


def test_accumulated_pieces_are_one_batch() -> None:
    whole, pieces = new_loop(CONFIG, alone()), new_loop(replace(CONFIG, accumulate=4), alone())
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a.loss, b.loss)
    assert_close_states(pieces.state.state_dict(), whole.state.state_dict())


def test_nothing_of_the_teacher_is_trained() -> None:
    loop = new_loop(CONFIG, alone())
    assert loop.state.companion_optimizer is None
    before = teacher().state_dict()
    for _ in loop:
        pass
    after = loop.state.companion.denoiser.state_dict()  # type: ignore[union-attr, operator]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(loop.state.optimizer.param_groups[0]["params"]) == 4


# ---- two processes -----------------------------------------------------------------------------------------------------------


def each_process() -> None:
    """What each of the two launched processes does: both layouts against one process."""
    from unstir.training.layout import Replicated
    from unstir.training.sharding import Sharded

    with one_of_two() as accelerator:
        config = replace(CONFIG, accumulate=2)
        one = new_loop(config, alone(), Replicated())
        for _ in one:
            pass
        wanted = one.state.state_dict()
        for layout in (Replicated(), Sharded(accelerator)):
            two = new_loop(config, accelerator, layout)
            for _ in two:
                pass
            found = two.state.state_dict()
            if accelerator.is_main_process:
                assert_close_states(found, wanted)


def test_two_processes_train_what_one_does() -> None:
    check_in_two_processes(__file__)


if __name__ == "__main__":
    each_process()
