"""Larger pictures: by a model that was trained to enlarge, or by any model, held to what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.conditioning.derived import LowRes
from unstir.conditioning.derived.low_res import shrunk, small_grid
from unstir.data import DataConfig, DataSpec
from unstir.data.arrays import gray
from unstir.data.pictures import decode
from unstir.editing.conditional import Method
from unstir.editing.drawing import Drawing
from unstir.editing.files import array_of, plural
from unstir.editing.latent import held_to
from unstir.errors import UserError
from unstir.linear import CorrectingDenoiser
from unstir.model import Model
from unstir.networks import UNetConfig
from unstir.recipes import SamplingConfig
from unstir.samplers.replacement import Known
from unstir.sampling import sample

LARGEST = 2**20
"""Most places of a result's grid: 1024 x 1024 pixels."""


def same_blocks(x_0: Tensor, factor: int) -> Known:
    """What is known of x_0 by its smaller copy: the mean of every block.

    Means over blocks are orthogonal directions of one length, so noise on them is noise of one level, as in ``same_grey``.

    Equation:
        project(x) = enlarge(shrink(x)),   complement(x) = x - enlarge(shrink(x)),   each pixel of a block being its mean
    Source:
        Choi et al. 2021 (ILVR), with block means as the low-pass filter, https://arxiv.org/abs/2108.02938

    Args:
        x_0: (1, C, *grid), whose sizes are multiples of the factor.
    """

    def project(x: Tensor) -> Tensor:
        return repeated(shrunk(x, factor), factor)

    return Known(x_0, project, lambda x: x - project(x))


def repeated(small: Tensor, factor: int, grid: Sequence[int] | None = None) -> Tensor:
    """(B, C, *small) -> (B, C, *large): every pixel as a block of its own value; cut to the grid where one is given."""
    x = F.interpolate(small, scale_factor=float(factor), mode="nearest")
    for axis, n in enumerate(grid or ()):
        x = x.narrow(2 + axis, 0, n)
    return x


def upscale(
    model: Model,
    small: Tensor,
    *,
    n: int = 1,
    level: float = 0.0,
    method: str | Method | None = None,
    factor: int = 2,
    settings: SamplingConfig | None = None,
    seed: int = 0,
    batch_size: int = 64,
    **cond: Any,
) -> Tensor:
    """Enlarges a sample.

    A model that was trained with its own smaller copies (``LowRes``: the stages of a cascade) is asked for samples that have this one; a
    U-Net does so at any size. Any other model draws samples of its own size whose block means are the given pixels exactly.

    Source:
        Ho, Saharia, Chan, Fleet, Norouzi & Salimans 2022, https://arxiv.org/abs/2106.15282

    Args:
        model: trained on data like the result.
        small: (C, *small grid) in model units.
        n: how many results.
        level: of the noise that is put on the smaller sample, for a model that was trained to enlarge: the more, the freer the result.
        method: for any other model: "replacement" (the default), "repaint" or "gradient" (of a model in latents the only one), or a Method;
            given to a model that was trained to enlarge, it is used instead.
        factor: for any other model, how many times larger.
        settings, seed, batch_size, cond: as for ``inpaint``.

    Returns:
        (n, C, *large grid) in model units.

    Raises:
        UserError: a size that the model cannot give, an unknown method or condition.
    """
    derived, grid = model.recipe.derived, small.shape[1:]
    if model.spec.rank == 0:
        raise UserError(f"this model's data are {plural(model.spec)}, which have no size that could be made larger")
    if small.ndim != 1 + model.spec.rank or small.shape[0] != model.spec.shape[0]:
        raise UserError(
            f"what is to be enlarged has the shape {tuple(small.shape)}; this model's data have {model.spec.shape}"
        )
    if isinstance(derived, LowRes) and method is None:
        large = tuple(derived.factor * k for k in grid)
        at_size = model if grid == small_grid(model.spec.shape[1:], derived.factor) else _at(model, large, derived)
        low_res = derived.enlarge(small.unsqueeze(0), at_size.spec)
        return _asked(at_size, {**cond, "low_res": low_res, "low_res_level": [level]}, n, settings, seed, batch_size)
    wanted = tuple(factor * k for k in grid)
    if factor < 2 or wanted != model.spec.shape[1:]:
        size, own = ("x".join(map(str, sizes)) for sizes in (grid, model.spec.shape[1:]))
        raise UserError(
            f"a sample of {size} made {factor} times larger is not one of {own}, which is what this model draws; give a smaller copy of "
            "such a size (--factor), or a model that was trained to enlarge (unstir train cascade)"
        )
    if isinstance(derived, LowRes):  # which is asked for one with this smaller copy anyway
        cond = {**cond, "low_res": derived.given(repeated(small.unsqueeze(0), factor), model.spec)["low_res"]}
    drawing = Drawing.of(model, settings, seed, cond)
    x_0 = drawing.one(repeated(small.unsqueeze(0), factor))
    return held_to(drawing, same_blocks(x_0, factor), method, n, batch_size)


