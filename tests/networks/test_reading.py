"""Captions and grids in every network that reads them: what they owe is the same for all."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.conditioning import GridChannels
from unstir.data.spec import Condition, DataSpec
from unstir.networks import DiTConfig, EncoderConfig, MLPConfig, NetworkConfig, UNetConfig

NAN = math.nan
TEXTS = {"words": Condition("text", 7, shape=(5,)), "features": Condition("text", 0, shape=(4, 6))}
GRIDS = {"edges": Condition("grid", 0, shape=(1, 9, 6)), "hole": Condition("grid", 0, shape=(2, 9, 6))}
LABEL = {"label": Condition("class", 3)}
PLAIN = DataSpec("image", (2, 9, 6), conditions=LABEL)
PICTURE = replace(PLAIN, conditions={**LABEL, **TEXTS, **GRIDS})
POINTS = DataSpec("points", (2,), conditions={**LABEL, **TEXTS})

UNET = UNetConfig(channels=8, head_channels=8, middle=2, text_width=16, text_depth=1)
DIT = DiTConfig(depth=2, width=24, heads=3, patch=2, text_width=16, text_depth=1)
READERS: dict[str, tuple[NetworkConfig, DataSpec]] = {
    "unet": (UNET, PICTURE),
    "unet-attending-everywhere": (replace(UNET, attention=(0, 1), norm="group", patch=1), PICTURE),
    "unet-efficient": (replace(UNET, efficient=True, multipliers=(1, 2, 2), blocks=(1, 2), attention=(2,)), PICTURE),
    "unet-recomputing": (replace(UNET, checkpoint_activations=True), PICTURE),
    "dit": (DIT, PICTURE),
    "dit-text-in-context": (replace(DIT, text="in-context"), PICTURE),
    "dit-text-pooled": (replace(DIT, text="pooled"), PICTURE),
    "dit-in-context": (replace(DIT, conditioning="in-context", text="in-context"), PICTURE),
    "dit-cross-attention": (replace(DIT, conditioning="cross-attention"), PICTURE),
    "encoder": (EncoderConfig(channels=8, head_channels=8, dropout=0, text_width=16), PICTURE),
    "mlp": (MLPConfig(width=16, depth=2), POINTS),
}
CHANGED = ("dit-text-in-context", "dit-in-context", "dit-cross-attention")
CONVERTS = [name for name in READERS if name not in CHANGED]
"""Those to which captions can be added without changing what they say. More tokens in an attention that was there do change it."""
WITH_GRIDS = [name for name, (_, spec) in READERS.items() if spec is PICTURE and name != "encoder"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(network: nn.Module) -> nn.Module:
    """With small random numbers where it has zeros, so that every path carries something."""
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return network


def new(name: str, *, to: DataSpec | None = None) -> nn.Module:
    torch.manual_seed(0)
    config, spec = READERS[name]
    return config.build(to or spec, 2).double().eval()


def asked(spec: DataSpec) -> dict[str, Tensor]:
    """Conditions of four samples, of which the last has none."""
    words = torch.tensor([[1, 2, 3, -1, -1], [3, 2, 1, -1, -1], [0, -1, -1, -1, -1], [-1] * 5])
    features, edges, hole = randn(4, 4, 6), randn(4, 1, 9, 6, seed=1), randn(4, 2, 9, 6, seed=2)
    features[1, 2:], features[3], edges[3], hole[3] = NAN, NAN, NAN, NAN
    hole[:3, :, 2:5, 1:4] = NAN
    everything = {"words": words, "features": features, "edges": edges, "hole": hole}
    return {name: everything[name] for name in spec.conditions if name in everything}


def question(name: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    spec = READERS[name][1]
    return randn(4, *spec.shape, seed=3), randn(4, seed=4), asked(spec)


@pytest.mark.parametrize("name", READERS)
def test_gradients_reach_every_parameter(name: str) -> None:
    network, (x, c_noise, cond) = awake(new(name)), question(name)
    network(x, c_noise, label=torch.tensor([0, 1, 2, -1]), **cond).square().mean().backward()
    still = [key for key, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", READERS)
def test_null_is_absence_and_each_condition_is_heard(name: str) -> None:
    network, (x, c_noise, cond) = awake(new(name)), question(name)
    absent = network(x, c_noise)
    for key, value in cond.items():
        given = network(x, c_noise, **{key: value})
        null = torch.full_like(value, NAN if value.is_floating_point() else -1)
        assert torch.equal(network(x, c_noise, **{key: null}), absent)
        torch.testing.assert_close(given[3], absent[3])
        heard = [not torch.allclose(given[b], absent[b]) for b in range(3)]
        assert heard == [not (name == "encoder" and key in GRIDS)] * 3


@pytest.mark.parametrize("name", READERS)
def test_company_changes_nothing(name: str) -> None:
    network, (x, c_noise, cond) = awake(new(name)), question(name)
    together = network(x, c_noise, **cond)
    for b in range(4):
        alone = network(x[b : b + 1], c_noise[b : b + 1], **{key: value[b : b + 1] for key, value in cond.items()})
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", READERS)
def test_more_padding_changes_nothing(name: str) -> None:
    """Shorter and longer than declared, up to rounding."""
    network, (x, c_noise, cond) = awake(new(name)), question(name)
    F = network(x, c_noise, words=cond["words"], features=cond["features"])
    cut = network(x, c_noise, words=cond["words"][:, :3], features=cond["features"])
    torch.testing.assert_close(cut, F, rtol=1e-9, atol=1e-10)
    words = nn.functional.pad(cond["words"], (0, 30), value=-1)
    features = nn.functional.pad(cond["features"], (0, 0, 0, 9), value=NAN)
    torch.testing.assert_close(network(x, c_noise, words=words, features=features), F, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", READERS)
def test_the_order_of_letters_is_heard(name: str) -> None:
    network, (x, c_noise, cond) = awake(new(name)), question(name)
    x, c_noise = x[:1].expand_as(x), c_noise[:1].expand_as(c_noise)
    abc, cba, *_ = network(x, c_noise, words=cond["words"])
    assert not torch.allclose(abc, cba, atol=1e-6)


@pytest.mark.parametrize("precision", ["double", "single", "bf16"])
@pytest.mark.parametrize("name", READERS)
def test_added_conditions_change_no_bit_at_first(name: str, precision: str) -> None:
    """A trained network's weights in one that also reads captions and grids."""
    config, spec = READERS[name]
    added = ("text", "grid") if name in CONVERTS else ("grid",)
    without = replace(spec, conditions={key: c for key, c in spec.conditions.items() if c.kind not in added})
    torch.manual_seed(0)
    trained, reading = awake(config.build(without, 2)).eval(), config.build(spec, 2).eval()
    loaded = reading.load_state_dict(trained.state_dict(), strict=False)
    assert loaded.unexpected_keys == []
    assert loaded.missing_keys
    x, c_noise, cond = question(name)
    label = torch.tensor([0, 1, 2, -1])
    kind = torch.float64 if precision == "double" else torch.float32
    trained, reading, x, c_noise = trained.to(kind), reading.to(kind), x.to(kind), c_noise.to(kind)
    known = {key: value for key, value in cond.items() if key in without.conditions}
    found = []
    for network, conditions in ((trained, known), (reading, cond), (awake(copy.deepcopy(reading)), cond)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found.append(network(x, c_noise, label=label, **conditions))
    before, after, later = found
    assert torch.equal(before, after)
    assert not torch.equal(before, later)


@pytest.mark.parametrize("name", WITH_GRIDS)
def test_what_is_not_known_is_not_zero(name: str) -> None:
    network, (x, c_noise, cond) = awake(new(name)), question(name)
    zeros = cond["hole"].nan_to_num(0.0)
    assert not torch.allclose(network(x, c_noise, hole=cond["hole"])[:3], network(x, c_noise, hole=zeros)[:3])


def test_grid_channels_are_values_and_where_they_are_known() -> None:
    channels = GridChannels(PICTURE.conditions)
    assert channels.channels == (1 + 1) + (2 + 1)
    cond = asked(PICTURE)
    cond["hole"][0, 1, 0, 0] = (
        NAN  # one of two channels: its value is lost, the other's is not, and the place is not known
    )
    found = channels(randn(4, 2, 9, 6), cond)
    torch.testing.assert_close(found[:, 0], cond["edges"][:, 0].nan_to_num(0.0))
    torch.testing.assert_close(found[:, 1], torch.tensor([1.0, 1, 1, 0]).double()[:, None, None].expand(4, 9, 6))
    torch.testing.assert_close(found[:, 2:4], cond["hole"].nan_to_num(0.0))
    known = (~cond["hole"].isnan()).double()
    torch.testing.assert_close(found[:, 4], known[:, 0] * known[:, 1])
    assert found[0, 2, 0, 0] != 0
    assert torch.equal(channels(randn(4, 2, 9, 6), {}), torch.zeros(4, 5, 9, 6).double())
    with pytest.raises(ValueError, match=r"'edges' is \[1, 9, 7\]"):
        channels(randn(4, 2, 9, 6), {"edges": randn(4, 1, 9, 7)})


def test_a_grid_is_more_channels_of_the_stem() -> None:
    """One convolution of everything, with the weights side by side."""
    network, (x, _, cond) = awake(new("unet")), question("unet")
    both = torch.cat([network.patches(x), network.patches(network.grids(x, cond))], 1)
    weight = torch.cat([network.stem.weight, network.grid_stem.weight], 1)
    expected = nn.functional.conv2d(both, weight, network.stem.bias + network.grid_stem.bias, padding=1)
    torch.testing.assert_close(network.enter(x, cond), expected)


def test_no_captions_no_grids_nothing_new() -> None:
    """Runs from before there were any load as they are."""
    for config in (UNET, DIT, EncoderConfig()):
        keys = config.build(PLAIN, 2).state_dict()
        assert not [key for key in keys if any(word in key for word in ("captions", "cross", "grid", "text"))]
