"""The editing functions on models whose answers are known: exact ones of Gaussian data, and an untrained network where any will do."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unstir.data import Condition, DataSpec
from unstir.denoiser import NetDenoiser
from unstir.editing import (
    METHODS,
    ByReplacement,
    ByResampling,
    colorize,
    decode,
    image_to_image,
    inpaint,
    interpolate,
    invert,
    slerp,
)
from unstir.editing.colorize import LUMA, grey_of, into_range, same_grey
from unstir.editing.drawing import Drawing, last_steps
from unstir.errors import UserError
from unstir.linear import LinearDenoiser
from unstir.model import Model
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, VP, LinearVP, RectifiedFlow
from unstir.recipes import Recipe, SamplingConfig
from unstir.samplers import DDIM, DDPM, DPMpp2M, Euler, Heun
from unstir.samplers.grids import Karras, Uniform
from unstir.samplers.replacement import Known
from unstir.sampling import SampleNoise

IMAGES = DataSpec("image", (3, 6, 5), "uint8", (127.5,) * 3, (127.5,) * 3, 0.5, channels_last=True, bounds=(-1.0, 1.0))
POINTS = DataSpec("points", (2,))
SETTINGS = SamplingConfig(DDIM(), Karras(), 8)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


class Anchor(nn.Module):
    """A network in name: the model's device is its parameter's."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))


class Oracle(NetDenoiser):
    """The exact denoiser of Gaussian data where a trained network would be."""

    def __init__(self, process: Process, mean: Tensor, covariance: Tensor) -> None:
        super().__init__(Anchor(), process)
        self.exact = LinearDenoiser(process, tuple(mean.shape), mean.numel())
        variances, directions = torch.linalg.eigh(covariance)
        self.exact.mean.copy_(mean)
        self.exact.variances.copy_(variances)
        self.exact.directions.copy_(directions.T)

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        # The exact belief in float64, so that rounding is the samplers' own.
        exact = self.exact.double()
        belief = exact(x_t.double(), t)
        return Prediction(x_t, *(value.to(x_t.dtype) for value in (belief.x_0, belief.eps, belief.alpha, belief.sigma)))


def points_model(process: Process | None = None, settings: SamplingConfig = SETTINGS) -> Model:
    oracle = Oracle(process or EDM(), torch.tensor([0.3, -0.5]), COVARIANCE)
    return Model(oracle, POINTS, Recipe(sampling=settings))


