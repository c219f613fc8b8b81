"""The data order: a pure function of (seed, step), so that a run can resume anywhere, bit for bit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=2)  # a batch reaches into the next epoch at most where it is no larger than the data
def _permutation(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)
    order.flags.writeable = False  # it is shared by every later call
    return order


def indices(n: int, batch_size: int, step: int, seed: int) -> npt.NDArray[np.int64]:
    """Which samples make the batch of a step.

    All epochs lie end to end on one line: position p belongs to epoch p // n, whose order is a permutation drawn from
    (seed, epoch). Step k takes positions k * batch_size to (k + 1) * batch_size - 1, so every epoch shows every sample
    exactly once, no sample is left out at an epoch's end, and a batch may be larger than the data.

    Args:
        n: number of samples, at least 1.
        batch_size: over all processes together; each then takes its own part of the result.
        step: from 0.
        seed: of the data order, not negative.

    Returns:
        (batch_size,) int64.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // n
    result = np.empty(batch_size, dtype=np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        result[here] = _permutation(n, seed, epoch)[positions[here] % n]
    return result
