"""Conditions as vectors that a network can add to its embedding of the noise level."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unstir.data.spec import Condition


class ClassEmbedding(nn.Module):
    """A learned vector for each class, and one for the null class.

    Source:
        Ho & Salimans 2022, section 3.2 (the null token), https://arxiv.org/abs/2207.12598
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(size + 1, width)  # row 0 is the null class, -1

    def null(self, batch: int, device: torch.device) -> Tensor:
        return torch.full((batch,), -1, dtype=torch.int64, device=device)

    def forward(self, label: Tensor) -> Tensor:
        embedding: Tensor = self.table(label + 1)  # (B, width)
        return embedding


class VectorEmbedding(nn.Module):
    """Two layers on a vector. Every entry may be missing (NaN): it is read as 0, and a second input says that it is missing."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(2 * size, width), nn.SiLU(), nn.Linear(width, width))

    def null(self, batch: int, device: torch.device) -> Tensor:
        return torch.full((batch, self.size), float("nan"), device=device)

    def forward(self, vector: Tensor) -> Tensor:
        missing = vector.isnan()  # (B, size)
        entries = torch.cat([vector.masked_fill(missing, 0), missing], 1)  # (B, 2 size)
        embedding: Tensor = self.layers(entries.to(next(self.parameters()).dtype))  # (B, width)
        return embedding


CONDITION_EMBEDDINGS: dict[str, type[ClassEmbedding] | type[VectorEmbedding]] = {
    "class": ClassEmbedding,
    "vector": VectorEmbedding,
}


class GridChannels(nn.Module):
    """Conditions on the data's grid, as channels to go in beside the data: of each its values, with 0 where they are missing (NaN),
    and one channel that is 1 where all of them are known.

    Source:
        Nichol et al. 2022, on image inpainting (the masked picture and its mask), https://arxiv.org/abs/2112.10741

    Args:
        conditions: that the data declare; those that are no grids are left out.
    """

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        super().__init__()
        self.sizes = {name: condition.shape[0] for name, condition in conditions.items() if condition.kind == "grid"}
        self.channels = sum(size + 1 for size in self.sizes.values())

    def forward(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """(B, channels, *grid) for data x (B, C, *grid); absent grids are null for all samples.

        Raises:
            ValueError: a grid of another size than the data's.
        """
        parts = []
        for name, size in self.sizes.items():
            if name not in cond:
                parts.append(x.new_zeros(len(x), size + 1, *x.shape[2:]))  # (B, size + 1, *grid)
                continue
            value = cond[name]
            if value.shape[1:] != (size, *x.shape[2:]):
                there = f"{list(value.shape[1:])}, and it should be {[size, *x.shape[2:]]} beside this data"
                raise ValueError(f"the condition '{name}' is {there}")
            missing = value.isnan()  # (B, size, *grid)
            known = ~missing.any(1, keepdim=True)  # (B, 1, *grid)
            parts += [value.masked_fill(missing, 0).to(x.dtype), known.to(x.dtype)]
        return torch.cat(parts, 1)  # (B, channels, *grid)


class ConditionEmbedding(nn.Module):
    """The sum of all classes' and vectors' embeddings. Captions (``networks.text``) and grids (``GridChannels``) have ways of their
    own into a network; one that knows none leaves them out.

    Args:
        conditions: that the data declare.
        width: of the embedding.
    """

    def __init__(self, conditions: Mapping[str, Condition], width: int) -> None:
        super().__init__()
        self.declared = set(conditions)
        readable = {name: c for name, c in conditions.items() if c.kind in CONDITION_EMBEDDINGS}
        self.names = tuple(readable)
        # A list, since the data name their conditions: "type" or "a.b" cannot be the name of a module.
        self.parts = nn.ModuleList(CONDITION_EMBEDDINGS[c.kind](c.size, width) for c in readable.values())

    def forward(self, c_noise: Tensor, cond: Mapping[str, Tensor]) -> Tensor | float:
        """(B, width), or 0 where the data declare no conditions.

        Args:
            c_noise: (B,) only for its size and device.
            cond: by name; absent ones are null for all samples.

        Raises:
            ValueError: a condition that was never declared.
        """
        if unknown := set(cond) - self.declared:
            raise ValueError(f"this network knows no condition {sorted(unknown)}; it knows {sorted(self.names)}")
        total: Tensor | float = 0.0
        for name, part in zip(self.names, self.parts, strict=True):
            value = cond[name] if name in cond else part.null(len(c_noise), c_noise.device)  # type: ignore[operator]
            total = total + part(value)
        return total
