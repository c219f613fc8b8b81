"""Autoencoders by name, and how a run keeps the one that it works with.

A name is a run folder that trained one (RUN or RUN@STEP), a folder of diffusers' with its config.json, ``haar:2`` (Haar's wavelets in blocks
of that side, nothing to train), or ``taef2:FOLDER`` (a pair of files that the author of TAESD published). A run in latents keeps a copy in a folder of its own, ``autoencoder``, so that it needs
no other, and stays as it was when that one is trained on.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from unstir.autoencoder import Autoencoder
from unstir.autoencoders import PRETRAINED
from unstir.autoencoders.published import WEIGHTS
from unstir.codec import IDENTITY, NEEDED, Codec, LatentCodec
from unstir.data.spec import DataSpec
from unstir.errors import UserError, did_you_mean
from unstir.networks.haar import Haar
from unstir.trained import Fetch, Trained, check_units

INSIDE = "autoencoder"
"""The folder in a run's own that holds its autoencoder; also the name of the stage that trains it."""
HOW = (
    "train one, and name it: unstir train autoencoder --data SOURCE --out AE, then --autoencoder AE; or let --train-autoencoder do both.\n"
    "A folder of diffusers' AutoencoderKL or AutoencoderTiny, taef2:FOLDER and haar:2 will do as well"
)


@dataclass(frozen=True)
class Kind:
    """Autoencoders of one kind.

    Args:
        opens: (what stands after the colon or the folder, the data's description) -> the autoencoder.
        files: patterns of the files that make one; none where it is made of nothing.
    """

    opens: Callable[[str, DataSpec], Autoencoder]
    files: tuple[str, ...] = ()


def _haar(size: str, spec: DataSpec) -> Autoencoder:
    if not size.isdecimal():
        raise UserError(f"haar:{size} should name the side of its blocks, as in haar:2")
    if spec.rank == 0:
        raise UserError(f"Haar's wavelets are for signals, pictures and volumes, not for {spec.kind}")
    return Autoencoder(Haar(spec.shape[0], spec.rank, int(size)))


def _pretrained(kind: str) -> Callable[[str, DataSpec], Autoencoder]:
    return lambda folder, spec: PRETRAINED[kind](Path(folder))


KINDS: dict[str, Kind] = {
    "haar": Kind(_haar),
    "diffusers": Kind(_pretrained("diffusers"), ("config.json", *WEIGHTS)),
    **{name: Kind(_pretrained(name), (f"{name}_*",)) for name in PRETRAINED if name != "diffusers"},
}
"""By the word before the colon; a folder with a config.json is diffusers' without a word, and any other is a run."""


def parted(name: str) -> tuple[str, str]:
    """(kind, what it is opened by): ("haar", "2"), ("taef2", FOLDER), ("diffusers", FOLDER), or ("", RUN)."""
    kind, colon, rest = name.partition(":")
    if colon and kind in KINDS:
        return kind, rest
    return ("diffusers" if (Path(name).expanduser() / "config.json").is_file() else ""), name


def check_named(name: str) -> None:
    """Refuses a name that leads nowhere, before anything is read.

    Raises:
        UserError: with what would.
    """
    if name == NEEDED:
        raise UserError(f"this recipe works in the latents of an autoencoder: {HOW}")
    kind, rest = parted(name)
    if not name or (kind and not KINDS[kind].files):
        return
    folder, before = Path(rest).expanduser(), "" if kind else rest.rpartition("@")[0]
    if not folder.is_dir() and not (before and Path(before).expanduser().is_dir()):
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        hint = f"; {did_you_mean(folder.name, beside)}" if beside else ""
        raise UserError(f"there is no autoencoder {name}{hint}")


def findable(name: str) -> str:
    """The name with a path that leads there from any folder."""
    if name in ("", NEEDED):
        return name
    kind, rest = parted(name)
    if kind and not KINDS[kind].files:
        return name
    path = str(Path(rest).expanduser().resolve())
    return f"{kind}:{path}" if kind else path


def open_autoencoder(name: str, spec: DataSpec, fetch: Fetch, device: torch.device) -> Autoencoder:
    """An autoencoder for such data, by its name, on this device.

    Args:
        fetch: loads other runs.

    Raises:
        UserError: there is none of that name, or it is for other data.
    """
    kind, rest = parted(name)
    autoencoder = KINDS[kind].opens(rest, spec) if kind else _of_run(fetch(name, device), name, spec)
    if spec.rank == 0:
        raise UserError(f"there are no latents of {spec.kind}: leave --autoencoder out")
    autoencoder.check(spec.shape, name)
    autoencoder.autocast = None
    return autoencoder.to(device).eval()


