"""GLIDE's way from text to pictures, at quick's size.

Kept of GLIDE (Nichol et al. 2022, https://arxiv.org/abs/2112.10741): a transformer that learns to read together with the U-Net, the
states of its tokens attended to at every level with attention, their pooled end beside the noise level, captions dropped out in a fifth of
the training, and classifier-free guidance of about 3. Not kept: byte-pair tokens (letters instead: nothing to install, and a
few thousand short captions have no need of them); tokens beside the self-attention's own (an attention of its own instead, which can be
added to a trained network without changing it); the cosine process and eps (EDM's); the up-sampling stage (see the recipe cascade).

A caption is heard where the noise hides what the picture shows, and learnt there: two fifths of the training are at noise above 3 (in
units of the data's range of 2), where quick has a twentieth. With a ninth of it there, LogNormal(-0.6, 1.4), a caption was hardly heard
after 3,000 steps.
"""

import dataclasses

from unstir.data import DataConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.recipes.quick import quick

glide = dataclasses.replace(
    quick,
    about="Text to pictures, GLIDE's way (Nichol et al. 2022): the U-Net learns to read the captions. For data with captions.",
    data=DataConfig(text="bytes", labels=False),
    objective=DenoisingObjective(space="F", times=LogNormal(0.8, 1.6), dropout=0.2),
    training=dataclasses.replace(quick.training, minutes=10.0),
    sampling=dataclasses.replace(quick.sampling, guidance_scale=3.0),
)
