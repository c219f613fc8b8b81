"""Autoguidance: its formula, classifier-free guidance as a case of it, and with which others it commutes."""

from __future__ import annotations

import pytest
import torch
from numeric import f64

from unstir.denoiser import GaussianDenoiser, MixtureDenoiser
from unstir.guidance import AutoGuidance, ClassifierFreeGuidance, ClipX0, OnlyKnown
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, RectifiedFlow

LABEL = torch.tensor([2, 0, 1])
X_T = torch.tensor([[0.3, -1.0], [1.2, 0.7], [-2.0, 0.1]], dtype=torch.float64)


def good(process: Process) -> MixtureDenoiser:
    means = torch.tensor([[0.8, -0.2], [-0.5, 1.4], [0.1, -1.0]], dtype=torch.float64)
    return MixtureDenoiser(process, means, f64(0.3).reshape(1, 1), f64(0.2, 0.5, 0.3))


def bad(process: Process) -> MixtureDenoiser:
    return MixtureDenoiser(process, 0.8 * good(process).means, f64(0.7).reshape(1, 1))


def assert_same(got: object, wanted: object) -> None:
    for name in ("x_0", "eps", "v"):
        torch.testing.assert_close(getattr(got, name), getattr(wanted, name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.3])
@pytest.mark.parametrize("name", PROCESSES)
def test_it_is_the_extrapolation_and_stays_consistent(name: str, scale: float) -> None:
    process = PROCESSES[name]()
    t = process.t_at_noise_ratio(f64(0.1, 0.8, 3.0))
    got = AutoGuidance(good(process), bad(process), scale)(X_T, t, label=LABEL)
    a, b = good(process)(X_T, t, label=LABEL), bad(process)(X_T, t, label=LABEL)
    torch.testing.assert_close(got.x_0, b.x_0 + scale * (a.x_0 - b.x_0))
    torch.testing.assert_close(got.alpha * got.x_0 + got.sigma * got.eps, X_T)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.3])
def test_with_the_unconditional_model_as_the_bad_one_it_is_classifier_free_guidance(scale: float) -> None:
    process, t = VP(), f64(0.05, 0.4, 0.9)
    interval = (0.1, 2.0)
    free = ClassifierFreeGuidance(good(process), scale, interval, rescale=0.4)(X_T, t, label=LABEL)
    auto = AutoGuidance(good(process), OnlyKnown(good(process), ()), scale, interval, rescale=0.4)
    assert_same(auto(X_T, t, label=LABEL), free)


def test_it_sharpens_a_gaussian() -> None:
    """good = N(0, 1), bad = N(0, 2²): the guided score at the data is that of the density good^w / bad^(w-1), of precision w - (w-1)/4."""
    w, process = 2.0, EDM()
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    guided = AutoGuidance(GaussianDenoiser(process, zero, one), GaussianDenoiser(process, zero, 2 * one), w)
    score = guided(X_T, f64(1e-4)[0]).score
    torch.testing.assert_close(score, -(w - (w - 1) / 4) * X_T, rtol=1e-6, atol=1e-6)


def test_a_bad_model_of_another_process_is_asked_at_the_same_noise_level() -> None:
    process, other = RectifiedFlow(), EDM()
    t = process.t_at_noise_ratio(f64(0.1, 0.8, 3.0))
    got = AutoGuidance(good(process), bad(other), 2.0)(X_T, t, label=LABEL)
    assert_same(got, AutoGuidance(good(process), bad(process), 2.0)(X_T, t, label=LABEL))


def test_inside_or_outside_of_classifier_free_guidance_is_the_same_where_both_models_are_guided() -> None:
    process, t = VP(), f64(0.05, 0.4, 0.9)
    inside = ClassifierFreeGuidance(AutoGuidance(good(process), bad(process), 1.7), 2.5)
    outside = AutoGuidance(ClassifierFreeGuidance(good(process), 2.5), ClassifierFreeGuidance(bad(process), 2.5), 1.7)
    assert_same(inside(X_T, t, label=LABEL), outside(X_T, t, label=LABEL))


def test_clipping_does_not_commute() -> None:
    process, t = VP(), f64(0.4)[0]
    inside = AutoGuidance(ClipX0(good(process)), ClipX0(bad(process)), 6.0)(X_T, t)
    outside = ClipX0(AutoGuidance(good(process), bad(process), 6.0))(X_T, t)
    assert outside.x_0.abs().max() <= 1 < inside.x_0.abs().max()


def test_outside_the_interval_the_bad_model_is_not_asked() -> None:
    class Unasked(MixtureDenoiser):
        def forward(self, *args: object, **cond: object):  # type: ignore[no-untyped-def, override]
            raise AssertionError

    process = VP()
    never = Unasked(process, good(process).means, f64(0.3).reshape(1, 1))
    for guided in (AutoGuidance(good(process), never, 2.0, (10.0, 20.0)), AutoGuidance(good(process), never, 1.0)):
        assert_same(guided(X_T, f64(0.4)[0]), good(process)(X_T, f64(0.4)[0]))
