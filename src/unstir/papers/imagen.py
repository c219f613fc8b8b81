"""Photorealistic Text-to-Image Diffusion Models (Imagen): Saharia et al. 2022, https://arxiv.org/abs/2205.11487."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def static_thresholding(x0_t: Array) -> Array:
    """Elementwise clipping of the x-prediction.

    Equation:
        x_0 <- clip(x_0, -1, 1)
    Source:
        Saharia et al. 2022, section 2.3, and the pseudo code of its appendix, https://arxiv.org/abs/2205.11487
    """
    return np.clip(x0_t, -1.0, 1.0)


def dynamic_thresholding(x0_t: Array, p: float) -> Array:
    """A percentile absolute pixel value s of each picture (B, ...): where s > 1, threshold to [-s, s] and divide by s.

    Equation:
        s = max(percentile_p(|x_0|), 1),   x_0 <- clip(x_0, -s, s) / s
    Source:
        Saharia et al. 2022, section 2.3, and the pseudo code of its appendix, https://arxiv.org/abs/2205.11487
    """
    s = np.percentile(np.abs(x0_t), p, axis=tuple(range(1, x0_t.ndim)), keepdims=True)
    s = np.maximum(s, 1.0)
    return np.asarray(np.clip(x0_t, -s, s) / s)
