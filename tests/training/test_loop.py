"""The loop: exact resumption, equal shares, the guard, and that it learns."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from numeric import same_states
from torch import Tensor, nn

from unstir.data.order import indices
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.objectives import Batch, DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.sampling import SampleNoise
from unstir.training.config import ConstantDecay, LinearDecay, TrainingConfig
from unstir.training.ema import ExponentialAverage, PowerAverage
from unstir.training.guard import NonFiniteError
from unstir.training.loop import Loop, TrainingState

DATA = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 0.3 + torch.tensor([1.0, -1.0])


class Tiny(nn.Module):
    """Two layers with dropout: enough to notice any randomness that is not a function of the step."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Linear(3, 32)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(32, 2)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.first(torch.cat([x, c_noise[:, None]], 1)))))


def draw(batch_size: int):
    return lambda step, positions, rng: Batch(DATA[indices(len(DATA), batch_size, step, 0)[positions]])


def new_loop(config: TrainingConfig, dropout: float = 0.2) -> Loop:
    torch.manual_seed(0)
    denoiser = NetDenoiser(Tiny(dropout), EDM(), "edm", sigma_data=1.0)
    objective = DenoisingObjective("F", times=LogNormal())
    return Loop(TrainingState(denoiser, config), objective, draw(config.batch_size), config, Accelerator(cpu=True))


CONFIG = TrainingConfig(steps=12, batch_size=8, learning_rate=1e-2)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_stopped_and_resumed_is_the_run_that_never_stopped(stop: int) -> None:
    whole = new_loop(CONFIG)
    losses = [float(p.loss) for p in whole]
    half = new_loop(CONFIG)
    first = [float(p.loss) for p in itertools.islice(half, stop)]
    saved = copy.deepcopy(half.state.state_dict())
    torch.manual_seed(999)  # another process has another history
    other = new_loop(CONFIG)
    other.state.load_state_dict(saved)
    rest = [float(p.loss) for p in other]
    assert first + rest == losses
    ours, theirs = other.state.state_dict(), whole.state.state_dict()
    assert same_states(ours, theirs)


