"""What a run has trained, loaded; and whether two runs can work together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from unstir.codec import IDENTITY, Codec
from unstir.data import DataSpec
from unstir.errors import UserError
from unstir.recipes import Recipe
from unstir.trainable import Trainable

UNITS = 0.1
"""How far the units of two runs may differ, in standard deviations: two splits of one data set differ by less."""


def no_runs(name: str, device: torch.device) -> Trained:
    """For a model that was not loaded from a run folder.

    Raises:
        UserError: always.
    """
    raise UserError(f"this model does not know of runs such as {name}: load it by unstir.load")


@dataclass(frozen=True)
class Trained:
    """A module with its averaged weights, whatever it is; the data it is for; the recipe that made it; what loads the other runs
    that its recipe names; and what stands between the data and the module."""

    module: Trainable
    spec: DataSpec
    recipe: Recipe
    fetch: Fetch = no_runs
    codec: Codec = IDENTITY


Fetch = Callable[[str, torch.device], Trained]
"""The name of a run -> what it trained, on this device."""


def check_fit(name: str, theirs: DataSpec, ours: DataSpec) -> None:
    """Refuses to let a model be guided by a run of other data: of another shape, in other units, or with other classes.

    Raises:
        UserError: with the difference.
    """
    if (theirs.kind, theirs.shape) != (ours.kind, ours.shape):
        there, here = (f"{spec.kind} of shape {'x'.join(map(str, spec.shape))}" for spec in (theirs, ours))
        raise UserError(f"{name} was trained on {there}, and this model on {here}: they cannot work together")
    check_units(name, theirs, ours)
    check_same_conditions(name, theirs, ours)


def check_units(name: str, theirs: DataSpec, ours: DataSpec) -> None:
    """Refuses a run of data in other units.

    Raises:
        UserError: with the reason.
    """
    if not same_units(theirs, ours):
        raise UserError(
            f"{name} was trained on data of another mean or spread than this model's, and would see its samples shifted; "
            "train both on one data set"
        )


def check_same_space(name: str, theirs: Codec, ours: Codec, spec: DataSpec) -> None:
    """Refuses a run that works in another space than this model: on the data, or in the latents of another autoencoder.

    Args:
        spec: of this model's data.

    Raises:
        UserError: with the difference.
    """
    if theirs.fingerprint != ours.fingerprint:
        raise UserError(f"{name} {_SPACES[theirs.latent, ours.latent]}")
    if not same_units(theirs.latent_spec(spec), ours.latent_spec(spec)):
        raise UserError(
            f"{name} works in latents of another mean or spread than this model's, and would see them shifted; train both on one data set"
        )


_SPACES = {
    (
        False,
        True,
    ): "was trained on the data themselves, and this model works in latents: train it with this one's --autoencoder",
    (
        True,
        False,
    ): "works in the latents of an autoencoder, and this model on the data themselves: they cannot work together",
    (True, True): "works in the latents of another autoencoder than this model: train both with one --autoencoder",
}
"""By whether the other run and this model work in latents."""


def check_same_conditions(name: str, theirs: DataSpec, ours: DataSpec) -> None:
    """Refuses two runs that mean something else by conditions of the same name. Captions mean the same whoever reads them, and each run
    does so by its own encoder.

    Raises:
        UserError: with the difference.
    """
    for key in theirs.conditions.keys() & ours.conditions.keys():
        both = (theirs.conditions[key], ours.conditions[key])
        facts = [(c.kind, c.size, c.shape, c.names, c.frequencies) if c.kind != "text" else c.kind for c in both]
        if facts[0] != facts[1]:
            shown = [", ".join(c.names[:5]) or f"{c.size} without names" for c in both]
            raise UserError(f"{name} knows another {key} than this model: {shown[0]} there, {shown[1]} here")


def same_units(theirs: DataSpec, ours: DataSpec) -> bool:
    """Whether samples of one run look like samples to the other, up to what two splits of one data set differ by."""
    offset, scale = torch.tensor(theirs.offset), torch.tensor(theirs.scale)
    our_offset, our_scale = torch.tensor(ours.offset), torch.tensor(ours.scale)
    shifted, stretched = (offset - our_offset).abs() / our_scale, (scale / our_scale).log().abs()
    return bool((shifted < UNITS).all() and (stretched < UNITS).all())
