"""What every network in the table owes: it starts at zero, reads its conditions and noise level, and all of it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.networks import (
    NETWORKS,
    AutoencoderNetworkConfig,
    ContextUNetConfig,
    ControlNetConfig,
    DiTConfig,
    EncoderConfig,
    MLPConfig,
    NetworkConfig,
    PriorNetworkConfig,
    UNetConfig,
)

CONDITIONS = {"label": Condition("class", 3), "size": Condition("vector", 2), "caption": Condition("text", 0)}
POINTS, PICTURE = DataSpec("points", (3,), conditions=CONDITIONS), DataSpec("image", (3, 9, 6), conditions=CONDITIONS)
SMALL: dict[str, tuple[NetworkConfig, DataSpec]] = {
    "unet": (UNetConfig(channels=8, middle=2), PICTURE),
    "dit": (DiTConfig(depth=2, width=24, heads=3), PICTURE),
    "mlp": (MLPConfig(width=16, depth=2), POINTS),
    "context_unet": (ContextUNetConfig(n_feat=8), PICTURE),
    "prior": (PriorNetworkConfig(width=16, depth=2, heads=2), POINTS),
    "encoder": (EncoderConfig(channels=8, head_channels=8, dropout=0), PICTURE),
    "controlnet": (
        ControlNetConfig(UNetConfig(channels=8, middle=2), knows=("label", "caption"), hint_channels=8),
        PICTURE,
    ),
}
"""A small configuration of every network. A new network needs a line here."""
NAMES = sorted(SMALL)
LABEL, SIZE = torch.tensor([0, 1, 2, -1]), torch.tensor([[0.5, -1.0]] * 4)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(network: nn.Module) -> nn.Module:
    """The network with small random numbers where it has zeros, so that every path carries something."""
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return network


def new(name: str, out_channels: int = 3) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    config, spec = SMALL[name]
    return config.build(spec, out_channels), randn(4, *spec.shape)


def test_every_network_is_tested() -> None:
    """The autoencoder's is told no noise level: tests/test_autoencoder.py."""
    assert {name: type(config) for name, (config, _) in SMALL.items()} | {
        "autoencoder": AutoencoderNetworkConfig
    } == NETWORKS


def output_shape(config: NetworkConfig, spec: DataSpec, batch: int, channels: int) -> tuple[int, ...]:
    return (batch, channels) if config.pooled else (batch, channels, *spec.shape[1:])


@pytest.mark.parametrize("name", ["unet", "dit", "mlp", "prior", "encoder", "controlnet"])
def test_an_untrained_network_says_zero(name: str) -> None:
    network, x = new(name)
    zeros = torch.zeros(output_shape(*SMALL[name], 4, 3))
    assert torch.equal(network(x, randn(4), label=LABEL, size=SIZE), zeros)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    """Data-parallel training waits forever (or fails) for a parameter that is never used."""
    network, x = new(name)
    awake(network)(x, randn(4), label=LABEL, size=SIZE).square().mean().backward()
    learning = {key: p for key, p in network.named_parameters() if p.requires_grad}
    still = [key for key, p in learning.items() if p.grad is None or not bool(p.grad.any())]
    assert still == []


@pytest.mark.parametrize("name", NAMES)
def test_null_is_absence_and_a_condition_is_not(name: str) -> None:
    network, x = new(name)
    network, c_noise = awake(network).eval(), randn(4)
    absent, given = network(x, c_noise), network(x, c_noise, label=LABEL, size=SIZE)
    null = network(x, c_noise, label=torch.full((4,), -1), size=torch.full((4, 2), torch.nan))
    assert torch.equal(null, absent)
    by_label, by_size = network(x, c_noise, label=LABEL), network(x, c_noise, size=SIZE)
    assert torch.equal(by_label[3], absent[3])  # the one sample whose label is null
    for b in range(3):
        assert not torch.allclose(by_label[b], absent[b])
        assert not torch.allclose(by_size[b], absent[b])
        assert not torch.allclose(given[b], by_label[b])
    torch.testing.assert_close(network(x, c_noise, caption=torch.ones(4)), absent)  # left to networks that can read
    with pytest.raises(ValueError, match="lable"):
        network(x, c_noise, lable=LABEL)


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_its_own_noise_level_and_condition(name: str) -> None:
    network, x = new(name)
    network, c_noise = awake(network).eval(), torch.tensor([-2.5, -0.5, 0.7, 2.5])
    together = network(x, c_noise, label=LABEL)
    for b in range(4):
        alone = network(x[b : b + 1], c_noise[b : b + 1], label=LABEL[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(x, c_noise.flip(0), label=LABEL), together)


@pytest.mark.parametrize("name", NAMES)
def test_channels_in_and_out_are_free(name: str) -> None:
    config, spec = SMALL[name]
    network = awake(config.build(spec, out_channels=6, in_channels=5)).eval()
    x = randn(2, 5, *spec.shape[1:]).requires_grad_()
    F = network(x, randn(2))
    assert F.shape == output_shape(config, spec, 2, 6)
    for channel in range(6):  # each output hears each input
        (heard,) = torch.autograd.grad(F[:, channel].square().sum(), x, retain_graph=True)
        assert heard.reshape(2, 5, -1).any(2).all()


@pytest.mark.parametrize("name", NAMES)
def test_float64_all_the_way(name: str) -> None:
    network, x = new(name)
    network = awake(network).eval()
    single = network(x, LABEL / 4, label=LABEL, size=SIZE)
    double = network.double()(x.double(), LABEL.double() / 4, label=LABEL, size=SIZE)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_data_may_call_a_condition_x(name: str) -> None:
    config, spec = SMALL[name]
    conditions = {"x": Condition("class", 2), "c_noise": Condition("vector", 1)}
    network = awake(config.build(DataSpec(spec.kind, spec.shape, conditions=conditions), 3)).eval()
    a, b = (network(randn(1, *spec.shape), randn(1), **{"x": torch.tensor([i])}) for i in range(2))
    assert not torch.allclose(a, b)


WRONG: list[tuple[NetworkConfig, DataSpec, str]] = [
    (UNetConfig(), POINTS, "mlp"),
    (MLPConfig(), PICTURE, "unet"),
    (ContextUNetConfig(), DataSpec("signal", (1, 20)), "unet"),
    (UNetConfig(attention=(2,)), PICTURE, "0 to 1"),
    (UNetConfig(multipliers=(), attention=()), PICTURE, "multipliers"),
    (UNetConfig(channels=0), PICTURE, "at least 1"),
    (UNetConfig(blocks=()), PICTURE, "at least 1"),
    (UNetConfig(blocks=(1, 2)), PICTURE, "one for each of 1 levels"),
    (DiTConfig(), POINTS, "mlp"),
    (PriorNetworkConfig(), PICTURE, "dit"),
    (PriorNetworkConfig(width=30), POINTS, "multiple of network.heads"),
    (EncoderConfig(), POINTS, "mlp"),
    (EncoderConfig(attention=(3,)), PICTURE, "0 to 2"),
    (ContextUNetConfig(n_feat=20), PICTURE, "multiple of 8"),
]


@pytest.mark.parametrize(("config", "spec", "words"), WRONG)
def test_a_wrong_choice_is_said_in_plain_words(config: NetworkConfig, spec: DataSpec, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config.build(spec, 3)
