"""Guidance by how well a sample goes with a caption, as a CLIP that understands noise sees it."""

from __future__ import annotations

from unstir.guidance.function import ClassifierGuidance


class SimilarityGuidance(ClassifierGuidance):
    """Pulls samples towards their captions: the gradient of the dot product of the picture's and the caption's vectors. The denoiser itself
    need not know captions.

    It is classifier guidance with captions for classes, since log p(c | x_t) is what a similarity learned by contrast is, up to a constant. Scale
    1 is as much as the CLIP believes, 0 is off. As there the paper's step moves the mean by the step's own variance, which
    ``DDPM(mean_shift=True)`` does to the letter, and the belief moves under every other sampler.

    Equation:
        mu <- mu + s Sigma d(f(x_t) · g(c)) / dx_t,   that is   eps <- eps - s · sigma · d(f(x_t) · g(c)) / dx_t
    Source:
        Nichol et al. 2022, on CLIP guidance, https://arxiv.org/abs/2112.10741; its released code multiplies the product by exp(t)

    Args:
        denoiser: conditional or not.
        log_prob: exp(t) f(x_t) · g(c), ``Clip.log_prob`` for one; 0 for samples without a caption.
        scale: guidance scale s.
        interval: (lowest, highest) noise level sigma / alpha at which to guide.
    """
