"""Pretrained autoencoders, from files as they were published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unstir.autoencoder import Autoencoder
from unstir.autoencoders.kl import read_kl
from unstir.autoencoders.published import PublishedCoder, read_config
from unstir.autoencoders.tiny import PAIRS, read_pair, read_tiny
from unstir.errors import UserError

__all__ = ["FOLDERS", "PRETRAINED"]

FOLDERS: dict[str, Callable[[Path, Mapping[str, Any]], PublishedCoder]] = {
    "AutoencoderKL": read_kl,
    "AutoencoderTiny": read_tiny,
}
"""By the class that the config.json of a folder of diffusers' names: (folder, config) -> the network with its weights."""


def _of_diffusers(folder: Path) -> Autoencoder:
    folder = folder.expanduser()
    config = read_config(folder)
    kind = str(config.get("_class_name", ""))
    if kind not in FOLDERS:
        found = kind or "a model whose class it does not name"
        raise UserError(
            f"{folder} holds {found}, and the autoencoders that are known here are {' and '.join(FOLDERS)} (of a whole pipeline its "
            "sub-folder vae)"
        )
    return _ready(FOLDERS[kind](folder, config))


def _of_pair(name: str, folder: Path) -> Autoencoder:
    return _ready(read_pair(name, folder.expanduser()))


def _ready(coder: PublishedCoder) -> Autoencoder:
    return Autoencoder(coder).eval().requires_grad_(False)


PRETRAINED: dict[str, Callable[[Path], Autoencoder]] = {
    "diffusers": _of_diffusers,
    **{name: partial(_of_pair, name) for name in PAIRS},
}
"""By kind: folder -> the autoencoder. Raises UserError for a folder without its files, a kind of autoencoder that is not known, or weights
that do not fit."""
