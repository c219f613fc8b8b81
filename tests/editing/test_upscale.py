"""Enlarging: what is made smaller again is what was given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.conditioning.derived import LowRes
from unstir.conditioning.derived.low_res import enlarged, shrunk
from unstir.data.spec import DataSpec
from unstir.denoiser import GaussianDenoiser, NetDenoiser
from unstir.editing.upscale import repeated, same_blocks, shrink_error, upscale
from unstir.errors import UserError
from unstir.model import Model
from unstir.processes import EDM
from unstir.recipes import Recipe, SamplingConfig
from unstir.sampling import SampleNoise

SIGNAL = DataSpec("signal", (1, 12), std=1.0)
SETTINGS = SamplingConfig(steps=40, labels="none")
SIGMA_DATA = 1.0


def covariance(size: int) -> Tensor:
    """Neighbours are alike."""
    i = torch.arange(size, dtype=torch.float64)
    return (-(i[:, None] - i).abs() / 3).exp()


class ExactGivenSmall(nn.Module):
    """E[x_0 | x_t, low_res] of Gaussian data (1, D), where low_res is without noise: what a perfect stage would say."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        unit = torch.eye(size, dtype=torch.float64).unsqueeze(1)  # (D, 1, D)
        A = enlarged(shrunk(unit, 2), 2, (size,))[:, 0].T  # what becomes of each unit vector, as columns
        C = covariance(size)
        inverse = torch.linalg.pinv(A @ C @ A.T, rcond=1e-10)
        self.gain = C @ A.T @ inverse
        self.left = C - self.gain @ A @ C

    def forward(self, x: Tensor, c_noise: Tensor, *, low_res: Tensor, low_res_level: Tensor) -> Tensor:
        assert bool((low_res_level == 0).all())
        sigma = float((4 * c_noise[0].double()).exp())
        x_t = x[:, 0].double() * (SIGMA_DATA**2 + sigma**2) ** 0.5  # undo c_in
        mean = low_res[:, 0].double() @ self.gain.T
        noisy = self.left + sigma**2 * torch.eye(len(self.left), dtype=torch.float64)
        x_0 = mean + torch.linalg.solve(noisy, (x_t - mean).T).T @ self.left
        return x_0.unsqueeze(1).to(x)


def perfect(size: int = 12) -> Model:
    derived = LowRes(level=0.0)
    spec = derived.described(replace(SIGNAL, shape=(1, size)))
    recipe = Recipe(derived=derived, sampling=SETTINGS)
    return Model(NetDenoiser(ExactGivenSmall(size), EDM(), "x_0", sigma_data=SIGMA_DATA), spec, recipe)


def test_a_perfect_stage_keeps_what_it_enlarges() -> None:
    model = perfect()
    x_0 = (torch.linalg.cholesky(covariance(12)).float() @ SampleNoise(1, [0]).normal((12,))[0]).reshape(1, 12)
    small = shrunk(x_0.unsqueeze(0), 2)[0]
    x = upscale(model, small, n=64)
    assert x.shape == (64, 1, 12)
    torch.testing.assert_close(shrunk(x, 2), small.expand(64, 1, 6), rtol=0, atol=0.02)
    assert shrink_error(x, small, 2, model.spec) < 0.01
    # What the small one leaves open is drawn, with the spread that it has.
    left = model.denoiser.network.left.diagonal().mean().sqrt()  # type: ignore[union-attr]
    assert float(x.std(0).mean()) == pytest.approx(float(left), rel=0.2)
    few = upscale(model, small, n=5, batch_size=2)
    torch.testing.assert_close(few, x[:5], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(upscale(model, small, n=5, seed=1), few, atol=1e-2)


def test_the_guidance_of_a_stage_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, built = perfect(), []
    guided = model.guided
    monkeypatch.setattr(model, "guided", lambda *given: built.append(given) or guided(*given))
    upscale(model, torch.zeros(1, 6), n=5, batch_size=2)
    assert len(built) == 1


def test_made_smaller_again_by_the_same_factor() -> None:
    """Of a side that the factor does not divide: 9 places are three blocks of 4, of which the last reaches over the edge."""
    x = torch.arange(9.0).reshape(1, 1, 9)
    spec = replace(SIGNAL, shape=(1, 9))
    assert shrink_error(x, torch.tensor([[1.5, 5.5, 8.0]]), 4, spec) == 0


def any_model(shape: tuple[int, ...] = (3, 8, 6)) -> Model:
    """One that never heard of smaller copies."""

    class Exact(NetDenoiser):
        def __init__(self) -> None:
            super().__init__(nn.Linear(1, 1), EDM(), "edm", sigma_data=0.5)
            self.exact = GaussianDenoiser(EDM(), torch.zeros(shape), torch.full((1,), 0.4))

        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor):  # type: ignore[no-untyped-def, override]
            return self.exact(x_t, t)

    spec = DataSpec("image", shape, "uint8", (127.5,) * 3, (127.5,) * 3, 0.4, channels_last=True, bounds=(-1.0, 1.0))
    return Model(Exact(), spec, Recipe(sampling=replace(SETTINGS, steps=8)))


@pytest.mark.parametrize("method", ["replacement", "repaint", "gradient"])
def test_any_model_keeps_the_means_of_blocks_exactly(method: str) -> None:
    small = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    x = upscale(any_model(), small, n=6, method=method)
    torch.testing.assert_close(shrunk(x, 2), small.expand(6, 3, 4, 3), rtol=0, atol=1e-5)
    assert float((x - repeated(small.unsqueeze(0), 2)).std()) > 0.1
    larger = upscale(any_model((3, 12, 9)), small, factor=3)
    torch.testing.assert_close(shrunk(larger, 3), small.unsqueeze(0), rtol=0, atol=1e-5)


def test_blocks_are_an_orthogonal_projection() -> None:
    known = same_blocks(torch.zeros(1, 1, 4, 6), 2)
    unit = torch.eye(24).reshape(24, 1, 4, 6)
    P = known.project(unit).reshape(24, 24)
    torch.testing.assert_close(P @ P, P)
    torch.testing.assert_close(P, P.T)
    assert float(P.trace()) == pytest.approx(6)
    torch.testing.assert_close(P + known.complement(unit).reshape(24, 24), torch.eye(24))


def test_sizes_and_kinds_that_cannot_be() -> None:
    with pytest.raises(UserError, match="5x3 made 2 times larger is not one of 8x6"):
        upscale(any_model(), torch.zeros(3, 5, 3))
    with pytest.raises(UserError, match="this model's data have"):
        upscale(any_model(), torch.zeros(1, 4, 3))
    with pytest.raises(UserError, match="too large for one piece"):
        upscale(perfect(), torch.zeros(1, 2**20))
    with pytest.raises(UserError, match="unknown method"):
        upscale(any_model(), torch.zeros(3, 4, 3), method="magic")
