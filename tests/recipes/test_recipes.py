"""Every recipe: through TOML and back, and through a short life of training, saving, loading and sampling."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

import unstir
from unstir.cli import run
from unstir.cli.arguments import parse
from unstir.errors import UserError
from unstir.processes import EDM, CosineVP
from unstir.recipes import RECIPES, DenoiserConfig, Recipe
from unstir.recipes.serial import override, to_dict
from unstir.run import Run
from unstir.samplers import DDIM, Heun
from unstir.training.config import LinearDecay


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_toml(name: str) -> None:
    text = tomli_w.dumps(to_dict(RECIPES[name]))
    assert override(Recipe(), tomllib.loads(text)) == RECIPES[name]


# Where two steps of the recommended sampler are hundreds of evaluations.
CHEAPER = {
    "ncsn": ["--sampling.sampler.repeats", "2"],
    "score-sde-subvp": ["--sampling.sampler.rtol", "0.1", "--sampling.sampler.atol", "0.1"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_short_life(name: str, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    kind = RECIPES[name].kinds[0]
    short = ["--data", str(tiny_arrays[kind]), "--training.steps", "2", "--training.batch-size", "4",
             "--sampling.steps", "2"]  # fmt: skip
    base = []
    if RECIPES[name].network.needs_base:
        run(["train", "quick", "--out", str(tmp_path / "base"), *short])
        base = ["--base", str(tmp_path / "base")]
    if RECIPES[name].autoencoder:
        base = ["--autoencoder", "haar:2"]
    if RECIPES[name].vectors:
        run(["train", "clip", "--network", "mlp", "--out", str(tmp_path / "clip"), *short[:-2]])
        base = ["--clip", str(tmp_path / "clip")]
    text = ["--data.text", "bytes"] if RECIPES[name].data.text == "minilm" else []  # which may not be installed
    run(["train", name, "--out", str(tmp_path / "r"), *short, *base, *text, *CHEAPER.get(name, [])])
    if not isinstance(RECIPES[name].denoiser, DenoiserConfig):  # it draws no samples
        assert (tmp_path / "r" / "model.safetensors").is_file()
        Run(tmp_path / "r").trained("cpu")
        return
    reads = RECIPES[name].data.text or RECIPES[name].sampling.prior
    asked = {"text": "a high one"} if reads else {"label": "one"}
    x = unstir.load(tmp_path / "r").sample(3, **asked)
    data = np.load(tiny_arrays[kind])["x"]
    expected = {"image": (3, 3, 12, 10), "signal": (3, 2, 50), "points": (3, 2)}[kind]
    if name == "prior":  # its samples are vectors of the CLIP
        expected = (3, 128)
    if name == "sprites":  # its data section resizes pictures
        expected = (3, 3, 16, 16)
    assert x.shape == expected
    assert torch.isfinite(x).all()
    if kind == "image":
        run(["sample", str(tmp_path / "r"), "-n", "3", "--out", str(tmp_path / "x.npz")])
        written = np.load(tmp_path / "x.npz")["arr_0"]
        assert written.dtype == data.dtype
        again = unstir.load(tmp_path / "r").sample(3)
        np.testing.assert_array_equal(written, ((again.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy())


def test_overrides_nest_and_exchange_entries() -> None:
    recipe = override(
        Recipe(),
        {"process": {"name": "cosine", "steps": 50}, "training": {"batch-size": 7}, "sampling": {"sampler": "ddim"}},
    )
    assert recipe.process == CosineVP(steps=50)
    assert recipe.training.batch_size == 7
    assert recipe.sampling.sampler == DDIM()
    assert override(recipe, {"process": {"steps": 60}}).process == CosineVP(steps=60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainin": {}}, "unknown field 'trainin'; did you mean training?"),
        ({"process": "edmm"}, "unknown process 'edmm'; did you mean edm?"),
        ({"training": 3}, "training must be a table"),
        ({"training": {"steps": 1.5}}, "training.steps = 1.5 should be int"),
        ({"training": {"compile": 1}}, "training.compile = 1 should be bool"),
        ({"denoiser": {"parameterization": "epsilon"}}, "is not one of eps, x_0"),
    ],
)
def test_wrong_overrides_say_where(changes: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        override(Recipe(), changes)
    assert message in str(error.value)


def test_the_command_line_reaches_every_depth() -> None:
    words = "--training.decay linear --training.decay.start 0.5 --process.sigma-max=70 --data.size 8 12 --sampling.sampler heun"
    recipe = parse(Recipe(), words.split(), "x")
    assert recipe.training.decay == LinearDecay(0.5)
    assert recipe.process == EDM(sigma_max=70.0)
    assert recipe.data.size == (8, 12)
    assert recipe.sampling.sampler == Heun()
    assert parse(
        Recipe(), ["--sampling.sampler", "heun", "--sampling.sampler.churn", "0.1"], "x"
    ).sampling.sampler == Heun(churn=0.1)
    assert parse(Recipe(), ["--sampling.no-clip"], "x").sampling.clip is False


@pytest.mark.parametrize(
    "words", [["--training.minutes", "none"], ["--training.minutes=none"], ["--training.minutes", "None"]]
)
def test_none_is_nothing_as_in_a_recipe_file(words: list[str]) -> None:
    assert RECIPES["quick"].training.minutes == 3
    found = parse(RECIPES["quick"], [*words, "--training.steps", "5"], "unstir train quick")
    assert (found.training.minutes, found.training.steps) == (None, 5)
    with pytest.raises(UserError, match="batch-size takes"):  # which cannot be nothing
        parse(RECIPES["quick"], ["--training.batch-size", "none"], "unstir train quick")
