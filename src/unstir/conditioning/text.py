"""Captions as networks see them: one tensor for each, made by a text encoder.

It is either features (L, D) float32, the last hidden states of a frozen language model, or tokens (L,) int64, which a network
learns to read itself. What comes after a caption's end is null (``conditioning.null``: NaN in features, -1 among tokens), and a
caption that is missing is null altogether. So the mask of a caption is in its numbers, and dropping out, leaving out and batching
captions is what it is for every other condition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unstir.conditioning.null import null_like
from unstir.data.spec import Condition
from unstir.errors import UserError, did_you_mean

LONGEST = 128
"""Most tokens of a caption: what is longer is cut."""
EXAMPLES = 256
"""Captions of the data that its description keeps, to show what can be asked for."""


def tidy(caption: str) -> str:
    """The caption in one line, with single spaces and nothing that is no valid Unicode; "" where there is nothing to read."""
    return " ".join(caption.encode("utf-8", "replace").decode("utf-8").split())


def distinct(captions: Iterable[str]) -> list[str]:
    """The captions that are there, tidied, each once, in the order in which they come."""
    return [caption for caption in dict.fromkeys(map(tidy, captions)) if caption]


def evenly(captions: Sequence[str], most: int) -> list[str]:
    """At most so many of them, evenly spread from the first to the last."""
    places = np.linspace(0, len(captions) - 1, min(most, len(captions))).round().astype(int)
    return [captions[i] for i in places]


def padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """Captions (n, ...) of any n up to ``length`` -> (N, length, ...), null after each one's end."""
    values = null_like(rows[0].new_empty(len(rows), length, *rows[0].shape[1:]))
    for value, row in zip(values, rows, strict=True):
        value[: len(row)] = row
    return values


class TextEncoder(ABC):
    """Captions -> tensors. A new one is a subclass and a line in ``TEXT_ENCODERS``.

    Args:
        name: by which ``text_encoder`` finds it again.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def identity(self) -> str:
        """Another one where it makes something else of the same caption: what is kept on disk hangs on it."""

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are; 0: it gives features."""
        return 0

    @property
    def width(self) -> int:
        """Of the features; 0: it gives tokens."""
        return 0

    @property
    def longest(self) -> int:
        """Most tokens that it reads."""
        return LONGEST

    @abstractmethod
    def count(self, captions: Sequence[str]) -> list[int]:
        """The tokens of each caption, however long it is."""

    @abstractmethod
    def states(self, captions: Sequence[str], length: int) -> list[Tensor]:
        """(n, width) float32 or (n,) int64 for each of these tidy captions, none of them empty; cut to ``length`` tokens."""

    @property
    def nothing(self) -> Tensor:
        """What a missing caption is: (0, width) float32 or (0,) int64."""
        return torch.empty(0, self.width) if self.width else torch.empty(0, dtype=torch.int64)

    def condition(self, captions: Sequence[str]) -> Condition:
        """The declaration of a text condition for data with such captions: as long as the longest of them, if it is read to its end."""
        present = distinct(captions)
        length = min(max(self.count(present), default=1), self.longest)
        shape = (length, self.width) if self.width else (length,)
        names = tuple(evenly(present, EXAMPLES))
        return Condition("text", self.vocabulary, names, shape=shape, encoder=self.name)

    def encode(self, captions: Sequence[str], length: int | None = None) -> Tensor:
        """(N, L, width) float32, NaN after each caption's end; or (N, L) int64, -1 there. "" is a caption that is missing.

        Args:
            captions: N of them.
            length: L; longer captions are cut. Default: that of the longest, if it is read to its end.
        """
        captions = [tidy(caption) for caption in captions]
        different = distinct(captions)
        length = length or min(max(self.count(different), default=1), self.longest)
        found = dict(zip(different, self.states(different, length), strict=True))
        return padded([found.get(caption, self.nothing) for caption in captions], length)

    def too_long(self, captions: Sequence[str], length: int) -> list[str]:
        """Those of the captions that are cut to this many tokens, each once."""
        present = distinct(captions)
        return [caption for caption, count in zip(present, self.count(present), strict=True) if count > length]


class Bytes(TextEncoder):
    """The caption's letters as UTF-8 bytes: nothing to install or to download, any language, and the network learns to read.

    Source:
        Xue et al. 2022, "ByT5", section 3.1 (without its special tokens: a caption's end is null), https://arxiv.org/abs/2105.13626
    """

    def __init__(self) -> None:
        super().__init__("bytes")

    @property
    def identity(self) -> str:
        return "bytes"

    @property
    def vocabulary(self) -> int:
        return 256

    def count(self, captions: Sequence[str]) -> list[int]:
        return [len(tidy(caption).encode()) for caption in captions]

    def states(self, captions: Sequence[str], length: int) -> list[Tensor]:
        return [torch.tensor(list(caption.encode()[:length]), dtype=torch.int64) for caption in captions]


def _minilm() -> TextEncoder:
    from unstir.conditioning.language_model import minilm

    return minilm()


TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {"bytes": Bytes, "minilm": _minilm}
"""By name. Any other name is a folder with a model of the transformers library, or OWNER/MODEL on the hub."""


@lru_cache(maxsize=4)
def text_encoder(name: str) -> TextEncoder:
    """The text encoder of that name: an entry of ``TEXT_ENCODERS``, a folder, or a model of the hub. It is loaded when it is first used.

    Raises:
        UserError: no such encoder, or it is not installed.
    """
    if name in TEXT_ENCODERS:
        return TEXT_ENCODERS[name]()
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UserError(
            f"no text encoder '{name}'; {did_you_mean(name, TEXT_ENCODERS)}; or the folder of a T5, CLIP or BERT model, or its name on "
            "the hub, such as google-t5/t5-small"
        )
    from unstir.conditioning.language_model import LanguageModel, from_hub

    return LanguageModel(name, lambda: folder if folder.is_dir() else from_hub(name))
