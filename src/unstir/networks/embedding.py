"""Noise level and conditions, as networks are told them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from unstir.conditioning.embed import ConditionEmbedding
from unstir.data.spec import Condition
from unstir.networks.layers import Sinusoid
from unstir.networks.text import Captions, readable
from unstir.networks.tokens import Tokens


class Embedded(NamedTuple):
    """What blocks are told of a batch."""

    vector: Tensor
    """(B, width): noise level and conditions."""
    text: Tokens | None
    """The captions as a sequence, where the data have some."""


class Embedding(nn.Module):
    """The noise level and all conditions as one vector, which every block is scaled and shifted by; and captions also as a
    sequence, for networks that attend to it.

    Args:
        conditions: that the data declare. Grids are no part of this: they go in beside the data.
        width: of the vector.
        text_width: of the sequence of captions. text_depth: layers of the transformer that is trained on captions' tokens.
    """

    def __init__(
        self, conditions: Mapping[str, Condition], width: int, text_width: int = 128, text_depth: int = 2
    ) -> None:
        super().__init__()
        features = 2 * max(width // 4, 1)  # an even number: sines and cosines
        self.noise = nn.Sequential(Sinusoid(features), nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.conditions = ConditionEmbedding(conditions, width)
        self.captions = Captions(conditions, width, text_width, text_depth) if readable(conditions) else None
        self.text_width = text_width if self.captions is not None else 0  # 0: there is no sequence

    def forward(self, c_noise: Tensor, cond: Mapping[str, Tensor]) -> Embedded:
        """The noise level and the conditions of a batch.

        Args:
            c_noise: (B,).
            cond: by name; absent ones are null for all samples.
        """
        total = self.noise(c_noise) + self.conditions(c_noise, cond)  # (B, width)
        if self.captions is None:
            return Embedded(F.silu(total), None)
        vector, text = self.captions(c_noise, cond)  # (B, width)
        return Embedded(F.silu(total + vector), text)
