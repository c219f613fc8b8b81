"""Training on what a CLIP makes of samples: a prior on their vectors, a decoder on conditions computed of them."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from unstir.clip import Clip
from unstir.codec import NEEDED
from unstir.conditioning.derived import Derived
from unstir.conditioning.derived.image_embedding import NAME as IMAGE
from unstir.conditioning.derived.image_embedding import units
from unstir.conditioning.text import tidy
from unstir.data import Condition, Dataset, DataSpec
from unstir.data.contents import Progress
from unstir.data.latents import Latents, latents
from unstir.errors import UserError
from unstir.recipes import Recipe
from unstir.run import Run
from unstir.unclip import HOW, TEXT, check_same_clip, open_clip


def check_captions(dataset: Dataset) -> None:
    """Refuses to train a prior without captions.

    Raises:
        UserError: with the ways to give them.
    """
    if not any(tidy(caption) for caption in dataset.captions):
        raise UserError(
            f"unCLIP's prior learns from captions, and {dataset.name} comes without: give them in a metadata.jsonl (file_name, text), "
            "in .txt files beside the pictures, or as text in an .npz"
        )


def check_vectors(recipe: Recipe) -> None:
    """Refuses to train a prior without a CLIP.

    Raises:
        UserError: with the way to one.
    """
    if recipe.vectors == NEEDED:
        raise UserError(f"this recipe learns the vectors of a CLIP: {HOW}")


def as_vectors(
    dataset: Dataset, run: Run, recipe: Recipe, accelerator: Accelerator, progress: Progress | None = None
) -> Dataset:
    """What a prior is trained on: points, the vectors that a CLIP gives the samples, with their captions and with the CLIP's vectors of these.
    Of a recipe that is no prior the data set itself.

    Vectors of samples are computed once and kept in the data's cache.

    Args:
        run: the folder, new or to be resumed.
        progress: called with (done, in all).

    Raises:
        UserError: no captions, no CLIP of that name, one for other data, or another one than the run was begun with.
    """
    if not recipe.vectors:
        return dataset
    check_vectors(recipe)
    check_captions(dataset)
    clip = open_clip(recipe.vectors, run.fetch, accelerator.device, dataset.spec)
    if run.exists():
        check_same_clip(str(run.folder), clip, run.read_recipe()[2].conditions[TEXT].encoder)
    flip = recipe.data.flip
    with accelerator.main_process_first():  # the first process embeds and caches, the others find it done
        found = latents(dataset, clip.embedding, clip.fingerprint, flip, recipe.data.cache_folder(), progress)
    said = clip.understood([tidy(caption) for caption in dataset.captions]).cpu()
    offset, scale = units(found)
    texts = {name: c for name, c in dataset.spec.conditions.items() if c.kind == "text"}
    spec = DataSpec(
        "points",
        (clip.width,),
        offset=offset,
        scale=scale,
        conditions={**texts, TEXT: _standardised(said, clip.fingerprint)},
    )
    values = {name: value for name, value in dataset.conditions.items() if name in texts}
    changes = {
        "spec": spec,
        "x": found.x if flip else found.x[:, 0],
        "conditions": {**values, TEXT: said.numpy()},
        "fingerprint": f"{dataset.fingerprint}-{clip.fingerprint}",
    }
    return (Latents if flip else Dataset)(**{**vars(dataset), **changes})


def _standardised(vectors: torch.Tensor, fingerprint: str) -> Condition:
    """The condition that such vectors (N, width) are, NaN where there is none: mean 0, and one scale for all entries."""
    there = vectors[~vectors.isnan().any(1)].double()
    scale = float(there.var(0, unbiased=False).mean().sqrt()) or 1.0
    width = vectors.shape[1]
    return Condition("vector", width, offset=tuple(there.mean(0).tolist()), scale=(scale,) * width, encoder=fingerprint)


def derived_over(
    run: Run, recipe: Recipe, dataset: Dataset, accelerator: Accelerator, progress: Progress | None = None
) -> Derived:
    """The recipe's conditions that are computed of samples, with the CLIP that they need and, where that is costly, computed of all
    samples once.

    Raises:
        UserError: no CLIP of that name, one for other data, or another one than the run was begun with.
    """

    def clip_of(name: str) -> Clip:
        clip = open_clip(name, run.fetch, accelerator.device, dataset.spec)
        if run.exists() and (begun := run.read_recipe()[2].conditions.get(IMAGE)) is not None:
            check_same_clip(str(run.folder), clip, begun.encoder)
        return clip

    derived = recipe.derived.loaded(clip_of)
    with accelerator.main_process_first():
        return derived.over(dataset, recipe.data.flip, recipe.data.cache_folder(), progress)
