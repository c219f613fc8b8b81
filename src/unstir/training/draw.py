"""Which samples are trained on: those held out, the batch of every step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from unstir.codec import IDENTITY, Codec
from unstir.conditioning.derived import Derived, Nothing
from unstir.data import Dataset
from unstir.data.order import indices
from unstir.objectives import Batch
from unstir.sampling import SampleNoise


@dataclass(frozen=True)
class Draw:
    """Batches of a data set: which samples make step k, mirrored or not, is a function of (seed, k, position) alone."""

    dataset: Dataset
    batch_size: int
    seed: int
    flip: bool
    rows: npt.NDArray[np.int64] | None = None
    """Where only some of the samples are to be drawn: which."""
    derived: Derived = field(default_factory=Nothing)
    """Conditions that are computed from the samples."""
    always: frozenset[str] = frozenset()
    """Conditions that drop-out leaves alone."""
    source: Dataset | None = None
    """Where ``dataset`` holds latents: the data themselves, of which conditions are computed."""
    codec: Codec = IDENTITY
    """How they became latents."""

    def __call__(self, step: int, positions: list[int], rng: SampleNoise) -> Batch:
        count = len(self.dataset) if self.rows is None else len(self.rows)
        rows = indices(count, self.batch_size, step, self.seed)[positions]
        rows = rows if self.rows is None else self.rows[rows]
        flip = rng.uniform() < 0.5 if self.flip else None
        x, cond = self.dataset.batch(rows, flip)
        captions = frozenset(
            name for name, condition in self.dataset.spec.conditions.items() if condition.kind == "text"
        )
        return Batch(x, {**cond, **self._computed(x, rows, flip, rng)}, self.always, captions)

    def _computed(
        self, x: torch.Tensor, rows: npt.NDArray[np.int64], flip: torch.Tensor | None, rng: SampleNoise
    ) -> dict[str, torch.Tensor]:
        """The conditions that are computed of the samples."""
        source = self.source
        if source is None:
            return self.derived.of_rows(rows, flip, lambda: x, rng)
        if isinstance(self.derived, Nothing):  # the data need not be read
            return {}
        computed = self.derived.of_rows(rows, flip, lambda: source.samples(rows, flip), rng)
        return self.codec.told(computed, self.derived.described(source.spec))


MEASURED = (10_000, 2**26)
"""Samples, and numbers in them, from which the data's moments are taken."""


def telling_rows(dataset: Dataset) -> torch.Tensor:
    """The numbers of as many samples as tell the data's moments, evenly spread."""
    most = min(MEASURED[0], max(2, MEASURED[1] // dataset.spec.dimensions), len(dataset))
    return torch.linspace(0, len(dataset) - 1, most, dtype=torch.float64).round().long()


def some_samples(dataset: Dataset) -> torch.Tensor:
    """Those samples, (n, *shape) in model units."""
    return dataset.samples(telling_rows(dataset))


HELD_OUT_SEED = 0x0E1D


def held_out(
    rows: npt.NDArray[np.int64], share: float, kin: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows to train on, rows held out): a random share, at least one, the same for the same data.

    Args:
        rows: increasing.
        kin: a number from 0 up for each row: those of one number stay together, and the share is one of the numbers.
    """
    if share == 0:
        return rows, rows[:0]
    kin = np.arange(len(rows)) if kin is None else kin
    families = int(kin.max()) + 1
    count = min(max(round(share * families), 1), families - 1)
    order = np.random.Generator(np.random.PCG64([HELD_OUT_SEED, families])).permutation(families)
    away = np.isin(kin, order[:count])
    return rows[~away], rows[away]