def _of_run(trained: Trained, name: str, spec: DataSpec) -> Autoencoder:
    if not isinstance(trained.module, Autoencoder):
        raise UserError(f"{name} is a run, but no autoencoder; train one: unstir train autoencoder --data SOURCE")
    trained.module.check(spec.shape, name)
    check_units(name, trained.spec, spec)
    return trained.module


# ---- in a run's folder -----------------------------------------------------------------------------------------------


def kept_name(folder: Path, name: str) -> str:
    """By which name a run's own copy of its autoencoder is opened; the name itself where there is none.

    Args:
        folder: of the run.
        name: its recipe's.
    """
    kind, colon, _ = name.partition(":")
    said = kind if colon and kind in KINDS else ""
    if (said and not KINDS[said].files) or not (folder / INSIDE).is_dir():
        return name
    return f"{said}:{folder / INSIDE}" if said else str(folder / INSIDE)


def keep(folder: Path, name: str, autoencoder: Autoencoder) -> None:
    """Copies an autoencoder's files into the folder of a run that is about to begin; where the run has trained it itself they are there.

    Args:
        folder: of the run.
        name: its recipe's.
        autoencoder: it, opened.

    Raises:
        UserError: they cannot be written, or something else is in the way.
    """
    kind, rest = parted(name)
    inside, begun = folder / INSIDE, (folder / "recipe.toml").is_file()
    if name == INSIDE or (kind and not KINDS[kind].files) or (begun and inside.is_dir()):
        return
    if Path(rest).expanduser().resolve() == inside.resolve():  # a run that was trained there, with more than a copy has
        return
    check_way(inside, COPIED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(inside, ignore_errors=True)  # of a run that was killed before it began
        building = Path(tempfile.mkdtemp(prefix=".autoencoder-", dir=folder))
        _copy(kind, Path(rest), autoencoder, building)
        building.chmod(0o755)
        building.rename(inside)
    except OSError as error:
        raise UserError(f"cannot copy the autoencoder into {folder}: {error.strerror or error}") from None


COPIED = ("recipe.toml", "model.safetensors", *(pattern for kind in KINDS.values() for pattern in kind.files))
"""Patterns of the files of a copy."""


def check_way(into: Path, files: Sequence[str]) -> None:
    """Refuses to put a copy where something else is. An older copy, of a run that was killed before it began, may go.

    Args:
        into: the folder of the copy.
        files: patterns of all the files that a copy has.

    Raises:
        UserError: with what is there.
    """
    there = sorted(path.name for path in into.iterdir()) if into.is_dir() else [""] if into.exists() else []
    for name in there:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in files):
            raise UserError(
                f"{into} is in the way of the copy that a run keeps there ({into / name}): choose another --out"
            )


def _copy(kind: str, source: Path, autoencoder: Autoencoder, into: Path) -> None:
    source = source.expanduser()
    if not source.is_dir():  # RUN@STEP
        source = Path(str(source).rpartition("@")[0])
    for pattern in KINDS[kind].files if kind else ("recipe.toml",):
        for file in sorted(source.glob(pattern)):
            shutil.copyfile(file, into / file.name)
    if not kind:  # the weights that were opened, which may be those of a checkpoint
        weights = {key: value.detach().cpu().contiguous() for key, value in autoencoder.state_dict().items()}
        safetensors.torch.save_file(weights, into / "model.safetensors", {"format": "pt"})


def kept_codec(folder: Path, name: str, facts: dict[str, Any], spec: DataSpec, fetch: Fetch, device: Any) -> Codec:
    """The codec of a run, from its folder.

    Args:
        folder: of the run.
        name: its recipe's autoencoder.
        facts: what ``Codec.facts`` gave when the run was begun.
        spec: of its data.

    Raises:
        UserError: the autoencoder is gone, or not the one of these latents.
    """
    if not name:
        return IDENTITY
    try:
        units = tuple(facts["offset"]), tuple(facts["scale"])
        fingerprint = facts["fingerprint"]
    except (KeyError, TypeError):
        raise UserError(f"{folder / 'recipe.toml'} says nothing of the latents of this run: it is damaged") from None
    codec = LatentCodec(open_autoencoder(kept_name(folder, name), spec, fetch, device), *units)
    if codec.fingerprint != fingerprint:
        raise UserError(
            f"the autoencoder in {folder / INSIDE} does not match this run's latents: its weights are others than those that the run was "
            "trained with. Put the old ones back, or train the run anew"
        )
    return codec
