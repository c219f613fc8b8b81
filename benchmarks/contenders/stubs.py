"""denoising-diffusion-pytorch imports torchvision and pytorch-fid for its folder reader and its FID, which nothing here uses.

torchvision's wheels are CUDA builds that fail beside a CPU torch, so stand-ins that raise when called take the two packages' place.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import NoReturn

STUBS = {
    "torchvision": ("transforms", "utils"),
    "torchvision.transforms": (),
    "torchvision.utils": (),
    "pytorch_fid": (),
    "pytorch_fid.fid_score": ("calculate_frechet_distance",),
    "pytorch_fid.inception": ("InceptionV3",),
}


def _refuse(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("a stand-in: the benchmarks use neither torchvision nor pytorch-fid")


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Puts the stand-ins where ``import`` finds them, for packages that are not installed, and takes them away again: diffusers and
    transformers decide at their own imports whether torchvision is there."""
    absent = {name for name in ("torchvision", "pytorch_fid") if find_spec(name) is None}
    made = {name: ModuleType(name) for name in STUBS if name.split(".")[0] in absent}
    for name, module in made.items():
        for attribute in STUBS[name]:
            setattr(module, attribute, made.get(f"{name}.{attribute}", _refuse))
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
