"""The demonstration with a transformer instead of the U-Net: the same data, process, objective and sampling."""

import dataclasses

from unstir.networks import DiTConfig
from unstir.recipes.quick import quick

dit = dataclasses.replace(
    quick,
    about="DiT (Peebles & Xie 2023) in the place of quick's U-Net, small enough for two processor cores; larger: --network.size S, B, L or XL.",
    network=DiTConfig(),
)
