"""Training in latents: the autoencoder of a recipe, and the data set as the denoiser sees it."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from unstir.codec import IDENTITY, Codec, LatentCodec
from unstir.codecs import INSIDE, check_named, kept_name, open_autoencoder
from unstir.data import Dataset
from unstir.data.contents import Progress
from unstir.data.latents import Latents, latents
from unstir.errors import UserError
from unstir.recipes import AutoencoderConfig, Recipe
from unstir.run import Run
from unstir.trained import Trained, check_same_space


def seen_by_the_module(
    run: Run,
    recipe: Recipe,
    dataset: Dataset,
    base: Trained | None,
    accelerator: Accelerator,
    progress: Progress | None = None,
) -> tuple[Codec, Dataset]:
    """What stands between the data and what is trained, and the data set behind it. All samples are encoded here, once.

    The latents' units are those of the run where it goes on, those of the base where it starts from one, and else those in which they have
    mean 0 and standard deviation 1.

    Args:
        run: the folder, new or to be resumed.
        base: the run to start from.
        progress: called with (done, in all) while the samples are encoded.

    Raises:
        UserError: no autoencoder of that name, one for other data, or another one than the run or its base works with.
    """
    if not recipe.autoencoder:
        if base is not None:
            check_same_space(recipe.base, base.codec, IDENTITY, dataset.spec)
        return IDENTITY, dataset
    if isinstance(recipe.denoiser, AutoencoderConfig):
        raise UserError("an autoencoder is trained on the data themselves: leave --autoencoder out")
    begun = _begun(run, recipe, dataset, base, accelerator.device)
    with accelerator.main_process_first():  # the first process encodes and caches, the others find it done

        @torch.no_grad()
        def encode(x: Tensor) -> Tensor:
            return begun.raw(x.to(accelerator.device))

        found = latents(dataset, encode, begun.fingerprint, recipe.data.flip, recipe.data.cache_folder(), progress)
    codec = begun if begun.scale else begun.in_units(found.offset, found.scale)
    spec = codec.latent_spec(dataset.spec)
    fingerprint = f"{dataset.fingerprint}-{codec.fingerprint}"
    return codec, Latents(**{**vars(dataset), "spec": spec, "x": found.x, "fingerprint": fingerprint})


def _begun(run: Run, recipe: Recipe, dataset: Dataset, base: Trained | None, device: torch.device) -> LatentCodec:
    """The codec that the run was begun with, or its base's, or a new one, whose units are still to be measured."""
    if run.exists():
        if run.read_recipe()[1].autoencoder != recipe.autoencoder:
            raise UserError(
                f"{run.folder} was begun in the latents of another autoencoder, and cannot go on in those of {recipe.autoencoder}: leave "
                "--autoencoder out, or start anew"
            )
        codec = run.codec(recipe, dataset.spec)
        assert isinstance(codec, LatentCodec)
        return codec.to(device)
    name = kept_name(run.folder, INSIDE) if recipe.autoencoder == INSIDE else recipe.autoencoder
    check_named(name)
    codec = LatentCodec(open_autoencoder(name, dataset.spec, run.fetch, device), (), ())
    if base is None:
        return codec
    if isinstance(base.codec, LatentCodec) and base.codec.fingerprint == codec.fingerprint:
        return codec.in_units(base.codec.offset, base.codec.scale)
    check_same_space(recipe.base, base.codec, codec, dataset.spec)
    raise AssertionError("spaces of other fingerprints are not the same")
