"""Learning Transferable Visual Models From Natural Language Supervision (CLIP): Radford et al. 2021, https://arxiv.org/abs/2103.00020."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def l2_normalize(v: Array, axis: int) -> Array:
    """To length 1."""
    return np.asarray(v / np.linalg.norm(v, axis=axis, keepdims=True))


def cross_entropy_loss(logits: Array, labels: npt.NDArray[np.int64], axis: int) -> float:
    """The mean over the samples, whose classes lie along ``axis``."""
    log_softmax = logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True))
    n = np.arange(len(labels))
    return float(-np.mean(log_softmax[n, labels] if axis == 1 else log_softmax[labels, n]))


def figure_3(I_f: Array, T_f: Array, W_i: Array, W_t: Array, t: float) -> float:
    """The loss of a minibatch of aligned images and texts, from the features [n, d_i] and [n, d_t] of the two encoders.

    Equation:
        logits = I_e T_e^T exp(t),   loss = (cross_entropy(logits, arange(n), axis=0) + cross_entropy(logits, arange(n), axis=1)) / 2
    Source:
        Radford et al. 2021, figure 3, https://arxiv.org/abs/2103.00020
    """
    # joint multimodal embedding [n, d_e]
    I_e = l2_normalize(np.dot(I_f, W_i), axis=1)
    T_e = l2_normalize(np.dot(T_f, W_t), axis=1)
    # scaled pairwise cosine similarities [n, n]
    logits = np.dot(I_e, T_e.T) * np.exp(t)
    # symmetric loss function
    labels = np.arange(len(logits))
    loss_i = cross_entropy_loss(logits, labels, axis=0)
    loss_t = cross_entropy_loss(logits, labels, axis=1)
    return (loss_i + loss_t) / 2
