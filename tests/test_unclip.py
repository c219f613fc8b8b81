"""unCLIP's parts with a CLIP that needs no training: what the decoder is told, what the prior learns, and the arcs between vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from letters import LETTERS, letters_clip
from numeric import f64
from torch import Tensor
from torch.nn.functional import normalize

from unstir.clip import Clip
from unstir.conditioning.derived import ImageEmbedding
from unstir.conditioning.derived.image_embedding import NAME, ByClip
from unstir.data import DataConfig, Dataset, load
from unstir.data.latents import Latents
from unstir.editing import text_diff
from unstir.errors import UserError
from unstir.model import Model
from unstir.networks import MLPConfig, PriorNetworkConfig
from unstir.processes import EDM
from unstir.recipes import RECIPES, Recipe
from unstir.run import Run
from unstir.sampling import SampleNoise
from unstir.trained import Trained
from unstir.training.config import TrainingConfig
from unstir.training.devices import engine
from unstir.training.draw import Draw
from unstir.training.session import Session
from unstir.training.vectors import as_vectors
from unstir.unclip import TEXT, best, check_prior, embeddings, reader

CPU = torch.device("cpu")
DIRECTIONS = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))[0].numpy()
"""Where the samples of each letter lie: not where the CLIP looks for the letter."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Points around four directions, whose captions are the letters; every tenth has none."""
    folder = tmp_path_factory.mktemp("letters")
    rng, numbers = np.random.default_rng(0), np.arange(400) % 4
    text = np.array(list(LETTERS))[numbers]
    text[::10] = ""
    x = 2 * DIRECTIONS[numbers] + 0.1 * rng.normal(size=(400, 4))
    np.savez(folder / "x.npz", x=x.astype(np.float32), text=text)
    return load(DataConfig(source=str(folder / "x.npz"), text="bytes", cache=str(folder)))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return letters_clip(EDM(), length=1)


class WithLetters(Run):
    """A run folder that finds the letters' CLIP under any name."""

    def __init__(self, folder: Path, clip: Clip, data: Dataset) -> None:
        super().__init__(folder)
        self.letters = Trained(clip, data.spec, Recipe())

    def fetch(self, name: str, device: torch.device) -> Trained:
        return self.letters


def directions(x: Tensor) -> Tensor:
    """The letters' CLIP, by hand."""
    return x.flatten(1) / x.flatten(1).square().sum(1, keepdim=True).sqrt()


# ---- the decoder -----------------------------------------------------------------------------------------------------


def test_the_decoder_is_told_the_vector_of_its_very_sample(data: Dataset, clip: Clip, tmp_path: Path) -> None:
    recipe = replace(
        RECIPES["unclip"],
        data=DataConfig(cache=str(tmp_path)),
        derived=ImageEmbedding("letters"),
        network=MLPConfig(width=8, depth=1),
        training=TrainingConfig(steps=1, batch_size=16),
    )
    session = Session(WithLetters(tmp_path, clip, data), "x", recipe, data, engine())
    condition, z = session.spec.conditions[NAME], directions(data.samples(torch.arange(400)))
    assert (condition.kind, condition.size, condition.encoder) == ("vector", 4, clip.fingerprint)
    np.testing.assert_allclose(condition.offset, z.mean(0), atol=1e-6)
    np.testing.assert_allclose(condition.scale, [float(z.var(0, unbiased=False).mean().sqrt())] * 4, rtol=1e-5)
    shown: list[dict[str, Tensor]] = []
    session.denoiser.network.register_forward_pre_hook(
        lambda module, args, kwargs: shown.append(kwargs), with_kwargs=True
    )
    for _ in session:
        pass
    batch = Draw(session.seen, 16, 0, False, session.rows, session.derived)(
        0, list(range(16)), SampleNoise(7, range(16))
    )
    told = batch.cond[NAME] * torch.tensor(condition.scale) + torch.tensor(condition.offset)
    torch.testing.assert_close(told, directions(batch.x), rtol=1e-5, atol=1e-6)
    seen = shown[0][NAME]
    kept = ~seen.isnan().any(1)
    torch.testing.assert_close(seen[kept], batch.cond[NAME][kept])
    assert 0 < len(seen) - int(kept.sum()) < 8, "some are dropped, for guidance"


def test_mirrored_pictures_have_vectors_of_their_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 2, 2, 1), np.uint8)
    np.savez(tmp_path / "x.npz", x=pixels)
    pictures, clip = load(DataConfig(source=str(tmp_path / "x.npz"), kind="image")), letters_clip(EDM())
    plain = ByClip(clip)
    derived = plain.over(pictures, True, tmp_path / "cache")
    rows, flip = np.array([3, 3, 8, 20]), torch.tensor([False, True, True, False])
    x, rng = pictures.samples(rows, flip), SampleNoise(0, range(4))

    def unread() -> Tensor:
        raise AssertionError("the samples need not be read")

    found = derived.of_rows(rows, flip, unread, rng)[NAME]
    torch.testing.assert_close(found, derived.training(x, rng)[NAME])
    condition = derived.declare(pictures.spec)[NAME]
    torch.testing.assert_close(
        found * torch.tensor(condition.scale) + torch.tensor(condition.offset), directions(x), rtol=1e-5, atol=1e-6
    )
    assert not torch.allclose(found[0], found[1])
    raw = plain.of_rows(rows, flip, lambda: x, rng)[NAME]  # nothing computed before: each time, in units of the sphere
    torch.testing.assert_close(raw, 2 * directions(x), rtol=1e-5, atol=1e-6)
    other = letters_clip(EDM(), scale=4.0)
    assert other.fingerprint != clip.fingerprint == letters_clip(EDM()).fingerprint


