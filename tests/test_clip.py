"""A CLIP's answers against their formulas: vectors, their null, noise levels, the temperature, and the gradient that guides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from letters import letters_clip
from numeric import f64
from torch import Tensor, nn

from unstir.clip import MAX_SCALE, WANTED, CaptionTower, Clip, PictureTower, Towers, without_padding
from unstir.conditioning.text import text_encoder
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.networks import EncoderConfig, MLPConfig, UNetConfig
from unstir.networks.text import TextTokens
from unstir.processes import EDM, PROCESSES, VP
from unstir.recipes import ClipConfig

X_T = torch.tensor([[0.3, -1.0, 0.2, 0.1], [1.2, 0.7, -0.4, 2.0], [-2.0, 0.1, 0.5, 0.6]], dtype=torch.float64)
BYTES = Condition("text", 256, ("a cat", "a dog"), shape=(8,), encoder="bytes")
POINTS = DataSpec("points", (4,), std=0.7, conditions={"text": BYTES})


def small(condition: Condition = BYTES, *, seed: int = 0) -> Clip:
    """As the recipe makes it, with weights that say something."""
    torch.manual_seed(seed)
    spec = DataSpec("points", (4,), std=0.7, conditions={"text": condition})
    clip = ClipConfig(width=6, text_width=32).build(MLPConfig(width=16, depth=1), EDM(), spec)
    for parameter in clip.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return clip.eval()


def test_vectors_have_length_1_and_a_missing_caption_has_none() -> None:
    clip = small()
    vectors = clip.pictures(X_T.float(), f64(0.5)[0])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    captions = clip.understood(["a cat", "", "  ", "a dog", "a cat"])
    torch.testing.assert_close(captions[[0, 3]].norm(dim=1), torch.ones(2))
    assert captions[1:3].isnan().all()
    assert torch.equal(captions[0], captions[4])
    assert not torch.allclose(captions[0], captions[3], atol=1e-2)
    same = clip.captions(text_encoder("bytes").encode(["a dog", "a cat"], 8))
    torch.testing.assert_close(captions[[3, 0]], same.detach())
    assert not captions.requires_grad


@pytest.mark.parametrize("features", [False, True])
def test_neither_padding_nor_the_batch_changes_a_caption(features: bool) -> None:
    condition = Condition("text", 0, shape=(8, 5), encoder="minilm") if features else BYTES
    clip = small(condition)
    one = torch.randn(1, 3, 5) if features else torch.tensor([[97, 98, 99]])
    null = float("nan") if features else -1
    padded = torch.cat([one, torch.full_like(one, null)], 1)
    others = torch.cat([padded, torch.roll(padded, 1, 1).nan_to_num() if features else torch.full_like(padded, 100)])
    torch.testing.assert_close(clip.captions(padded), clip.captions(one), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.captions(others)[:1], clip.captions(one), rtol=1e-4, atol=1e-5)


def test_captions_are_read_to_the_end_of_the_longest() -> None:
    nan = torch.nan
    assert without_padding(torch.tensor([[5, -1, -1, -1], [6, 7, -1, -1]])).tolist() == [[5, -1], [6, 7]]
    assert without_padding(torch.tensor([[-1, -1], [-1, -1]])).tolist() == [[-1], [-1]]
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [nan, nan]], [[1.0, 2.0], [nan, nan], [nan, nan]]])
    torch.testing.assert_close(without_padding(features), features[:, :2], equal_nan=True)


def test_an_untrained_clip_says_the_same_of_every_picture() -> None:
    torch.manual_seed(0)
    spec = DataSpec("image", (3, 8, 8), conditions={"text": BYTES})
    clip = ClipConfig(width=6, text_width=32).build(
        EncoderConfig(channels=8, multipliers=(1, 2), attention=(1,)), EDM(), spec
    )
    pictures, captions = clip(torch.randn(5, 3, 8, 8), f64(0.1, 0.3, 1.0, 2.0, 5.0), torch.randint(97, 100, (5, 8)))
    torch.testing.assert_close(pictures, pictures[:1].expand(5, 6))
    torch.testing.assert_close(captions.norm(dim=1), torch.full((5,), 1 / 0.07))
    (pictures @ captions.mT).logsumexp(0).sum().backward()
    last = clip.network.pictures.network.pool.out.weight  # type: ignore[union-attr]
    assert last.grad is not None  # the layer that starts at 0 has a way out of it
    assert last.grad.abs().max() > 0


@pytest.mark.parametrize("asked", PROCESSES)
@pytest.mark.parametrize("trained", ["edm", "linear", "rectified-flow"])
def test_it_is_asked_at_the_same_noise_level_under_any_process(trained: str, asked: str) -> None:
    process = PROCESSES[asked]()
    clip, reference = (letters_clip(p, sigma_data=0.7).double() for p in (PROCESSES[trained](), EDM(sigma_max=1e6)))
    t = process.t_at_noise_ratio(f64(0.05, 0.3, 1.0))
    cond = {WANTED: clip.understood(["a", "bd", "c"])}
    got = clip.log_prob(X_T, t, cond, process)
    ratio = (process.sigma(t) / process.alpha(t)).unsqueeze(1)
    wanted = reference.log_prob(X_T / process.alpha(t).unsqueeze(1), ratio[:, 0], cond)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    told = [one.network.pictures.network.levels[-1] for one in (clip, reference)]  # type: ignore[union-attr]
    torch.testing.assert_close(told[0], told[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(told[0], (ratio[:, 0].log() / 4), rtol=1e-6, atol=1e-6)


def test_the_similarity_and_its_gradient() -> None:
    clip = letters_clip(EDM(), scale=3.0).double()
    x = X_T.clone().requires_grad_()
    wanted = clip.understood(
        [
            "a",
            "bd",
            "",
        ]
    )
    found = clip.log_prob(x, f64(0.5)[0], {WANTED: wanted})
    g = np.array([[1, 0, 0, 0], [0, 0.5**0.5, 0, 0.5**0.5], [0, 0, 0, 0]])
    x_t = X_T.numpy()
    f = x_t / np.linalg.norm(x_t, axis=1, keepdims=True)
    np.testing.assert_allclose(found.detach().numpy(), 3 * (f * g).sum(1), rtol=1e-6, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    # d(f · g)/dx = (g - f (f · g)) / |x|
    expected = 3 * (g - f * (f * g).sum(1, keepdims=True)) / np.linalg.norm(x_t, axis=1, keepdims=True)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert gradient[2].abs().max() == 0  # nobody asked for anything
    assert clip.log_prob(X_T, f64(0.5)[0], {"text": wanted}).tolist() == [0, 0, 0]


def test_the_scale_is_never_more_than_100_and_comes_back() -> None:
    clip = small().train()
    towers = clip.network
    with torch.no_grad():
        towers.log_scale.fill_(7.0)
    assert towers.scale().tolist() == [pytest.approx(MAX_SCALE)]  # even where nobody has clipped it yet
    _, captions = clip(X_T.float(), f64(0.5)[0], torch.full((3, 8), 97))
    assert captions.norm(dim=1).tolist() == pytest.approx([MAX_SCALE] * 3, rel=1e-5)
    assert towers.log_scale.tolist() == [pytest.approx(math.log(MAX_SCALE))]
    captions.norm(dim=1).sum().backward()
    assert towers.log_scale.grad is not None
    assert float(towers.log_scale.grad) > 0  # it can come down again


def test_in_bfloat16() -> None:
    clip, t = small(), f64(0.7)[0]
    cond = {WANTED: clip.understood(["a cat", "a dog", "a cow"])}
    plain = clip.log_prob(X_T.float(), t, cond)
    clip.autocast = torch.bfloat16
    rough = clip.log_prob(X_T.float(), t, {WANTED: clip.understood(["a cat", "a dog", "a cow"])})
    assert rough.dtype == torch.float32
    assert 0 < (plain - rough).norm() / plain.norm() < 0.05


def test_towers_by_hand() -> None:
    torch.manual_seed(1)
    tokens, network = TextTokens(BYTES, 32, 1), nn.Linear(4, 6)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return self.network(x) + c_noise[:, None]

    pictures, captions = PictureTower(Net(), 6), CaptionTower(tokens, 32, 6)
    clip = Clip(Towers(pictures, captions, 0.5), VP(), BYTES)
    x, text, t = torch.randn(2, 4), torch.tensor([[97, 98, -1], [99, -1, -1]]), f64(0.3)[0]
    I, T = clip(x, t, text)
    alpha, sigma = clip.process.scales(t, x)
    level = float((sigma / alpha).log() / 4)
    by_hand = network(x / float(alpha.hypot(sigma))) + level + pictures.origin
    torch.testing.assert_close(I, F.normalize(by_hand, dim=1), rtol=1e-4, atol=1e-5)
    states, there = tokens(text)
    means = torch.stack([row[kept].mean(0) for row, kept in zip(states, there)])
    torch.testing.assert_close(T, 2 * F.normalize(captions.out(means), dim=1), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_built_is_told() -> None:
    pictures = DataSpec("image", (3, 8, 8), conditions={"text": BYTES})
    with pytest.raises(UserError, match="use --network encoder"):
        ClipConfig().build(UNetConfig(), EDM(), pictures)
    for conditions in ({}, {"text": Condition("text", 0)}):  # none, and none that is read
        with pytest.raises(UserError, match=r"learns from captions, .* --data\.text bytes"):
            ClipConfig().build(EncoderConfig(), EDM(), DataSpec("image", (3, 8, 8), conditions=conditions))
    for wrong in ({"width": 1}, {"temperature": 0.0}, {"text_depth": -1}):
        with pytest.raises(UserError, match="must be at least"):
            ClipConfig(**wrong)  # type: ignore[arg-type]
