"""What a user says about the data: the ``data`` section of every recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """Where the data is and how to read it."""

    source: str = ""
    """A built-in name (emoji, digits, swiss-roll, ...), a folder of pictures, a .npy/.npz/.csv file, hf:NAME, or shards
    (*.tar)."""
    split: str = "train"
    """Which part of the source, where it has several: fashion-mnist (train, test) and hf:NAME."""
    size: tuple[int, ...] | None = None
    """Height and width that pictures are resized to (one number: a square). Default: their own where all have the same,
    at most 256; else a square of their median short side, rounded to a multiple of 8, at most 64."""
    kind: Literal["auto", "image", "signal", "volume", "points"] = "auto"
    """What an array or table holds, where its shape does not say so."""
    channels: Literal["auto", "rgb", "rgba", "gray"] = "auto"
    """Channels of pictures. auto: transparency is laid on the background, and grey pictures stay grey."""
    background: str = "white"
    """What lies behind transparent pixels, and beside pictures that are padded: a colour name or #rrggbb."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How a picture of another aspect ratio gets the size: cut its middle, add borders, or distort."""
    flip: bool = False
    """Mirror pictures at random, left to right. Not for writing."""
    labels: bool = True
    """Use class labels and other conditions where the data has them."""
    text: str = ""
    """Train on the captions, read by this encoder: bytes (letters, which the network itself learns to read), minilm (a small frozen language
    model), or the folder or hub name of a T5, CLIP or BERT model (google-t5/t5-small). Default: captions are not used. Together with
    classes: for captions alone leave these out (labels = false)."""
    groups: int = 0
    """Where the data has no classes, find so many groups of similar samples and train with them as if they were classes: samples get
    better, above all with guidance, and nobody has to ask for a group (0: don't)."""
    cache: str | None = None
    """Folder for decoded pictures and encoded captions. Default: $UNSTIR_CACHE, or ~/.cache/unstir."""

    def cache_folder(self) -> Path:
        """The cache's folder; nothing is created."""
        return Path(self.cache or os.environ.get("UNSTIR_CACHE") or "~/.cache/unstir").expanduser()

    def plain(self) -> DataConfig:
        """The same data without what a model sees in them: groups, which found anew would be others, and captions in an encoder's
        form. What judges a model by data reads them like this."""
        return replace(self, groups=0, text="")
