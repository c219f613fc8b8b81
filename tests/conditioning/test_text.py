"""Captions as tensors: bytes, where they end, and the encoders by name."""

from __future__ import annotations

import pytest
import torch

from unstir.conditioning.null import drop, is_null
from unstir.conditioning.text import LONGEST, Bytes, distinct, evenly, text_encoder, tidy
from unstir.errors import UserError


def test_bytes_are_utf_8_and_end_with_null() -> None:
    found = Bytes().encode(["ab", "", "é", " \n"], 3)
    assert found.dtype == torch.int64
    assert found.tolist() == [[97, 98, -1], [-1, -1, -1], [0xC3, 0xA9, -1], [-1, -1, -1]]
    assert is_null(found).tolist() == [False, True, False, True]
    assert drop(found, torch.tensor([True, False, False, False]))[0].tolist() == [-1, -1, -1]


def test_a_caption_is_as_long_as_the_longest_or_cut() -> None:
    encoder = Bytes()
    assert encoder.encode(["a", "abc"]).shape == (2, 3)
    assert encoder.encode(["abcd"], 2).tolist() == [[97, 98]]
    assert encoder.encode(["x" * 500]).shape == (1, LONGEST)
    assert encoder.encode(["", ""]).shape == (2, 1)
    assert encoder.too_long(["abcd", "a b", "abcd", ""], 3) == ["abcd"]


def test_the_declaration_follows_the_data() -> None:
    condition = Bytes().condition(["a cat", "", "a dog\n", "a  cat", "a" * 300])
    assert (condition.kind, condition.size, condition.shape, condition.encoder) == ("text", 256, (LONGEST,), "bytes")
    assert condition.names == ("a cat", "a dog", "a" * 300)
    assert condition.seen
    assert Bytes().condition(["a cat", "a dog"]).shape == (5,)
    many = Bytes().condition([f"caption {i}" for i in range(1000)])
    assert len(many.names) == 256
    assert (many.names[0], many.names[-1]) == ("caption 0", "caption 999")


def test_captions_are_tidied() -> None:
    assert tidy(" a\tred \n heart ") == "a red heart"
    assert tidy("broken \ud800 letter") == "broken ? letter"  # what no file could hold
    assert distinct(["b", " a", "b ", "", "a"]) == ["b", "a"]
    assert evenly(["a", "b", "c", "d", "e"], 3) == ["a", "c", "e"]
    assert evenly(["a", "b"], 3) == ["a", "b"]


def test_encoders_by_name() -> None:
    assert isinstance(text_encoder("bytes"), Bytes)
    with pytest.raises(
        UserError, match=r"no text encoder 'byts'; did you mean bytes\?.*the folder of a T5, CLIP or BERT"
    ):
        text_encoder("byts")
    with pytest.raises(UserError, match=r"no text encoder '\./nowhere'"):
        text_encoder("./nowhere")


def test_an_encoder_that_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot_download(name: str, **options: object) -> str:
        asked.append((name, options))
        raise OSError("no network\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    encoder = text_encoder("somebody/t5-tiny")  # nothing is loaded yet
    with pytest.raises(
        UserError,
        match=r"cannot get the text encoder somebody/t5-tiny from the hub \(no network\); offline: --data.text",
    ):
        encoder.encode(["a"])
    assert asked == [("somebody/t5-tiny", {"allow_patterns": ["*.safetensors", "*.json", "*.txt", "*.model"]})]