def test_accumulation_gives_the_same_gradient() -> None:
    config = replace(CONFIG, steps=5)
    whole, pieces = new_loop(config, dropout=0), new_loop(replace(config, accumulate=4), dropout=0)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a.loss, b.loss)
    for a, b in zip(whole.state.module.parameters(), pieces.state.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_it_learns_the_data() -> None:
    """The averaged network comes close to the exact denoiser of the Gaussian that the data were drawn from."""
    config = replace(CONFIG, steps=1000, batch_size=64)
    loop = new_loop(config, dropout=0)
    exact = GaussianDenoiser(EDM(), DATA.mean(0), DATA.std(0))
    rng = SampleNoise(1, range(500))
    t = LogNormal().quantile(EDM(), rng.uniform())
    x_0 = DATA[torch.arange(500) % 50]
    x_t = EDM().add_noise(x_0, t, rng.normal((2,)))

    def distance() -> float:
        return float((loop.state.averaged.module(x_t, t).x_0 - exact(x_t, t).x_0).square().mean())

    before = distance()
    for _ in loop:
        pass
    assert before > 0.1
    assert distance() < 0.05 * before


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (
            lambda loop: loop.state.module.network.last.weight.data.fill_(float("inf")),
            "weights are not finite, first in network.last.weight",
        ),
        (lambda loop: loop.state.module.network.last.weight.data.fill_(3e38), "layer network.last (Linear)"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(poison, said: str) -> None:
    loop = new_loop(CONFIG)
    steps = iter(loop)
    next(steps), next(steps)
    poison(loop)
    with pytest.raises(NonFiniteError) as error:
        next(steps)
    message = str(error.value)
    assert "step 3" in message
    assert said.lower() in message.lower()
    assert loop.state.step == 2


def test_non_finite_data_are_named() -> None:
    loop = new_loop(CONFIG)
    loop.draw = lambda step, positions, rng: Batch(torch.full((8, 2), float("nan")))
    with pytest.raises(NonFiniteError, match="data of this batch"):
        next(iter(loop))


def test_the_layer_and_noise_level_of_an_overflow_are_named() -> None:
    loop = new_loop(CONFIG)

    class Explode(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 2.5, torch.inf, x)  # only where the noise is small is the first feature this large

    loop.state.module.network.drop = Explode()
    loop.state.module.network.first.weight.data[:] = torch.tensor([0.0, 0.0, -100.0])
    loop.state.module.network.first.bias.data.zero_()
    loop.state.module.network.drop.register_forward_pre_hook(lambda m, a: (a[0] * 3,))
    with pytest.raises(NonFiniteError, match=r"layer network\.drop \(Explode\); noise levels sigma/alpha") as error:
        next(iter(loop))
    low, high = (float(word) for word in str(error.value).split("sigma/alpha ")[1].split(".\n")[0].split(" to "))
    assert 0 < low <= high < 1  # c_noise < 0 is sigma < 1


def test_length_is_whichever_comes_first() -> None:
    config = TrainingConfig(steps=100, images=640, minutes=2, batch_size=64)
    assert config.fraction(5, 0) == 0.5  # 320 of 640 images
    assert config.fraction(1, 60) == 0.5
    assert config.fraction(1000, 0) == 1
    with pytest.raises(UserError, match="no length"):
        TrainingConfig().fraction(0, 0)


def test_learning_rate_warms_up_stays_and_goes_down() -> None:
    config = TrainingConfig(steps=100, learning_rate=1.0, warmup=0.1, decay=LinearDecay(0.5))
    assert config.learning_rate_at(0.05, 5) == pytest.approx(0.5)
    assert config.learning_rate_at(0.3, 30) == 1
    assert config.learning_rate_at(0.75, 75) == pytest.approx(0.5)
    assert replace(config, decay=ConstantDecay(), warmup=0).learning_rate_at(0.99, 99) == 1


def test_power_average_has_the_width_it_says() -> None:
    """The weights that the average gives to steps 1..n have the relative standard deviation asked for."""
    n, average = 4000, PowerAverage(0.1)
    weights = torch.zeros(n, dtype=torch.float64)
    for step in range(1, n + 1):
        decay = average.decay(step)
        weights *= decay
        weights[step - 1] += 1 - decay
    t = torch.arange(1, n + 1, dtype=torch.float64) / n
    mean = (weights * t).sum()
    assert float(weights.sum()) == pytest.approx(1)
    assert float((weights * (t - mean) ** 2).sum().sqrt()) == pytest.approx(0.1, rel=0.01)


def test_exponential_average_warms_up() -> None:
    average = ExponentialAverage(0.99)
    assert average.decay(1) == pytest.approx(2 / 11)
    assert average.decay(10_000) == 0.99


def test_average_follows_parameters_and_copies_buffers() -> None:
    config = replace(CONFIG, steps=3, average=ExponentialAverage(0.5))
    loop = new_loop(config)
    loop.state.module.register_buffer("count", torch.zeros(()))
    loop = Loop(TrainingState(loop.state.module, config), loop.objective, loop.draw, config, loop.accelerator)
    mine = [p.clone() for p in loop.state.averaged.parameters()]
    for progress in loop:
        decay = config.average.decay(progress.step)
        mine = [decay * a + (1 - decay) * p.detach() for a, p in zip(mine, loop.state.module.parameters(), strict=True)]
        loop.state.module.count += 1
    for ours, theirs in zip(mine, loop.state.averaged.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert float(loop.state.averaged.module.count) == 2  # as of the last update, not an average of 0, 1, 2


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match=r"multiple of training\.accumulate"):
        TrainingConfig(steps=1, batch_size=10, accumulate=3)


def test_rows_of_the_noise_do_not_depend_on_the_share() -> None:
    whole = SampleNoise(3, range(8), total=8).normal((2,))
    shares = [SampleNoise(3, rows, total=8).normal((2,)) for rows in ([0, 1, 2, 3], [4, 5, 6, 7])]
    assert torch.equal(whole, torch.cat(shares))
