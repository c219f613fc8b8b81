"""In which order sampling settings stack their guidance, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstir.clip import WANTED
from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import Denoiser, MixtureDenoiser
from unstir.errors import UserError
from unstir.guidance import (
    AutoGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClipX0,
    DynamicThreshold,
    FunctionGuidance,
    OnlyKnown,
    SimilarityGuidance,
)
from unstir.processes import VP
from unstir.recipes import Guides, SamplingConfig

LABELLED = DataSpec("image", (1, 2, 2), bounds=(-1.0, 1.0), conditions={"label": Condition("class", 2)})
UNLABELLED = replace(LABELLED, conditions={})


def model(shift: float = 0.0) -> MixtureDenoiser:
    means = torch.tensor([[0.5, 0.1, -0.5, 0.3], [-0.9, 0.2, 0.4, 0.0]]).reshape(2, 1, 2, 2) + shift
    return MixtureDenoiser(VP(), means, torch.full((1, 1, 1, 1), 0.4))


def log_prob(x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    return model().log_posterior(x_t, t).gather(1, cond["label"][:, None])[:, 0]


def layers(denoiser: nn.Module) -> list[type]:
    """From the outside to the inside."""
    found = [type(denoiser)]
    while isinstance(inner := getattr(denoiser, "denoiser", None), Denoiser):
        denoiser = inner
        found.append(type(denoiser))
    return found


def around(denoiser: Denoiser) -> Denoiser:
    return FunctionGuidance(denoiser, lambda x, t, cond: x.square().flatten(1).sum(1))


def similarity(x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    return x_t.flatten(1)[:, 0]


GUIDES = Guides(bad=model(0.1), classifier=log_prob, clip=similarity, around=around)
EVERYTHING = SamplingConfig(
    guidance_scale=2.0, guidance_rescale=0.5, classifier="c", clip_model="t", autoguidance="b", dynamic_threshold=99.5
)


def test_the_order() -> None:
    assert layers(EVERYTHING.guide(model(), LABELLED, GUIDES)) == [
        DynamicThreshold,
        FunctionGuidance,
        SimilarityGuidance,
        ClassifierGuidance,
        ClassifierFreeGuidance,
        AutoGuidance,
        OnlyKnown,
        MixtureDenoiser,
    ]
    assert layers(SamplingConfig().guide(model(), LABELLED)) == [ClipX0, MixtureDenoiser]
    assert layers(SamplingConfig(clip=False).guide(model(), LABELLED)) == [MixtureDenoiser]
    free = replace(LABELLED, bounds=())
    assert layers(SamplingConfig(dynamic_threshold=99.5).guide(model(), free)) == [MixtureDenoiser]


def test_all_of_it_reaches_the_belief() -> None:
    x_t, t = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5).double()
    label = torch.tensor([0, 1, 1])
    got = EVERYTHING.guide(model(), LABELLED, GUIDES)(x_t, t, label=label)
    by_hand = DynamicThreshold(
        around(
            SimilarityGuidance(
                ClassifierGuidance(
                    ClassifierFreeGuidance(AutoGuidance(model(), model(0.1), 2.0, rescale=0.5), 2.0, rescale=0.5),
                    log_prob,
                ),
                similarity,
            )
        ),
        99.5,
    )(x_t, t, label=label)
    torch.testing.assert_close(got.x_0, by_hand.x_0)
    for change in (
        {"guidance_scale": 1.0},
        {"guidance_rescale": 0.0},
        {"classifier_scale": 0.0},
        {"clip_scale": 0.0},
        {"autoguidance_scale": 1.0},
        {"guidance_to": 0.1},
    ):
        other = replace(EVERYTHING, **change).guide(model(), LABELLED, GUIDES)(x_t, t, label=label)
        assert not torch.allclose(other.x_0, got.x_0, atol=1e-4), change


def test_a_class_that_is_news_to_the_model_does_not_reach_it() -> None:
    """An unconditional model and a classifier: no second call for guidance that has nothing to go by."""
    calls = []

    class Unconditional(MixtureDenoiser):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor):  # type: ignore[no-untyped-def, override]
            assert not cond
            calls.append(len(x_t))
            return super().forward(x_t, t)

    denoiser = Unconditional(VP(), model().means, torch.full((1, 1, 1, 1), 0.4))
    settings = SamplingConfig(classifier="c", guidance_scale=2.0, clip=False)
    x_t, t, label = torch.zeros(3, 1, 2, 2), torch.tensor(0.5).double(), torch.tensor([0, 1, 1])
    got = settings.guide(denoiser, UNLABELLED, Guides(classifier=log_prob))(x_t, t, label=label)
    assert calls == [3]
    torch.testing.assert_close(got.x_0, model()(x_t, t, label=label).x_0, rtol=1e-4, atol=1e-5)


def test_a_caption_that_a_clip_guides_by_does_not_reach_a_model_that_reads_none() -> None:
    """Nor does a caption of the data that training left out."""
    spec = replace(UNLABELLED, conditions={"text": Condition("text", 0)})
    settings = SamplingConfig(clip_model="t", clip_scale=2.0, guidance_scale=3.0, clip=False)

    class Unconditional(MixtureDenoiser):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor):  # type: ignore[no-untyped-def, override]
            assert not cond
            return super().forward(x_t, t)

    denoiser = Unconditional(VP(), model().means, torch.full((1, 1, 1, 1), 0.4))
    cond = {"text": torch.zeros(3, 5), WANTED: torch.zeros(3, 2)}
    x_t, t = torch.zeros(3, 1, 2, 2), torch.tensor(0.5).double()
    got = settings.guide(denoiser, spec, Guides(clip=similarity))(x_t, t, **cond)
    shift = 2.0 * VP().sigma(t) ** 2 / VP().alpha(t)
    torch.testing.assert_close((got.x_0 - model()(x_t, t).x_0).flatten(1)[:, 0], shift.float().expand(3))


def test_a_run_that_was_not_loaded_is_never_left_out_silently() -> None:
    for settings in (SamplingConfig(classifier="c"), SamplingConfig(clip_model="t"), SamplingConfig(autoguidance="b")):
        with pytest.raises(ValueError, match="was not loaded"):
            settings.guide(model(), LABELLED)


@pytest.mark.parametrize(
    "settings", [{"guidance_rescale": 1.5}, {"dynamic_threshold": 0.995}, {"dynamic_threshold": 101}]
)
def test_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="between"):
        SamplingConfig(**settings)  # type: ignore[arg-type]
