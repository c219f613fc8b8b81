"""Inpainting by a model that was trained to: what it is told, what it believes, and what comes of it."""

from __future__ import annotations

import pytest
import torch
from numeric import scalar
from torch import Tensor, nn

from unstir.conditioning.derived import Hole
from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.editing import ByReplacement, inpaint
from unstir.editing.conditional import KnownBelief
from unstir.editing.inpaint import method_for, outside
from unstir.errors import UserError
from unstir.model import Model
from unstir.processes import EDM
from unstir.recipes import Recipe, SamplingConfig
from unstir.samplers import Euler

SHAPE = (2, 6, 5)
FILL = torch.zeros(1, 6, 5, dtype=torch.bool)
FILL[:, 1:4, 2:] = True


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Copier(nn.Module):
    """Believes the data to be what it is told of them, and the mean of that in the hole; 0.5 where it is told nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.told: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        self.told.append(cond)
        if "known" not in cond:
            return torch.full_like(x, 0.5)
        known = cond["known"]
        mean = known.nanmean((2, 3), keepdim=True).nan_to_num(0.5)
        return torch.where(known.isnan(), mean, known + 0.1).to(x.dtype)  # a little wrong where it is known


def model(**conditions: Condition) -> Model:
    spec = DataSpec("image", SHAPE, conditions=conditions)
    recipe = Recipe(derived=Hole() if conditions else Recipe().derived, sampling=SamplingConfig(Euler(), steps=5))
    return Model(NetDenoiser(Copier(), EDM(), "x_0"), spec, recipe)


def test_the_known_part_is_believed_to_be_itself_and_the_rest_what_it_was() -> None:
    inner, x_0 = GaussianDenoiser(EDM(), torch.zeros(SHAPE), torch.ones(SHAPE)), randn(1, *SHAPE)
    x_t, t = randn(3, *SHAPE, seed=1) * 2, scalar(1.7)
    plain, told = inner(x_t, t), KnownBelief(inner, outside(FILL, x_0))(x_t, t)
    fill = FILL.expand(SHAPE)
    assert torch.equal(told.x_0[:, fill], plain.x_0[:, fill])
    assert torch.equal(told.x_0[:, ~fill], x_0[:, ~fill].expand(3, -1))
    torch.testing.assert_close(told.x_0 + 1.7 * told.eps, x_t)  # still a belief about the same x_t


def test_the_model_is_told_what_is_around_the_hole_and_fills_it_from_there() -> None:
    wanted, x_0 = model(known=Condition("grid", 0, shape=SHAPE)), randn(*SHAPE, seed=2)
    x = inpaint(wanted, x_0, FILL, n=3, batch_size=2)
    fill = FILL.expand(SHAPE)
    assert torch.equal(x[:, ~fill], x_0[~fill].expand(3, -1))
    network = wanted.denoiser.network
    assert isinstance(network, Copier)
    assert len(network.told) == 2 * 5  # two batches, once a step
    for cond in network.told:
        assert set(cond) == {"known"}
        assert torch.equal(cond["known"].isnan(), fill.expand(len(cond["known"]), *SHAPE))
        assert torch.equal(cond["known"][:, ~fill], x_0[~fill].expand(len(cond["known"]), -1))
    mean = torch.stack([x_0[c][~FILL[0]].mean() for c in range(2)])
    expected = mean.reshape(1, 2, 1, 1).expand(3, *SHAPE)
    torch.testing.assert_close(x[:, fill], expected[:, fill], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(inpaint(wanted, x_0, FILL, n=3), x)  # whatever the batches


def test_other_methods_do_not_tell_it() -> None:
    wanted, x_0 = model(known=Condition("grid", 0, shape=SHAPE)), randn(*SHAPE)
    x = inpaint(wanted, x_0, FILL, method="replacement")
    torch.testing.assert_close(x[:, FILL.expand(SHAPE)], torch.full_like(x[:, FILL.expand(SHAPE)], 0.5))
    torch.testing.assert_close(x, inpaint(wanted, x_0, FILL, method=ByReplacement()))


def test_who_can_do_it_does_and_others_say_that_they_cannot() -> None:
    assert method_for(Recipe(derived=Hole())) == "model"
    assert method_for(Recipe()) == "repaint"
    with pytest.raises(UserError, match="unstir train glide-inpaint --base RUN"):
        inpaint(model(), torch.zeros(SHAPE), FILL, method="model")
    with pytest.raises(UserError, match="did you mean model"):
        inpaint(model(), torch.zeros(SHAPE), FILL, method="modle")
