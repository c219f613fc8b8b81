"""Words in pictures: the one font, and text that fits."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

INK = (38, 42, 51)  # text
PALE = (110, 116, 128)  # tick numbers, footers

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_PLAIN = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "’": "'", "µ": "u", "σ": "sigma", "ε": "eps"}
)


@lru_cache(maxsize=32)
def font(size: int) -> Font:
    """The font that Pillow ships, so that a picture looks the same on every machine."""
    return ImageFont.load_default(size=size)


def plain(text: str) -> str:
    """The text in letters that Pillow's own font has: accents dropped, a few signs spelled out."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def text_width(text: str, size: int) -> int:
    """Width in pixels of one line."""
    return round(font(size).getlength(text))


def fit_text(text: str, size: int, width: float) -> str:
    """The text, its end replaced by "…" where it is wider than ``width`` pixels."""
    text = plain(text)
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1].rstrip()
    return text + "…" if text else ""
