"""Codecs: what an autoencoder's latents are to a denoiser. An orthogonal one is the oracle: what is done in its space is done to the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.autoencoder import Autoencoder
from unstir.codec import IDENTITY, LatentCodec, fingerprint_of
from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.editing import image_to_image, inpaint, interpolate, invert
from unstir.errors import UserError
from unstir.model import Model
from unstir.networks.haar import Haar, haar_basis
from unstir.prediction import Prediction
from unstir.processes import EDM, VP
from unstir.recipes import Recipe, SamplingConfig
from unstir.samplers import SAMPLERS
from unstir.samplers.langevin import AnnealedLangevin
from unstir.sampling import SampleNoise
from unstir.trained import check_same_space

SPEC = DataSpec("image", (2, 4, 6), std=0.7)


def haar(spec: DataSpec = SPEC, factor: int = 2, scale: float = 1.0, offset: float = 0.0) -> LatentCodec:
    autoencoder = Autoencoder(Haar(spec.shape[0], spec.rank, factor))
    channels = autoencoder.latent_channels
    return LatentCodec(autoencoder, (offset,) * channels, (scale,) * channels)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- Haar ------------------------------------------------------------------------------------------------------------


def test_haar_s_basis() -> None:
    half, root = 0.5, 0.5**0.5
    four = [[half] * 4, [half, half, -half, -half], [root, -root, 0, 0], [0, 0, root, -root]]
    torch.testing.assert_close(haar_basis(4), torch.tensor(four, dtype=torch.float64))
    torch.testing.assert_close(haar_basis(8) @ haar_basis(8).T, torch.eye(8, dtype=torch.float64))
    with pytest.raises(UserError, match="2, 4, 8"):
        Haar(1, 2, 6)


def test_haar_s_latents_of_a_picture() -> None:
    a, b, c, d = block = torch.tensor([1.0, 2.0, 4.0, 8.0])
    z = Autoencoder(Haar(1, 2, 2)).encode(block.reshape(1, 1, 2, 2))
    expected = torch.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d]) / 2
    torch.testing.assert_close(z.flatten(), expected)


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 7, 5), (2, 50), (1, 33), (1, 4, 6, 5)])
@pytest.mark.parametrize("factor", [2, 4])
def test_nothing_is_lost_at_any_size(shape: tuple[int, ...], factor: int) -> None:
    kind = {1: "signal", 2: "image", 3: "volume"}[len(shape) - 1]
    spec = DataSpec(kind, shape)  # type: ignore[arg-type]
    codec, x = haar(spec, factor, 0.3, -0.2), noise(5, *shape)
    z = codec.encode(x)
    assert tuple(z.shape[1:]) == codec.latent_spec(spec).shape
    torch.testing.assert_close(codec.decode(z, spec), x)
    if not any(size % factor for size in shape[1:]):
        torch.testing.assert_close((0.3 * z - 0.2).square().sum(), x.square().sum())


# ---- the codec -------------------------------------------------------------------------------------------------------


def test_the_data_themselves_are_left_alone() -> None:
    x, fill = noise(2, 2, 4, 6), torch.zeros(1, 4, 6, dtype=torch.bool)
    assert IDENTITY.encode(x) is x
    assert IDENTITY.decode(x, SPEC) is x
    assert IDENTITY.latent_spec(SPEC) is SPEC
    assert IDENTITY.cells(fill) is fill
    assert not IDENTITY.latent
    assert IDENTITY.facts() == {}


def test_what_is_decoded_stays_in_the_data_s_bounds() -> None:
    codec, bounded = haar(), replace(SPEC, bounds=(-1.0, 1.0))
    x = 3 * noise(2, 2, 4, 6)
    torch.testing.assert_close(codec.decode(codec.encode(x), bounded), x.clamp(-1, 1))


def test_conditions_on_the_grid_are_cut_into_blocks() -> None:
    conditions = {"edges": Condition("grid", 0, shape=(1, 4, 6)), "label": Condition("class", 3)}
    spec, codec = replace(SPEC, conditions=conditions), haar()
    assert codec.latent_spec(spec).conditions["edges"].shape == (4, 2, 3)
    assert codec.latent_spec(spec).conditions["label"] == conditions["label"]
    edges, label = torch.arange(24.0).reshape(1, 1, 4, 6), torch.tensor([2])
    told = codec.told({"edges": edges, "label": label, "guest": edges}, spec)
    assert told["label"] is label
    assert told["guest"] is edges
    assert told["edges"].shape == (1, 4, 2, 3)
    assert told["edges"][0, :, 1, 2].tolist() == [16, 17, 22, 23]  # the last block, row by row


def test_a_cell_is_known_only_if_all_its_pixels_are() -> None:
    fill = torch.zeros(1, 4, 6, dtype=torch.bool)
    fill[0, 1, 3] = True
    assert haar().cells(fill).tolist() == [[[False, True, False], [False, False, False]]]
    one_channel = torch.zeros(2, 4, 6, dtype=torch.bool)
    one_channel[1, 3, 5] = True
    assert haar().cells(one_channel).sum() == 1
    # Where the grid is padded, a cell hangs on the edge that is repeated.
    edge = torch.zeros(1, 7, dtype=torch.bool)
    edge[0, -1] = True
    assert haar(DataSpec("signal", (1, 7)), 4).cells(edge).tolist() == [[False, True]]


def test_spaces_that_are_not_the_same() -> None:
    class Other(Haar):
        pass

    ours = haar()
    assert fingerprint_of(ours.autoencoder) == haar().fingerprint != haar(factor=4).fingerprint
    other = LatentCodec(Autoencoder(Other(2, 2, 2)), ours.offset, ours.scale)
    changed = Haar(2, 2, 2)
    changed.basis[0, 0] += 1e-3
    check_same_space("r", haar(), ours, SPEC)
    check_same_space("r", IDENTITY, IDENTITY, SPEC)
    check_same_space("r", haar(scale=1.05), ours, SPEC)  # another split of the data
    for theirs, mine, message in (
        (IDENTITY, ours, "r was trained on the data themselves, and this model works in latents"),
        (ours, IDENTITY, "r works in the latents of an autoencoder, and this model on the data"),
        (other, ours, "the latents of another autoencoder"),
        (LatentCodec(Autoencoder(changed), ours.offset, ours.scale), ours, "the latents of another autoencoder"),
        (haar(scale=1.3), ours, "latents of another mean or spread"),
    ):
        with pytest.raises(UserError, match=message):
            check_same_space("r", theirs, mine, SPEC)


# ---- diffusion in an orthogonal codec's space is diffusion of the data ------------------------------------------------

MEAN, STD = 0.3 * noise(2, 4, 6, seed=1), 0.2 + noise(2, 4, 6, seed=2).abs()


class Exact(NetDenoiser):
    """The exact denoiser of Gaussian data, where a trained network would be."""

    def __init__(self, process: EDM | VP) -> None:
        super().__init__(nn.Linear(1, 1), process, sigma_data=0.7)
        self.exact = GaussianDenoiser(process, MEAN.double(), STD.double())

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        belief = self.exact(x_t.double(), t)
        return Prediction(x_t, *(v.to(x_t.dtype) for v in (belief.x_0, belief.eps, belief.alpha, belief.sigma)))


class ExactInLatents(Exact):
    """The same, of the data's latents."""

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        belief = super().forward(haar().decode(x_t, SPEC), t)
        return replace(belief, x_t=x_t, x_0=haar().encode(belief.x_0), eps=haar().encode(belief.eps))


