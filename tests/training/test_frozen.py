"""Weights that training must not touch: in the optimiser, the average, the checkpoints, and shared out over processes."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from launch import alone, check_in_two_processes, one_of_two
from numeric import assert_close_states
from torch import Tensor, nn

from unstir.conditioning.derived import Edges
from unstir.data.spec import DataSpec
from unstir.denoiser import NetDenoiser
from unstir.networks import ControlNetConfig, UNetConfig
from unstir.objectives import Batch, DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.training.config import AdamW, MuonConfig, OptimizerConfig, TrainingConfig
from unstir.training.layout import Layout, Replicated
from unstir.training.loop import Loop, TrainingState

SHAPE = (1, 8, 8)
# In float64: some gradients are 0 but for rounding (of the keys' biases), and Adam would make whole steps of their noise.
DATA = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
UNET = UNetConfig(channels=9, multipliers=(1, 2), blocks=(1,), middle=1, head_channels=9, dropout=0.2)
CONFIG = TrainingConfig(steps=6, batch_size=8, learning_rate=3e-3, warmup=0, gradient_clip=0.1)
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "adamw": AdamW(weight_decay=0.5),
    "muon": MuonConfig(orthogonalization_precision="fp32"),
}
CLOSE = {"rtol": 1e-6, "atol": 1e-9}


def new_loop(
    optimizer: OptimizerConfig,
    layout: Layout | None = None,
    accelerator: Any = None,
    *,
    network: UNetConfig = UNET,
    accumulate: int = 1,
) -> Loop:
    """A ControlNet around a base of which nothing is 0, steered by edges, its conditions dropped now and then."""
    config = replace(CONFIG, optimizer=optimizer, accumulate=accumulate)
    spec = Edges().described(DataSpec("image", SHAPE, bounds=(-1.0, 1.0)))
    torch.manual_seed(0)
    denoiser = NetDenoiser(ControlNetConfig(network, hint_channels=4).build(spec, 1), EDM(), "edm").double()
    for parameter in denoiser.network.get_submodule("base").parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)

    def draw(step: int, positions: list[int], rng: Any) -> Batch:
        x = DATA[torch.tensor(positions) + 8 * (step % 4)]
        return Batch(x, Edges().training(x, rng))

    objective = DenoisingObjective("F", times=LogNormal(), dropout=0.3)
    return Loop(TrainingState(denoiser, config, layout), objective, draw, config, accelerator or alone())


def base_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith("network.base.")}


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {key: value.detach().clone().numpy().tobytes() for key, value in tensors.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(name: str) -> None:
    loop = new_loop(OPTIMIZERS[name])
    before = copy.deepcopy(loop.state.module.state_dict())
    frozen = bits(base_of(before))
    assert len(frozen) > 20
    in_optimizer = {id(p) for group in loop.state.optimizer.param_groups for p in group["params"]}
    assert in_optimizer == {id(p) for p in loop.state.module.parameters() if p.requires_grad}
    for _ in loop:
        pass
    for state in (loop.state.module.state_dict(), loop.state.averaged.module.state_dict()):
        assert bits(base_of(state)) == frozen
    after = loop.state.module.state_dict()
    still = [key for key, value in after.items() if key not in frozen and torch.equal(value, before[key])]
    assert still == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stopped_and_resumed_is_the_run_that_never_stopped(name: str) -> None:
    whole = new_loop(OPTIMIZERS[name])
    losses = [float(p.loss) for p in whole]
    half = new_loop(OPTIMIZERS[name])
    first = [float(p.loss) for p in itertools.islice(half, 3)]
    saved = copy.deepcopy(half.state.state_dict())
    torch.manual_seed(999)  # another process has another history
    other = new_loop(OPTIMIZERS[name])
    with torch.no_grad():
        for parameter in other.state.module.parameters():  # and no base to start from
            parameter.add_(1.0)
    other.state.load_state_dict(saved)
    assert first + [float(p.loss) for p in other] == losses
    assert_close_states(other.state.state_dict(), whole.state.state_dict(), rtol=0, atol=0)


def test_the_average_of_what_learns_is_what_it_was() -> None:
    """Leaving the frozen weights out changes nothing for the others: the average written out."""
    loop = new_loop(OPTIMIZERS["adamw"])
    mine = [p.clone() for p in loop.state.averaged.module.parameters()]
    for progress in loop:
        decay = loop.config.average.decay(progress.step)
        mine = [decay * a + (1 - decay) * p.detach() for a, p in zip(mine, loop.state.module.parameters(), strict=True)]
    torch.testing.assert_close(mine, [p.clone() for p in loop.state.averaged.module.parameters()])


def check_layout(name: str, layout: Layout, accelerator: Any) -> None:
    """Two processes do what one does, from the beginning and from its checkpoint; nobody moves the base."""
    network = replace(UNET, dropout=0.0)  # its masks are each process's own

    def loop(layout: Layout, accelerator: Any) -> Loop:
        return new_loop(OPTIMIZERS[name], layout, accelerator, network=network, accumulate=2)

    one, two = loop(Replicated(), alone()), loop(layout, accelerator)
    frozen = bits(base_of(one.state.module.state_dict()))
    norms = [[float(p.gradient_norm) for p in itertools.islice(each, 2)] for each in (one, two)]
    torch.testing.assert_close(norms[1], norms[0], **CLOSE)
    two.state.load_state_dict(copy.deepcopy(one.state.state_dict()))
    for each in (one, two):
        assert len(list(itertools.islice(each, 2))) == 2
    end = two.state.state_dict()
    if accelerator.is_main_process:
        assert_close_states(end, one.state.state_dict(), **CLOSE)
        assert bits(base_of(end["module"])) == frozen
        assert bits(base_of(end["averaged"])) == frozen
    average = two.state.layout.whole(two.state.averaged.module)
    x, t = DATA[:4], torch.tensor(1.0, dtype=torch.float64)
    cond = Edges().given(x, DataSpec("image", SHAPE, bounds=(-1.0, 1.0)))
    torch.testing.assert_close(average(x, t, **cond).x_0, one.state.averaged.module(x, t, **cond).x_0, **CLOSE)


def each_process() -> None:
    """What each of the two launched processes does."""
    from unstir.training.sharding import Sharded

    with one_of_two() as accelerator:
        check_layout("adamw", Replicated(), accelerator)
        print("shards", flush=True)
        check_layout("muon", Sharded(accelerator), accelerator)


def test_two_processes_train_what_one_does_around_what_is_frozen() -> None:
    check_in_two_processes(__file__)


if __name__ == "__main__":
    each_process()
