"""Captions as networks read them: a sequence of tokens to attend to, and one vector beside the noise level's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unstir.data.spec import Condition
from unstir.networks.layers import heads_of, zero
from unstir.networks.tokens import TokenBlock, Tokens, joined, linear, sincos

HEAD_CHANNELS = 32
"""Of the attention of the trained text transformer."""


def readable(conditions: Mapping[str, Condition]) -> dict[str, Condition]:
    """The captions among the conditions that an encoder was chosen for."""
    return {name: condition for name, condition in conditions.items() if condition.kind == "text" and condition.shape}


def without_padding(text: Tensor) -> Tensor:
    """Encoded captions (B, L, ...) up to the end of the longest of them: in most batches far less than the longest of the data."""
    there = ~text.isnan().any(-1) if text.is_floating_point() else text != -1  # (B, L)
    last = there.any(0).nonzero()
    return text[:, : int(last.max()) + 1] if len(last) else text[:, :1]


class TextTokens(nn.Module):
    """A caption -> the states of its tokens, (B, 1 + L, width), and which of them are there.

    A frozen encoder's features (L, D) go through one linear layer; tokens (L,), which nobody has read yet, through a transformer
    that is trained with the network. Before a caption stands a token that is always there, so that no caption (null: all NaN, or
    all -1) is a sequence as well: this token alone, and what it says then is learned.

    Places are sines and cosines, where GLIDE learns them: captions may be longer than those of the training data, and of another
    run's.

    Source:
        Nichol et al. 2022, on text-conditional diffusion models (the trained transformer), https://arxiv.org/abs/2112.10741; Saharia et al. 2022, section 2.5 (Imagen: frozen features, normalised), https://arxiv.org/abs/2205.11487

    Args:
        condition: a text with a ``shape``.
        width: of the states.
        depth: layers of the trained transformer.
    """

    def __init__(self, condition: Condition, width: int, depth: int = 2) -> None:
        super().__init__()
        self.shape = condition.shape
        self.frozen = len(condition.shape) == 2
        self.start = nn.Parameter(torch.randn(width))
        self.read = linear(condition.shape[1], width) if self.frozen else nn.Embedding(condition.size, width)
        layers, heads = 0 if self.frozen else depth, heads_of(width, HEAD_CHANNELS)
        self.blocks = nn.ModuleList(TokenBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def null(self, batch: int, device: torch.device) -> Tensor:
        """No caption, for a batch."""
        empty = torch.tensor(float("nan")) if self.frozen else torch.tensor(-1)
        return empty.to(device).expand(batch, *self.shape)

    def forward(self, caption: Tensor) -> Tokens:
        there = ~caption.isnan().any(-1) if self.frozen else caption != -1  # (B, L)
        if self.frozen:
            # Not NaN, times 0: the gradient of what is masked must be finite too.
            features = caption.masked_fill(~there.unsqueeze(2), 0).to(self.start.dtype)  # (B, L, D)
            h = self.read(features)  # (B, L, width)
        else:
            h = self.read(caption.clamp(min=0))  # (B, L, width)
            h = h + sincos(h.shape[1], h.shape[2], h.device)  # (B, L, width)
        h = torch.cat([self.start.to(h.dtype).expand(len(h), 1, -1), h], 1)  # (B, 1 + L, width)
        mask = torch.cat([torch.ones_like(there[:, :1]), there], 1)  # (B, 1 + L)
        for block in self.blocks:
            h = block(h, mask)  # (B, 1 + L, width)
        return Tokens(self.norm(h), mask)


class Captions(nn.Module):
    """All captions of a sample, read: one sequence, and one vector for the embedding of the noise level, which starts at 0.

    Equation:
        vector = W_2 silu(W_1 mean of the tokens that are there)
    Source:
        Saharia et al. 2022, section 2.5 ("a pooled embedding vector, added to the diffusion timestep embedding"), https://arxiv.org/abs/2205.11487; Nichol et al. 2022 takes the last token for it

    Args:
        conditions: that the data declare; those that are no readable captions are left out.
        width: of the vector.
        text_width: of the sequence. text_depth: layers of the transformer that is trained on tokens.
    """

    def __init__(self, conditions: Mapping[str, Condition], width: int, text_width: int, text_depth: int) -> None:
        super().__init__()
        texts = readable(conditions)
        self.names = tuple(texts)
        self.parts = nn.ModuleList(TextTokens(condition, text_width, text_depth) for condition in texts.values())
        self.pooled = nn.ModuleList(
            nn.Sequential(nn.Linear(text_width, width), nn.SiLU(), zero(nn.Linear(width, width))) for _ in texts
        )

    def forward(self, c_noise: Tensor, cond: Mapping[str, Tensor]) -> tuple[Tensor, Tokens]:
        """(B, width) and the sequence.

        Args:
            c_noise: (B,) only for its size and device.
            cond: by name; absent captions are null for all samples.
        """
        sequences, vectors = [], []
        for name, part, pooled in zip(self.names, self.parts, self.pooled, strict=True):
            caption = cond[name] if name in cond else part.null(len(c_noise), c_noise.device)  # type: ignore[operator]
            sequences.append(part(caption))
            vectors.append(pooled(sequences[-1].mean()))  # (B, width)
        return torch.stack(vectors).sum(0), joined(sequences)
