"""Chains of models: what one draws, the next enlarges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.cascade import check_below
from unstir.conditioning.derived import Edges, LowRes
from unstir.conditioning.derived.low_res import enlarged
from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import NetDenoiser
from unstir.editing.upscale import on_grid
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance
from unstir.model import Model
from unstir.objectives import Batch, DenoisingObjective
from unstir.processes import EDM
from unstir.recipes import Recipe, SamplingConfig
from unstir.sampling import SampleNoise
from unstir.trained import Trained

LABEL = {"label": Condition("class", 3, ("a", "b", "c"))}
SMALL = DataSpec(
    "image", (1, 4, 5), "uint8", (127.5,), (127.5,), 0.5, channels_last=True, conditions=LABEL, bounds=(-1.0, 1.0)
)
MIDDLE, LARGE = replace(SMALL, shape=(1, 8, 10)), replace(SMALL, shape=(1, 16, 20))
SETTINGS = SamplingConfig(steps=4)


class Draws(nn.Module):
    """A base: x_0 depends on the noise and on the label."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, c_noise: Tensor, *, label: Tensor) -> Tensor:
        self.asked.append(label)
        return torch.tanh(2 * x) * 0.4 + 0.2 * label.reshape(-1, 1, 1, 1).float() - 0.1


class Copies(nn.Module):
    """A stage that believes what it is to enlarge, and a little of the noise."""

    def __init__(self, own: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.own = own
        self.levels: list[Tensor] = []

    def forward(
        self, x: Tensor, c_noise: Tensor, *, low_res: Tensor, low_res_level: Tensor, label: Tensor | None = None
    ) -> Tensor:
        self.levels.append(low_res_level)
        return low_res + self.own * torch.tanh(x)


def base() -> Trained:
    recipe = Recipe(sampling=replace(SETTINGS, labels="cycle"))
    return Trained(NetDenoiser(Draws(), EDM(), "x_0", sigma_data=0.5).eval(), SMALL, recipe)


def stage(spec: DataSpec, below: Callable[[], Trained], *, own: float = 0.0, level: float = 0.0) -> Trained:
    derived = LowRes(level=level)
    recipe = Recipe(derived=derived, sampling=replace(SETTINGS, low_res_from="below"))
    module = NetDenoiser(Copies(own), EDM(), "x_0", sigma_data=0.5).eval()
    return Trained(module, derived.described(spec), recipe, lambda name, device: below())


def two(own: float = 0.0, level: float = 0.0) -> Model:
    return Model.of(stage(MIDDLE, base, own=own, level=level))


def rounded(spec: DataSpec, x: Tensor) -> Tensor:
    return spec.to_model(spec.to_data(x))


def test_a_stage_enlarges_what_the_stage_below_draws() -> None:
    small = Model.of(base()).sample(7, seed=5)
    assert small.std(0).min() > 0.01, "samples differ"
    torch.testing.assert_close(two().sample(7, seed=5), enlarged(rounded(SMALL, small), 2, (8, 10)))


def test_labels_reach_every_stage() -> None:
    model = two()
    model.sample(4, label="c")
    below = model.below(model.recipe.sampling)
    assert below is not None
    assert {int(v) for asked in below.denoiser.network.asked for v in asked} == {2}  # type: ignore[union-attr]
    by_turn, by_default = model.sample(6, label=["a", "b", "c"]), model.sample(6)
    assert torch.equal(by_turn, by_default)
    none = model.sample(3, labels="none")
    small = Model.of(base()).sample(3, labels="none")
    torch.testing.assert_close(none, enlarged(rounded(SMALL, small), 2, (8, 10)))


def test_a_sample_depends_on_its_number_and_the_seed_alone() -> None:
    model = two(own=0.3, level=0.3)
    many, few = model.sample(12, seed=2), model.sample(5, seed=2, batch_size=2)
    torch.testing.assert_close(few, many[:5])
    assert not torch.allclose(model.sample(5, seed=3), few, atol=1e-2)
    torch.testing.assert_close(model.sample(5, seed=2), few)


def test_three_stages() -> None:
    model = Model.of(stage(LARGE, lambda: stage(MIDDLE, base)))
    middle = two().sample(3, seed=1)
    torch.testing.assert_close(model.sample(3, seed=1), enlarged(rounded(MIDDLE, middle), 2, (16, 20)))


def test_stages_have_noise_of_their_own() -> None:
    """The first numbers of a larger sample's noise must not be those of the smaller one's."""
    small, middle = Model.of(base()), two()
    one, other = small.noise(0, [3]).normal((20,)), middle.noise(0, [3]).normal((20,))
    assert not torch.isclose(one, other).any()
    large = Model.of(stage(LARGE, lambda: stage(MIDDLE, base)))
    assert not torch.isclose(large.noise(0, [3]).normal((20,)), other).any()
    assert torch.equal(other, middle.noise(0, [3]).normal((20,)))


def test_noise_on_what_is_enlarged() -> None:
    clean, noisy = two(), two(level=0.4)
    small = Model.of(base()).sample(200, seed=5)
    large = enlarged(rounded(SMALL, small), 2, (8, 10))
    noise = noisy.conditions({}, noisy.recipe.sampling, 5, range(200))["low_res"]
    torch.testing.assert_close(clean.conditions({}, clean.recipe.sampling, 5, range(200))["low_res"], large)
    c, s = torch.tensor(0.2 * torch.pi).cos(), torch.tensor(0.2 * torch.pi).sin()
    left = ((noise - c * large) / s)[..., 1:-1, 1:-1]
    assert float(left.square().mean()) == pytest.approx((10 / 16) ** 2, rel=0.05)
    start = enlarged(noisy.noise(5, range(200)).normal((1, 4, 5)), 2, (8, 10))[..., 1:-1, 1:-1]
    assert abs(float((left * start).mean())) < 0.02, "not the noise that sampling starts from"
    asked = noisy.sample(3, seed=5, low_res_level=[0.0])
    torch.testing.assert_close(asked, clean.sample(3, seed=5))
    levels = noisy.denoiser.network.levels  # type: ignore[union-attr]
    noisy.sample(1)
    assert levels[-1].tolist() == [[pytest.approx(0.4)]]


def test_what_is_given_is_not_drawn() -> None:
    def refuse() -> Trained:
        raise AssertionError("the stage below was asked")

    model = Model.of(stage(MIDDLE, refuse))
    given = torch.rand(1, 8, 10) - 0.5
    torch.testing.assert_close(model.sample(2, low_res=given), given.expand(2, 1, 8, 10))


def test_steps_and_guidance_of_the_stage_below() -> None:
    model = two()
    asked = model.below(model.recipe.sampling).denoiser.network.asked  # type: ignore[union-attr]
    model.sample(2)
    plain = len(asked)
    asked.clear()
    model.sample(2, low_res_steps=8)
    assert len(asked) == 2 * plain + 1  # Heun's rule: two evaluations a step but for the last
    asked.clear()
    model.sample(2, low_res_guidance_scale=2.0)
    assert all(len(labels) == 4 for labels in asked)


def test_nothing_to_enlarge() -> None:
    model = two()
    with pytest.raises(UserError, match=r"--image FILE .* --low-res FILE .* --low-res-from RUN"):
        model.sample(1, low_res_from="")


def test_stages_that_do_not_fit() -> None:
    ours, factor = MIDDLE, 2

    def said(**changes: object) -> str:
        with pytest.raises(UserError) as error:
            check_below("runs/base", replace(base(), spec=replace(SMALL, **changes)), ours, factor)  # type: ignore[arg-type]
        return str(error.value)

    check_below("runs/base", base(), ours, factor)
    assert "draws images of shape 1x4x4, and this model enlarges images of shape 1x4x5 by 2" in said(shape=(1, 4, 4))
    assert "of shape 3x4x5" in said(shape=(3, 4, 5))
    assert "another mean or spread" in said(offset=(100.0,))
    assert "knows another label" in said(conditions={"label": Condition("class", 3, ("a", "b", "d"))})
    with pytest.raises(UserError, match="draws samples"):
        check_below("runs/base", replace(base(), module=nn.Identity()), ours, factor)  # type: ignore[arg-type]


def test_another_size() -> None:
    larger = on_grid(two(), (10, 6))
    assert larger.spec.shape == (1, 10, 6)
    assert larger.spec.conditions["low_res"].shape == (1, 10, 6)
    given = torch.rand(1, 10, 6) - 0.5
    torch.testing.assert_close(larger.sample(1, low_res=given), given[None])


# ---- what is never left out ------------------------------------------------------------------------------------------


def test_drop_out_leaves_what_is_enlarged_alone() -> None:
    seen: list[dict[str, Tensor]] = []

    class Listens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> Tensor:
            seen.append(cond)
            return x * self.weight

    n = 400
    cond = {"low_res": torch.ones(n, 1, 2, 2), "label": torch.zeros(n, dtype=torch.int64)}
    denoiser = NetDenoiser(Listens(), EDM(), "edm", sigma_data=0.5)
    batch = Batch(torch.zeros(n, 1, 2, 2), cond, frozenset({"low_res"}))
    DenoisingObjective(dropout=0.5)(denoiser, batch, SampleNoise(0, range(n)))
    assert torch.equal(seen[0]["low_res"], cond["low_res"])
    assert 0.4 < float((seen[0]["label"] == -1).float().mean()) < 0.6
    DenoisingObjective(dropout=0.5)(denoiser, replace(batch, always=frozenset()), SampleNoise(0, range(n)))
    assert 0.4 < float(seen[1]["low_res"].isnan().all(3).all(2).float().mean()) < 0.6


def test_guidance_tells_both_beliefs_what_is_enlarged() -> None:
    class Shift(nn.Module):
        """x_0 = low_res + label, or low_res alone without a label."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor, c_noise: Tensor, *, low_res: Tensor, label: Tensor) -> Tensor:
            self.calls += 1
            return low_res + label.clamp(min=0).reshape(-1, 1, 1, 1)

    network = Shift()
    denoiser = NetDenoiser(network, EDM(), "x_0", sigma_data=0.5)
    low_res, label = torch.rand(3, 1, 2, 2), torch.tensor([1, 2, 1])
    x_t, t = torch.zeros(3, 1, 2, 2), torch.tensor(1.0, dtype=torch.float64)
    guided = ClassifierFreeGuidance(denoiser, 3.0, always=frozenset({"low_res"}))
    found = guided(x_t, t, low_res=low_res, label=label).x_0
    torch.testing.assert_close(found, low_res + 3.0 * label.reshape(-1, 1, 1, 1))

    class Unlabelled(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, *, low_res: Tensor) -> Tensor:
            assert len(low_res) == 3, "nothing to guide by, so asked once"
            return low_res

    alone = ClassifierFreeGuidance(
        NetDenoiser(Unlabelled(), EDM(), "x_0", sigma_data=0.5), 3.0, always=frozenset({"low_res"})
    )
    torch.testing.assert_close(alone(x_t, t, low_res=low_res).x_0, low_res)


def test_conditions_that_may_be_left_out_still_are() -> None:
    assert Edges().described(MIDDLE).always == frozenset()
    settings = SamplingConfig(guidance_scale=2.0, clip=False)
    guided = settings.guide(two().denoiser, LowRes().described(MIDDLE))
    assert isinstance(guided, ClassifierFreeGuidance)
    assert guided.always == {"low_res", "low_res_level"}
