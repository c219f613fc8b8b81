"""All captions of a data set: encoded once, kept on disk, and the same as fresh ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unstir.conditioning.text import Bytes, TextEncoder
from unstir.conditioning.text_table import encode_all

CAPTIONS = ["a red heart", "", "a very long caption", "a red  heart", "cat"]  # the cut one is not the last


class Letters(TextEncoder):
    """Features of each letter: its code and its place, exact in half precision. Counts how often it is asked."""

    def __init__(self, longest: int = 12, identity: str = "letters") -> None:
        super().__init__("letters")
        self._longest = longest
        self._identity = identity
        self.calls = 0

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def width(self) -> int:
        return 2

    @property
    def longest(self) -> int:
        return self._longest

    def count(self, captions: Sequence[str]) -> list[int]:
        self.calls += 1
        return [len(caption) for caption in captions]

    def states(self, captions: Sequence[str], length: int) -> list[Tensor]:
        self.calls += 1
        return [torch.tensor([[ord(letter), i] for i, letter in enumerate(c[:length])]).float() for c in captions]


@pytest.mark.parametrize("encoder", [Letters(), Bytes()], ids=["features", "tokens"])
def test_a_table_holds_what_the_encoder_makes(encoder: TextEncoder, tmp_path: Path) -> None:
    found = encode_all(CAPTIONS, encoder, tmp_path)
    assert found.condition == encoder.condition(CAPTIONS)
    fresh = encoder.encode(CAPTIONS, found.condition.shape[0]).numpy()
    rows = np.array([4, 0, 0, 3, 1, 2])
    np.testing.assert_array_equal(found.table[rows], fresh[rows])  # NaN equals NaN here
    assert found.table[rows].dtype == fresh.dtype
    assert len(found.table) == 5
    assert found.missing == 1
    assert found.cut == ([] if isinstance(encoder, Bytes) else ["a very long caption"])


def test_the_second_time_nobody_is_asked(tmp_path: Path) -> None:
    first = encode_all(CAPTIONS, Letters(), tmp_path)
    encoder = Letters()
    second = encode_all(CAPTIONS, encoder, tmp_path)
    assert encoder.calls == 0
    assert (second.condition, second.cut, second.missing) == (first.condition, first.cut, first.missing)
    np.testing.assert_array_equal(second.table[np.arange(5)], first.table[np.arange(5)])
    assert encode_all(CAPTIONS[:3], encoder, tmp_path).condition.names == ("a red heart", "a very long caption")
    assert encoder.calls > 0
    other = Letters(identity="other weights")
    encode_all(CAPTIONS, other, tmp_path)
    assert other.calls > 0


@pytest.mark.parametrize("name", ["x.npy", "meta.json"])
def test_what_is_damaged_is_made_anew(name: str, tmp_path: Path) -> None:
    first = encode_all(CAPTIONS, Letters(), tmp_path).table[np.arange(5)]  # read before the file below it changes
    (file,) = (tmp_path / "text").glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[:-3] + b"???")
    encoder = Letters()
    again = encode_all(CAPTIONS, encoder, tmp_path)
    assert encoder.calls > 0
    np.testing.assert_array_equal(again.table[np.arange(5)], first)
    assert not list((tmp_path / "text").glob(".b*"))
    quiet = Letters()
    encode_all(CAPTIONS, quiet, tmp_path)
    assert quiet.calls == 0


def test_tokens_leave_nothing_on_disk(tmp_path: Path) -> None:
    encode_all(CAPTIONS, Bytes(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_many_captions_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unstir.conditioning.text_table.PIECE", 7)
    captions = [f"number {i}" for i in range(40)]
    found = encode_all(captions, Letters(), tmp_path)
    np.testing.assert_array_equal(found.table[np.arange(40)], Letters().encode(captions, 9).numpy())
