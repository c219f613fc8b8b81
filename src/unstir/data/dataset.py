"""The data set: numbers in the data's units, and batches in the model's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unstir.data.config import DataConfig
from unstir.data.contents import Array, Column, Contents
from unstir.data.measure import Measure, channels_first, measure
from unstir.data.report import Report
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError

SAMPLE = 2**22  # numbers from which the standard deviation of pictures is taken


class Rows(Protocol):
    """Values of all samples, of which some are taken at a time: an array, or what makes one of them when it is asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Array, /) -> Array: ...


@dataclass(frozen=True)
class Dataset:
    """All samples, and what they are.

    Args:
        name: short, for titles.
        spec: shape, units, conditions.
        x: (N, ...) in the data's own units and axis order: an array, or a read-only memory map.
        conditions: by name: int64 (N,) for a class, float32 (N, size) for a vector; for text what gives (N, *shape) by rows
            where an encoder reads it, else N strings.
        fingerprint: hash of the content and of the options that shape it; caches of statistics hang on it.
        report: what was found and what was left out.
        captions: of every sample, "" where it has none; empty where the data have none, whether an encoder reads them or not.
    """

    name: str
    spec: DataSpec
    x: Array
    conditions: dict[str, Array | list[str] | Rows]
    fingerprint: str
    report: Report
    captions: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor | Array, flip: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Some samples in model units, with their conditions.

        Args:
            indices: (B,) integers.
            flip: (B,) bool: which pictures to mirror left to right. The caller draws it, so that the data order and
                every other decision stay a function of (seed, step).

        Returns:
            (B, *shape) float32, and the conditions as tensors by name, but for captions that no encoder reads.
        """
        rows = indices.numpy() if isinstance(indices, Tensor) else indices
        conditions = {
            name: self.spec.conditions[name].to_model(torch.from_numpy(values[rows]))
            for name, values in self.conditions.items()
            if not isinstance(values, list)
        }
        return self.samples(rows, flip), conditions

    def samples(self, indices: Tensor | Array, flip: Tensor | None = None) -> Tensor:
        """(B, *shape) some samples in model units, without their conditions (thousands of encoded captions are large).

        Args:
            flip: as for ``batch``.
        """
        rows = indices.numpy() if isinstance(indices, Tensor) else indices
        x = self.spec.to_model(self.x[rows])
        return x if flip is None else torch.where(flip.reshape(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


def finish(contents: Contents, config: DataConfig) -> Dataset:
    """Chooses the units: what was found becomes a Dataset.

    - Pictures and volumes of uint8 or uint16 go from 0 ... limit to -1 ... 1: offset = scale = limit / 2 with limit
      255, or for uint16 the smallest 2^k - 1 that holds every value (a 12-bit picture is not taken for a dark 16-bit
      one).
    - Pictures of floats within [0, 1] or [-1, 1] go to (keep) -1 ... 1.
    - Points: offset = mean of each coordinate, one common scale (the root of the mean variance), which keeps the
      geometry; unless the coordinates' standard deviations differ by more than a factor of 10 (a table with columns of
      different units).
    - Everything else: mean and standard deviation of each channel.

    Raises:
        UserError: no samples, or numbers that are NaN or infinite.
    """
    x = channels_first(contents.x, contents.channels_last, contents.channel_axis)
    found = _measured(contents, x)
    offset, scale, bounds = units(contents, found)
    # E[(x - E x)²] over all entries of all channels, from the channels' own moments.
    mean, std = (found.mean - offset) / scale, found.std / scale
    overall = float(np.sqrt((std**2 + (mean - mean.mean()) ** 2).mean()))
    columns = contents.columns if config.labels else {}
    spec = DataSpec(
        kind=contents.kind,
        shape=tuple(x.shape[1:]),
        dtype=contents.x.dtype.name,
        offset=tuple(offset.tolist()),
        scale=tuple(scale.tolist()),
        std=overall or 1.0,
        channels=contents.channels,
        channels_last=contents.channels_last,
        conditions={name: standardised(column) for name, column in columns.items()},
        channel_axis=contents.channel_axis,
        bounds=bounds,
    )
    return Dataset(
        name=contents.name,
        spec=spec,
        x=contents.x,
        conditions={name: column.values for name, column in columns.items()},
        fingerprint=_fingerprint(contents, config),
        report=contents.report,
        captions=captions_of(contents),
    )


def captions_of(contents: Contents) -> list[str]:
    """The caption of every sample; empty where there are none."""
    column = next((column for column in contents.columns.values() if column.condition.kind == "text"), None)
    return [str(caption) for caption in column.values] if column is not None else []


def _measured(contents: Contents, x: Array) -> Measure:
    """Refuses what cannot be trained on. Pictures of bytes have no gaps to look for, so a part of them is enough."""
    source = contents.report.source
    if len(x) == 0:
        raise UserError(f"{source} holds no samples")
    sampled = x.dtype == np.uint8 and contents.kind in ("image", "volume")
    found = measure(x, rows=max(256, SAMPLE // x[0].size) if sampled else None)
    if found.not_finite:
        raise UserError(
            f"{source}: {found.not_finite:,} numbers are NaN or infinite, the first in sample {found.first_not_finite}; "
            "leave those samples out or fill the gaps"
        )
    return found


def standardised(column: Column) -> Condition:
    """The condition with the units in which a vector's entries have mean 0 and standard deviation 1 (gaps left out)."""
    if column.condition.kind != "vector":
        return column.condition
    values = np.ma.masked_invalid(np.asarray(column.values, np.float64))  # (N, size)
    std = values.std(0).filled(1.0)
    scale = np.where(std > 0, std, 1.0)
    return replace(column.condition, offset=tuple(values.mean(0).filled(0.0).tolist()), scale=tuple(scale.tolist()))


def units(contents: Contents, found: Measure) -> tuple[Array, Array, tuple[float, ...]]:
    """(offset, scale), each (C,) float64, by the rules of ``finish``; and the bounds of the data in these units."""
    one = np.ones(len(found.mean))
    picture = contents.kind in ("image", "volume")
    if picture and contents.x.dtype in (np.uint8, np.uint16):
        bits = 8 if contents.x.dtype == np.uint8 else max(8, int(found.high.max()).bit_length())
        half = (2**bits - 1) / 2
        return half * one, half * one, (-1.0, 1.0)
    low, high = found.low.min(), found.high.max()
    if contents.kind == "image" and contents.x.dtype.kind == "f" and low >= -1 and high <= 1 and high > 0.5:
        return (0.5 * one, 0.5 * one, (-1.0, 1.0)) if low >= 0 else (0 * one, one, (-1.0, 1.0))
    std = found.std
    constant = std <= 1e-12 * np.maximum(np.abs(found.mean), 1e-300)
    varying = std[~constant]
    if contents.kind == "points" and len(varying) and varying.max() <= 10 * varying.min():
        return found.mean, np.sqrt((varying**2).mean()) * one, ()
    return found.mean, np.where(constant, 1.0, std), ()


def _fingerprint(contents: Contents, config: DataConfig) -> str:
    options = [config.size, config.kind, config.channels, config.background, config.fit, config.labels]
    options += [config.text] if config.text else []
    described = json.dumps([contents.content, options], sort_keys=True)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()
