"""A CLIP that knows four letters and needs no training: a picture is near a letter where its number at that place is the largest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unstir.clip import CaptionTower, Clip, PictureTower, Towers
from unstir.data.spec import Condition
from unstir.networks.tokens import Tokens
from unstir.process import Process

LETTERS = "abcd"


class Same(nn.Module):
    """What it is shown, as a vector; it remembers what it was told of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[Tensor] = []

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.levels.append(c_noise.detach())
        return x.flatten(1)


class OneHot(nn.Module):
    """The bytes a, b, c, d as unit vectors; every other byte is 0."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.zeros(257, len(LETTERS))
        for i, letter in enumerate(LETTERS):
            table[ord(letter), i] = 1.0
        self.table = nn.Parameter(table)

    def forward(self, text: Tensor) -> Tokens:
        return Tokens(
            self.table[text], torch.ones_like(text, dtype=torch.bool)
        )  # row -1 is 0: after the end nothing is added


def letters_clip(process: Process, *, scale: float = 3.0, length: int = 3, sigma_data: float = 1.0) -> Clip:
    """(B, 4) pictures, captions of up to ``length`` bytes; in float32."""
    captions = CaptionTower(OneHot(), len(LETTERS), len(LETTERS))
    nn.init.eye_(captions.out.weight)
    nn.init.zeros_(captions.out.bias)
    towers = Towers(PictureTower(Same(), len(LETTERS)), captions, temperature=1 / scale)
    nn.init.zeros_(towers.pictures.origin)
    condition = Condition("text", 256, tuple(LETTERS), shape=(length,), encoder="bytes")
    return Clip(towers, process, condition, sigma_data=sigma_data).eval()
