"""Pictures, or any samples, as files of a few bytes, by one's own model.

A file is a head of 12 bytes and the code of ``likelihood.coding``:

    "uz" | version 1 | bits of a window | K (2) | fingerprint of the model (4) | check of the code (2) | code
"""

from __future__ import annotations

import binascii
import dataclasses
import hashlib
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.guidance import ClipX0
from unstir.likelihood.coding import Code, Coder, Reached, rate_distortion
from unstir.likelihood.decoder import decoder_of
from unstir.likelihood.variational import Chain, bits_per_dim, variational_bound
from unstir.model import Model
from unstir.samplers.grids import LogSNR
from unstir.sampling import SampleNoise, sample

MAGIC, VERSION = b"uz", 1
HEAD = struct.Struct(">2sBBH4sH")
STEPS = 64
"""Stops of the grid. More follow the model more closely, and take longer where much is told."""
WINDOW = 12
"""Bits of the path that name a codeword. More come nearer to the bound, and each takes twice the time."""
Finish = Literal["estimate", "sample"]


def fingerprint(model: Model) -> bytes:
    """Four bytes that another model does not share: of its weights, and of all that decides what they mean."""
    digest = hashlib.blake2b(digest_size=4)
    for part in (
        model.denoiser.process,
        model.recipe.denoiser,
        model.recipe.network,
        model.spec.shape,
        model.spec.bounds,
    ):
        digest.update(repr(part).encode())
    for name, tensor in model.denoiser.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


@contextmanager
def _exactly(model: Model) -> Iterator[None]:
    """The network in full precision: coder and decoder must believe the same."""
    before, model.denoiser.autocast = model.denoiser.autocast, None
    try:
        yield
    finally:
        model.denoiser.autocast = before


def belief_of(model: Model) -> Denoiser:
    """What coder and decoder believe: the model, without guidance, kept in the range of the data."""
    return ClipX0(model.denoiser, *model.spec.bounds) if model.spec.bounds else model.denoiser


def coder_of(model: Model, steps: int = STEPS, window: int = WINDOW) -> Coder:
    """The coder of a model's data.

    Raises:
        UserError: the model works in latents.
    """
    if model.codec.latent:
        raise UserError(
            "this model works in the latents of an autoencoder, which loses a part of the picture for good, and its bits are not those of "
            "the picture: compress with a run that works on the data themselves"
        )
    return Coder(belief_of(model), LogSNR().times(model.denoiser.process, steps), window)


