"""Latents of a data set, computed once and kept: what a denoiser in an autoencoder's space is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstir.data.cache import Cache, key_of
from unstir.data.contents import Array, Progress
from unstir.data.dataset import Dataset
from unstir.data.measure import measure
from unstir.errors import UserError

VERSION = 1  # of what is cached
AT_ONCE = 256  # samples between two reports of progress; a multiple of what goes through the autoencoder together


@dataclass(frozen=True)
class Latents(Dataset):
    """A data set as a denoiser in another space sees it.

    ``spec`` describes the latents, and its offset and scale are the units in which they have mean 0 and standard deviation 1. ``x`` is
    (N, sides, *spec.shape): the latents of the samples, and where pictures are mirrored in training those of the mirrored ones too, since
    mirrored latents are not the latents of a mirrored picture.
    """

    def samples(self, indices: Tensor | Array, flip: Tensor | None = None) -> Tensor:
        rows = indices.numpy() if isinstance(indices, Tensor) else indices
        side = np.zeros(len(rows), np.int64) if flip is None else flip.numpy().astype(np.int64)
        return self.spec.to_model(self.x[rows, side])


@dataclass(frozen=True)
class Computed:
    """The latents of a data set as an autoencoder gives them.

    Args:
        x: (N, sides, c, *grid) float32, a read-only memory map.
        offset, scale: mean and standard deviation of each channel over all of them; a channel that never changes has the scale 1.
    """

    x: Array
    offset: tuple[float, ...]
    scale: tuple[float, ...]


def latents(
    dataset: Dataset,
    encode: Callable[[Tensor], Tensor],
    fingerprint: str,
    flip: bool,
    cache: Path,
    progress: Progress | None = None,
) -> Computed:
    """The latents of all samples, from the cache or computed into it.

    An entry of the cache hangs on the content of the data and how they were read, on the autoencoder's weights, and on whether pictures are
    mirrored; another of any of these is another entry, and one that is damaged is made anew.

    Args:
        encode: samples (B, *shape) in model units -> (B, c, *grid) on any device, the same for the same samples.
        fingerprint: of the autoencoder's weights.
        flip: also those of the mirrored samples.
        cache: its folder.
        progress: called with (done, in all).

    Raises:
        UserError: the cache cannot be written, or latents that are no numbers.
    """

    def write(building: Path) -> dict[str, Any]:
        shape = _write(building / "x.npy", dataset, encode, flip, progress)
        x = np.load(building / "x.npy", mmap_mode="r")
        found = measure(x.reshape(-1, *shape[2:]))
        if found.not_finite:
            raise UserError(
                f"the autoencoder makes {found.not_finite:,} numbers of {dataset.name} that are NaN or infinite; train it anew"
            )
        scale = np.where(found.std > 1e-6 * np.maximum(np.abs(found.mean), 1e-6), found.std, 1.0)
        return {"offset": found.mean.tolist(), "scale": scale.tolist()}

    spec = dataset.spec
    key = key_of(
        "latents", VERSION, dataset.fingerprint, len(dataset), spec.shape, spec.offset, spec.scale, fingerprint, flip
    )
    x, about = Cache(cache, "latents").find_or_build(key, write)
    return Computed(x, tuple(about["offset"]), tuple(about["scale"]))


def _write(
    path: Path, dataset: Dataset, encode: Callable[[Tensor], Tensor], flip: bool, progress: Progress | None
) -> tuple[int, ...]:
    """Writes (N, sides, c, *grid) float32 piece by piece; -> its shape."""
    sides, shape = 1 + flip, None
    with path.open("wb") as file:
        for start in range(0, len(dataset), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(dataset)))
            mirrored = [torch.full((len(rows),), bool(side)) for side in range(sides)]
            found = [encode(dataset.samples(rows, side if flip else None)).cpu() for side in mirrored]
            z = torch.stack(found, 1).to(torch.float32).numpy()  # (b, sides, c, *grid)
            if shape is None:
                shape = (len(dataset), *z.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(z, dtype="<f4").tobytes())
            if progress is not None:
                progress(int(rows[-1]) + 1, len(dataset))
    assert shape is not None, "an empty data set has no latents"
    return shape
