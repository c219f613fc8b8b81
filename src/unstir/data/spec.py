"""What the data is: the one description that travels from the source to the network, the run folder, sampling and
files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unstir.errors import UserError, did_you_mean

Kind = Literal["image", "signal", "volume", "points"]
RANK: dict[str, int] = {"points": 0, "signal": 1, "image": 2, "volume": 3}  # number of grid dimensions


@dataclass(frozen=True)
class Condition:
    """One thing a sample can be asked for.

    Its null ("nobody asked") is what ``conditioning.null`` says for all kinds: -1 in every entry of an integer, NaN in every
    entry of a float. The same rule says where a caption ends: the rows of ``shape`` after its end are null. So a caption is one
    tensor, and which of its rows count is ``~value.isnan().any(-1)`` (features) or ``value != -1`` (tokens). In a grid, NaN at some
    places means: not known there.

    Args:
        kind: "class" (an integer below ``size``), "vector" (``size`` floats), "text" (a caption) or "grid" (numbers on the grid
            of the data: edges, a smaller picture, ...).
        size: the number of classes, the length of the vector, the size of a text's vocabulary where it comes as tokens. Else 0.
        names: the classes' names or the vector's column names, where the data has them; of a text, up to 256 captions of the data.
        offset, scale: of a vector's entries, in the data's units: models see (entry - offset) / scale.
        frequencies: of the classes, where they are groups that were found in the data and that nobody asks for by name: a
            sample gets one at random in these proportions. Else empty.
        shape: of one sample's value as networks see it: (L, D) float32 for a text from a frozen encoder, (L,) int64 for tokens
            (bytes), (C, *grid) float32 for a grid. Empty for classes and vectors, and for captions that no encoder reads, which
            networks do not see.
        encoder: the name of a text's encoder, as ``conditioning.text.text_encoder`` takes it; of a vector that a network made (a CLIP), the
            network's fingerprint: vectors of another one mean something else.
        always: networks are never asked without it: neither drop-out in training nor guidance replaces it by its null.
    """

    kind: Literal["class", "vector", "text", "grid"]
    size: int
    names: tuple[str, ...] = ()
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    frequencies: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()
    encoder: str = ""
    always: bool = False

    @property
    def seen(self) -> bool:
        """Whether networks see it: everything but captions that no encoder reads."""
        return self.kind in ("class", "vector") or bool(self.shape)

    @property
    def made(self) -> bool:
        """Whether it is a vector that a network made, and that nobody types."""
        return self.kind == "vector" and bool(self.encoder)

    @property
    def named(self) -> bool:
        """Whether it is a class that someone gave the data, rather than a group that was found in them."""
        return self.kind == "class" and not self.frequencies

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Condition:
        """From the plain values that DataSpec.to_dict writes."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    def to_model(self, values: Tensor) -> Tensor:
        """(..., size) in the data's units -> the same as models see it: a vector standardised, a class as it is."""
        if not self.scale:
            return values
        return (values - values.new_tensor(self.offset)) / values.new_tensor(self.scale)

    def index(self, value: str | int) -> int:
        """The class that a name ("shirt") or a number ("3") means; a name wins where the names are numbers.

        Raises:
            UserError: no such class, or the condition is not a class.
        """
        text = str(value).strip()
        if self.kind != "class":
            raise UserError(f"a {self.kind} condition has no classes, so {text!r} cannot be one of them")
        if text in self.names:
            return self.names.index(text)
        lower = [name.lower() for name in self.names]
        if lower.count(text.lower()) == 1:
            return lower.index(text.lower())
        if text.isdecimal() and int(text) < self.size:
            return int(text)
        hint = did_you_mean(text, self.names) if self.names else "give its number"
        raise UserError(f"no class {text!r} among the {self.size} classes (numbers 0 to {self.size - 1}): {hint}")

    def parse(self, value: str) -> Tensor:
        """What a user types -> the condition of one sample, without a batch axis: () int64 for a class, (size,) float32
        for a vector ("0.1,0.2"), (L, D) float32 or (L,) int64 for a caption.

        Raises:
            UserError: an unknown class, a number that is not one, the wrong count of numbers, a caption where no encoder was
                chosen or it cannot be loaded, or a grid, which nobody can type.
        """
        if self.kind == "class":
            return torch.tensor(self.index(value), dtype=torch.int64)
        if self.kind == "text":
            return self._encoded(value)
        if self.kind == "grid":
            raise UserError(f"a grid of numbers {list(self.shape)} comes from a file, not from {value!r}")
        try:
            numbers = [float(part) for part in value.replace(",", " ").split()]
        except ValueError:
            raise UserError(f"{value!r} is not a list of numbers such as 0.1,0.2") from None
        if len(numbers) != self.size:
            columns = f" ({', '.join(self.names)})" if self.names else ""
            raise UserError(f"{value!r} holds {len(numbers)} numbers, and the condition takes {self.size}{columns}")
        return torch.tensor(numbers, dtype=torch.float32)

    def _encoded(self, caption: str) -> Tensor:
        if not self.encoder:
            raise UserError("this model was trained without its captions (data.text), so it cannot be asked for one")
        from unstir.conditioning.text import text_encoder  # above this module: only where a caption is read

        return text_encoder(self.encoder).encode([caption], self.shape[0])[0]


