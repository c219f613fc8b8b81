"""ControlNet: at first its base, to the bit; what a control then adds; and how much that counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from unstir.data.spec import Condition, DataSpec, Kind
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance, ControlStrength
from unstir.networks import ControlNetConfig, DiTConfig, EncoderConfig, MLPConfig, NetworkConfig, UNetConfig
from unstir.networks.controlnet import STRENGTH, ControlNet
from unstir.processes import EDM

SMALL = UNetConfig(channels=8, multipliers=(1, 2, 2), attention=(1, 2), middle=2, head_channels=8, dropout=0.3)
LABELS = {"label": Condition("class", 3)}
WORDS = {"text": Condition("text", 256, ("ab",), shape=(5,), encoder="bytes")}


@dataclass(frozen=True)
class Case:
    """A base and its data."""

    kind: Kind
    grid: tuple[int, ...]
    config: UNetConfig
    conditions: dict[str, Condition]


CASES = {
    "signal": Case("signal", (21,), SMALL, LABELS),
    "picture": Case("image", (9, 6), replace(SMALL, norm="group"), LABELS),
    "picture, single pixels, no conditions": Case("image", (9, 6), replace(SMALL, patch=1), {}),
    "picture, efficient, captions": Case("image", (16, 16), replace(SMALL, efficient=True, text_width=16), WORDS),
    "picture, one level": Case("image", (6, 6), UNetConfig(channels=8, multipliers=(1,), attention=(0,), middle=1), LABELS),
    "volume": Case("volume", (5, 4, 6), SMALL, LABELS),
    "a base with a grid of its own": Case("image", (9, 6), SMALL, {"low_res": Condition("grid", 0, shape=(2, 9, 6))}),
}  # fmt: skip
NAMES = list(CASES)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(network: nn.Module) -> None:
    """Small random numbers where it has zeros, so that every path carries something."""
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)


@dataclass
class Pair:
    """A base that was trained (so its last layers are not 0), and a ControlNet around it."""

    base: nn.Module
    control: ControlNet
    x: Tensor
    c_noise: Tensor
    known: dict[str, Tensor]
    edges: Tensor


def pair(name: str) -> Pair:
    case = CASES[name]
    torch.manual_seed(0)
    spec = DataSpec(case.kind, (2, *case.grid), conditions=case.conditions)
    base = case.config.build(spec, 2)
    awake(base)
    controls = {"edges": Condition("grid", 0, shape=(1, *case.grid)), "level": Condition("vector", 1)}
    around = ControlNetConfig(hint_channels=4).around(case.config, case.conditions)
    control = around.build(replace(spec, conditions={**case.conditions, **controls}), 2)
    assert isinstance(control, ControlNet)
    control.base.load_state_dict(base.state_dict())
    missing = control.copy.load_state_dict(base.state_dict(), strict=False).missing_keys
    assert all(key.startswith("embedding.conditions.parts.") for key in missing)  # of what the base does not know
    known = {"label": torch.tensor([0, -1, 2]), "text": torch.tensor([[97, 98, -1, -1, -1], [-1] * 5, [99] * 5])}
    known["low_res"] = randn(3, 2, *case.grid, seed=4)
    asked = {key: value for key, value in known.items() if key in case.conditions}
    edges = randn(3, 1, *case.grid, seed=2)
    edges[1, :, :2] = torch.nan
    return Pair(base.eval(), control.eval(), randn(3, 2, *case.grid), torch.tensor([-1.0, 0.3, 2.0]), asked, edges)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_before_training_it_is_its_base_to_the_bit(name: str, dtype: torch.dtype | None) -> None:
    p = pair(name)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        expected = p.base(p.x, p.c_noise, **p.known)
        assert bool(expected.any())
        for control in ({}, {"edges": p.edges}, {"edges": p.edges, "level": randn(3, 1)}):
            assert torch.equal(p.control(p.x, p.c_noise, **p.known, **control), expected)
        strength = torch.full((3,), 1.7)
        assert torch.equal(p.control(p.x, p.c_noise, **p.known, edges=p.edges, **{STRENGTH: strength}), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_reaches_the_zero_convolutions_and_the_second_all_that_learns(name: str) -> None:
    p = pair(name)
    before = {key: value.clone() for key, value in p.base.state_dict().items()}
    learning = {key: q for key, q in p.control.named_parameters() if q.requires_grad}
    assert not any(key.startswith("base.") for key in learning)
    for step in range(2):
        p.control.zero_grad(set_to_none=True)
        p.control(p.x, p.c_noise, **p.known, edges=p.edges, level=randn(3, 1)).square().mean().backward()
        moved = {key for key, q in learning.items() if q.grad is not None and bool(q.grad.any())}
        first = {key for key in learning if key.startswith("zeros.")}
        # Layers in the hint and for the level lie behind zeros of their own, which move at the second step.
        assert (
            moved == first
            if step == 0
            else moved >= {key for key in learning if key.startswith(("zeros.", "copy.stem"))}
        )
        assert all(q.grad is not None for q in learning.values())  # which data-parallel training waits for
        assert all(q.grad is None for q in p.control.base.parameters())
        with torch.no_grad():
            for q in learning.values():
                q -= 0.1 * q.grad
    assert "hint.layers.4.weight" in moved
    for key, value in p.control.base.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_papers_sum_at_every_connection(name: str) -> None:
    """Eq. 2, by hooks in two plain U-Nets: the base, whose way up gets a sum; and the copy, whose first features do."""
    p = pair(name)
    awake(p.control)
    level = randn(3, 1, seed=5)
    controls, efficient = p.control, CASES[name].config.efficient
    with torch.no_grad():
        edges = p.edges.nan_to_num(0.0)
        known = (~p.edges.isnan()).any(1, keepdim=True).float()
        hint = p.control.hint.layers(p.control.base.patches(torch.cat([edges, known], 1)))
        felt: dict[str, Tensor] = {}
        copy = p.control.copy
        hooks = [copy.stem.register_forward_hook(lambda layer, inputs, output: output + hint)]
        for key, part in (*((f"down.{i}", stack) for i, stack in enumerate(copy.down)), ("middle", copy.middle)):
            hooks.append(part.register_forward_hook(lambda layer, inputs, output, key=key: felt.update({key: output})))
        told = {key: value for key, value in p.known.items() if key != "low_res"}
        embedding = copy.embedding(p.c_noise, {**told, "level": level})
        copy.encode(copy.enter(p.x, p.known), embedding)
        for hook in hooks:
            hook.remove()

        def add_to_skip(index: int):
            added = controls.zeros[index](felt[f"down.{index}"]) * (0.5**0.5 if efficient else 1)

            def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                joined, *rest = inputs
                half = joined.shape[1] // 2
                return (torch.cat([joined[:, :half], joined[:, half:] + added], 1), *rest)

            return hook

        for index, stack in enumerate(p.base.up):
            stack.register_forward_pre_hook(add_to_skip(index))
        middle = controls.zeros[-1](felt["middle"])
        p.base.middle.register_forward_hook(lambda layer, inputs, output: output + middle)
        expected = p.base(p.x, p.c_noise, **p.known)
        given = p.control(p.x, p.c_noise, **p.known, edges=p.edges, level=level)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["signal", "picture, efficient, captions"])
def test_strength(name: str) -> None:
    """0 is the base to the bit, 1 is what is without it, 2 twice the zero convolutions; each sample has its own."""
    p = pair(name)
    awake(p.control)

    def at(*strengths: float) -> Tensor:
        strength = torch.tensor(strengths)
        return p.control(p.x, p.c_noise, **p.known, edges=p.edges, **{STRENGTH: strength})

    with torch.no_grad():
        base, full = p.base(p.x, p.c_noise, **p.known), p.control(p.x, p.c_noise, **p.known, edges=p.edges)
        assert not torch.allclose(full, base, atol=1e-3)
        assert torch.equal(at(0, 0, 0), base)
        assert torch.equal(at(1, 1, 1), full)
        mixed, double = at(0, 1, 2), at(2, 2, 2)
        torch.testing.assert_close(mixed, torch.stack([base[0], full[1], double[2]]))
        for zeros in p.control.zeros.parameters():
            zeros *= 2
        torch.testing.assert_close(p.control(p.x, p.c_noise, **p.known, edges=p.edges), double)


def test_strength_is_a_denoiser_around_the_model_and_no_business_of_guidance() -> None:
    p = pair("picture")
    awake(p.control)
    process = EDM()
    control, base = (NetDenoiser(network, process, "edm") for network in (p.control, p.base))
    t, cond = torch.tensor(1.3, dtype=torch.float64), {**p.known, "edges": p.edges}
    with torch.no_grad():
        weak = ControlStrength(control, 0.4)(p.x, t, **cond)
        F = p.control(
            p.x / (1 + 1.3**2) ** 0.5,
            torch.full((3,), float(t.log()) / 4),
            **cond,
            control_strength=torch.full((3,), 0.4),
        )
        c_skip, c_out = 1 / (1 + 1.3**2), 1.3 / (1 + 1.3**2) ** 0.5
        torch.testing.assert_close(weak.x_0, c_skip * p.x + c_out * F)
        guided = ClassifierFreeGuidance(ControlStrength(control, 0.0), 3.0)(p.x, t, **cond)
        expected = ClassifierFreeGuidance(base, 3.0)(p.x, t, **p.known)
        torch.testing.assert_close(guided.x_0, expected.x_0)
        assert torch.equal(control(p.x, t, **cond).x_0, control(p.x, t, **cond).x_0)  # nothing about it was changed
        assert not torch.allclose(control(p.x, t, **cond).x_0, weak.x_0)


@pytest.mark.parametrize("name", ["signal", "picture"])
def test_a_control_is_null_or_absent_alike_and_each_sample_has_its_own(name: str) -> None:
    p = pair(name)
    awake(p.control)
    with torch.no_grad():
        absent = p.control(p.x, p.c_noise, **p.known)
        null = torch.full_like(p.edges, torch.nan)
        assert torch.equal(
            p.control(p.x, p.c_noise, **p.known, edges=null, level=torch.full((3, 1), torch.nan)), absent
        )
        given = p.control(p.x, p.c_noise, **p.known, edges=p.edges)
        for b in range(3):
            assert not torch.allclose(given[b], absent[b])
            alone = {key: value[b : b + 1] for key, value in {**p.known, "edges": p.edges}.items()}
            torch.testing.assert_close(
                p.control(p.x[b : b + 1], p.c_noise[b : b + 1], **alone)[0], given[b], rtol=1e-4, atol=1e-5
            )
        other = p.control(p.x, p.c_noise, **p.known, edges=p.edges, level=torch.ones(3, 1))
        assert not torch.allclose(other, given)  # what is no grid is read too


def test_the_base_drops_nothing_out_in_training() -> None:
    p = pair("picture")
    p.control.train()
    assert p.control.copy.training
    assert not any(part.training for part in p.control.base.modules())
    off = {STRENGTH: torch.zeros(3)}
    with torch.no_grad():
        assert torch.equal(p.control(p.x, p.c_noise, **p.known, **off), p.base(p.x, p.c_noise, **p.known))
        awake(p.control)
        once, twice = (p.control(p.x, p.c_noise, **p.known, edges=p.edges) for _ in range(2))
        assert not torch.equal(once, twice)  # the copy does


def test_activations_may_be_computed_again() -> None:
    p = pair("picture")
    awake(p.control)

    def gradients(network: nn.Module) -> list[Tensor]:
        network.zero_grad(set_to_none=True)
        network(p.x, p.c_noise, **p.known, edges=p.edges).square().mean().backward()
        return [q.grad.clone() for q in network.parameters() if q.requires_grad]

    expected = gradients(p.control)
    for stack in p.control.modules():
        if hasattr(stack, "recompute"):
            stack.recompute = True
    torch.testing.assert_close(gradients(p.control), expected)


@pytest.mark.parametrize("base", [EncoderConfig(), MLPConfig(), DiTConfig()])
def test_a_base_that_is_no_unet_is_refused(base: NetworkConfig) -> None:
    with pytest.raises(UserError, match="--network unet"):
        ControlNetConfig().around(base, ())
    spec = DataSpec("image", (3, 8, 8), conditions={"edges": Condition("grid", 0, shape=(1, 8, 8))})
    with pytest.raises(UserError, match="--network unet"):
        ControlNetConfig(base).build(spec, 3)


def test_nothing_to_be_controlled_by_is_refused() -> None:
    with pytest.raises(UserError, match="--derived edges"):
        ControlNetConfig(SMALL, knows=("label",)).build(DataSpec("image", (3, 8, 8), conditions=LABELS), 3)
    spec = DataSpec("image", (3, 8, 8), conditions={"edges": Condition("grid", 0, shape=(1, 8, 8))})
    with pytest.raises(UserError, match="hint_channels"):
        ControlNetConfig(SMALL, hint_channels=0).build(spec, 3)


def test_around_a_control_net_is_that_control_net() -> None:
    inner = ControlNetConfig(SMALL, knows=("label",))
    assert ControlNetConfig(hint_channels=3).around(inner, ("label", "edges")) == inner