def test_without_its_clip() -> None:
    with pytest.raises(UserError, match="name one with --clip RUN"):
        ImageEmbedding().loaded(lambda name: letters_clip(EDM()))


# ---- the prior -------------------------------------------------------------------------------------------------------


def test_what_a_prior_is_trained_on(data: Dataset, clip: Clip, tmp_path: Path) -> None:
    recipe = replace(RECIPES["prior"], vectors="letters", data=DataConfig(cache=str(tmp_path)))
    run = WithLetters(tmp_path, clip, data)
    vectors = as_vectors(data, run, recipe, engine())
    x, cond = vectors.batch(torch.arange(400))
    torch.testing.assert_close(
        vectors.spec.in_units(x), directions(data.samples(torch.arange(400))), atol=1e-5, rtol=1e-4
    )
    assert float(x.mean(0).abs().max()) < 1e-5
    assert float(x.square().mean()) == pytest.approx(1, rel=1e-4)
    empty = torch.arange(400) % 10 == 0
    condition = vectors.spec.conditions[TEXT]
    z_t = cond[TEXT] * torch.tensor(condition.scale) + torch.tensor(condition.offset)
    assert (cond[TEXT].isnan().all(1) == empty).all()
    torch.testing.assert_close(z_t[~empty], torch.eye(4)[torch.arange(400) % 4][~empty], atol=1e-5, rtol=0)
    assert cond["text"].shape == (400, 1)
    mirrored = as_vectors(data, run, replace(recipe, data=replace(recipe.data, flip=True)), engine())
    assert isinstance(mirrored, Latents)
    torch.testing.assert_close(
        mirrored.samples(torch.arange(3), torch.zeros(3, dtype=torch.bool)), x[:3], atol=0.5, rtol=0.5
    )
    silent = replace(data, captions=[""] * 400)
    with pytest.raises(UserError, match="learns from captions"):
        as_vectors(silent, run, recipe, engine())
    with pytest.raises(UserError, match="--clip CLIP"):
        as_vectors(data, run, replace(recipe, vectors="?"), engine())


def test_it_learns_where_the_pictures_of_a_caption_are(data: Dataset, clip: Clip, tmp_path: Path) -> None:
    recipe = replace(
        RECIPES["prior"],
        vectors="letters",
        data=DataConfig(cache=str(tmp_path)),
        network=PriorNetworkConfig(width=32, depth=2, heads=2),
        training=TrainingConfig(steps=250, batch_size=64, learning_rate=4e-3, precision="fp32"),
    )
    run = WithLetters(tmp_path, clip, data)
    vectors = as_vectors(data, run, recipe, engine())
    session = Session(run, "prior", recipe, vectors, engine())
    for _ in session:
        pass
    prior = Model.of(session.trained())
    assert reader(prior) is clip
    captions = [*LETTERS, *LETTERS, ""]
    z = embeddings(prior, captions, replace(prior.recipe.sampling, prior_steps=12), 1, range(9))
    known = directions(data.samples(torch.arange(400)))
    for i, found in enumerate(z[:8]):
        wanted = normalize(known[i % 4 :: 4].mean(0), dim=0)
        assert float(found @ wanted) > 0.97
        assert max(float(found @ normalize(known[k::4].mean(0), dim=0)) for k in range(4) if k != i % 4) < 0.7
    assert z[8].isnan().all(), "nothing was said, and nothing is asked for"
    check_prior("it", session.trained(), replace(data.spec, conditions={NAME: vectors.spec.conditions[TEXT]}))
    drawn = prior.sample(4, text=list(LETTERS))  # which its own CLIP reads, too
    assert float((normalize(drawn, dim=1) * z[:4]).sum(1).min()) > 0.95


def test_the_better_of_several() -> None:
    z_t = torch.tensor([[1.0, 0.0], [0.0, 1.0], [torch.nan, torch.nan]])
    a, b = torch.tensor([[0.8, 0.6], [0.8, 0.6], [0.8, 0.6]]), torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8]])
    torch.testing.assert_close(best(torch.stack([a, b]), z_t), torch.stack([a[0], b[1], a[2]]))


# ---- arcs ------------------------------------------------------------------------------------------------------------


def test_a_text_diff_turns_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    z_i, z_t, z_t0 = (normalize(torch.randn(5, generator=generator, dtype=torch.float64), dim=0) for _ in range(3))
    theta = torch.linspace(0, 1, 6, dtype=torch.float64)
    z = text_diff(z_i, z_t, z_t0, theta)
    torch.testing.assert_close(z[0], z_i)
    torch.testing.assert_close(z[-1], normalize(z_t - z_t0, dim=0))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6, dtype=torch.float64))
    steps = torch.acos((z[1:] * z[:-1]).sum(1))
    torch.testing.assert_close(steps, steps[:1].expand(5), rtol=1e-6, atol=1e-8)
    assert (z[1:] @ (z_t - z_t0) > z[:-1] @ (z_t - z_t0)).all()
    with pytest.raises(UserError, match="mean the same"):
        text_diff(z_i, z_t, z_t, f64(0.3))


def test_which_prior_fits(data: Dataset, clip: Clip) -> None:
    module: Any = torch.nn.Identity()
    with pytest.raises(UserError, match="it is not a prior"):
        check_prior("it", Trained(module, data.spec, Recipe()), data.spec)
