"""What every condition that is computed from the sample itself can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unstir.clip import Clip
from unstir.data.contents import Array, Progress
from unstir.data.dataset import Dataset
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.sampling import SampleNoise


class Derived(ABC):
    """Conditions that are functions of the sample.

    All tensors are in model units, pictures in [-1, 1]. Grids have the grid of the data.
    """

    @abstractmethod
    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        """The conditions by name, for such data.

        Raises:
            UserError: data of which they cannot be computed.
        """

    @abstractmethod
    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        """The conditions of a training batch x_0 (B, *shape); what is random about them is drawn from ``rng``."""

    def loaded(self, clip_of: Callable[[str], Clip]) -> Derived:
        """The same with the networks that it names by their run folders: what computes the conditions. Here itself, which names none.

        Args:
            clip_of: the name of a CLIP's run -> the CLIP.

        Raises:
            UserError: there is no such run, or it does not fit.
        """
        return self

    def over(self, dataset: Dataset, flip: bool, cache: Path, progress: Progress | None = None) -> Derived:
        """The same with what can be computed of a data set once, before training on it; here itself, which computes each time.

        Args:
            flip: whether training mirrors the samples.
            cache: folder to keep it in.
            progress: called with (done, in all).
        """
        return self

    def of_rows(
        self, rows: Array, flip: Tensor | None, read: Callable[[], Tensor], rng: SampleNoise
    ) -> dict[str, Tensor]:
        """The conditions of a training batch by the samples' numbers in the data set of ``over``; by default ``training`` of the samples.

        Args:
            flip: (B,) bool: which are mirrored.
            read: gives the samples themselves.
        """
        return self.training(read(), rng)

    @abstractmethod
    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        """The conditions that samples like ``picture`` (B, *shape) are asked for by: nothing is random here. Vectors are in their own units
        (``Condition.to_model``), as whoever asks gives them."""

    def like(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        """The conditions by which a model is shown or judged beside data (B, *shape); by default ``given``."""
        return self.given(picture, spec)

    def at_sampling(self, cond: dict[str, Tensor], rng: SampleNoise) -> dict[str, Tensor]:
        """What becomes of conditions (from ``given``, from files, from another model) before a denoiser sees them; here nothing.

        Args:
            cond: those of ``declare`` and any others, (B, ...) each; some may be missing.
            rng: a stream of its own for each sample.
        """
        return cond

    def picture_grid(self, name: str, spec: DataSpec) -> tuple[int, ...]:
        """The size at which a picture of the grid condition ``name`` is to be read; by default the data's."""
        return spec.shape[1:]

    def of_picture(self, name: str, pixels: Tensor, spec: DataSpec) -> Tensor:
        """What a picture of the grid condition ``name`` shows: pixels (B, C, *picture_grid) in [0, 1] -> (B, *condition.shape); by default
        in the units of pictures."""
        return 2 * pixels - 1

    def check(self, spec: DataSpec) -> None:
        """Refuses data of which they cannot be computed, as far as can be told before other runs are loaded.

        Raises:
            UserError: with the reason.
        """
        self.described(spec)

    def described(self, spec: DataSpec) -> DataSpec:
        """The description of the data with these conditions: what networks are built for and run folders keep.

        Raises:
            UserError: data of which they cannot be computed, or that have a condition of such a name already.
        """
        declared = self.declare(spec)
        if taken := sorted(declared.keys() & spec.conditions.keys()):
            raise UserError(
                f"the data have a condition '{taken[0]}' of their own, which this recipe computes; rename theirs"
            )
        return replace(spec, conditions={**spec.conditions, **declared}) if declared else spec


@dataclass(frozen=True)
class Nothing(Derived):
    """No conditions but those that the data bring."""

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        return {}

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        return {}

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        return {}
