"""unCLIP: captions to the vectors that a CLIP gives pictures (the prior), and these to pictures (the decoder).

A decoder is a model with the condition ``image_embedding``, computed of its samples by a CLIP (``ImageEmbedding``). A prior is a model whose data are
such vectors (``Recipe.vectors``), conditioned on captions and on the vectors that the same CLIP gives them, ``text_embedding``. Everything else
about both is as in any other run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.clip import Clip
from unstir.conditioning.asked import rows_asked, words_of
from unstir.conditioning.derived.image_embedding import NAME as IMAGE
from unstir.data import DataSpec
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.others import cached, other
from unstir.recipes import SamplingConfig
from unstir.sampling import end, mix_seed
from unstir.trained import Fetch, Trained, check_fit

if TYPE_CHECKING:
    from unstir.model import Model

TEXT = "text_embedding"
"""The condition of a prior that is the CLIP's vector of the caption."""
HOW = "train one, and name it: unstir train clip --data SOURCE --out CLIP, then --clip CLIP"
_PRIOR_SEED = 0x9210E  # keeps the noise of a sample's embedding apart from its own

# ---- the CLIP --------------------------------------------------------------------------------------------------------


def open_clip(name: str, fetch: Fetch, device: torch.device, spec: DataSpec | None = None) -> Clip:
    """A CLIP by its run's name, frozen, in full precision.

    Args:
        fetch: loads other runs.
        spec: of the data that it is to embed, where they are to be checked.

    Raises:
        UserError: no such run, it is no CLIP, or it is for other data.
    """
    trained = fetch(name, device)
    if not isinstance(trained.module, Clip):
        raise UserError(f"{name} is not a CLIP; train one: unstir train clip --data SOURCE")
    if spec is not None:
        check_fit(name, replace(trained.spec, conditions={}), spec)
    trained.module.autocast = None
    return trained.module.eval().requires_grad_(False)


def check_same_clip(what: str, clip: Clip, made_by: str) -> None:
    """Refuses a CLIP whose vectors are not those that a model was trained with.

    Args:
        what: of whom this is said.
        made_by: the fingerprint of the CLIP that it was trained with.

    Raises:
        UserError: another one.
    """
    if clip.fingerprint != made_by:
        raise UserError(
            f"{what} was trained with the vectors of another CLIP than this one, and they mean something else: put the old one back, or "
            "train it anew (unstir train unclip)"
        )


def reader(prior: Model) -> Clip:
    """The CLIP whose vectors a prior draws, loaded once.

    Raises:
        UserError: it is gone, or another one.
    """

    def opened() -> Clip:
        clip = open_clip(prior.recipe.vectors, prior.fetch, prior.device)
        check_same_clip("this prior", clip, prior.spec.conditions[TEXT].encoder)
        return clip

    return cached(prior, "clip", opened)


# ---- the prior -------------------------------------------------------------------------------------------------------


def check_prior(name: str, prior: Trained, ours: DataSpec) -> None:
    """Refuses a prior that draws something else than the embeddings that a decoder knows.

    Raises:
        UserError: with the difference.
    """
    if not isinstance(prior.module, NetDenoiser) or not prior.recipe.vectors:
        raise UserError(f"{name} is not a prior; train one: unstir train prior --clip RUN --data SOURCE")
    if prior.spec.conditions[TEXT].encoder != ours.conditions[IMAGE].encoder:
        raise UserError(
            f"{name} draws the vectors of another CLIP than the one that this model knows; train both with one --clip"
        )


NO_PRIOR = "none"
"""In place of a prior's run folder: there is none."""


def prior_of(model: Model, settings: SamplingConfig) -> Model | None:
    """The prior that draws the embeddings of a decoder, loaded once; None where none is named, and of any other model.

    Raises:
        UserError: no such run, or it is no prior for this model.
    """
    if settings.prior in ("", NO_PRIOR) or IMAGE not in model.spec.conditions:
        return None
    return other(model, settings.prior, lambda trained: check_prior(settings.prior, trained, model.spec))


