"""The guidance scale as an input of the network."""

from __future__ import annotations

import pytest
import torch
from numeric import scalar
from torch import Tensor, nn

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, scale_condition, scale_range
from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance, ScaleInput
from unstir.processes import VP
from unstir.recipes import SamplingConfig

RANGE = scale_condition(0.5, 4.5)
SPEC = DataSpec("points", (2,), conditions={"label": Condition("class", 2), GUIDANCE_SCALE: RANGE})


class Hears(nn.Module):
    """Gives back what it is told of the scale."""

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> Tensor:
        assert cond[GUIDANCE_SCALE].shape == (len(x), 1)
        assert cond[GUIDANCE_SCALE].dtype == torch.float32
        return cond[GUIDANCE_SCALE].expand_as(x)


def heard(denoiser: nn.Module, **cond: Tensor) -> list[float]:
    prediction = denoiser(torch.zeros(3, 2), scalar(0.5), label=torch.tensor([0, 1, -1]), **cond)
    return [round(value, 5) for value in prediction.x_0[:, 0].tolist()]


@pytest.fixture
def model() -> NetDenoiser:
    return NetDenoiser(Hears(), VP(), "x_0")


def test_a_range_there_and_back() -> None:
    assert scale_range(RANGE) == (0.5, 4.5)


def test_the_network_is_told_in_units_of_its_range(model: NetDenoiser) -> None:
    assert heard(ScaleInput(model, RANGE, 0.5)) == [-1] * 3
    assert heard(ScaleInput(model, RANGE, 4.5)) == [1] * 3
    assert heard(ScaleInput(model, RANGE, 2.0)) == [-0.25] * 3
    own = torch.tensor([0.5, 2.5, 4.5], dtype=torch.float64)
    assert heard(ScaleInput(model, RANGE, 2.0), **{GUIDANCE_SCALE: own}) == [-1, 0, 1]


def test_settings_tell_it_instead_of_asking_twice(model: NetDenoiser) -> None:
    guided = SamplingConfig(guidance_scale=3.5).guide(model, SPEC)
    assert not any(isinstance(part, ClassifierFreeGuidance) for part in guided.modules())
    assert heard(guided) == [0.5] * 3
    assert heard(SamplingConfig().guide(model, SPEC)) == [-0.75] * 3  # 1 is told like any other


@pytest.mark.parametrize("scale", [0.4, 5.0])
def test_a_scale_that_was_never_learned(model: NetDenoiser, scale: float) -> None:
    with pytest.raises(UserError, match=r"learned guidance scales from 0\.5 to 4\.5, not"):
        SamplingConfig(guidance_scale=scale).guide(model, SPEC)
