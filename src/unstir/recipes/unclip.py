"""unCLIP: from captions to pictures by way of the vector that a CLIP gives them.

Kept of the paper (Ramesh et al. 2022, https://arxiv.org/abs/2204.06125): the embedding is added to the noise level's, a tenth of the embeddings is dropped for
guidance (section 2.1), and half of the captions where the decoder reads them too (--data.text bytes); the prior (its own recipe). Not kept: the
embedding as four more tokens beside the caption's; the up-samplers.
"""

import dataclasses

from unstir.conditioning.derived import ImageEmbedding
from unstir.data import DataConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.recipes.clip import clip
from unstir.recipes.quick import quick

unclip_clip = dataclasses.replace(
    clip,
    about="The first stage of the recipe unclip: a CLIP.",
    # All pictures are embedded, and none of them is judged: what no caption is held out of is learnt better.
    training=dataclasses.replace(clip.training, held_out=0.0),
)

unclip = dataclasses.replace(
    quick,
    about="unCLIP (Ramesh et al. 2022): captions to a CLIP's vectors to pictures; variations of a picture. Trains all three: CLIP, prior, decoder.",
    kinds=("image", "signal", "volume", "points"),
    data=DataConfig(labels=False),
    derived=ImageEmbedding(clip="clip"),
    # What a vector says is learnt where the noise hides the picture: see glide.
    objective=DenoisingObjective(space="F", times=LogNormal(0.8, 1.6), dropout=0.1, caption_dropout=0.5),
    training=dataclasses.replace(quick.training, minutes=5.0),
    sampling=dataclasses.replace(quick.sampling, guidance_scale=2.0, prior="prior"),
)
