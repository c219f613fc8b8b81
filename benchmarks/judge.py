"""One judge for all: the Fréchet distance in the features of a classifier that was trained on the data's own labels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contenders.contender import Pictures
from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation.features import FeatureSpace, feature_space
from unstir.evaluation.frechet import frechet_distance
from unstir.evaluation.moments import Moments
from unstir.training.devices import best_device


class Judge:
    """Knows the data, and how far pictures are from them.

    Args:
        source: of the data, with labels.
        folder: keeps the classifier and the references' features.
    """

    def __init__(self, source: str, folder: Path) -> None:
        self.source = source
        self.train = load(DataConfig(source=source))
        self.folder = folder

    @cached_property
    def references(self) -> dict[str, Dataset]:
        """The test pictures where the source has them, and the training pictures."""
        try:
            return {"test": load(DataConfig(source=self.source, split="test")), "train": self.train}
        except UserError:
            return {"train": self.train}

    @cached_property
    def space(self) -> FeatureSpace:
        """The classifier's feature space; trained at first use, and kept."""
        return feature_space("own", self.train, best_device(), self.folder)

    @property
    def name(self) -> str:
        """Of the measure, as printed."""
        return f"{self.space.frechet_name}[{self.space.name}]"

    def vectors(self, x: Pictures) -> Tensor:
        """(N, H, W, C) uint8 -> (N, D)."""
        return torch.cat([self.space(x[start : start + 500]).vectors.cpu() for start in range(0, len(x), 500)])

    @cached_property
    def known(self) -> dict[str, Tensor]:
        """The references' features."""
        result = {}
        for name, dataset in self.references.items():
            path = self.folder / f"reference-{dataset.fingerprint}-{self.space.fingerprint}.npy"
            if not path.is_file():
                np.save(path, self.vectors(dataset.x).numpy())
            result[name] = torch.from_numpy(np.load(path))
        return result

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """The references' means and covariances."""
        return {name: Moments.of(vectors) for name, vectors in self.known.items()}

    def distances(self, x: Pictures) -> dict[str, float]:
        """From these pictures to each reference."""
        found = Moments.of(self.vectors(x))
        return {name: round(frechet_distance(found, moments), 3) for name, moments in self.moments.items()}

    def floor(self, n: int) -> dict[str, float]:
        """What n real pictures get: against each reference, n that are not in it (or a part of it, if it is all there is)."""
        names, rng = list(self.known), np.random.default_rng(0)
        result = {}
        for name in names:
            other = [o for o in names if o != name]
            pool = self.known[other[0] if other else name]
            rows = rng.permutation(len(pool))
            count = n if other else min(n, len(pool) // 2)
            against = self.moments[name] if other else Moments.of(pool[rows[count:]])
            result[name] = round(frechet_distance(Moments.of(pool[rows[:count]]), against), 3)
        return result