def _at(model: Model, large: tuple[int, ...], derived: LowRes) -> Model:
    """The model for results of another size than its own."""
    if int(np.prod(large)) > LARGEST:
        raise UserError(
            f"a result of {'x'.join(map(str, large))} is too large for one piece (at most {LARGEST:,} places); cut it"
        )
    one_size = isinstance(model.denoiser, CorrectingDenoiser) and model.denoiser.linear.one_size
    if not isinstance(model.recipe.network, UNetConfig) or one_size:
        own, wanted = ("x".join(map(str, sizes)) for sizes in (model.spec.shape[1:], large))
        small = "x".join(map(str, small_grid(model.spec.shape[1:], derived.factor)))
        raise UserError(
            f"this model's network is made for samples of {own}, not of {wanted}: give one of {small} to enlarge"
        )
    return on_grid(model, large)


def on_grid(model: Model, grid: tuple[int, ...]) -> Model:
    """The model for samples of another size, where its network takes any."""
    spec = model.spec
    conditions = {
        name: replace(c, shape=(c.shape[0], *grid)) if c.kind == "grid" else c for name, c in spec.conditions.items()
    }
    resized = replace(spec, shape=(spec.shape[0], *grid), conditions=conditions)
    return Model(model.denoiser, resized, model.recipe, model.fetch, model.codec)


def _asked(
    model: Model, cond: dict[str, Any], n: int, settings: SamplingConfig | None, seed: int, batch_size: int
) -> Tensor:
    """n samples (n, *shape) under these conditions."""
    drawing = Drawing.of(model, settings, seed, cond)
    denoiser, times, pieces = drawing.denoiser(), drawing.times(), []
    for rng, conditions in drawing.batches(n, batch_size):
        x = drawing.process.prior_sample(drawing.normal(rng), times[0])
        x = sample(denoiser, drawing.settings.sampler, times, x, rng, conditions)
        pieces.append(model.decode(x).cpu())
    return torch.cat(pieces)


def shrink_error(x: Tensor, small: Tensor, factor: int, spec: DataSpec) -> float:
    """Root mean square, in the data's units, of what results (n, C, *large) made so many times smaller again differ by from ``small``
    (C, *small)."""
    difference = spec.in_units(shrunk(x, factor)) - spec.in_units(small.unsqueeze(0))
    return float(difference.square().mean().sqrt())


def read_small(path: Path, spec: DataSpec, config: DataConfig) -> Tensor:
    """A picture file at its own size, or a .npy of one sample of any size in the data's units -> (C, *grid) in model units.

    Raises:
        UserError: no such file, not a picture, or a .npy with other axes than the data's.
    """
    if path.suffix.lower() == ".npy":
        return _small_array(array_of(path), spec, path)
    if spec.kind != "image" or spec.bounds != (-1.0, 1.0) or spec.shape[0] not in (1, 3, 4):
        raise UserError(f"{path}: this model's data are {plural(spec)}; give one as a .npy file in their units")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        pixels = decode(path, None, replace(config, channels="rgba" if spec.shape[0] == 4 else "rgb"))
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise UserError(
            f"cannot read {path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    pixels = gray(pixels) if spec.shape[0] == 1 else pixels
    x = torch.from_numpy(pixels).movedim(-1, 0).to(torch.float32, memory_format=torch.contiguous_format)
    return (x - 127.5) / 127.5


def _small_array(array: np.ndarray[Any, Any], spec: DataSpec, path: Path) -> Tensor:
    channels, axes = spec.shape[0], spec.rank + (1 if spec.channel_axis else 0)
    written = (
        spec.kind == "image" and array.ndim == 3 and array.shape[-1] == channels
    )  # as ``unstir sample`` writes them
    if written and not (spec.channel_axis and spec.channels_last):
        array = np.moveaxis(array, -1, 0)
        array = array if spec.channel_axis else array[0]
    there = array.shape[-1 if spec.channels_last else 0] if spec.channel_axis and array.ndim == axes else channels
    if array.ndim != axes or there != channels:
        raise UserError(
            f"{path} has the shape {array.shape}; this model enlarges samples of {channels} channels like {own_axes(spec)}"
        )
    return spec.to_model(array[None])[0]


def own_axes(spec: DataSpec) -> str:
    """The axes of one sample in the data's own order, for a person."""
    grid = ["length", "height x width", "depth x height x width"][spec.rank - 1]
    if not spec.channel_axis:
        return grid
    return f"{grid} x channels" if spec.channels_last else f"channels x {grid}"
