"""Neural Discrete Representation Learning (VQ-VAE): van den Oord, Vinyals & Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def equation_1(z_e: Array, e: Array) -> Indices:
    """The posterior categorical distribution is one-hot: which code, of the encoder's output [n, D] and the codes [K, D].

    Equation:
        q(z = k | x) = 1 for k = argmin_j || z_e(x) - e_j ||_2, 0 otherwise
    Source:
        van den Oord, Vinyals & Kavukcuoglu 2017, eq. 1, https://arxiv.org/abs/1711.00937
    """
    return np.array([np.argmin([np.linalg.norm(z - e_j) for e_j in e]) for z in z_e], np.int64)


def equation_2(z_e: Array, e: Array) -> Array:
    """The input to the decoder.

    Equation:
        z_q(x) = e_k, where k = argmin_j || z_e(x) - e_j ||_2
    Source:
        van den Oord, Vinyals & Kavukcuoglu 2017, eq. 2, https://arxiv.org/abs/1711.00937
    """
    return np.asarray(e[equation_1(z_e, e)])


def commitment(z_e: Array, e: Array, beta: float) -> float:
    """The third term of equation 3, of one sample; with codes that follow by averages the second is not needed.

    Equation:
        beta || z_e(x) - sg[e] ||_2^2
    Source:
        van den Oord, Vinyals & Kavukcuoglu 2017, eq. 3, https://arxiv.org/abs/1711.00937
    """
    return float(beta * np.sum((z_e - equation_2(z_e, e)) ** 2))


def appendix_a_1(N: Array, m: Array, e: Array, z_e: Array, gamma: float) -> tuple[Array, Array, Array]:
    """Exponential moving averages in place of the dictionary's loss: one minibatch; N [K], m [K, D].

    Equation:
        N_i <- gamma N_i + (1 - gamma) n_i,   m_i <- gamma m_i + (1 - gamma) sum_j z_ij,   e_i = m_i / N_i
    Source:
        van den Oord, Vinyals & Kavukcuoglu 2017, appendix A.1, https://arxiv.org/abs/1711.00937
    """
    k = equation_1(z_e, e)
    N, m = N.copy(), m.copy()
    for i in range(len(e)):
        z_i = z_e[k == i]
        N[i] = N[i] * gamma + len(z_i) * (1 - gamma)
        m[i] = m[i] * gamma + z_i.sum(0) * (1 - gamma)
    return N, m, m / N[:, None]
