"""DiT, the diffusion transformer, for signals, pictures and volumes of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unstir.conditioning.embed import GridChannels
from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.embedding import Embedded, Embedding
from unstir.networks.layers import crop, depth_to_space, pad_to_multiple, space_to_depth, zero
from unstir.networks.tokens import AdaLNZeroBlock, TokenBlock, Tokens, grid_sincos, joined, linear, token

SIZES: dict[str, tuple[int, int, int]] = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
"""(depth, width, heads) by name: Peebles & Xie 2023, table 1."""

BLOCKS: dict[str, type[TokenBlock]] = {
    "adaln-zero": AdaLNZeroBlock,
    "in-context": TokenBlock,
    "cross-attention": TokenBlock,
}
"""What a network is made of, by how the noise level and the conditions enter."""


@dataclass(frozen=True)
class DiTConfig(NetworkConfig):
    """A diffusion transformer: the data cut into patches, each a token."""

    size: Literal["", "S", "B", "L", "XL"] = ""
    """A size of the paper by its name, in place of depth, width and heads."""
    depth: int = 6
    """Blocks."""
    width: int = 192
    """Channels of a token."""
    heads: int = 6
    """Heads of the attention; they divide the width."""
    patch: int = 4
    """Side of a patch: half of it means four times the tokens in a picture."""
    ratio: int = 4
    """Inner width of the feed-forward layers, as a multiple."""
    conditioning: Literal["adaln-zero", "in-context", "cross-attention"] = "adaln-zero"
    """How the noise level and the conditions enter: they scale, shift and gate every block; or they are a token among the patches; or
    one that every block attends to."""
    text: Literal["cross-attention", "in-context", "pooled"] = "cross-attention"
    """How the tokens of captions enter, where the data have some: every block attends to them; or they stand among the patches; or
    only their mean is known, as a part of the conditions, which it always is."""
    text_width: int = 128
    """Channels of a caption's tokens, where the data have captions and data.text says who reads them."""
    text_depth: int = 2
    """Layers of the transformer that learns to read captions given as bytes."""
    checkpoint_activations: bool = False
    """Compute the blocks' activations again in the backward pass instead of keeping them: less memory, a third slower."""

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """(depth, width, heads)."""
        return SIZES.get(self.size, (self.depth, self.width, self.heads))

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        if spec.rank == 0:
            raise UserError(f"a DiT works on signals, pictures and volumes, not on {spec.kind}; use --network mlp")
        depth, width, heads = self.dimensions
        if min(depth, width, heads, self.patch, self.ratio, self.text_width) < 1:
            raise UserError("network: depth, width, heads, patch, ratio and text_width must be at least 1")
        if width % heads:
            raise UserError(f"network.width {width} must be a multiple of network.heads {heads}")
        return DiT(self, spec, in_channels or spec.shape[0], out_channels)


class DiT(nn.Module):
    """The module of ``DiTConfig``.

    Sizes that the patch does not divide are padded inside by repeating the edges. Places are fixed sines and cosines. The last layer
    starts at 0, so that the untrained network gives F = 0, and so do all blocks.

    Where the conditions are a token or are attended to, it is one token of their sum and the noise level's; the paper has one of
    each. Captions are more than the paper has: the mean of their tokens is part of the conditions, and the tokens themselves enter
    by a way of their own (``text``), which as cross-attention starts at 0, and so do conditions on the data's grid: a network with
    them says at first what the same weights say without.

    Source:
        Peebles & Xie 2023, section 3.2, https://arxiv.org/abs/2212.09748; captions beside adaLN by cross-attention: Chen et al. 2023 (PixArt-alpha), section 2.3, https://arxiv.org/abs/2310.00426
    """

    def __init__(self, config: DiTConfig, spec: DataSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        depth, width, heads = config.dimensions
        entries = config.patch**spec.rank  # of a patch, in each channel
        self.patch, self.conditioning, self.text = config.patch, config.conditioning, config.text
        self.embedding = Embedding(spec.conditions, width, config.text_width, config.text_depth)
        self.stem = linear(in_channels * entries, width)
        self.grids = GridChannels(spec.conditions)
        self.grid_stem = zero(nn.Linear(self.grids.channels * entries, width)) if self.grids.channels else None
        reads = self.embedding.text_width > 0 and config.text != "pooled"
        self.text_stem = linear(self.embedding.text_width, width) if reads else None
        attends = "cross-attention" in (config.conditioning, config.text if reads else "")
        block = BLOCKS[config.conditioning]
        self.blocks = nn.ModuleList(block(width, heads, config.ratio, width if attends else 0) for _ in range(depth))
        modulated = block is AdaLNZeroBlock
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not modulated)
        self.modulation = zero(nn.Linear(width, 2 * width)) if modulated else None
        self.head = zero(nn.Linear(width, out_channels * entries))
        self.recompute = config.checkpoint_activations

    def _enter(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """x (B, C, *grid) -> its patches (B, N, C patch^rank), and how many there are along each axis."""
        patches = space_to_depth(pad_to_multiple(x, self.patch), self.patch)  # (B, C patch^rank, ...)
        return patches.flatten(2).mT, list(patches.shape[2:])

    def _sequences(self, embedding: Embedded) -> tuple[Tokens | None, Tokens | None]:
        """What stands among the patches, and what the blocks attend to."""
        found: dict[str, list[Tokens]] = {"in-context": [], "cross-attention": [], "adaln-zero": []}
        found[self.conditioning].append(token(embedding.vector))
        if self.text_stem is not None and embedding.text is not None:
            states, mask = embedding.text
            found[self.text].append(Tokens(self.text_stem(states), mask))
        among, other = found["in-context"], found["cross-attention"]
        return joined(among) if among else None, joined(other) if other else None

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        embedding = self.embedding(c_noise, cond)  # (B, width), and captions
        patches, places = self._enter(x)  # (B, N, C patch^rank)
        h = self.stem(patches)  # (B, N, width)
        if self.grid_stem is not None:
            h = h + self.grid_stem(self._enter(self.grids(x, cond))[0])  # (B, N, width)
        h = h + grid_sincos(places, h.shape[2], h.device)  # (B, N, width)
        among, other = self._sequences(embedding)
        h = self._through_blocks(h, among, other, embedding.vector)  # (B, N, width)
        h = self.norm(h)  # (B, N, width)
        if self.modulation is not None:
            shift, scale = self.modulation(embedding.vector).unsqueeze(1).chunk(2, 2)  # (B, 1, width) each
            h = h * (1 + scale) + shift  # (B, N, width)
        F_ = self.head(h).mT.reshape(len(x), -1, *places)  # (B, out_channels patch^rank, ...)
        return crop(depth_to_space(F_, self.patch), x.shape[2:])  # (B, out_channels, *grid)

    def _through_blocks(self, h: Tensor, among: Tokens | None, other: Tokens | None, vector: Tensor) -> Tensor:
        count, mask = h.shape[1], None
        if among is not None:
            there = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)  # (B, N)
            h, mask = joined([Tokens(h, there), Tokens(among.states.to(h.dtype), among.mask)])  # (B, N + S, width)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                h = checkpoint(block, h, mask, other, vector, use_reentrant=False)  # (B, N + S, width)
            else:
                h = block(h, mask, other, vector)  # (B, N + S, width)
        return h[:, :count]  # (B, N, width)
