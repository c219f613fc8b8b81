"""Starting two processes that share the work, as torchrun does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


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