class Turned(SampleNoise):
    """The noise of the data that are drawn from latents' noise."""

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return haar().decode(super().normal(haar().latent_spec(SPEC).shape, dtype), SPEC)


class OfData(Model):
    def noise(self, seed: int, indices: Sequence[int]) -> SampleNoise:
        return Turned(seed, indices)


def both(settings: SamplingConfig, process: EDM | VP | None = None) -> tuple[Model, Model]:
    recipe, process = Recipe(sampling=settings), process or EDM(sigma_max=20.0)
    return Model(ExactInLatents(process), SPEC, recipe, codec=haar()), OfData(Exact(process), SPEC, recipe)


@pytest.mark.parametrize("process", [EDM(sigma_max=20.0), VP()])
@pytest.mark.parametrize("name", SAMPLERS)
def test_sampling_in_latents_is_sampling(name: str, process: EDM | VP) -> None:
    sampler = SAMPLERS[name]()
    latent, data = both(SamplingConfig(sampler, steps=5), process)
    one, other = latent.sample(3, seed=4), data.sample(3, seed=4)
    assert one.shape == (3, 2, 4, 6)
    tolerance = 1e-3 if isinstance(sampler, AnnealedLangevin) else 1e-4  # hundreds of steps
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    few = latent.sample(2, seed=4, batch_size=1)
    torch.testing.assert_close(few, one[:2], rtol=tolerance, atol=tolerance)


X_0 = MEAN + 0.5 * noise(2, 4, 6, seed=3)
HOLE = torch.zeros(1, 4, 6, dtype=torch.bool)
HOLE[:, 2:, 2:4] = True  # one cell


@pytest.mark.parametrize("method", ["replacement", "repaint", "gradient"])
def test_filling_whole_cells_in_latents_is_filling(method: str) -> None:
    latent, data = both(SamplingConfig(steps=6))
    one, other = (inpaint(model, X_0, HOLE, n=3, method=method) for model in (latent, data))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(one[:, ~HOLE.expand(2, 4, 6)], X_0[~HOLE.expand(2, 4, 6)].expand(3, -1))


def test_varying_and_blending_in_latents() -> None:
    latent, data = both(SamplingConfig(steps=6))
    one, other = (image_to_image(model, X_0, 0.5, n=2) for model in (latent, data))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(image_to_image(latent, X_0, 0.0)[0], X_0)
    for method in ("ddim", "ddpm"):
        one, other = (interpolate(model, X_0, MEAN, n=3, method=method) for model in (latent, data))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    one, other = (invert(model, X_0.unsqueeze(0)) for model in (latent, data))
    assert one.shape == (1, 8, 2, 3)
    torch.testing.assert_close(haar().decode(one, SPEC), other, rtol=1e-4, atol=1e-4)


def test_a_belief_about_latents_is_never_clipped() -> None:
    bounded = replace(SPEC, bounds=(-1.0, 1.0))
    for settings in (SamplingConfig(steps=4), SamplingConfig(steps=4, dynamic_threshold=99.5)):
        free = Model(ExactInLatents(EDM()), SPEC, Recipe(sampling=settings), codec=haar()).sample(4)
        kept = Model(ExactInLatents(EDM()), bounded, Recipe(sampling=settings), codec=haar()).sample(4)
        assert float(free.abs().max()) > 1
        torch.testing.assert_close(kept, free.clamp(-1, 1))  # what is decoded is, once
