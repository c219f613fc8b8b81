"""Held to what is known of the data, in latents: through the decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.autoencoder import Autoencoder
from unstir.codec import LatentCodec
from unstir.conditioning.derived.low_res import shrunk
from unstir.data.spec import DataSpec
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.editing import ByGradient, ByReplacement, colorize, inpaint, upscale
from unstir.editing.colorize import grey_of, same_grey
from unstir.editing.conditional import complete
from unstir.editing.drawing import Drawing
from unstir.editing.inpaint import latents_outside
from unstir.editing.latent import held_through_decoder, nothing, steepness
from unstir.errors import UserError
from unstir.model import Model
from unstir.networks.coder import Coder
from unstir.networks.haar import Haar
from unstir.prediction import Prediction
from unstir.processes import EDM
from unstir.recipes import Recipe, SamplingConfig

SPEC = DataSpec("image", (3, 8, 6), "uint8", (127.5,) * 3, (127.5,) * 3, 0.4, channels_last=True, bounds=(-1.0, 1.0))
UNITS = torch.linspace(0.2, 0.6, 12)  # of the latents: as unequal as real ones


class Exact(NetDenoiser):
    """The exact denoiser of latents that are standard normal."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(nn.Linear(1, 1), EDM(sigma_max=20.0))
        self.exact = GaussianDenoiser(self.process, torch.zeros(shape), torch.ones(1))

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        return self.exact(x_t, t)


def model(coder: Coder | None = None) -> Model:
    codec = LatentCodec(Autoencoder(coder or Haar(3, 2, 2)), (0.0,) * 12, tuple(UNITS.tolist()))
    shape = codec.latent_spec(SPEC).shape
    return Model(Exact(shape), SPEC, Recipe(sampling=SamplingConfig(steps=12)), codec=codec)


def test_steepness_is_the_largest_eigenvalue() -> None:
    A = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    A[0] *= 4
    found = steepness(lambda at: at @ A.T, torch.zeros(1, 7))
    assert found == pytest.approx(float(torch.linalg.matrix_norm(A, 2) ** 2), rel=0.02)
    # Haar's latents in their units: the largest of them.
    latent = model()
    free = replace(latent.spec, bounds=())
    found = steepness(lambda z: latent.codec.decode(z, free), torch.zeros(1, 12, 4, 3))
    assert found == pytest.approx(0.36, rel=0.05)


def test_the_gradient_goes_through_the_decoder() -> None:
    """Before the known part is put into the result it is nearly there; without the gradient it is nowhere near."""
    latent = model()
    x_0 = 0.5 * torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    known = same_grey(x_0)
    drawing = Drawing.of(latent, None, 0, {})

    def miss(scale: float) -> float:
        method, within = held_through_decoder(latent, known, ByGradient(scale))
        x = complete(drawing, nothing(x_0), method, 8, 8, within)
        return float((grey_of(x) - grey_of(x_0)).square().mean().sqrt())

    assert miss(4.0) < 0.15 * miss(0.0)


def test_colours_and_sizes_are_kept_exactly() -> None:
    latent = model()
    grey = torch.rand(1, 8, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    x = colorize(latent, grey, n=4)
    torch.testing.assert_close(grey_of(x), grey.expand(4, 1, 8, 6), rtol=0, atol=1e-5)
    assert float((x[:, :1] - x[:, 1:2]).std()) > 0.05, "there are colours"
    small = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    x = upscale(latent, small, n=4)
    torch.testing.assert_close(shrunk(x, 2), small.expand(4, 3, 4, 3), rtol=0, atol=1e-5)
    for method in ("replacement", "repaint", ByReplacement()):
        with pytest.raises(UserError, match="--method gradient"):
            colorize(latent, grey, method=method)
        with pytest.raises(UserError, match="--method gradient"):
            upscale(latent, small, method=method)


class Smeared(Haar):
    """An encoder that sees beyond one latent's own pixels."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))


def test_what_stands_in_the_hole_is_not_looked_at() -> None:
    latent, fill = model(Smeared(3, 2, 2)), torch.zeros(8, 6, dtype=torch.bool)
    fill[3:6, 2:5] = True
    x_0 = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(2)) - 0.5
    known = latents_outside(latent, fill, x_0)
    other = latents_outside(latent, fill, x_0.masked_fill(fill, torch.nan))
    assert torch.equal(known.x_0, other.x_0)
    assert bool(known.x_0.isfinite().all())
    held = known.project(torch.ones(1, 1, 4, 3))[0, 0]
    assert held.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 1, 1]]
    # In one channel alone, all of a cell's latents are open: they are mixtures of its channels.
    one = torch.zeros(3, 8, 6, dtype=torch.bool)
    one[1, 0, 0] = True
    assert latents_outside(latent, one, x_0).complement(torch.ones(1, 12, 4, 3)).sum() == 12
    for method in ("repaint", "replacement", "gradient"):
        x = inpaint(latent, x_0[0], fill, n=2, method=method)
        kept = ~fill.expand(3, 8, 6)
        assert torch.equal(x[:, kept], x_0[0][kept].expand(2, -1))
        assert float((x[0] - x[1]).abs().max()) > 0.1
