"""Data sets that come with the library, by name.

Points are drawn from a fixed seed: the same everywhere, so that runs can be compared. One more is one function and one
line in BUILTIN.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unstir.data.arrays import columns, from_array
from unstir.data.cache import digest, key_of
from unstir.data.config import DataConfig
from unstir.data.contents import Array, Column, Contents
from unstir.data.spec import Condition
from unstir.errors import UserError

POINTS = 20_000
Draw = npt.NDArray[np.float64]

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_SPLITS = {"train": "train", "test": "t10k"}  # and what their files' names begin with
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def _shipped(name: str, config: DataConfig) -> Contents:
    file = resources.files("unstir.data").joinpath("builtin", f"{name}.npz")
    with resources.as_file(file) as path, np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
        content = digest(path)
    x = arrays.pop("x")
    return from_array(name, x, columns(arrays, len(x), name), config, content)


def emoji(config: DataConfig) -> Contents:
    """1,911 emoji in the style of Google (Noto Emoji), 32 x 32 RGB on white; classes: 10 categories; captions: their
    Unicode names."""
    return _shipped("emoji", config)


def digits(config: DataConfig) -> Contents:
    """1,797 handwritten digits, 8 x 8 grey (Alpaydin and Kaynak 1998, UCI); classes: 0 to 9."""
    contents = _shipped("digits", config)
    names = tuple(str(digit) for digit in range(10))
    contents.columns["label"] = Column(Condition("class", 10, names), contents.columns["label"].values)
    return contents


def fashion_mnist(config: DataConfig) -> Contents:
    """60,000 pictures of clothing, 28 x 28 grey (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), 10 classes; and another
    10,000 as split test.

    Raises:
        UserError: the files are not on this machine.
    """
    folders = [config.cache_folder() / "fashion-mnist", FASHION_FOLDER]
    prefix = FASHION_SPLITS[config.split]
    names = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
    folder = next((f for f in folders if all((f / name).is_file() for name in names)), None)
    if folder is None:
        raise UserError(
            "fashion-mnist is not on this machine: sudo apt-get install dataset-fashion-mnist, or put "
            f"{names[0]} and {names[1]} from github.com/zalandoresearch/fashion-mnist in {folders[0]}"
        )
    x, y = read_idx(folder / names[0])[..., None], read_idx(folder / names[1])
    found = {"label": Column(Condition("class", 10, FASHION_CLASSES), y.astype(np.int64))}
    return from_array("fashion-mnist", x, found, config, f"builtin-fashion-mnist-{config.split}-1")


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """A gzipped file of the MNIST kind: two zeros, type 8 (bytes), the number of axes, their lengths (big-endian), the
    bytes."""
    try:
        data = gzip.decompress(path.read_bytes())
        if data[:3] != b"\0\0\x08":
            raise ValueError("not an idx file of bytes")
        shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error}); get it again") from None


def swiss_roll(rng: np.random.Generator) -> tuple[Draw, None]:
    """The swiss roll of Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 3.1.1) as a spiral in the plane,
    standardised.

    angle = 3/2 pi (1 + 2 u), u uniform; x = angle (cos, sin) + 0.25 noise; divided by the root mean square of both
    coordinates.
    """
    angle = 1.5 * math.pi * (1 + 2 * rng.random(POINTS))
    x = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.25 * rng.standard_normal((POINTS, 2))
    x -= x.mean(axis=0)
    return x / x.std(), None


def moons(rng: np.random.Generator) -> tuple[Draw, Array]:
    """Two half circles of radius 1 that interlock, noise 0.05."""
    label = rng.integers(2, size=POINTS)
    angle = math.pi * rng.random(POINTS)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return np.where(label[:, None] == 0, upper, lower) + 0.05 * rng.standard_normal((POINTS, 2)), label


def checkerboard(rng: np.random.Generator) -> tuple[Draw, None]:
    """Uniform on the black squares of a 4 x 4 board over [-2, 2]²; density 1/8 there, so 3 bits = log 8 nats: known
    exactly."""
    column = rng.integers(4, size=POINTS)
    row = 2 * rng.integers(2, size=POINTS) + column % 2
    return np.stack([column, row], axis=1) - 2 + rng.random((POINTS, 2)), None


def circles(rng: np.random.Generator) -> tuple[Draw, Array]:
    """Two circles, radii 1 and 0.5, noise 0.05."""
    return _rings(rng, (1.0, 0.5), 0.05)


def rings(rng: np.random.Generator) -> tuple[Draw, Array]:
    """Four circles, radii 1 to 4, noise 0.08."""
    return _rings(rng, (1.0, 2.0, 3.0, 4.0), 0.08)


def _rings(rng: np.random.Generator, radii: tuple[float, ...], noise: float) -> tuple[Draw, Array]:
    label = rng.integers(len(radii), size=POINTS)
    angle = 2 * math.pi * rng.random(POINTS)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.array(radii)[label, None] * circle + noise * rng.standard_normal((POINTS, 2)), label


def pinwheel(rng: np.random.Generator) -> tuple[Draw, Array]:
    """Five bent arms: Gaussians (radial std 0.3, tangential 0.1) at radius 1, turned by 0.25 e^radius (Johnson et al.
    2016)."""
    label = rng.integers(5, size=POINTS)
    along, across = 1 + 0.3 * rng.standard_normal(POINTS), 0.1 * rng.standard_normal(POINTS)
    angle = 2 * math.pi * label / 5 + 0.25 * np.exp(along)
    x = np.stack(
        [along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)], axis=1
    )
    return 2 * x, label


GAUSSIANS_STD = 0.1
GAUSSIANS_MEANS: Draw = np.stack([np.cos(np.arange(8) * math.pi / 4), np.sin(np.arange(8) * math.pi / 4)], axis=1)


def gaussians(rng: np.random.Generator) -> tuple[Draw, Array]:
    """Eight equally likely Gaussians of std GAUSSIANS_STD at GAUSSIANS_MEANS, on the unit circle: a density known
    exactly."""
    label = rng.integers(8, size=POINTS)
    return GAUSSIANS_MEANS[label] + GAUSSIANS_STD * rng.standard_normal((POINTS, 2)), label


def _points(
    name: str, draw: Callable[[np.random.Generator], tuple[Draw, Array | None]]
) -> Callable[[DataConfig], Contents]:
    def read(config: DataConfig) -> Contents:
        x, label = draw(np.random.Generator(np.random.PCG64(0)))
        found = {"label": Column(Condition("class", int(label.max()) + 1), label)} if label is not None else {}
        x = x.astype(np.float32)
        return from_array(name, x, found, config, key_of(name, x.tobytes().hex()))

    read.__doc__ = draw.__doc__
    return read


BUILTIN: dict[str, Callable[[DataConfig], Contents]] = {
    "emoji": emoji,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "swiss-roll": _points("swiss-roll", swiss_roll),
    "moons": _points("moons", moons),
    "checkerboard": _points("checkerboard", checkerboard),
    "circles": _points("circles", circles),
    "rings": _points("rings", rings),
    "pinwheel": _points("pinwheel", pinwheel),
    "gaussians": _points("gaussians", gaussians),
}

SPLITS: dict[str, tuple[str, ...]] = {"fashion-mnist": tuple(FASHION_SPLITS)}
"""Of those data sets that have more than the one split, train."""