@dataclass(frozen=True)
class DataSpec:
    """Shape, units and conditions of a data set.

    A model sees x = (data - offset) / scale, channels first, float32. Pictures come from uint8 and land in [-1, 1];
    everything else is standardised per channel. ``to_data`` is the exact inverse, down to dtype and axis order, so
    samples leave in the units in which the data came.

    Args:
        kind: "image" (C, H, W), "signal" (C, L), "volume" (C, D, H, W) or "points" (D,).
        shape: of one sample as the model sees it, channels first.
        dtype: numpy dtype name of the data as it came ("uint8", "float32", ...).
        offset, scale: one number per channel (for points: per coordinate), in the data's units.
        std: standard deviation of the data in model units, over all entries (EDM's sigma_data).
        channels: what each channel means, e.g. ("R", "G", "B") or ("MLII", "V5"); may be empty.
        channels_last: whether the data came as (N, ..., C); files are written the same way.
        conditions: by name, e.g. {"label": Condition("class", 10, (...))}.
        bounds: (lowest, highest) value in model units, where the format limits the data: pictures of bytes. Else empty.
        channel_axis: False where the data came without one, (N, L) for a signal of shape (1, L): ``to_data`` drops it
            again.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: str = "float32"
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    std: float = 1.0
    channels: tuple[str, ...] = ()
    channels_last: bool = False
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    channel_axis: bool = True
    bounds: tuple[float, ...] = ()

    @property
    def always(self) -> frozenset[str]:
        """The conditions without which networks are never asked."""
        return frozenset(name for name, condition in self.conditions.items() if condition.always)

    @property
    def rank(self) -> int:
        """Number of grid dimensions: 0 points, 1 signal, 2 image, 3 volume."""
        return RANK[self.kind]

    @property
    def dimensions(self) -> int:
        """Numbers in one sample."""
        return math.prod(self.shape)

    def _per_channel(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * self.rank)

    def to_model(self, data: np.ndarray[Any, Any]) -> Tensor:
        """(N, ...) in the data's units and axis order -> (N, *shape) float32."""
        if not self.channel_axis:
            data = data[:, None]
        x = torch.from_numpy(np.require(data, requirements=["C", "W"]))  # torch warns of arrays that it cannot write to
        if self.channels_last and self.channel_axis:
            x = x.movedim(-1, 1)
        # 64-bit numbers may have a large offset (a time stamp): subtract it before the digits are cut.
        wide = x.dtype if x.dtype == torch.float64 else torch.float64 if x.element_size() > 4 else torch.float32
        x = x.to(wide, memory_format=torch.contiguous_format, copy=True)
        x = x.sub_(self._per_channel(self.offset, x)).div_(self._per_channel(self.scale, x))
        return x.to(torch.float32)

    def in_units(self, x: Tensor) -> Tensor:
        """(N, *shape) in model units -> the same in the data's units, still channels first and floating point."""
        return x * self._per_channel(self.scale, x) + self._per_channel(self.offset, x)

    def to_data(self, x: Tensor) -> np.ndarray[Any, Any]:
        """(N, *shape) in model units -> (N, ...) in the data's units, dtype and axis order; integers are rounded and
        clipped."""
        dtype = np.dtype(self.dtype)
        x = x.detach().to("cpu", torch.float64 if dtype.itemsize > 4 else torch.float32)
        x = self.in_units(x)
        if not self.channel_axis:
            x = x.squeeze(1)
        elif self.channels_last:
            x = x.movedim(1, -1)
        array = x.numpy()
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            array = np.clip(np.rint(array), limits.min, limits.max)
        return np.ascontiguousarray(array.astype(dtype))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for recipe.toml."""
        spec = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        spec["conditions"] = {
            name: {key: list(value) if isinstance(value, tuple) else value for key, value in vars(c).items()}
            for name, c in self.conditions.items()
        }
        return spec

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> DataSpec:
        """The inverse of ``to_dict``."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()
        }
        values["conditions"] = {name: Condition.from_dict(c) for name, c in spec.get("conditions", {}).items()}
        return cls(**values)
