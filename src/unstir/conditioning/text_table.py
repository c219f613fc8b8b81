"""The captions of a whole data set, encoded once, and kept on disk where that took a language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unstir.conditioning.text import TextEncoder, distinct, tidy
from unstir.data.cache import Cache, key_of
from unstir.data.contents import Array
from unstir.data.spec import Condition

VERSION = 1  # of what is kept
PIECE = 4096  # captions that are encoded before they are written


@dataclass(frozen=True, eq=False)
class TextTable:
    """The captions of a data set: every different one once, without padding.

    Args:
        states: (T, width) float16 or (T,) uint8: the tokens of all different captions, one caption after another; may be a memory map.
        starts: (U + 1,) where in ``states`` each of them begins, and the end.
        which: (N,) the caption of every sample; -1: none.
        shape: of one sample's value, (L, width) or (L,).
    """

    states: Array
    starts: npt.NDArray[np.int64]
    which: npt.NDArray[np.int64]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, rows: Array) -> Array:
        """(B,) integers -> (B, L, width) float32, NaN after each caption's end, or (B, L) int64, -1 there."""
        which = self.which[rows]
        features = len(self.shape) > 1
        values = np.full((len(which), *self.shape), np.nan if features else -1, np.float32 if features else np.int64)
        for value, caption in zip(values, which.tolist(), strict=True):
            if caption >= 0:
                start, end = self.starts[caption : caption + 2]
                value[: end - start] = self.states[start:end]
        return values


@dataclass(frozen=True, eq=False)
class Encoded:
    """What came of a data set's captions.

    Args:
        condition: how the data declare them.
        table: them.
        missing: samples without a caption.
        cut: different captions that are longer than the encoder reads, and lost their end.
    """

    condition: Condition
    table: TextTable
    missing: int
    cut: list[str]


def encode_all(captions: Sequence[str], encoder: TextEncoder, cache: Path) -> Encoded:
    """Encodes the captions of a data set, or finds them in the cache (under text/; tokens are made anew, which takes no time).

    Args:
        captions: one for every sample, "" where it has none; at least one is there.
        encoder: to read them with.
        cache: the data cache's folder.

    Raises:
        UserError: the encoder cannot be loaded, or the cache not be written.
    """
    different = distinct(captions)
    states, meta = _kept(different, encoder, cache) if encoder_is_costly(encoder) else _tokens(different, encoder)
    condition = replace(Condition.from_dict(meta["condition"]), encoder=encoder.name)
    length, counts = condition.shape[0], np.array(meta["counts"], np.int64)
    starts = np.concatenate([[0], np.minimum(counts, length).cumsum()])
    number = {caption: i for i, caption in enumerate(different)}
    which = np.array([number.get(tidy(caption), -1) for caption in captions], np.int64)
    cut = [different[i] for i in np.flatnonzero(counts > length)]
    return Encoded(condition, TextTable(states, starts, which, condition.shape), int((which < 0).sum()), cut)


def encoder_is_costly(encoder: TextEncoder) -> bool:
    """Whether what it makes is worth keeping: features, not tokens."""
    return encoder.vocabulary == 0


def _described(different: list[str], encoder: TextEncoder) -> dict[str, Any]:
    return {"condition": vars(encoder.condition(different)), "counts": encoder.count(different)}


def _pieces(different: list[str], encoder: TextEncoder, length: int) -> Iterator[Array]:
    for start in range(0, len(different), PIECE):
        for state in encoder.states(different[start : start + PIECE], length):
            yield state.numpy()


def _tokens(different: list[str], encoder: TextEncoder) -> tuple[Array, dict[str, Any]]:
    """Tokens below 256 are bytes."""
    meta = _described(different, encoder)
    length = meta["condition"]["shape"][0]
    kind = np.uint8 if encoder.vocabulary <= 256 else np.int32
    return np.concatenate(list(_pieces(different, encoder, length))).astype(kind), meta


def _kept(different: list[str], encoder: TextEncoder, folder: Path) -> tuple[Array, dict[str, Any]]:
    def write(building: Path) -> dict[str, Any]:
        meta = _described(different, encoder)
        length, width = meta["condition"]["shape"]
        total = sum(min(count, length) for count in meta["counts"])
        states = np.lib.format.open_memmap(building / "x.npy", mode="w+", dtype=np.float16, shape=(total, width))
        place = 0
        for state in _pieces(different, encoder, length):
            states[place : place + len(state)] = state
            place += len(state)
        assert place == total, "a tokenizer counts its tokens otherwise than it gives them"
        states.flush()
        return meta

    key = key_of("text", VERSION, encoder.identity, different)
    return Cache(folder, "text").find_or_build(key, write)
