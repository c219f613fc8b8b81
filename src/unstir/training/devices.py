"""What the hardware at hand does best: one place for every rule about devices."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from unstir.training.config import Precision


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def engine(device: str = "") -> Any:
    """accelerate's Accelerator: one process or as many as were launched, on the device of that name or the best there is.

    Where the device is the CPU it must be told so, or processes that ``torchrun`` has launched train each on its own.
    """
    from accelerate import Accelerator

    return Accelerator(cpu=(device or best_device().type) == "cpu", mixed_precision="no")


def disband(accelerator: Any, status: int = 0) -> None:
    """Ends a process that was launched together with others, once all have got here; a process on its own just goes on.

    The interpreter is not taken down: DistributedDataParallel keeps its process group for ever, so that the group's threads
    outlive the interpreter, and now and then one of them touches what is gone and aborts the process after all its work
    (https://github.com/pytorch/pytorch/pull/179291).
    """
    if accelerator.num_processes == 1:
        return
    accelerator.wait_for_everyone()
    accelerator.end_training()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The network's arithmetic type where it is not fp32. bf16 never fp16: it needs no loss scaling and cannot overflow.

    On CPUs "auto" asks for the avx512_bf16 instructions; without them bf16 is emulated, and slower than fp32.
    """
    rules: dict[str, Callable[[], bool]] = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": torch.cpu._is_avx512_bf16_supported,
    }
    wanted = precision == "bf16" or (precision == "auto" and rules.get(device.type, bool)())
    return torch.bfloat16 if wanted else None


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks instead of handing them back to the kernel.

    Every step of CPU training allocates and frees the same tens of megabytes, and by default each time the kernel maps and
    clears fresh pages: the largest single cost of a small network's step. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
