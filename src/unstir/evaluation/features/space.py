"""Where distances between sets of samples are measured: a map from samples to vectors, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """A batch in a feature space.

    Args:
        vectors: (B, D) float32.
        probabilities: (B, K) of classes, where the space is a classifier's.
    """

    vectors: Tensor
    probabilities: Tensor | None = None


class FeatureSpace(ABC):
    """Samples as vectors whose distances mean something. A new one is a class and a line in ``FEATURES``.

    Attributes:
        name: as it is printed with every number: efficientnet-lite0, inception-v3, own, spectrum, ...
        fingerprint: hash of weights and preprocessing; caches hang on it.
        frechet_name: what the Fréchet distance in this space is called: "FID" in the field's own Inception-v3 alone.
    """

    name: str
    fingerprint: str
    frechet_name: str = "FD"

    @abstractmethod
    def __call__(self, x: np.ndarray[Any, Any]) -> Features:
        """(B, ...) in the data's own units and dtype, as a file would hold them (pictures: (B, H, W[, C]) uint8) -> features."""