class Blur(nn.Module):
    """An untrained network that is at least not trivial: every pixel depends on its neighbours, its channel and the noise level."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(0.3 * torch.randn(3, 3, 3, 3, generator=generator))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        shift = 0.0 if label is None else 0.1 * label.reshape(-1, 1, 1, 1)
        F = nn.functional.conv2d(x, self.kernel, padding=1) + 0.1 * c_noise.reshape(-1, 1, 1, 1)
        return torch.tanh(F + shift)


def image_model(spec: DataSpec = IMAGES, **sampling: Any) -> Model:
    settings = replace(SETTINGS, **sampling)
    return Model(NetDenoiser(Blur(), EDM(), "edm", sigma_data=0.5), spec, Recipe(sampling=settings))


def picture(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (1, 6, 5, 3), dtype=np.uint8)


# ---- inpainting ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_known_pixels_are_kept_to_the_bit_and_unknown_ones_are_never_looked_at(method: str) -> None:
    model, before = image_model(), picture()
    fill = torch.zeros(1, 6, 5, dtype=torch.bool)
    fill[:, 1:4, 2:] = True
    x_0 = IMAGES.to_model(before)[0]
    x = inpaint(model, x_0, fill, n=3, method=method, seed=5)
    after = IMAGES.to_data(x)
    kept = ~fill[0].numpy()
    for one in after:
        np.testing.assert_array_equal(one[kept], before[0][kept])
    assert not np.array_equal(after[0][~kept], after[1][~kept])
    holed = torch.where(fill, torch.nan, x_0)
    assert torch.equal(inpaint(model, holed, fill, n=3, method=method, seed=5), x)


@pytest.mark.parametrize("method", METHODS)
def test_a_filling_depends_on_its_number_and_the_seed_alone(method: str) -> None:
    model, fill = image_model(), torch.ones(1, 6, 5, dtype=torch.bool)
    fill[:, 0] = False
    x_0 = IMAGES.to_model(picture())[0]
    many = inpaint(model, x_0, fill, n=5, method=method, seed=3)
    torch.testing.assert_close(inpaint(model, x_0, fill, n=3, method=method, seed=3, batch_size=2), many[:3])
    assert not torch.allclose(inpaint(model, x_0, fill, n=3, method=method, seed=4), many[:3])


def test_nothing_known_is_sampling() -> None:
    model, fill = image_model(), torch.ones(1, 1, 1, dtype=torch.bool)
    x = inpaint(model, torch.zeros(3, 6, 5), fill, n=4, method="replacement", seed=2)
    torch.testing.assert_close(x, model.sample(4, seed=2), rtol=1e-5, atol=1e-6)


def test_fillings_of_correlated_points_are_near_the_conditional() -> None:
    # How near, and why, is computed exactly in tests/samplers/test_repaint.py; this is the whole path, by samples.
    model = points_model(settings=replace(SETTINGS, sampler=DDPM("large"), steps=16))
    fill, x_0 = torch.tensor([False, True]), torch.tensor([1.3, 0.0])
    mean, std = -0.5 + 0.6 * (1.3 - 0.3), (0.5 - 0.36) ** 0.5
    x = inpaint(model, x_0, fill, n=300, method=ByResampling(8), batch_size=300)
    assert torch.equal(x[:, 0], torch.full((300,), 1.3))
    assert float(x[:, 1].mean()) == pytest.approx(mean, abs=0.25 * std)
    assert float(x[:, 1].std()) == pytest.approx(std, rel=0.15)
    plain = inpaint(model, x_0, fill, n=300, method="replacement", batch_size=300)
    assert abs(float(plain[:, 1].mean()) - mean) > 2 * abs(float(x[:, 1].mean()) - mean)


def test_what_inpainting_refuses() -> None:
    model, x_0 = image_model(), torch.zeros(3, 6, 5)
    some = torch.ones(1, 6, 5, dtype=torch.bool)
    for expected, arguments, options in (
        ("marks nothing to fill", (x_0, ~some), {}),
        (r"shape \(3, 5, 6\)", (torch.zeros(3, 5, 6), some), {}),
        ("does not fit data", (x_0, some[..., :3]), {}),
        ("did you mean repaint", (x_0, some), {"method": "repant"}),
        ("at least 1", (x_0, some), {"n": 0}),
        ("takes no condition 'label'", (x_0, some), {"label": 1}),
    ):
        with pytest.raises(UserError, match=expected):
            inpaint(model, *arguments, **options)


def test_labels_are_given_or_absent() -> None:
    labelled = replace(IMAGES, conditions={"label": Condition("class", 4)})
    model, fill = image_model(labelled, guidance_scale=3.0), torch.ones(1, 6, 5, dtype=torch.bool)
    asked: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: Any, kinds: dict[str, Tensor]) -> None:
        asked.append(tuple(kinds["label"].tolist()))

    model.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    x_0, plain = torch.zeros(3, 6, 5), ByReplacement()
    without = inpaint(model, x_0, fill, n=2, method=plain)
    assert set(asked) == {(-1, -1)}  # no label, and no guidance by none
    asked.clear()
    with_one = inpaint(model, x_0, fill, n=2, method=plain, label=2)
    assert set(asked) == {(-1, -1, 2, 2)}
    assert not torch.allclose(with_one, without)


# ---- colours -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [LUMA, (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_known_grey_is_an_orthogonal_projection(weights: tuple[float, float, float], channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, channels, 3, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    known = same_grey(y, weights)
    torch.testing.assert_close(known.project(known.project(x)), known.project(x))
    torch.testing.assert_close(known.project(x) + known.complement(x), x)
    assert float((known.project(x) * known.complement(y)).sum()) == pytest.approx(0, abs=1e-12)
    put = known.put(x, y)
    torch.testing.assert_close(grey_of(put, weights), grey_of(y, weights))
    torch.testing.assert_close(put[:, 3:], y[:, 3:])  # transparency is known
    # What of white noise falls on the known direction has variance 1: noised grey is grey with that noise.
    noise = torch.randn(20_000, channels, 1, 1, dtype=torch.float64, generator=generator)
    energy = known.project(noise).square().sum(1).mean()
    assert float(energy) == pytest.approx(channels - 2, rel=0.05)


def test_score_sde_s_matrix_is_the_mean_s_case() -> None:
    # The decoupling matrix of the released code; columns are the new axes, the first of them grey.
    M = torch.tensor(
        [[0.57735014, -0.81649649, 0.0], [0.57735026, 0.40824834, 0.70710671], [0.57735026, 0.40824822, -0.70710683]]
    )
    x, y = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    decoupled, wanted = (torch.einsum("bihw,ij->bjhw", value, M) for value in (x, y))
    decoupled[:, :1] = wanted[:, :1]
    put = same_grey(y, (1 / 3, 1 / 3, 1 / 3)).put(x, y)
    torch.testing.assert_close(put, torch.einsum("bjhw,ij->bihw", decoupled, M), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_colours_keep_the_grey(method: str) -> None:
    model = image_model(clip=False)
    level = np.random.default_rng(0).integers(0, 256, (1, 6, 5), dtype=np.uint8)
    grey = (torch.from_numpy(level).float() - 127.5) / 127.5
    x = colorize(model, grey, n=4, method=method)
    assert float((x[:, 0] - x[:, 1]).abs().max()) > 0.1  # colours there are
    assert float(x.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(grey_of(x), grey.expand(4, 1, 6, 5), rtol=0, atol=2e-6)
    # Each byte is off by half a level at most, and so is their weighted mean: the grey is right, up to a tie.
    after = IMAGES.to_data(x).astype(np.float64) @ np.array(LUMA)
    assert np.abs(after - level[0]).max() <= 0.5 + 1e-3
    # Of a picture in colours only its grey is looked at.
    coloured = grey + same_grey(torch.zeros(1, 3, 6, 5)).complement(0.1 * torch.randn(1, 3, 6, 5))
    torch.testing.assert_close(colorize(model, coloured, n=4, method=method), x, rtol=1e-4, atol=1e-5)


def test_transparency_is_kept() -> None:
    spec = replace(IMAGES, shape=(4, 6, 5), offset=(127.5,) * 4, scale=(127.5,) * 4)
    mean, variances = torch.zeros(4, 6, 5), torch.eye(120)
    model = Model(Oracle(EDM(), mean, variances), spec, Recipe(sampling=SETTINGS))
    x_0 = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = colorize(model, x_0, method="replacement", n=2)
    assert torch.equal(x[:, 3], x_0[3].expand(2, 6, 5))
    assert torch.equal(colorize(model, x_0[:1], method="replacement")[:, 3], torch.ones(1, 6, 5))


def test_colours_out_of_range_become_paler() -> None:
    grey = torch.tensor([[0.9]]).reshape(1, 1, 1, 1)
    chroma = torch.tensor([0.587, -0.299, 0.0]).reshape(1, 3, 1, 1)  # of luma 0
    x = into_range(grey + chroma, grey, -1, 1)
    torch.testing.assert_close(x, grey + chroma * 0.1 / 0.587)
    inside = grey + 0.1 * chroma
    torch.testing.assert_close(into_range(inside, grey, -1, 1), inside)
    assert torch.equal(into_range(grey.expand(1, 3, 1, 1), grey, -1, 1), grey.expand(1, 3, 1, 1))


def test_only_colour_pictures_can_be_coloured() -> None:
    with pytest.raises(UserError, match="only a model of colour pictures"):
        colorize(points_model(), torch.zeros(2))


# ---- image to image ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), DPMpp2M(), Heun(churn=0.2)])
def test_sdedit_s_two_ends(sampler: Any) -> None:
    model, x_0 = image_model(sampler=sampler), IMAGES.to_model(picture())[0]
    assert torch.equal(image_to_image(model, x_0, 0.0, n=2), x_0.expand(2, 3, 6, 5))
    assert torch.equal(image_to_image(model, x_0, 1.0, n=3, seed=4), model.sample(3, seed=4))


def test_the_stronger_the_farther() -> None:
    # Of Gaussian data the exact flow from noise level s is known: what is left of x_0 - mean is var / (var + s²)^½ / std.
    model = points_model(settings=replace(SETTINGS, sampler=Heun(), steps=60))
    x_0 = torch.tensor([2.0, 1.0])
    times = model.recipe.sampling.times(model.denoiser.process)
    values, vectors = torch.linalg.eigh(COVARIANCE)
    mean = torch.tensor([0.3, -0.5]).double()
    for strength in (0.2, 0.5, 0.8):
        x = image_to_image(model, x_0, strength, n=2, seed=1)
        t = times[60 - round(60 * strength)]
        eps = SampleNoise(1, range(2)).normal((2,)).double()
        latent = (x_0.double() + t * eps - mean) @ vectors
        wanted = mean + (latent * (values / (values + t**2)).sqrt()) @ vectors.T
        torch.testing.assert_close(x.double(), wanted, rtol=0, atol=0.01)


def test_strength_counts_whole_steps() -> None:
    times = torch.arange(10, -1, -1).double()
    assert [len(last_steps(times, s)) - 1 for s in (0, 0.01, 0.24, 0.26, 0.5, 0.99, 1)] == [0, 1, 2, 3, 5, 10, 10]
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="between 0 and 1"):
            last_steps(times, strength)


# ---- between two ---------------------------------------------------------------------------------------------------------------


def test_slerp() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    half = 2 * 0.5**0.5
    got = slerp(a, b, torch.tensor([0.0, 1 / 3, 0.5, 1.0]))
    torch.testing.assert_close(got, torch.tensor([[2.0, 0.0], [3**0.5, 1.0], [half, half], [0.0, 2.0]]))
    random = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    arc = slerp(*random, torch.linspace(0, 1, 7))
    assert arc.shape == (7, 3, 4, 5)
    # Turned in the plane of the two: v is what of the second one is at right angles to the first. Lengths change as the arc's do.
    one, two = (value.flatten().double() for value in random)
    v = two - (one @ two) / (one @ one) * one
    theta = torch.atan2(v.norm() / two.norm(), (one @ two) / (one.norm() * two.norm()))
    for i, w in enumerate(torch.linspace(0, 1, 7, dtype=torch.float64)):
        up = (w * theta).sin() * two.norm()
        along = ((1 - w) * theta).sin() / theta.sin() * one.norm() + up / theta.tan()
        expected = along * one / one.norm() + up * v / v.norm()
        torch.testing.assert_close(arc[i].flatten().double(), expected, rtol=1e-5, atol=1e-5)
    same = slerp(a, 3 * a, torch.tensor([0.0, 0.5, 1.0]))  # no angle: a straight line
    torch.testing.assert_close(same, torch.tensor([[2.0, 0.0], [4.0, 0.0], [6.0, 0.0]]))


def round_trip(process: Process, sampler: Any, steps: int) -> float:
    model = points_model(process, replace(SETTINGS, sampler=sampler, grid=Karras(sigma_min=0.02), steps=steps))
    settings = model.recipe.sampling
    x_0 = torch.tensor([[1.5, 0.2], [-0.7, -0.9], [0.3, 0.6]])
    back = decode(model, invert(model, x_0, settings=settings), settings=settings)
    return float((back - x_0).square().mean().sqrt())


@pytest.mark.parametrize("process", [EDM(), VP(), RectifiedFlow()])
def test_the_round_trip_s_error_falls_with_the_steps(process: Process) -> None:
    euler = [round_trip(process, DDIM(), steps) for steps in (10, 20, 40, 80)]
    heun = [round_trip(process, Heun(), steps) for steps in (10, 20, 40, 80)]
    for coarse, fine in itertools.pairwise(euler):
        assert 0.35 < fine / coarse < 0.65  # first order
    for coarse, fine in itertools.pairwise(heun):
        assert fine / coarse < 0.45
    assert heun[-1] < 0.1 * euler[-1]


def test_latents_of_a_gaussian() -> None:
    # The exact flow to noise level s stretches every principal direction by (var + s²)^½ / std.
    settings = replace(SETTINGS, sampler=Heun(), steps=100)
    model = points_model(settings=settings)
    x_0 = torch.tensor([[1.5, 0.2], [-0.7, -0.9]])
    values, vectors = torch.linalg.eigh(COVARIANCE)
    mean = torch.tensor([0.3, -0.5]).double()
    wanted = mean + ((x_0.double() - mean) @ vectors * ((values + 80**2) / values).sqrt()) @ vectors.T
    torch.testing.assert_close(invert(model, x_0, settings=settings).double(), wanted, rtol=3e-3, atol=0.1)


def test_ends_of_interpolations() -> None:
    a, b = torch.tensor([1.5, 0.2]), torch.tensor([-0.7, -0.9])
    model = points_model()
    x = interpolate(model, a, b, n=5)
    torch.testing.assert_close(x[[0, -1]], torch.stack([a, b]), rtol=0, atol=0.005)  # by default
    # Between them: the exact latents of a Gaussian, turned into each other, and the exact way back.
    values, vectors = torch.linalg.eigh(COVARIANCE)
    mean, ends = torch.tensor([0.3, -0.5]).double(), torch.stack([a, b]).double()
    stretched = ((values + 80**2) / values).sqrt()
    latents = mean + ((ends - mean) @ vectors * stretched) @ vectors.T
    wanted = mean + ((slerp(*latents, torch.linspace(0, 1, 5)) - mean) @ vectors / stretched) @ vectors.T
    torch.testing.assert_close(x.double(), wanted, rtol=0, atol=0.02)
    x = interpolate(model, a, b, n=5, settings=replace(SETTINGS, sampler=DDIM(), steps=100))
    torch.testing.assert_close(x[[0, -1]], torch.stack([a, b]), rtol=0, atol=0.08)
    x = interpolate(model, a, b, n=3, method="ddpm", strength=0.0)
    torch.testing.assert_close(x, torch.stack([a, (a + b) / 2, b]))
    little = interpolate(model, a, b, n=3, method="ddpm", strength=0.125)
    torch.testing.assert_close(little[[0, -1]], torch.stack([a, b]), rtol=0, atol=0.02)


def test_ddpm_s_interpolation_is_sdedit_of_the_blend() -> None:
    # Because both ends share their noise, which is the one of sample 0; so does every step's.
    model = image_model(sampler=DDPM())
    a, b = (IMAGES.to_model(picture(seed))[0] for seed in (0, 1))
    x = interpolate(model, a, b, n=5, method="ddpm", strength=0.6, seed=9)
    for i, w in enumerate(torch.linspace(0, 1, 5)):
        alone = image_to_image(model, (1 - w) * a + w * b, 0.6, seed=9)
        torch.testing.assert_close(x[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_what_interpolation_refuses() -> None:
    model = points_model(settings=replace(SETTINGS, sampler=DDPM()))
    a, b = torch.zeros(2), torch.ones(2)
    interpolate(model, a, b, n=2)  # the recipe's sampler draws noise, so another takes its place
    for expected, options in (
        ("draws noise", {"settings": replace(SETTINGS, sampler=DDPM(), grid=Uniform())}),
        ("use --sampler ddim", {"settings": replace(SETTINGS, sampler=Euler(churn=0.3))}),
        ("at least 2", {"n": 1}),
        ("unknown method 'ddm'; did you mean", {"method": "ddm"}),
        ("between 0 and 1", {"method": "ddpm", "strength": 2.0}),
    ):
        with pytest.raises(UserError, match=expected):
            interpolate(model, a, b, **options)


# ---- what they share -----------------------------------------------------------------------------------------------------------


def test_clipping_stays_outermost() -> None:
    seen: list[str] = []
    model = image_model()

    def around(denoiser: Any) -> Any:
        seen.append(type(denoiser).__name__)
        return denoiser

    drawing = Drawing.of(model, None, 0, {})
    assert type(drawing.denoiser(around)).__name__ == "ClipX0"
    assert seen == ["NetDenoiser"]
    assert type(Drawing.of(model, replace(SETTINGS, clip=False), 0, {}).denoiser()).__name__ == "NetDenoiser"  # nothing


def test_whole_steps_work_too() -> None:
    model = points_model(LinearVP(), replace(SETTINGS, sampler=DDPM(), grid=Uniform(), steps=30))
    fill, x_0 = torch.tensor([False, True]), torch.tensor([1.3, 0.0])
    for method in METHODS:
        x = inpaint(model, x_0, fill, n=60, method=method)
        assert float(x[:, 1].mean()) == pytest.approx(0.1, abs=0.25)
    back = interpolate(model, x_0, -x_0, n=2)
    torch.testing.assert_close(back, torch.stack([x_0, -x_0]), rtol=0, atol=0.1)


def test_known_is_exact_where_it_selects() -> None:
    mask = torch.tensor([1.0, 0.0])
    known = Known(torch.tensor([[0.1, 5.0]]), lambda x: mask * x, lambda x: (1 - mask) * x)
    x = torch.tensor([[1e30, 0.3]])
    assert torch.equal(known.put(x, known.x_0), torch.tensor([[0.1, 0.3]]))
