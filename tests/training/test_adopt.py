"""Weights of one run for another: what both know says the same before the first step, and what is new says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.linear import CorrectingDenoiser
from unstir.networks import ControlNetConfig, DiTConfig, MLPConfig, NetworkConfig, UNetConfig
from unstir.processes import EDM
from unstir.recipes import DenoiserConfig, Recipe
from unstir.trainable import Trainable
from unstir.trained import Trained
from unstir.training.adopt import adopt

UNET = UNetConfig(channels=8, multipliers=(1, 2), middle=1, head_channels=8, text_width=16)
DIT = DiTConfig(depth=2, width=24, heads=3, text_width=16)
NETWORKS = {"unet": UNET, "dit": DIT}
LABEL = Condition("class", 3, ("a", "b", "c"))
SIZE = Condition("vector", 2, ("w", "h"))
WORDS = Condition("text", 256, ("ab",), shape=(4,), encoder="bytes")
EDGES, KNOWN = Condition("grid", 0, shape=(1, 8, 6)), Condition("grid", 0, shape=(2, 8, 6))
VALUES: dict[str, Tensor] = {
    "label": torch.tensor([0, 2]),
    "size": torch.tensor([[0.5, -1.0], [2.0, 0.1]]),
    "text": torch.tensor([[97, 98, -1, -1], [99, -1, -1, -1]]),
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spec_of(**conditions: Condition) -> DataSpec:
    return DataSpec("image", (2, 8, 6), conditions=conditions)


def new(config: NetworkConfig, spec: DataSpec, seed: int, parameterization: str = "edm") -> NetDenoiser:
    torch.manual_seed(seed)
    denoiser = DenoiserConfig(parameterization, sigma_data=0.7).build(config, EDM(), spec)  # type: ignore[arg-type]
    return denoiser.eval()


def trained(config: NetworkConfig, spec: DataSpec) -> Trained:
    """As if it had been: nothing of it is 0."""
    module = new(config, spec, seed=1)
    for parameter in module.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.2)
    return Trained(module, spec, Recipe(network=config))


def belief(module: Trainable, cond: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        x_0: Tensor = module(randn(2, 2, 8, 6), torch.tensor([0.4, 3.0], dtype=torch.float64), **cond).x_0
    return x_0


def begun(name: str, old: DataSpec, spec: DataSpec) -> tuple[NetDenoiser, Trained, tuple[str, ...]]:
    """(a run that starts from a base, the base, what was said)."""
    base = trained(NETWORKS[name], old)
    module = new(NETWORKS[name], spec, seed=2)
    return module, base, adopt(module, base, spec).notes


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_network_is_taken_over_to_the_bit(name: str) -> None:
    spec = spec_of(label=LABEL, size=SIZE, text=WORDS, edges=EDGES)
    module, base, notes = begun(name, spec, spec)
    assert notes == ()
    for key, value in base.module.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key
    assert all(p.requires_grad for p in module.parameters())
    longer = replace(WORDS, shape=(9,), names=("other",))  # captions of other data
    module, base, notes = begun(name, spec, spec_of(label=LABEL, size=SIZE, text=longer, edges=EDGES))
    assert notes == ()
    given = {**VALUES, "edges": randn(2, 1, 8, 6)}
    assert torch.equal(belief(module, given), belief(base.module, given))


@pytest.mark.parametrize("name", NETWORKS)
def test_conditions_meet_by_their_names(name: str) -> None:
    module, base, _ = begun(
        name, spec_of(label=LABEL, size=SIZE, text=WORDS), spec_of(text=WORDS, size=SIZE, label=LABEL)
    )
    torch.testing.assert_close(belief(module, VALUES), belief(base.module, VALUES))


@pytest.mark.parametrize("name", NETWORKS)
def test_other_classes_all_start_as_none(name: str) -> None:
    for other in (Condition("class", 3, ("x", "y", "z")), Condition("class", 5)):
        module, base, notes = begun(name, spec_of(label=LABEL, size=SIZE), spec_of(label=other, size=SIZE))
        assert notes == ("label is another one than there, and starts anew",)
        asked, null = {"size": VALUES["size"]}, torch.full((2,), -1)
        expected = belief(base.module, asked)
        for label in (null, torch.tensor([0, 2]), torch.full((2,), other.size - 1)):
            assert torch.equal(belief(module, {**asked, "label": label}), expected)
        module.train()(
            randn(2, 2, 8, 6), torch.tensor(1.0).double(), label=torch.tensor([0, 1])
        ).x_0.square().mean().backward()
        table = module.get_parameter("network.embedding.conditions.parts.0.table.weight")
        assert bool(table.grad[1].any())  # row 1 is class 0, which will go its own way
        assert not torch.equal(table.grad[1], table.grad[2])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_new_says_nothing_yet(name: str) -> None:
    added = {"label": LABEL, "vector": Condition("vector", 3), "text": WORDS, "known": KNOWN}
    module, base, notes = begun(name, spec_of(size=SIZE), spec_of(size=SIZE, **added))
    assert set(notes) == {"label is new", "vector is new", "text is new", "known is new"}
    known = randn(2, 2, 8, 6, seed=3)
    known[0, :, :3] = torch.nan
    new_ones = {"label": VALUES["label"], "vector": randn(2, 3), "text": VALUES["text"], "known": known}
    expected = belief(base.module, {"size": VALUES["size"]})
    assert torch.equal(belief(module, {"size": VALUES["size"], **new_ones}), expected)
    module(
        randn(2, 2, 8, 6), torch.tensor(1.0).double(), **VALUES, vector=randn(2, 3), known=known
    ).x_0.square().mean().backward()
    for key in ("conditions.parts.1.table.weight", "conditions.parts.2.layers.2.weight"):
        assert bool(module.get_parameter(f"network.embedding.{key}").grad.any())
    assert bool(module.get_parameter("network.grid_stem.weight").grad.any())


def test_captions_that_somebody_else_reads_start_anew() -> None:
    """Of one shape, and of other meaning: nothing of how they were read is kept."""
    other = replace(WORDS, encoder="another")
    module, base, notes = begun("unet", spec_of(text=WORDS), spec_of(text=other))
    assert notes == ("text is another one than there, and starts anew",)
    fresh, old = new(UNET, spec_of(text=other), seed=2).state_dict(), base.module.state_dict()
    inside = [key for key in fresh if ".captions." in key]
    assert len(inside) > 10
    assert all(torch.equal(module.state_dict()[key], fresh[key]) for key in inside)
    assert not any(
        torch.equal(old[key], fresh[key]) for key in inside if key.endswith("weight") and fresh[key].ndim > 1
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_no_longer_told_was_null(name: str) -> None:
    """The base was never asked without a null; what that said is kept."""
    module, base, notes = begun(name, spec_of(label=LABEL, size=SIZE, known=KNOWN), spec_of())
    assert set(notes) == {f"{lost} is no longer told" for lost in ("label", "size", "known")}
    torch.testing.assert_close(belief(module, {}), belief(base.module, {}), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(belief(module, {}), belief(base.module, {"label": VALUES["label"]}), atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_grids_beside_the_data_keep_their_own_weights(name: str) -> None:
    edges, known = randn(2, 1, 8, 6, seed=5), randn(2, 2, 8, 6, seed=6)
    edges[1, :, 2:5] = torch.nan
    module, base, _ = begun(name, spec_of(edges=EDGES), spec_of(known=KNOWN, edges=EDGES))
    expected = belief(base.module, {"edges": edges})
    assert not torch.allclose(expected, belief(base.module, {}), atol=1e-3)
    torch.testing.assert_close(belief(module, {"edges": edges, "known": known}), expected, rtol=1e-4, atol=1e-5)
    # of the same size, and something else
    module, base, _ = begun(name, spec_of(edges=EDGES), spec_of(depth=EDGES))
    torch.testing.assert_close(belief(module, {"depth": edges}), belief(base.module, {}), rtol=1e-4, atol=1e-5)


class Wide(Trainable):
    """A network of two layers, of which the first sees the data."""

    def __init__(self, inputs: int, width: int = 4) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(inputs, width, 3), nn.Conv2d(width, 2, 1))


def test_more_inputs_start_at_0() -> None:
    base, module = Wide(3), Wide(5)
    x, more = randn(2, 3, 6, 6), randn(2, 2, 6, 6, seed=1)
    found = adopt(module, Trained(base, spec_of(), Recipe()), spec_of())
    assert found.share == 1
    assert not bool(module.get_parameter("network.0.weight")[:, 3:].any())
    torch.testing.assert_close(module.network(torch.cat([x, more], 1)), base.network(x))


def test_a_layer_comes_whole_or_not_at_all() -> None:
    base, module = Wide(3, width=4), Wide(3, width=6)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(UserError, match=r"could take 0% of its weights"):
        adopt(module, Trained(base, spec_of(), Recipe()), spec_of())
    assert torch.equal(module.state_dict()["network.0.bias"], before["network.0.bias"])
    assert torch.equal(
        module.state_dict()["network.1.bias"], before["network.1.bias"]
    )  # of one shape, but not its weights


def test_another_network_is_refused() -> None:
    spec = spec_of()
    with pytest.raises(UserError, match="leave out --network options"):
        adopt(new(replace(UNET, channels=12), spec, 0), trained(UNET, spec), spec)
    with pytest.raises(UserError, match="another one than the base's"):
        adopt(new(DIT, spec, 0), trained(UNET, spec), spec)


def test_a_deeper_network_takes_what_there_is() -> None:
    spec = spec_of()
    module, base = new(replace(UNET, middle=2), spec, 0), trained(UNET, spec)
    found = adopt(module, base, spec)
    missing = sum(p.numel() for key, p in module.named_parameters() if key.startswith("network.middle.blocks.1."))
    assert missing > 0
    assert found.share == pytest.approx(1 - missing / sum(p.numel() for p in module.parameters()), abs=0.02)
    for key, value in base.module.state_dict().items():
        if "middle.attention" not in key:
            assert torch.equal(module.state_dict()[key], value), key


def test_the_linear_denoiser_that_is_corrected_comes_along_or_not_at_all() -> None:
    def correcting(grid: tuple[int, int], seed: int) -> CorrectingDenoiser:
        torch.manual_seed(seed)
        spec = DataSpec("image", (2, *grid))
        module = DenoiserConfig(linear_components=4).build(UNET, EDM(), spec)
        assert isinstance(module, CorrectingDenoiser)
        module.fit(randn(50, 2, *grid, seed=seed) * (seed + 1))
        return module

    base = correcting((8, 6), 1)
    module = correcting((8, 6), 2)
    adopt(module, Trained(base, spec_of(), Recipe()), spec_of())
    assert torch.equal(module.linear.mean, base.linear.mean)
    assert torch.equal(module.linear.variances, base.linear.variances)
    module = correcting((8, 8), 2)
    own = module.linear.variances.clone()
    adopt(module, Trained(base, spec_of(), Recipe()), spec_of())
    assert torch.equal(module.linear.variances, own)  # of one shape with the base's, but of other directions
    assert torch.equal(module.state_dict()["network.stem.weight"], base.state_dict()["network.stem.weight"])


@pytest.mark.parametrize("conditions", [{}, {"label": LABEL, "text": WORDS}, {"size": SIZE}])
def test_a_control_net_starts_as_its_base(conditions: dict[str, Condition]) -> None:
    base = trained(UNET, spec_of(**conditions))
    spec = spec_of(**conditions, edges=EDGES, level=Condition("vector", 1))
    module = new(ControlNetConfig(hint_channels=4).around(UNET, conditions), spec, seed=2)
    found = adopt(module, base, spec)
    assert found.notes == ("level is new",)
    known = {name: value for name, value in VALUES.items() if name in conditions}
    control = {"edges": randn(2, 1, 8, 6), "level": randn(2, 1)}
    for autocast in (None, torch.bfloat16):
        module.autocast = base.module.autocast = autocast
        assert torch.equal(belief(module, {**known, **control}), belief(base.module, known))
    frozen = {key for key, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {f"network.base.{key.removeprefix('network.')}" for key, _ in base.module.named_parameters()}
    for key, value in base.module.state_dict().items():
        inner = key.removeprefix("network.")
        assert torch.equal(module.state_dict()[f"network.base.{inner}"], value)
        if not inner.startswith(("up.", "grow.", "head.")):
            assert torch.equal(module.state_dict()[f"network.copy.{inner}"], value), inner
    assert not any(key.startswith(("network.copy.up", "network.copy.head")) for key in module.state_dict())


def test_a_control_net_whose_base_does_not_fit_is_refused() -> None:
    base, spec = trained(UNET, spec_of(label=LABEL)), spec_of(label=LABEL, edges=EDGES)
    for other in (replace(UNET, middle=2), replace(UNET, patch=1)):
        with pytest.raises(UserError, match="leave out --network options"):
            adopt(new(ControlNetConfig(other, ("label",)), spec, 2), base, spec)


def test_a_control_net_goes_on_from_a_control_net() -> None:
    spec, config = spec_of(label=LABEL, edges=EDGES), ControlNetConfig(UNET, ("label",), hint_channels=4)
    base, module = trained(config, spec), new(config, spec, seed=3)
    found = adopt(module, base, spec)
    assert found.share == 1
    for key, value in base.module.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key


def test_points_too() -> None:
    config, points = MLPConfig(width=16, depth=2), DataSpec("points", (3,), conditions={"label": LABEL})
    base = trained(config, points)
    module = new(config, replace(points, conditions={"label": Condition("class", 2)}), seed=2)
    adopt(module, base, replace(points, conditions={"label": Condition("class", 2)}))
    x, t = randn(4, 3), torch.tensor(1.0).double()
    with torch.no_grad():
        assert torch.equal(module(x, t, label=torch.tensor([0, 1, 1, -1])).x_0, base.module(x, t).x_0)
