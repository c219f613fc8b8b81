"""Two processes that share the work, as torchrun starts them, and the one that they are compared with."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

WELL = "all well"
"""What each of two processes says that got to its end."""


def in_two_processes(*words: str, timeout: float = 240) -> str:
    """Runs ``python WORDS`` in two processes, each with one thread, and returns what they printed; fails where one of them does."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [*launch, *words], capture_output=True, text=True, timeout=timeout, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout + done.stderr


def check_in_two_processes(file: str) -> None:
    """Runs a test file as a program in two processes; fails unless both get to the end of ``one_of_two``."""
    assert in_two_processes(str(Path(file).resolve())).count(WELL) == 2


@contextlib.contextmanager
def one_of_two() -> Iterator[Any]:
    """The Accelerator of each of the two launched processes."""
    from unstir.training.devices import disband, engine

    accelerator = engine("cpu")
    assert accelerator.num_processes == 2
    yield accelerator
    print(WELL, flush=True)
    disband(accelerator)


def alone() -> Any:
    """As much of an Accelerator as a loop needs, for one process, whoever else is there."""
    return SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        prepare=lambda module: module,
        no_sync=lambda module: contextlib.nullcontext(),
        backward=lambda loss: loss.backward(),
    )
