"""Captions of a data set, in the form in which networks read them."""

from __future__ import annotations

from dataclasses import replace

from unstir.data.config import DataConfig
from unstir.data.dataset import Dataset
from unstir.data.report import some
from unstir.errors import UserError

CONDITION = "text"
"""The name of the condition."""


def with_captions(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with its captions encoded, where the config names an encoder; else as it is.

    Samples without a caption train as if nobody had asked for anything. What is longer than the encoder reads is cut. The report says
    how many of both there are.

    Raises:
        UserError: no sample has a caption, or the encoder is unknown, not installed or damaged.
    """
    if not config.text:
        return dataset
    from unstir.conditioning.text import text_encoder  # above this package: only where captions are read
    from unstir.conditioning.text_table import encode_all

    encoder = text_encoder(config.text)
    check_captions(dataset.report.source or dataset.name, dataset.captions, config.text)
    encoded = encode_all(dataset.captions, encoder, config.cache_folder())
    dataset.report.notes.extend(
        notes(len(dataset), encoded.missing, encoded.cut, encoded.condition.shape[0], config.text)
    )
    spec = replace(dataset.spec, conditions={**dataset.spec.conditions, CONDITION: encoded.condition})
    return replace(dataset, spec=spec, conditions={**dataset.conditions, CONDITION: encoded.table})


def check_captions(source: str, captions: list[str], encoder: str) -> None:
    """Refuses to train on captions that are not there.

    Raises:
        UserError: with the ways to give them.
    """
    if any(caption.strip() for caption in captions):
        return
    raise UserError(
        f'data.text is {encoder}, and {source} has no captions. Give them in metadata.jsonl ({{"file_name": "a.png", "text": "a red heart"}} '
        "a line), in a .txt beside each picture, or as an array 'text' in the .npz; or leave --data.text out"
    )


def notes(count: int, missing: int, cut: list[str], length: int, encoder: str) -> list[str]:
    """What there is to say of captions, once."""
    said = []
    if missing:
        said.append(f"{missing:,} of {count:,} samples have no caption, and train without one")
    if cut:
        said.append(
            f"{len(cut):,} captions are longer than the {length} tokens that {encoder} reads, and are cut: {some(shown(cut))}"
        )
    return said


def shown(captions: list[str], width: int = 40) -> list[str]:
    """Captions short enough to be told in a line."""
    return [caption if len(caption) <= width else caption[:width] + "..." for caption in captions]
