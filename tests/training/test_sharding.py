"""Training state in shards: two processes that hold half of everything each, against one that holds all."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from launch import alone, check_in_two_processes, one_of_two
from numeric import assert_close_states
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.denoiser import NetDenoiser
from unstir.networks import UNetConfig
from unstir.objectives import Batch, DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.training.config import AdamW, MuonConfig, TrainingConfig
from unstir.training.guard import NonFiniteError
from unstir.training.layout import Layout, Replicated
from unstir.training.loop import Loop, TrainingState
from unstir.training.sharding import Sharded

SHAPE = (1, 8, 8)
# In float64: some gradients are 0 but for rounding (of the keys' biases), and Adam would make whole steps of their noise.
DATA = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
# Odd channels, which two processes cannot halve; channels-last weights; attention.
NETWORK = UNetConfig(channels=9, multipliers=(1, 2), blocks=(1,), middle=1, head_channels=9)
CLOSE = {"rtol": 1e-6, "atol": 1e-9}
# A gradient limit that bites at every step.
CONFIG = TrainingConfig(steps=6, batch_size=8, learning_rate=3e-3, warmup=0, gradient_clip=0.1)
CASES = {
    "adamw": (replace(CONFIG, optimizer=AdamW(weight_decay=0.1), accumulate=2), NETWORK),
    "muon": (
        replace(CONFIG, optimizer=MuonConfig(orthogonalization_precision="fp32")),
        replace(NETWORK, checkpoint_activations=True),
    ),
}


@dataclass
class Case:
    """One setting, trained in either layout."""

    config: TrainingConfig
    network: UNetConfig

    def loop(self, layout: Layout, accelerator: Any, data: Tensor = DATA) -> Loop:
        torch.manual_seed(0)
        denoiser = NetDenoiser(self.network.build(DataSpec("image", SHAPE), 1), EDM(), "edm").double()

        def draw(step: int, positions: list[int], rng: object) -> Batch:
            return Batch(data[torch.tensor(positions) + 8 * (step % 4)])

        objective = DenoisingObjective("F", times=LogNormal())
        return Loop(TrainingState(denoiser, self.config, layout), objective, draw, self.config, accelerator)


def steps(loop: Loop, count: int) -> list[float]:
    """Trains; -> the gradients' lengths."""
    return [float(progress.gradient_norm) for progress in itertools.islice(loop, count)]


def held(tensors: Any) -> int:
    """Numbers of these tensors that this process holds."""
    return sum(t.to_local().numel() if hasattr(t, "to_local") else t.numel() for t in tensors)


def check_case(case: Case, accelerator: Any) -> None:
    """Sharded is what one process does, from the beginning, and from each other's checkpoints."""
    one, two = case.loop(Replicated(), alone()), case.loop(Sharded(accelerator), accelerator)
    torch.testing.assert_close(steps(two, 3), steps(one, 3), **CLOSE)
    half_one, half_two = (copy.deepcopy(loop.state.state_dict()) for loop in (one, two))  # training goes on in place
    if accelerator.is_main_process:
        assert_close_states(half_two, half_one, **CLOSE)
    everyone = [half_two]  # whole on the first process, which writes it; a file tells the others
    torch.distributed.broadcast_object_list(everyone, src=0)
    steps(one, 3), steps(two, 3)
    expected = one.state.state_dict()
    resumed_one, resumed_two = case.loop(Replicated(), alone()), case.loop(Sharded(accelerator), accelerator)
    resumed_one.state.load_state_dict(everyone[0])
    resumed_two.state.load_state_dict(half_one)
    steps(resumed_one, 3), steps(resumed_two, 3)
    ends = [loop.state.state_dict() for loop in (two, resumed_one, resumed_two)]
    if accelerator.is_main_process:
        for end in ends:
            assert_close_states(end, expected, **CLOSE)
        assert expected["step"] == 6
    # the copy that samples are drawn from
    average = two.state.layout.whole(two.state.averaged.module)
    x, t = DATA[:4], torch.tensor(1.0, dtype=torch.float64)
    torch.testing.assert_close(average(x, t).x_0, one.state.averaged.module(x, t).x_0, **CLOSE)
    assert isinstance(average, NetDenoiser)
    for a, b in zip(average.parameters(), one.state.averaged.module.parameters(), strict=True):
        assert (type(a), a.stride(), a.requires_grad) == (nn.Parameter, b.stride(), False)
    # nobody holds more than a half, but for what cannot be halved
    numbers = sum(p.numel() for p in one.state.module.parameters())
    moments = [value for memory in two.state.optimizer.state.values() for value in memory.values() if value.ndim]
    assert held(two.state.module.parameters()) < 0.56 * numbers
    assert held(two.state.averaged.parameters()) < 0.56 * numbers
    assert held(moments) < 0.56 * sum(moment.numel() for moment in moments)


def check_guard(accelerator: Any) -> None:
    """Not a number in one process's share stops both, and each says what it saw, in either piece of the batch."""
    bad = DATA.clone()
    bad[8 + 1] = torch.nan  # step 2, position 1: of the first process with two pieces each
    loop = Case(*CASES["adamw"]).loop(Sharded(accelerator), accelerator, bad)
    caught: Exception | None = None
    try:
        steps(loop, 2)
    except NonFiniteError as error:
        caught = error
    expected = ("data of this batch are not finite", "another's is not")[accelerator.process_index]
    assert "step 2" in str(caught)
    assert expected in str(caught)
    assert loop.state.step == 1


def each_process() -> None:
    """What each of the two launched processes does."""
    with one_of_two() as accelerator:
        for name, case in CASES.items():
            print(name, flush=True)
            check_case(Case(*case), accelerator)
        print("guard", flush=True)
        check_guard(accelerator)


def test_two_processes_with_a_half_each_train_what_one_does() -> None:
    check_in_two_processes(__file__)


if __name__ == "__main__":
    each_process()
