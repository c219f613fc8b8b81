"""The autoencoder of one's own: any size, channels and kind of grid; the linear beginning; the last layer's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unstir.autoencoder import Autoencoder, Coder, small_grid
from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks import KL, VQ, AutoencoderNetworkConfig, BottleneckConfig, UNetConfig
from unstir.networks.autoencoder import GridCoder, principal_components
from unstir.processes import EDM
from unstir.recipes import AutoencoderConfig

SPECS = [
    DataSpec("image", (3, 20, 18)),
    DataSpec("image", (1, 7, 9)),
    DataSpec("image", (4, 8, 8)),
    DataSpec("signal", (2, 50)),
    DataSpec("volume", (1, 5, 6, 4)),
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)


def new(spec: DataSpec, bottleneck: BottleneckConfig | None = None, **sizes: object) -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderNetworkConfig(channels=8, head_channels=8, **sizes)  # type: ignore[arg-type]
    return AutoencoderConfig(bottleneck or KL()).build(config, EDM(), spec)


def coder(autoencoder: Autoencoder) -> GridCoder:
    assert isinstance(autoencoder.network, GridCoder)
    return autoencoder.network


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.shape}")
@pytest.mark.parametrize("bottleneck", [KL(), VQ(codes=6)])
def test_any_size_comes_back_at_its_size(spec: DataSpec, bottleneck: BottleneckConfig) -> None:
    """And what the factor does not divide is as if its edges had been repeated by hand, half on either side."""
    autoencoder = new(spec, bottleneck).eval()
    awake(autoencoder)
    x, grid = randn(2, *spec.shape), spec.shape[1:]
    z = autoencoder.encode(x)
    assert (
        z.shape
        == (2, 4, *[-(-size // 4) for size in grid])
        == (2, autoencoder.latent_channels, *autoencoder.small(grid))
    )
    y = autoencoder.decode(z, grid)
    padded = x
    for axis, size in enumerate(grid, start=2):
        missing = -size % 4
        places = torch.arange(-(missing // 2), size + missing - missing // 2).clamp(0, size - 1)
        padded = padded.index_select(axis, places)
    torch.testing.assert_close(autoencoder.encode(padded), z)
    inside = autoencoder.decode(z)
    assert inside.shape == padded.shape
    for axis, size in enumerate(grid, start=2):
        inside = inside.narrow(axis, (-size % 4) // 2, size)
    assert torch.equal(inside, y)


@pytest.mark.parametrize(
    ("patch", "multipliers", "factor"), [(1, (1,), 1), (2, (1,), 2), (1, (1, 2, 2), 4), (4, (1, 1), 8)]
)
def test_sizes_scale_by_numbers_alone(patch: int, multipliers: tuple[int, ...], factor: int) -> None:
    autoencoder = new(SPECS[0], patch=patch, multipliers=multipliers, latent_channels=5, blocks=2)
    assert autoencoder.factor == factor
    assert autoencoder.encode(randn(1, 3, 16, 24)).shape == (1, 5, 16 // factor, 24 // factor)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.shape}")
def test_training_sees_what_encoding_and_decoding_do(spec: DataSpec) -> None:
    """Without noise, the way through is decode(encode(x)); and gradients reach every parameter."""
    autoencoder = new(spec)
    awake(autoencoder)
    x = randn(3, *spec.shape)
    noise = torch.zeros(3, 4, *autoencoder.small(spec.shape[1:]))
    passed = autoencoder(x, noise)
    torch.testing.assert_close(passed.x, autoencoder.decode(autoencoder.encode(x)), rtol=1e-4, atol=1e-5)
    (autoencoder(x, noise + 1).x.square().mean() + passed.penalty.mean()).backward()
    assert [name for name, p in autoencoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_it_begins_as_the_best_linear_autoencoder_of_blocks() -> None:
    """Its error is the sum of the eigenvalues that it leaves out; its latents have mean 0 and variance 1."""
    blocks, mixing = randn(4000, 12), randn(12, 12, seed=1)
    rows = blocks @ mixing + 3
    x = rows.reshape(10, 20, 20, 3, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(10, 3, 40, 40)
    autoencoder = new(DataSpec("image", (3, 40, 40)), patch=2, multipliers=(1,), latent_channels=5).double()
    autoencoder.fit(x)
    z = autoencoder.encode(x.double())
    y = autoencoder.decode(z)
    values = torch.linalg.eigvalsh(torch.cov(rows.double().mT, correction=0))
    torch.testing.assert_close((x - y).square().mean() * 12, values[:-5].sum(), rtol=1e-4, atol=0)
    flat = z.movedim(1, -1).reshape(-1, 5)
    torch.testing.assert_close(flat.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        torch.cov(flat.mT, correction=0), torch.eye(5, dtype=torch.float64), atol=1e-4, rtol=1e-4
    )


def test_principal_components_in_pieces_and_fewer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = randn(50, 3)
    whole = principal_components(rows, 5)
    monkeypatch.setattr("unstir.networks.autoencoder.AT_ONCE", 7)
    for a, b in zip(whole, principal_components(rows, 5), strict=True):
        torch.testing.assert_close(a, b)
    _, components, scales = whole
    torch.testing.assert_close(components[:3] @ components[:3].mT, torch.eye(3))
    assert not components[3:].any()
    assert not scales[3:].any()
    autoencoder = new(
        DataSpec("signal", (1, 8)), patch=1, multipliers=(1, 1), latent_channels=4
    )  # 2 numbers in a block
    autoencoder.fit(randn(9, 1, 8))
    x = randn(2, 1, 8, seed=4)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(x)), x)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.shape}")
def test_the_last_layers_gradient_is_autograds(spec: DataSpec) -> None:
    autoencoder = new(spec).double()
    awake(autoencoder)
    network, x = coder(autoencoder), randn(2, *spec.shape).double()
    passed = autoencoder(x, randn(2, 4, *autoencoder.small(spec.shape[1:])).double())
    upstream = randn(*passed.x.shape, seed=2).double()
    (ours, double) = network.last_gradients(passed.features, upstream, 2 * upstream)
    (theirs,) = torch.autograd.grad((passed.x * upstream).sum(), network.last.get_parameter("weight"))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(double, 2 * theirs)


def test_muon_knows_its_hidden_matrices() -> None:
    from unstir.training.config import MuonConfig

    autoencoder = new(SPECS[0])
    optimizer = MuonConfig().build(autoencoder, 1e-3)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(autoencoder.parameters()))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="points have no grid"):
        new(DataSpec("points", (3,)))
    with pytest.raises(UserError, match="--network autoencoder"):
        AutoencoderConfig().build(UNetConfig(), EDM(), SPECS[0])
    with pytest.raises(UserError, match="--network unet"):
        AutoencoderNetworkConfig().build(SPECS[0], 3)
    with pytest.raises(UserError, match="at least 1"):
        new(SPECS[0], latent_channels=0)
    with pytest.raises(UserError, match="runs/ae takes 3 channels on a grid of 2 axes, and these data have 1 on 2"):
        new(SPECS[0]).check((1, 7, 9), "runs/ae")


def test_a_coder_of_ones_own() -> None:
    """Two methods and four numbers."""

    class Halves(Coder):
        factor, latent_channels, channels, rank = 2, 1, 1, 1

        def encode(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), 1, -1, 2).mean(3)

        def decode(self, z: Tensor) -> Tensor:
            return z.repeat_interleave(2, 2)

    autoencoder = Autoencoder(Halves())
    x = torch.tensor([[[1.0, 3.0, 5.0]]])
    assert autoencoder.encode(x).tolist() == [[[2.0, 5.0]]]
    assert autoencoder.decode(autoencoder.encode(x), (3,)).tolist() == [[[2.0, 2.0, 5.0]]]
    assert small_grid((3, 4, 9), 4) == (1, 1, 3)
