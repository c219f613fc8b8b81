"""The demonstration with a transformer instead of the U-Net: the same data, process, objective and sampling."""

import dataclasses

from unstir.networks import DiTConfig
from unstir.recipes.quick import quick

dit = dataclasses.replace(
    quick,
    about="DiT (Peebles & Xie 2023) in the place of quick's U-Net, small enough for two processor cores; larger: --network.size S, B, L or XL.",
    network=DiTConfig(),
    # Twice quick's learns fastest at this size; half of it leaves the larger sizes some room.
    training=dataclasses.replace(quick.training, learning_rate=3e-3),
)
