"""How likely data are under a model: the variational bound, the probability-flow ODE, and what both are good for: compression."""

from unstir.likelihood.coding import Code, Coder, rate_distortion
from unstir.likelihood.decoder import (
    Decoder,
    DiscretizedDecoder,
    GaussianDecoder,
    decoder_of,
    dequantize,
    dequantized_noise,
    is_discrete,
    log_volume,
)
from unstir.likelihood.ode import OdeLikelihood, draw_probes, ode_likelihood
from unstir.likelihood.variational import Bound, Chain, bits_per_dim, chain_times, variational_bound

__all__ = [
    "Bound",
    "Chain",
    "Code",
    "Coder",
    "Decoder",
    "DiscretizedDecoder",
    "GaussianDecoder",
    "OdeLikelihood",
    "bits_per_dim",
    "chain_times",
    "decoder_of",
    "dequantize",
    "dequantized_noise",
    "draw_probes",
    "is_discrete",
    "log_volume",
    "ode_likelihood",
    "rate_distortion",
    "variational_bound",
]
