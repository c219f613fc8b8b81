"""Data sets whose captions are read: batches, what is missing or too long, and mistakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from unstir.conditioning.null import is_null
from unstir.conditioning.text import Bytes
from unstir.data import DataConfig, DataSpec, check, load
from unstir.errors import UserError

CAPTIONS = ["a red heart", "", "a cat", "a red heart"]


def config(tmp_path: Path, captions: list[str] | None = None, **options: object) -> DataConfig:
    x = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1, 1, 0], text=np.array(CAPTIONS if captions is None else captions))
    fields = {"source": str(tmp_path / "a.npz"), "text": "bytes", "cache": str(tmp_path / "cache"), **options}
    return DataConfig(**fields)  # type: ignore[arg-type]


def test_batches_carry_encoded_captions(tmp_path: Path) -> None:
    data = load(config(tmp_path))
    assert set(data.spec.conditions) == {"label", "text"}
    condition = data.spec.conditions["text"]
    assert (condition.kind, condition.size, condition.shape, condition.encoder) == ("text", 256, (11,), "bytes")
    assert condition.names == ("a red heart", "a cat")
    _, cond = data.batch(torch.tensor([2, 1, 3]))
    assert torch.equal(cond["text"], Bytes().encode(["a cat", "", "a red heart"], 11))
    assert is_null(cond["text"]).tolist() == [False, True, False]
    assert cond["label"].tolist() == [1, 1, 0]
    assert data.captions == CAPTIONS
    assert DataSpec.from_dict(data.spec.to_dict()) == data.spec
    assert data.report.notes == ["1 of 4 samples have no caption, and train without one"]
    assert torch.equal(data.samples(torch.tensor([2])), data.batch(torch.tensor([2]))[0])


def test_captions_without_classes_and_classes_without_captions(tmp_path: Path) -> None:
    only = load(config(tmp_path, labels=False))
    assert set(only.spec.conditions) == set(only.conditions) == {"text"}
    unread = load(config(tmp_path, text=""))
    assert unread.conditions["text"] == unread.captions == CAPTIONS
    assert not unread.spec.conditions["text"].seen
    assert set(unread.batch(np.arange(2))[1]) == {"label"}
    neither = load(config(tmp_path, text="", labels=False))
    assert not neither.spec.conditions
    assert neither.captions == CAPTIONS  # samples may still be asked for by them


def test_the_fingerprint_follows_the_encoder(tmp_path: Path) -> None:
    plain = load(config(tmp_path, text="")).fingerprint
    assert load(config(tmp_path)).fingerprint != plain
    assert load(config(tmp_path).plain()).fingerprint == plain


def test_long_captions_are_cut_and_named_once(tmp_path: Path) -> None:
    long = "very " * 40 + "long"
    data = load(config(tmp_path, [long, "a", long, "b"]))
    assert data.spec.conditions["text"].shape == (128,)
    (note,) = data.report.notes
    assert note.startswith("1 captions are longer than the 128 tokens that bytes reads, and are cut: very very")
    assert data.batch(np.array([0]))[1]["text"][0].tolist() == list(long.encode()[:128])


def test_no_captions_is_an_error_that_says_how_to_give_them(tmp_path: Path) -> None:
    for captions in (["", "", "", ""], ["\n", " ", "", ""]):
        with pytest.raises(
            UserError, match=r"data.text is bytes, and .*a.npz has no captions. Give them in metadata.jsonl"
        ):
            load(config(tmp_path, captions))
    with pytest.raises(UserError, match="digits has no captions"):
        load(DataConfig(source="digits", text="bytes"))
    with pytest.raises(UserError, match="no text encoder 'byts'"):
        load(config(tmp_path, text="byts"))


def test_captions_are_a_condition_so_no_groups_are_looked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=np.random.default_rng(0).normal(size=(200, 2)), text=np.array(["a", "b"] * 100))
    base = DataConfig(source=str(tmp_path / "p.npz"), groups=2)
    assert set(load(base).spec.conditions) == {"text", "group"}
    assert set(load(dataclasses.replace(base, text="bytes")).spec.conditions) == {"text"}


def test_the_doctor_counts_them(tmp_path: Path) -> None:
    report = check(config(tmp_path))
    assert report.facts["captions"] == "3"
    assert report.facts["captions read by"] == "bytes: the longest has 11 tokens, of at most 128"
    assert "1 of 4 samples have no caption, and train without one" in report.notes
    assert f"unstir train glide --data {tmp_path / 'a.npz'}  (pictures from their captions)" in report.suggestions
    nothing = check(config(tmp_path, ["", "", "", ""]))
    assert any("has no captions" in note for note in nothing.notes)


def test_the_emoji_have_names() -> None:
    data = load(DataConfig(source="emoji", text="bytes", labels=False))
    assert data.report.notes == []
    condition = data.spec.conditions["text"]
    assert condition.shape == (max(len(caption.encode()) for caption in data.captions),)
    assert len(condition.names) == 256
    row = data.captions.index("blue heart")
    assert bytes(b for b in data.batch(np.array([row]))[1]["text"][0].tolist() if b >= 0) == b"blue heart"