def _bytes_of(bits: str) -> bytes:
    padded = bits + "0" * (-len(bits) % 8)
    return int("1" + padded, 2).to_bytes(len(padded) // 8 + 1, "big")[1:]


def _bits_of(data: bytes) -> str:
    return "".join(format(byte, "08b") for byte in data)


@dataclass(frozen=True)
class Compressed:
    """A sample as bytes.

    Args:
        data: the file's contents.
        bits: of the code alone.
        x_0: (1, *shape) what comes back, in model units.
        error: root mean square of what is lost, in the data's units.
    """

    data: bytes
    bits: int
    x_0: Tensor
    error: float


def compress(
    model: Model, x_0: Tensor, rate: float = math.inf, error: float = 0.0, *, steps: int = STEPS, window: int = WINDOW
) -> Compressed:
    """A sample as a file.

    Args:
        x_0: (*shape) in model units.
        rate: most bits of code for each number of the sample; the file's head comes on top.
        error: stop once the root-mean-square error, in the data's units, is no larger.
        steps: stops of the grid. window: bits of the path that name a codeword, 2 to 16.
    """
    unit = model.spec.scale[0]
    x_0 = x_0.unsqueeze(0).to(model.device)
    with _exactly(model):
        code, at = coder_of(model, steps, window).encode(x_0, rate * model.spec.dimensions, (error / unit) ** 2)
    text = code.to_bits()
    payload = _bytes_of(text)
    head = HEAD.pack(MAGIC, VERSION, window, steps, fingerprint(model), binascii.crc_hqx(payload, 0))
    believed = at.prediction.x_0
    lost = unit * float((believed - x_0).square().mean().sqrt())
    return Compressed(head + payload, len(text), believed, lost)


def decompress(model: Model, data: bytes, *, finish: Finish = "estimate", seed: int = 0) -> Tensor:
    """The sample that a file holds, (1, *shape) in model units.

    Args:
        finish: "estimate", what is known of it; "sample", one of the samples it may have been: as sharp as the model's, and further from
            the original.
        seed: of what is made up for "sample".

    Raises:
        UserError: not such a file, a damaged one, one of another model, or of a newer version.
    """
    if len(data) < HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise UserError("this is not a file that unstir compress wrote")
    _, version, window, steps, mark, check = HEAD.unpack_from(data)
    payload = data[HEAD.size :]
    if version != VERSION:
        raise UserError(f"the file is of version {version}, and this unstir knows {VERSION}: upgrade unstir")
    if mark != fingerprint(model):
        raise UserError("the file was written with another model, and only that one can read it")
    if binascii.crc_hqx(payload, 0) != check:
        raise UserError("the file is damaged")
    like = torch.zeros(1, *model.spec.shape, device=model.device)
    coder = coder_of(model, steps, window)
    with _exactly(model):
        try:
            at = coder.decode(Code.from_bits(_bits_of(payload), window, coder.stops), like)
        except ValueError as error:
            raise UserError(f"the file is damaged: {error}") from None
        return FINISH[finish](model, at, seed)


def _estimate(model: Model, at: Reached, seed: int) -> Tensor:
    return at.prediction.x_0


def _sample(model: Model, at: Reached, seed: int) -> Tensor:
    """Goes on from where the code ends, as the recipe recommends to sample, but without guidance."""
    settings = dataclasses.replace(model.recipe.sampling, steps=max(model.recipe.sampling.steps, 50))
    below = settings.times(model.denoiser.process)
    times = torch.cat([at.t.reshape(1), below[below < at.t]])
    return sample(belief_of(model), settings.sampler, times, at.x_t, SampleNoise(seed, [0]))


FINISH = {"estimate": _estimate, "sample": _sample}


@dataclass(frozen=True)
class Curve:
    """Rates, in bits for each number of a sample, and root-mean-square errors in the data's units; means over samples.

    Args:
        bound: what the model promises: (rate, error), with more and more told.
        coder: what the coder did, in code alone.
    """

    bound: list[tuple[float, float]]
    coder: list[tuple[float, float]]

    def bound_at(self, error: float) -> float:
        """The rate at which the bound's error is this large; NaN where it never is."""
        for (rate_a, error_a), (rate_b, error_b) in zip(self.bound, self.bound[1:], strict=False):
            if error_a >= error >= error_b:
                return rate_a + (rate_b - rate_a) * (error_a - error) / max(error_a - error_b, 1e-12)
        return math.nan


def curve(
    model: Model,
    x_0: Tensor,
    rates: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0),
    *,
    steps: int = STEPS,
    window: int = WINDOW,
) -> Curve:
    """The rate-distortion curve of samples under a model, and where the coder stands beside it.

    Args:
        x_0: (N, *shape) in model units. rates: of the coder.
    """
    unit, size, x_0 = model.spec.scale[0], model.spec.dimensions, x_0.to(model.device)
    with _exactly(model):
        coder = coder_of(model, steps, window)
        chain = Chain(model.denoiser.process, coder.times, "posterior", decoder_of(model.spec))
        bound = variational_bound(coder.denoiser, chain, x_0, SampleNoise(0, range(len(x_0))))
        told, error = rate_distortion(bound, size, unit)
        points = torch.zeros(len(rates), 2, dtype=torch.float64)
        for i in range(len(x_0)):
            for k, found in enumerate(_told_by(coder, x_0[i : i + 1], [rate * size for rate in rates])):
                points[k] += torch.tensor(found, dtype=torch.float64) / len(x_0)
    measured = bits_per_dim(points[:, 0] * math.log(2), size).tolist()
    errors = (unit * points[:, 1].sqrt()).tolist()
    return Curve(list(zip(told.tolist(), error.tolist(), strict=True)), list(zip(measured, errors, strict=True)))


@torch.no_grad()
def _told_by(coder: Coder, x_0: Tensor, budgets: list[float]) -> list[tuple[float, float]]:
    """(bits, mean squared error) of one sample when each budget, ascending, is used up."""
    found: list[tuple[float, float]] = []
    steps, last = [], (0.0, math.inf)
    for told, at in coder.walk(x_0, budgets[-1]):
        steps += [told] if told is not None else []
        now = (
            float(Code(tuple(steps), coder.window, coder.stops).length),
            float((at.prediction.x_0 - x_0).double().square().mean()),
        )
        while len(found) < len(budgets) and now[0] > budgets[len(found)]:
            found.append(last)
        last = now
    return found + [last] * (len(budgets) - len(found))
