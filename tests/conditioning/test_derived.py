"""Conditions computed from the sample, against plain numpy."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from unstir.conditioning.derived import DERIVED, Edges, Hole, LowRes, Nothing, Posterized
from unstir.conditioning.derived.filters import blurred, grey
from unstir.conditioning.derived.hole import near_strokes, places
from unstir.conditioning.derived.low_res import enlarged, shrunk, small_grid
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.sampling import SampleNoise

RNG = np.random.default_rng(0)
PICTURES = DataSpec("image", (3, 11, 14), dtype="uint8", bounds=(-1.0, 1.0))
SPECS = {
    "picture": PICTURES,
    "grey": replace(PICTURES, shape=(1, 8, 8)),
    "transparent": replace(PICTURES, shape=(4, 9, 7)),
    "signal": DataSpec("signal", (2, 21)),
    "volume": DataSpec("volume", (1, 6, 5, 4), dtype="uint8", bounds=(-1.0, 1.0)),
    "points": DataSpec("points", (2,)),
}


def pictures(spec: DataSpec, n: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def rng(n: int, first: int = 0, seed: int = 3) -> SampleNoise:
    return SampleNoise(seed, range(first, first + n))


def takes(name: str, kind: str) -> bool:
    try:
        DERIVED[name]().declare(SPECS[kind])
    except UserError:
        return False
    return True


TAKEN = [(name, kind) for name in DERIVED for kind in SPECS if takes(name, kind)]


@pytest.mark.parametrize(("name", "kind"), TAKEN)
def test_what_is_declared_is_what_is_computed(name: str, kind: str) -> None:
    derived, spec = DERIVED[name](), SPECS[kind]
    declared = derived.declare(spec)
    x = pictures(spec)
    trained, given = derived.training(x, rng(5)), derived.at_sampling(derived.given(x, spec), rng(5))
    assert trained.keys() == given.keys() == declared.keys()
    for found in (trained, given):
        for key, condition in declared.items():
            shape = condition.shape if condition.kind == "grid" else (condition.size,)
            assert found[key].shape == (5, *shape)
            assert found[key].dtype == torch.float32
            if condition.kind == "grid":
                assert condition.shape[1:] == spec.shape[1:]
    assert derived.described(spec).conditions == declared


def test_kinds_of_data_that_each_takes() -> None:
    taken = {name: {kind for key, kind in TAKEN if key == name} for name in DERIVED}
    assert taken["nothing"] == set(SPECS)
    assert taken["edges"] == {"picture", "grey", "transparent"}
    assert taken["posterized"] == {"picture", "grey", "transparent", "volume"}
    assert taken["low-res"] == taken["hole"] == set(SPECS) - {"points"}
    with pytest.raises(UserError, match="edges are those of pictures, and these data are signal"):
        Edges().declare(SPECS["signal"])


def test_a_name_that_the_data_have_taken() -> None:
    spec = replace(PICTURES, conditions={"edges": Condition("class", 2)})
    with pytest.raises(UserError, match="a condition 'edges' of their own"):
        Edges().described(spec)
    assert Nothing().described(spec) is spec


def test_a_sample_s_conditions_do_not_depend_on_its_batch() -> None:
    for derived in (LowRes(), Posterized(most_levels=6), Hole()):
        x = pictures(PICTURES, 6)
        whole, part = derived.training(x, rng(6)), derived.training(x[2:4], rng(2, first=2))
        for name, value in part.items():
            torch.testing.assert_close(value, whole[name][2:4], equal_nan=True)


# ---- a smaller copy --------------------------------------------------------------------------------------------------


def plain_shrunk(x: np.ndarray, f: int) -> np.ndarray:
    """(C, H, W)."""
    C, H, W = x.shape
    small = np.zeros((C, -(-H // f), -(-W // f)))
    for c, i, j in np.ndindex(*small.shape):
        block = [x[c, min(f * i + a, H - 1), min(f * j + b, W - 1)] for a in range(f) for b in range(f)]
        small[c, i, j] = np.mean(block)
    return small


def plain_enlarged(small: np.ndarray, f: int, grid: tuple[int, int]) -> np.ndarray:
    """(C, h, w): pixel o lies at (o + 1/2) / f - 1/2 between the small ones."""

    def line(row: np.ndarray) -> np.ndarray:
        return np.interp((np.arange(f * len(row)) + 0.5) / f - 0.5, np.arange(len(row)), row)

    for axis in (1, 2):
        small = np.apply_along_axis(line, axis, small)
    return small[:, : grid[0], : grid[1]]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_low_res_against_numpy(factor: int) -> None:
    x = pictures(PICTURES)
    small, large = shrunk(x, factor), LowRes(factor).given(x, PICTURES)["low_res"]
    assert small.shape[2:] == small_grid((11, 14), factor)
    for i in range(len(x)):
        expected = plain_shrunk(x[i].double().numpy(), factor)
        np.testing.assert_allclose(small[i], expected, atol=1e-6)
        np.testing.assert_allclose(large[i], plain_enlarged(expected, factor, (11, 14)), atol=1e-6)


def test_low_res_is_what_the_loader_shrinks_to() -> None:
    """The stage below is trained on pictures that the loader shrank, so this must be the same up to the rounding to bytes."""
    from unstir.data.resize import fit_array

    data = RNG.integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
    spec = replace(PICTURES, shape=(3, 12, 16), offset=(127.5,) * 3, scale=(127.5,) * 3, channels_last=True)
    by_loader = fit_array(data, (6, 8), "crop", "white")
    ours = spec.to_data(shrunk(spec.to_model(data), 2))
    assert np.abs(by_loader.astype(int) - ours.astype(int)).max() <= 1


def test_the_level_is_that_of_the_noise() -> None:
    """Of data that are 0 only the noise is left: sin(pi s / 2) times what enlarging makes of unit noise. Linear interpolation by 2 has
    the weights 3/4 and 1/4 in each direction, so it keeps (9 + 1) / 16 of the variance for each."""
    derived, n = LowRes(2, max_level=1.0), 4000
    spec = replace(PICTURES, shape=(1, 8, 8))
    found = derived.training(torch.zeros(n, 1, 8, 8), rng(n))
    level = found["low_res_level"][:, 0].double()
    inner = found["low_res"][..., 1:-1, 1:-1].double()
    assert 0 <= level.min() < 0.01
    assert 0.99 < level.max() < 1
    assert abs(float(level.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / n)
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (level >= low) & (level < low + 0.25)
        expected = float((math.pi / 2 * level[chosen]).sin().square().mean()) * (10 / 16) ** 2
        assert float(inner[chosen].square().mean()) == pytest.approx(expected, rel=0.05)
    assert derived.described(spec).always == {"low_res", "low_res_level"}


def test_noise_of_training_replayed() -> None:
    x = pictures(PICTURES)
    found = LowRes(2, max_level=0.7).training(x, rng(5))
    replay = rng(5)
    level = 0.7 * replay.uniform().numpy()
    eps = replay.normal((3, 6, 7)).double().numpy()
    np.testing.assert_allclose(found["low_res_level"][:, 0], level, atol=1e-7)
    for i in range(5):
        clean = plain_enlarged(plain_shrunk(x[i].double().numpy(), 2), 2, (11, 14))
        noise = plain_enlarged(eps[i], 2, (11, 14))
        expected = math.cos(math.pi / 2 * level[i]) * clean + math.sin(math.pi / 2 * level[i]) * noise
        np.testing.assert_allclose(found["low_res"][i], expected, atol=1e-5)


def test_noise_of_sampling() -> None:
    derived, x = LowRes(level=0.2), pictures(PICTURES)
    clean = derived.given(x, PICTURES)
    by_default = derived.at_sampling(clean, rng(5))
    assert by_default["low_res_level"].tolist() == [[pytest.approx(0.2)]] * 5
    noise = enlarged(rng(5).normal((3, 6, 7)), 2, (11, 14))
    expected = math.cos(0.1 * math.pi) * clean["low_res"] + math.sin(0.1 * math.pi) * noise
    torch.testing.assert_close(by_default["low_res"], expected, rtol=1e-5, atol=1e-6)
    asked = derived.at_sampling({**clean, "low_res_level": torch.zeros(5, 1)}, rng(5))
    assert torch.equal(asked["low_res"], clean["low_res"])
    with pytest.raises(UserError, match=r"between 0 and 0\.5"):
        derived.at_sampling({**clean, "low_res_level": torch.full((5, 1), 0.6)}, rng(5))
    never = LowRes(max_level=0.0, level=0.2)
    assert torch.equal(never.at_sampling(clean, rng(5))["low_res"], clean["low_res"])
    assert torch.equal(never.training(x, rng(5))["low_res"], clean["low_res"])
    other = {"label": torch.arange(5)}
    assert derived.at_sampling(other, rng(5)) is other


@pytest.mark.parametrize("kind", ["signal", "volume"])
def test_low_res_of_one_and_three_dimensions(kind: str) -> None:
    """A ramp comes back a ramp, but at the ends."""
    spec = SPECS[kind]
    x = torch.arange(spec.shape[-1], dtype=torch.float32).expand(1, *spec.shape)
    large = LowRes().given(x, spec)["low_res"]
    torch.testing.assert_close(large[..., 1 : spec.shape[-1] // 2 * 2 - 1], x[..., 1 : spec.shape[-1] // 2 * 2 - 1])


def test_a_copy_of_another_size_is_refused() -> None:
    small = pictures(replace(PICTURES, shape=(3, 6, 7)), 1)
    expected = plain_enlarged(small[0].double().numpy(), 2, (11, 14))
    np.testing.assert_allclose(LowRes().enlarge(small, PICTURES)[0], expected, atol=1e-6)
    with pytest.raises(UserError, match="has the shape 3x6x7, not 3x5x7"):
        LowRes().enlarge(torch.zeros(1, 3, 5, 7), PICTURES)
    with pytest.raises(UserError, match="cannot be made 8 times smaller"):
        LowRes(factor=8).declare(PICTURES)


# ---- edges -----------------------------------------------------------------------------------------------------------


def plain_filtered(y: np.ndarray, kernel: list[float], axis: int) -> np.ndarray:
    reach = len(kernel) // 2
    padded = np.pad(y, [(reach, reach) if a == axis else (0, 0) for a in range(2)], mode="edge")
    n = y.shape[axis]
    return sum(w * padded.take(range(k, k + n), axis) for k, w in enumerate(kernel))  # type: ignore[return-value]


def plain_edges(x: np.ndarray, std: float, strength: float) -> np.ndarray:
    """(3, H, W)."""
    y = (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2] + 1) / 2
    reach = math.ceil(3 * std)
    weights = [math.exp(-0.5 * (k / std) ** 2) for k in range(-reach, reach + 1)]
    weights = [w / sum(weights) for w in weights]
    for axis in (0, 1):
        y = plain_filtered(y, weights, axis)
    smooth, slope = [0.25, 0.5, 0.25], [-0.5, 0.0, 0.5]
    g_x = plain_filtered(plain_filtered(y, smooth, 0), slope, 1)
    g_y = plain_filtered(plain_filtered(y, smooth, 1), slope, 0)
    return np.tanh(strength * np.hypot(g_x, g_y))


@pytest.mark.parametrize("std", [0.7, 1.3])
def test_edges_against_numpy(std: float) -> None:
    x = pictures(PICTURES)
    found = Edges(std, 5.0).training(x, rng(5))["edges"]
    for i in range(5):
        np.testing.assert_allclose(found[i, 0], plain_edges(x[i].double().numpy(), std, 5.0), atol=1e-5)
    assert torch.equal(found, Edges(std, 5.0).given(x, PICTURES)["edges"])


def test_edges_of_known_pictures() -> None:
    flat = torch.full((1, 3, 9, 9), 0.3)
    assert float(Edges().of(flat).max()) < 1e-4
    step = torch.full((1, 3, 9, 9), -1.0)
    step[..., 5:] = 1.0  # black to white between columns 4 and 5: half the range a pixel at both
    found = Edges(blur=0, strength=2.0).of(step)[0, 0]
    torch.testing.assert_close(found[:, 4:6], torch.full((9, 2), math.tanh(1.0)))
    assert float(found[:, :4].max()) < 1e-4
    torch.testing.assert_close(Edges().of(step.mT), Edges().of(step).mT)
    torch.testing.assert_close(Edges().of(-step), Edges().of(step))


def test_edges_can_be_differentiated() -> None:
    x = pictures(replace(PICTURES, shape=(3, 5, 6)), 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Edges().of(x), (x,))
    blank = torch.zeros(1, 3, 5, 6, requires_grad=True)
    Edges().of(blank).sum().backward()
    assert blank.grad is not None
    assert torch.equal(blank.grad, torch.zeros_like(blank))  # flat: no pixel is the one to change


def test_transparent_pictures_are_seen_on_white() -> None:
    x = pictures(SPECS["transparent"], 1)
    x[:, 3] = -1.0  # nothing is opaque
    torch.testing.assert_close(grey(x), torch.ones(1, 1, 9, 7))
    x[:, 3] = 1.0
    torch.testing.assert_close(grey(x), grey(x[:, :3]))
    torch.testing.assert_close(grey(x[:, :1]), x[:, :1])


def test_blurring_keeps_the_mean_of_what_lies_inside() -> None:
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7] = 1.0
    found = blurred(x, 1.5)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)
    centre = torch.arange(15.0) - 7
    assert float((found.sum(2) * centre.square()).sum()) == pytest.approx(1.5**2, rel=0.03)  # cut at three deviations


# ---- flat colours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_posterized_against_numpy(levels: int) -> None:
    x = pictures(PICTURES)
    found = Posterized(levels, blur=0).given(x, PICTURES)["regions"].numpy()
    there = np.linspace(-1, 1, levels)
    expected = there[np.abs(x.numpy()[..., None] - there).argmin(-1)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_posterized_is_smooth_first_and_its_levels_are_drawn() -> None:
    x = pictures(PICTURES, 200)
    fixed = Posterized(3, blur=1.0)
    torch.testing.assert_close(
        fixed.training(x, rng(200))["regions"], Posterized(3, blur=0).given(blurred(x, 1.0), PICTURES)["regions"]
    )
    drawn = Posterized(2, most_levels=4, blur=0).training(x, rng(200))["regions"]
    counts = np.array([len(np.unique(one.numpy().round(5))) for one in drawn])
    assert set(counts) == {2, 3, 4}
    assert min((counts == level).mean() for level in (2, 3, 4)) > 0.2
    beyond = Posterized(3, blur=0).given(torch.tensor([[[[-1.7, 1.2]]]]), PICTURES)["regions"]
    assert beyond.flatten().tolist() == [-1.0, 1.0]


# ---- a hole ----------------------------------------------------------------------------------------------------------


def holes(derived: Hole, spec: DataSpec, n: int = 200) -> np.ndarray:
    x = pictures(spec, n)
    known = derived.training(x, rng(n))["known"]
    hole = known.isnan()
    assert (hole == hole[:, :1]).all(), "the same for all channels"
    assert torch.equal(known[~hole], x[~hole])
    return hole[:, 0].numpy()


def test_boxes() -> None:
    spec = replace(PICTURES, shape=(3, 20, 30))
    sides = []
    for hole in holes(Hole(boxes=1.0, smallest=0.25, largest=0.75), spec):
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        box = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert box.sum() == hole.sum()
        sides.append((box.shape[0] / 20, box.shape[1] / 30))
    low, high = np.min(sides), np.max(sides)
    assert 0.25 - 1 / 20 <= low < 0.35
    assert 0.65 < high <= 0.75 + 1 / 20


def test_strokes() -> None:
    spec = replace(PICTURES, shape=(3, 20, 30))
    found = holes(Hole(boxes=0.0, thickness=0.2, strokes=3), spec)
    assert all(0 < hole.sum() < hole.size for hole in found)
    for hole in found[:20]:  # it is in one piece
        reached = np.zeros_like(hole)
        reached[tuple(np.argwhere(hole)[0])] = True
        while True:
            grown = np.pad(reached, 1)
            near = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:] | reached
            near &= hole
            if (near == reached).all():
                break
            reached = near
        assert (reached == hole).all()


def test_a_stroke_is_the_places_near_its_line() -> None:
    """From the same random numbers: kind, thickness, a box's size and corner, and then the points of the stroke."""
    spec, n = replace(PICTURES, shape=(3, 20, 30)), 8
    found = holes(Hole(boxes=0.0, thickness=0.2, strokes=3), spec, n)
    u = torch.special.ndtr(rng(n).normal((2 + 2 + 2 + 8,), torch.float64)).numpy()
    at = np.stack(np.meshgrid(np.arange(20) + 0.5, np.arange(30) + 0.5, indexing="ij"), -1)  # in pixels
    shares = np.linspace(0, 1, 201)[:, None]
    for hole, numbers in zip(found, u):
        points = numbers[6:].reshape(4, 2) * (20, 30)
        along = np.concatenate([a + shares * (b - a) for a, b in itertools.pairwise(points)])
        distance = np.linalg.norm(at[:, :, None] - along, axis=-1).min(-1)
        diameter = (0.1 + 0.1 * numbers[1]) * 30  # from half the thickness to all of it, of the longest side
        certain = np.abs(distance - diameter / 2) > 0.05
        np.testing.assert_array_equal(hole[certain], (distance < diameter / 2)[certain])