def settings_of_prior(prior: Model, settings: SamplingConfig) -> SamplingConfig:
    """How the prior samples: as it recommends, but for what the decoder's settings say of it."""
    own = prior.recipe.sampling
    return replace(
        own,
        steps=settings.prior_steps or own.steps,
        guidance_scale=settings.prior_guidance_scale or own.guidance_scale,
        labels="none",
    )


def best(candidates: Tensor, z_t: Tensor) -> Tensor:
    """Of several embeddings (K, B, width) of each caption the one that is nearest to the caption's own vector (B, width); (B, width).

    Equation:
        z_i = argmax over the samples z_i^(k) ~ P(z_i | y) of z_i^(k) · z_t
    Source:
        Ramesh et al. 2022, section 2.2 (two samples), https://arxiv.org/abs/2204.06125
    """
    products = (candidates * z_t.nan_to_num(nan=0.0)).sum(2)  # (K, B)
    return candidates[products.argmax(0), torch.arange(candidates.shape[1], device=candidates.device)]


def embeddings(
    prior: Model, captions: Sequence[str], settings: SamplingConfig, seed: int, indices: Sequence[int]
) -> Tensor:
    """(B, width) unit vectors that the prior draws of these captions, one for each sample; NaN for an empty one.

    The vectors that it learned have length 1, so what it draws is brought back to the sphere.

    Args:
        settings: of the decoder, which say how many candidates are drawn of each.
        indices: the samples' numbers.
    """
    if settings.prior_candidates < 1:
        raise UserError(f"the number of candidates must be at least 1, not {settings.prior_candidates}")
    z_t, how = reader(prior).understood(captions), settings_of_prior(prior, settings)
    asked: dict[str, Any] = {TEXT: lambda _: z_t}
    for name, condition in prior.known().items():
        if condition.kind == "text" and condition.seen:
            rows = rows_asked(name, condition, list(captions), range(len(captions)))
            asked[name] = lambda _, rows=rows: rows
    drawn = []
    for number in range(settings.prior_candidates):
        steps = prior.trajectory(indices, how, seed=mix_seed(seed, _PRIOR_SEED, number), **asked)
        drawn.append(F.normalize(prior.spec.in_units(prior.decode(end(steps))), dim=1))
    empty = z_t.isnan().all(1, keepdim=True)
    return best(torch.stack(drawn), z_t).masked_fill(empty, torch.nan)


def drawn_by_prior(
    model: Model, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
) -> Tensor | None:
    """The embeddings (B, width), as the model sees them, of samples that are asked for by captions: drawn by the prior. None where there are
    no captions, or no prior: then nobody has asked for anything.

    Raises:
        UserError: captions that are not words.
    """
    prior = prior_of(model, settings)
    if prior is None:
        return None
    name = caption_of_prior(prior)
    if given.get(name) is not None and not words_of(given[name]):
        raise UserError(f"a prior reads words: give {name} as captions, not as an encoder's numbers")
    captions = model.captions(given, settings, seed, indices).get(name, [])
    if not any(captions):
        return None
    drawn = embeddings(prior, captions, settings, seed, indices)
    return model.spec.conditions[IMAGE].to_model(drawn).to(model.device)


def caption_of_prior(prior: Model) -> str:
    """Under which name a prior, or its CLIP, is asked for captions."""
    return next((name for name, c in prior.known().items() if c.kind == "text" and c.seen), reader(prior).text)


def understood(
    model: Model, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
) -> Tensor | None:
    """Of a prior: its CLIP's vectors (B, width) of the captions that are asked for, as it sees them. None of any other model."""
    if not model.recipe.vectors:
        return None
    captions = next(iter(model.captions(given, settings, seed, indices).values()), [])
    if not any(captions):
        return None
    return model.spec.conditions[TEXT].to_model(reader(model).understood(captions)).to(model.device)
