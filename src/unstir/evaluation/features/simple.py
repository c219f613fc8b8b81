"""Feature spaces that need no network: what the numbers themselves say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.data import Dataset, DataSpec
from unstir.data.cache import key_of
from unstir.data.contents import Array
from unstir.errors import UserError
from unstir.evaluation.features.space import Features, FeatureSpace

VERSION = 1  # of these spaces: another number makes cached features worthless


def as_tensor(x: Array, spec: DataSpec) -> Tensor:
    """Samples as files hold them -> (B, C, ...) float32: pictures from bytes to [-1, 1], all else in the model's units."""
    if spec.kind != "image":
        return spec.to_model(x)
    pictures = torch.from_numpy(np.array(x, np.float32)).div_(127.5).sub_(1)  # (B, H, W[, C])
    return pictures.movedim(-1, 1) if pictures.ndim == 4 else pictures.unsqueeze(1)


def check_kind(name: str, dataset: Dataset, kinds: Sequence[str]) -> None:
    """Refuses data that a space has no meaning for.

    Raises:
        UserError: with the space that has.
    """
    from unstir.evaluation.features import DEFAULTS

    kind = dataset.spec.kind
    if kind not in kinds:
        raise UserError(
            f"--features {name} is for {' and '.join(kinds)} data, and {dataset.name} holds {kind}; use --features {DEFAULTS[kind]}"
        )


def _units(spec: DataSpec) -> tuple[object, ...]:
    """What a space in the model's units hangs on."""
    return spec.kind, spec.shape, spec.offset, spec.scale, spec.channels_last, spec.channel_axis


class Coordinates(FeatureSpace):
    """Points in the model's units: the coordinates less their mean, over one common standard deviation (over each one's own
    where these differ by more than a factor of 10)."""

    name = "coordinates"

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.fingerprint = key_of(self.name, VERSION, *_units(spec))

    def __call__(self, x: Array) -> Features:
        return Features(as_tensor(x, self.spec).flatten(1))  # (B, D)


SAMPLES, BANDS = 64, 16
SILENCE = 1e-6


def band_edges(length: int) -> list[int]:
    """Frequencies, in periods of the whole signal, that part its spectrum into bands of about equal ratio; the mean (0) is in none."""
    top = length // 2 + 1
    return np.unique(np.rint(np.geomspace(1, top, BANDS + 1)).astype(int)).tolist() if top > 1 else [1]


def log_power(x: Tensor) -> Tensor:
    """(B, C, L) -> (B, C, bands): the logarithm of the mean power in each band, 0 for white noise of variance 1.

    A band that holds less power than a thousandth of that noise's amplitude has counts as silent.

    Equation:
        log(1e-6 + mean over frequencies k of a band of |X_k|² / L),   X = DFT(x)
    Source:
        the periodogram: Schuster 1898, https://doi.org/10.1029/TM003i001p00013
    """
    power = torch.fft.rfft(x).abs().square() / x.shape[-1]  # (B, C, L // 2 + 1)
    edges = band_edges(x.shape[-1])
    bands = [power[..., low:high].mean(-1) for low, high in itertools.pairwise(edges)]  # (B, C) each
    return (torch.stack(bands, -1) + SILENCE).log() if bands else power[..., :0]


class Spectrum(FeatureSpace):
    """Signals: how they look and how they sound. Of each channel, standardised over the data set, the means of at most 64
    equally long pieces, and the logarithm of the power in at most 16 bands of frequency."""

    name = "spectrum"

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.fingerprint = key_of(self.name, VERSION, SAMPLES, BANDS, SILENCE, *_units(spec))

    def __call__(self, x: Array) -> Features:
        signal = as_tensor(x, self.spec)  # (B, C, L)
        shape = F.adaptive_avg_pool1d(signal, min(SAMPLES, signal.shape[-1]))  # (B, C, samples)
        return Features(torch.cat([shape, log_power(signal)], -1).flatten(1))  # (B, C (samples + bands))


GRID = {"image": 8, "volume": 4}  # 64 cells each


class Pixels(FeatureSpace):
    """Pictures of any channels and volumes, coarsely: each channel's means over the cells of an 8 x 8 (4 x 4 x 4) grid. Pictures
    are in [-1, 1], volumes in the model's units. It sees layout and colour and is blind to detail."""

    name = "pixels"

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.fingerprint = key_of(self.name, VERSION, GRID, *_units(spec))

    def __call__(self, x: Array) -> Features:
        values = as_tensor(x, self.spec)  # (B, C, [D,] H, W)
        cells = tuple(min(GRID[self.spec.kind], size) for size in values.shape[2:])
        pool = F.adaptive_avg_pool2d if len(cells) == 2 else F.adaptive_avg_pool3d
        return Features(pool(values, cells).flatten(1))  # type: ignore[arg-type]  # (B, C cells)


def coordinates(dataset: Dataset, device: torch.device, cache: Path) -> FeatureSpace:
    """For ``FEATURES``. UserError unless the data are points."""
    check_kind(Coordinates.name, dataset, ["points"])
    return Coordinates(dataset.spec)


def spectrum(dataset: Dataset, device: torch.device, cache: Path) -> FeatureSpace:
    """For ``FEATURES``. UserError unless the data are signals."""
    check_kind(Spectrum.name, dataset, ["signal"])
    return Spectrum(dataset.spec)


def pixels(dataset: Dataset, device: torch.device, cache: Path) -> FeatureSpace:
    """For ``FEATURES``. UserError unless the data are pictures or volumes."""
    check_kind(Pixels.name, dataset, ["image", "volume"])
    return Pixels(dataset.spec)
