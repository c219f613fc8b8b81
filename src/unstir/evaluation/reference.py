"""The data that samples are held against, in a feature space: computed once, then read from the cache."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unstir.data import Dataset
from unstir.data.cache import key_of
from unstir.errors import UserError
from unstir.evaluation.embed import Embedder
from unstir.evaluation.metric import Embedded
from unstir.evaluation.samples import order, rows_of
from unstir.training.checkpoint import write_atomically

VERSION = 1  # of what is cached
LIMIT = 10_000
"""Samples of the reference, where nobody said how many."""


@dataclass(frozen=True)
class Reference:
    """A random subset of a data set in a feature space.

    Args:
        features: of the subset.
        real, rest: equally many real samples as are judged, and what they are held against: what a perfect model would get. ``real``
            are further samples of the data set where it has enough (``rest`` is then all of ``features``), else a part of
            the subset, at most half, and ``rest`` is the remainder.
    """

    features: Embedded
    real: Embedded
    rest: Embedded

    @property
    def count(self) -> int:
        return self.features.count


def reference(dataset: Dataset, n: int, embedder: Embedder, cache: Path, limit: int = LIMIT) -> Reference:
    """The reference for n samples.

    Args:
        dataset: to take it from.
        n: samples that will be held against it.
        embedder: the feature space.
        cache: the data cache's folder.
        limit: most samples of the reference.

    Raises:
        UserError: fewer than four samples of data.
    """
    count, taken = len(dataset), min(limit, len(dataset))
    features = subset(dataset, embedder, cache, limit)
    if count - taken >= n:
        return Reference(features, _features(dataset, taken, taken + n, embedder, cache), features)
    held = min(n, taken // 2)
    return Reference(features, _piece(features, taken - held, taken), _piece(features, 0, taken - held))


def subset(dataset: Dataset, embedder: Embedder, cache: Path, limit: int = LIMIT) -> Embedded:
    """The first ``limit`` samples of the data set's random order, in the feature space.

    Raises:
        UserError: fewer than four samples of data.
    """
    if min(len(dataset), limit) < 4:
        raise UserError(f"{min(len(dataset), limit)} samples of {dataset.name}: too few for a reference")
    return _features(dataset, 0, min(limit, len(dataset)), embedder, cache)


def _piece(features: Embedded, start: int, stop: int) -> Embedded:
    probabilities = features.probabilities
    assert features.vectors is not None
    return Embedded.of(features.vectors[start:stop], None if probabilities is None else probabilities[start:stop])


def _features(dataset: Dataset, start: int, stop: int, embedder: Embedder, cache: Path) -> Embedded:
    """Samples start ... stop - 1 of the data set's random order."""
    key = key_of("features", VERSION, dataset.fingerprint, start, stop, embedder.space.fingerprint)
    file = cache / "features" / f"{key}.npz"
    found = _read(file, stop - start)
    accelerator = embedder.accelerator
    # Either all processes have it or all compute it: one that goes its own way would leave the others waiting for ever.
    everywhere = accelerator.reduce(torch.tensor(float(found is not None), device=accelerator.device), reduction="sum")
    if found is not None and int(everywhere) == accelerator.num_processes:
        return Embedded.of(*found)
    rows = order(len(dataset))[start:stop]
    embedded = embedder(lambda numbers: rows_of(dataset, rows[list(numbers)]), stop - start, f"reading {dataset.name}")
    if accelerator.is_main_process:
        _write(file, embedded)
    accelerator.wait_for_everyone()
    return embedded


def _write(file: Path, embedded: Embedded) -> None:
    assert embedded.vectors is not None
    arrays = {"vectors": embedded.vectors.numpy()}
    if embedded.probabilities is not None:
        arrays["probabilities"] = embedded.probabilities.numpy()
    write_atomically(file, lambda handle: np.savez(handle, allow_pickle=False, **arrays))


def _read(file: Path, count: int) -> tuple[Tensor, Tensor | None] | None:
    """What was cached; None where nothing was, or it is damaged (a .npz has checksums)."""
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            vectors = torch.from_numpy(archive["vectors"])
            probabilities = torch.from_numpy(archive["probabilities"]) if "probabilities" in archive.files else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (vectors, probabilities) if len(vectors) == count else None
