"""The vector that a CLIP gives the sample: what unCLIP's decoder draws pictures of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unstir.clip import Clip
from unstir.conditioning.derived.derived import Derived
from unstir.data.contents import Array, Progress
from unstir.data.dataset import Dataset
from unstir.data.latents import Computed, latents
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.sampling import SampleNoise

NAME = "image_embedding"


def units(computed: Computed) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(offset, scale) in which vectors have mean 0 in every entry, and variance 1 over all of them: one scale keeps their angles' geometry."""
    scale = float(np.sqrt(np.mean(np.square(computed.scale))))
    return computed.offset, (scale,) * len(computed.offset)


@dataclass(frozen=True)
class ImageEmbedding(Derived):
    """The unit vector z_i that a CLIP gives the sample without noise, ``image_embedding``. These are the settings; ``loaded`` computes.

    Source:
        Ramesh, Dhariwal, Nichol, Chu & Chen 2022, section 2.1 (the decoder), https://arxiv.org/abs/2204.06125
    """

    clip: str = ""
    """Run folder of the CLIP whose vectors they are (unstir train clip); the run keeps a copy of it."""

    def loaded(self, clip_of: Callable[[str], Clip]) -> Derived:
        if not self.clip:
            raise UserError(
                "an image embedding is the vector that a CLIP gives a sample: name one with --clip RUN (unstir train clip --data SOURCE)"
            )
        return ByClip(clip_of(self.clip))

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        """What a run folder's description says: how long the vectors are, and in which units, only the CLIP and the data tell."""
        if NAME not in spec.conditions:
            raise UserError("how long an image embedding is only its CLIP can tell, which is not loaded yet")
        return {NAME: spec.conditions[NAME]}

    def check(self, spec: DataSpec) -> None:
        if NAME in spec.conditions:
            raise UserError(
                f"the data have a condition '{NAME}' of their own, which this recipe computes; rename theirs"
            )

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        raise AssertionError("a CLIP must be loaded to embed samples")

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        raise AssertionError("a CLIP must be loaded to embed samples")


class ByClip(Derived):
    """``ImageEmbedding`` with its CLIP; and during training with the vectors of all samples, computed once.

    Args:
        clip: the CLIP, frozen.
        computed: the vectors of the data set (N, sides, width), the second of two sides being that of the mirrored samples.
    """

    def __init__(self, clip: Clip, computed: Computed | None = None) -> None:
        self.clip = clip
        self._computed = computed

    def over(self, dataset: Dataset, flip: bool, cache: Path, progress: Progress | None = None) -> ByClip:
        return ByClip(self.clip, latents(dataset, self.clip.embedding, self.clip.fingerprint, flip, cache, progress))

    def _condition(self) -> Condition:
        width = self.clip.width
        plain = (0.0,) * width, (width**-0.5,) * width
        offset, scale = plain if self._computed is None else units(self._computed)
        return Condition("vector", width, offset=offset, scale=scale, encoder=self.clip.fingerprint)

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        """In the units of the data set of ``over``; of a trained model in those that its description says."""
        known = spec.conditions.get(NAME)
        return {NAME: known if known is not None and known.encoder == self.clip.fingerprint else self._condition()}

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        return {NAME: self._condition().to_model(self.clip.embedding(x_0))}

    def of_rows(
        self, rows: Array, flip: Tensor | None, read: Callable[[], Tensor], rng: SampleNoise
    ) -> dict[str, Tensor]:
        if self._computed is None:
            return self.training(read(), rng)
        side = np.zeros(len(rows), np.int64) if flip is None else flip.numpy().astype(np.int64)
        return {NAME: self._condition().to_model(torch.from_numpy(self._computed.x[rows, side]))}

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        return {NAME: self.clip.embedding(picture)}
