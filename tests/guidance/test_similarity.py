"""Guidance by similarity where its effect is known in closed form: a Gaussian, and a similarity that grows along a line."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from letters import letters_clip
from numeric import f64
from torch import Tensor

from unstir.clip import WANTED
from unstir.denoiser import GaussianDenoiser, MixtureDenoiser
from unstir.guidance import SimilarityGuidance
from unstir.processes import EDM, PROCESSES, VP
from unstir.samplers import DDIM, Heun
from unstir.samplers.grids import Karras, Uniform
from unstir.sampling import SampleNoise, sample

STD, SCALE = 0.6, 1.7
VECTOR = torch.tensor([[0.9, -0.4], [0.0, 1.3], [-0.7, 0.2]], dtype=torch.float64)
X_T = torch.tensor([[0.3, -1.0], [1.2, 0.7], [-2.0, 0.1]], dtype=torch.float64)


def gaussian(process: object, mean: Tensor | None = None) -> GaussianDenoiser:
    mean = torch.zeros(2, dtype=torch.float64) if mean is None else mean
    return GaussianDenoiser(process, mean, torch.tensor(STD, dtype=torch.float64))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROCESSES)
def test_a_gaussian_moves_by_its_variance_times_the_slope(name: str) -> None:
    """exp(s v · x_0) times N(0, std²) is N(s std² v, std²); what x_t says of v · x_0 is v · E[x_0 | x_t], and a constant."""
    process = PROCESSES[name]()
    denoiser = gaussian(process)

    def similarity(x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return (denoiser(x_t, t).x_0 * cond[WANTED]).sum(1)

    t = process.t_at_noise_ratio(f64(0.05, 0.7, 3.0))
    guided = SimilarityGuidance(denoiser, similarity, SCALE)
    with torch.no_grad():
        got = guided(X_T, t, **{WANTED: VECTOR})
    for i in range(3):
        shifted = gaussian(process, SCALE * STD**2 * VECTOR[i])
        wanted = shifted(X_T[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(got.x_0[i : i + 1], wanted.x_0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(got.eps[i : i + 1], wanted.eps, rtol=1e-9, atol=1e-9)


def test_so_do_its_samples() -> None:
    process = VP()
    denoiser = gaussian(process)

    def similarity(x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return (denoiser(x_t, t).x_0 * cond[WANTED]).sum(1)

    rng, times = SampleNoise(0, range(3)), Karras().times(process, 40)
    x = process.prior_sample(rng.normal((2,), torch.float64), times[0])
    ours = sample(SimilarityGuidance(denoiser, similarity, SCALE), Heun(), times, x, rng, {WANTED: VECTOR})
    free = sample(denoiser, Heun(), times, x, rng)
    # The flow of a Gaussian whose mean moved by m, from the same noise, ends m (1 - alpha_T · the flow's stretch) further.
    stretch = STD / (process.alpha(times[0]) * STD).hypot(process.sigma(times[0]))
    moved = SCALE * STD**2 * VECTOR * (1 - process.alpha(times[0]) * stretch)
    torch.testing.assert_close(ours - free, moved, rtol=2e-3, atol=2e-3)


def test_a_real_clip_pulls_towards_its_letter() -> None:
    """Of a mixture with a component for each letter, guidance picks the letter's; a sample without a caption is left alone."""
    means = 2 * torch.eye(4, dtype=torch.float64)
    mixture = MixtureDenoiser(EDM(sigma_max=20), means, torch.full((4, 1), 0.3, dtype=torch.float64))
    clip = letters_clip(EDM(), scale=6.0).double()
    cond = {WANTED: clip.understood(["a", "b", "c", "d", ""] * 20)}
    guided = SimilarityGuidance(mixture, clip.log_prob, 2.0)
    times, noise = Uniform().times(mixture.process, 40), SampleNoise(0, range(100))
    x = mixture.process.prior_sample(noise.normal((4,), torch.float64))
    ours, free = (sample(d, DDIM(), times, x, noise, c) for d, c in ((guided, cond), (mixture, {})))
    right = torch.arange(100) % 5
    asked = right < 4
    assert float((ours.argmax(1) == right)[asked].double().mean()) > 0.9
    assert float((free.argmax(1) == right)[asked].double().mean()) < 0.5
    torch.testing.assert_close(ours[~asked], free[~asked])


def test_interval_and_scale_0() -> None:
    clip = letters_clip(VP()).double()
    denoiser = MixtureDenoiser(VP(), torch.eye(4, dtype=torch.float64), torch.full((4, 1), 0.3, dtype=torch.float64))
    x, t = torch.randn(2, 4, dtype=torch.float64), VP().t_at_noise_ratio(f64(0.1, 1.0))
    cond = {WANTED: clip.understood(["a", "b"])}
    plain, always = denoiser(x, t), SimilarityGuidance(denoiser, clip.log_prob, 2.0)(x, t, **cond)
    got = SimilarityGuidance(denoiser, clip.log_prob, 2.0, (0.5, 2.0))(x, t, **cond)
    torch.testing.assert_close(got.x_0[0], plain.x_0[0])
    torch.testing.assert_close(got.x_0[1], always.x_0[1])
    assert not torch.allclose(plain.x_0[1], always.x_0[1])
    assert torch.equal(SimilarityGuidance(denoiser, clip.log_prob, 0.0)(x, t, **cond).x_0, plain.x_0)