def test_distance_to_strokes_against_points_along_them() -> None:
    at = places((12, 18))
    assert torch.equal(at[:2] * 18, torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
    points = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(1))
    near = near_strokes(at, points, torch.full((4,), 0.12))
    shares = np.linspace(0, 1, 2001)[:, None]
    for line, found in zip(points.double().numpy(), near.numpy()):
        along = np.concatenate([line[k] + shares * (line[k + 1] - line[k]) for k in range(2)])
        distance = np.linalg.norm(at.double().numpy()[:, None] - along, axis=-1).min(1)
        certain = np.abs(distance - 0.12) > 1e-3
        np.testing.assert_array_equal(found[certain], (distance < 0.12)[certain])


@pytest.mark.parametrize("kind", ["signal", "volume", "grey"])
def test_holes_of_any_rank(kind: str) -> None:
    found = holes(Hole(), SPECS[kind], 100)
    share = found.reshape(100, -1).mean(1)
    assert 0.02 < share.mean() < 0.8
    assert (share > 0).mean() > 0.9


def test_the_share_of_boxes_and_what_is_given() -> None:
    spec = replace(PICTURES, shape=(3, 24, 24))
    both, boxes, strokes = (holes(Hole(boxes=share), spec) for share in (0.3, 1.0, 0.0))
    are_boxes = (both == boxes).all((1, 2))
    assert ((both == strokes).all((1, 2)) | are_boxes).all()
    assert 0.2 < are_boxes.mean() < 0.4
    x = pictures(spec)
    x[:, :, 3:5] = float("nan")
    torch.testing.assert_close(Hole().given(x, spec)["known"], x, equal_nan=True)
    assert Hole().like(x, spec) == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: LowRes(factor=1),
        lambda: LowRes(level=-0.1),
        lambda: LowRes(max_level=1.1),
        lambda: Edges(strength=0.0),
        lambda: Edges(blur=-1.0),
        lambda: Posterized(levels=1),
        lambda: Posterized(levels=4, most_levels=3),
        lambda: Hole(smallest=0.8),
        lambda: Hole(boxes=2.0),
        lambda: Hole(strokes=0),
    ],
)
def test_settings_of_which_nothing_can_be_made(make: object) -> None:
    with pytest.raises(UserError, match="derived"):
        make()  # type: ignore[operator]
