"""Whatever a recipe trains to draw samples, the rest of the library works with unchanged: resuming, samplers, guidance, editing, likelihood,
evaluation, and the commands that ``unstir info`` shows. A new recipe is tested here with no test written."""

from __future__ import annotations

import functools
import json
import math
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import as_if_learnt, said, weights
from torch import Tensor

import unstir
from unstir.cli import run
from unstir.codec import NEEDED
from unstir.conditioning.null import null_like
from unstir.data import Dataset, load
from unstir.kept import clip_named
from unstir.model import Model
from unstir.objectives import DistillationObjective
from unstir.recipes import RECIPES, DenoiserConfig, Recipe
from unstir.recipes.chains import CHAINS
from unstir.run import Run
from unstir.sampling import SampleNoise
from unstir.training.checkpoint import Checkpoints
from unstir.training.devices import engine
from unstir.training.vectors import as_vectors

STEPS = 3
NAMES = [name for name, recipe in RECIPES.items() if isinstance(recipe.denoiser, DenoiserConfig)]
DDIM = ["--sampler", "ddim", "--grid", "uniform", "--steps", "3"]
# Where two steps of the recommended sampler are hundreds of evaluations.
CHEAPER = {"ncsn": {"sampler.repeats": "2"}, "score-sde-subvp": {"sampler.rtol": "0.1", "sampler.atol": "0.1"}}


SMALL_CLIP = ["--network.channels", "8", "--denoiser.width", "20", "--denoiser.text-width", "16"]


@dataclass(frozen=True)
class Life:
    """A run of a recipe, with weights as if it had learnt something, and the data that it was trained on."""

    folder: Path
    data: Path

    @property
    def model(self) -> Model:
        return unstir.load(self.folder)

    @functools.cached_property
    def seen(self) -> Dataset:
        """What the model's samples are to be like: the data, or the vectors of them that a prior draws."""
        trained = Run(self.folder)
        recipe = trained.read_recipe()[1]
        return as_vectors(load(recipe.data), trained, recipe, engine("cpu"))

    def command(self, *words: object) -> None:
        run([str(word) for word in words])


@pytest.fixture(scope="module", params=NAMES)
def life(
    request: pytest.FixtureRequest, tiny_arrays: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Life:
    """Trained for three steps; then its last step is lost, as kill -9 leaves it, and trained again: that must be the same."""
    name, folder = request.param, tmp_path_factory.mktemp("lives")
    recipe = RECIPES[name]
    data = tiny_arrays["image" if recipe.vectors else recipe.kinds[0]]  # vectors are points; what they are of are not
    words = [
        "--data",
        data,
        "--training.batch-size",
        "4",
        "--training.steps",
        STEPS,
        "--training.checkpoint-every",
        "1",
    ]
    words += ["--sampling.steps", "2", *cheaper(name, "--sampling.")]
    for stage, before_it in CHAINS.get(name, {}).items():
        words += [f"--{stage}.sampling.steps", "2"] if draws(before_it) else []
    trained = Life(folder / "run", data)
    trained.command("train", name, "--out", trained.folder, *words, *needed(recipe, folder, data))
    before = weights(trained.folder)
    Checkpoints(trained.folder / "checkpoints", STEPS).path(STEPS).unlink()
    (trained.folder / "model.safetensors").unlink()
    trained.command("train", "--resume", trained.folder)
    after = weights(trained.folder)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    for stage in {trained.folder, *(path.parent for path in trained.folder.glob("*/model.safetensors"))}:
        if draws(Run(stage).read_recipe()[1]):  # the others were trained with what a CLIP in there said as it is
            as_if_learnt(stage, 0.05)
    return trained


def draws(recipe: Recipe) -> bool:
    return isinstance(recipe.denoiser, DenoiserConfig)


def needed(recipe: Recipe, folder: Path, data: Path) -> list[object]:
    """The words for what a recipe cannot be trained without, which is trained where it must be."""
    few = ["--data", str(data), "--training.steps", "2", "--training.batch-size", "4"]
    words: list[object] = []
    if recipe.data.text == "minilm":  # which may not be installed
        words += ["--data.text", "bytes"]
    if recipe.network.needs_base:
        run(["train", "quick", "--out", str(folder / "base"), *few])
        words += ["--base", folder / "base"]
    if recipe.autoencoder == NEEDED:
        words += ["--autoencoder", "haar:2"]  # which loses nothing, so that what is to be kept of pictures is kept
    if clip_named(recipe):
        run(["train", "clip", "--out", str(folder / "clip"), *few, *SMALL_CLIP])
        words += ["--clip", as_if_learnt(folder / "clip", 0.05)]  # else all pictures have one vector
    return words


def cheaper(name: str, prefix: str) -> list[str]:
    return [word for key, value in CHEAPER.get(name, {}).items() for word in (prefix + key, value)]


def asked(model: Model) -> dict[str, object]:
    """A caption or else a class for every sample, where it or what it works with reads one."""
    seen = {name: condition for name, condition in model.known().items() if condition.seen}
    if "text" in seen:
        return {"text": "a high one"}
    return {"label": "one"} if "label" in seen and seen["label"].named else {}


def beliefs(model: Model, n: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Something noisy, its time, and what the network is told of it."""
    process = model.denoiser.process
    times = model.recipe.sampling.times(process)
    t = times[len(times) // 2]
    x_t = process.prior_sample(SampleNoise(5, range(n)).normal(model.latent_spec.shape), t)
    return x_t, t, model.conditions(asked(model), model.recipe.sampling, 0, range(n))


def test_its_samplers_are_the_formulas_around_its_denoiser(life: Life) -> None:
    """DDIM in three lines, asked without the loop, gives the samples that the model draws; they depend on their number and the seed alone;
    and another sampler draws others."""
    model = life.model
    plain = {"grid": "uniform", "steps": 3, "guidance_scale": 1.0, "clip": False, "dynamic_threshold": 0.0}
    settings = model.settings(sampler="ddim", **plain)
    process, times = model.denoiser.process, settings.times(model.denoiser.process)
    cond = model.conditions(asked(model), settings, 0, range(3))
    x = process.prior_sample(model.noise(0, range(3)).normal(model.latent_spec.shape), times[0])
    with torch.no_grad():
        for t, s in pairwise(times):
            belief, (alpha, sigma) = model.denoiser(x, t, **cond), process.scales(s, x)
            x = alpha * belief.x_0 + sigma * belief.eps
    expected = model.decode(x) if model.spec.kind == "image" else model.spec.in_units(model.decode(x))
    drawn = model.sample(3, sampler="ddim", **plain, **asked(model))
    torch.testing.assert_close(drawn, expected.to(drawn), rtol=1e-4, atol=1e-4)
    one_by_one = model.sample(3, sampler="ddim", batch_size=1, **plain, **asked(model))
    torch.testing.assert_close(one_by_one, drawn, rtol=1e-3, atol=1e-3)
    for other in ("heun", "ddpm", "dpmpp_2m_sde"):
        samples = model.sample(3, sampler=other, **plain, **asked(model))
        assert samples.isfinite().all()
        assert not torch.allclose(samples, drawn, atol=1e-4), other


def test_guidance_is_its_formula(life: Life) -> None:
    model = life.model
    model.denoiser.autocast = None  # in bfloat16 a belief hangs on how many are asked for at once
    x_t, t, cond = beliefs(model)
    left = {name for name in cond if name not in model.spec.always}
    if not left:
        pytest.skip("it has no condition that could be left out")
    null = {name: null_like(value) if name in left else value for name, value in cond.items()}
    off = {"clip": False, "dynamic_threshold": 0.0, "guidance_from": 0.0, "guidance_to": math.inf}
    with torch.no_grad():
        told, untold = model.denoiser(x_t, t, **cond), model.denoiser(x_t, t, **null)
        guided = model.guided(model.settings(guidance_scale=2.5, **off))(x_t, t, **cond)
    assert not torch.allclose(told.x_0, untold.x_0, atol=1e-5)
    torch.testing.assert_close(guided.x_0, untold.x_0 + 2.5 * (told.x_0 - untold.x_0), rtol=1e-4, atol=1e-4)


def test_editing_keeps_what_is_known(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = life.model.spec
    close = 1.01 if spec.kind == "image" else 1e-3 * min(1.0, *spec.scale)  # a byte; a thousandth of what it varies by
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    if spec.kind == "image":
        before = rng.integers(0, 256, (*spec.shape[1:], spec.shape[0]), dtype=np.uint8)
        fill = np.zeros(before.shape[:2], dtype=bool)
        fill[3:7, 2:6] = True
        Image.fromarray(before).save("a.png")
        Image.fromarray(255 * fill.astype(np.uint8)).save("mask.png")
        picture, mask = "a.png", "mask.png"
    else:
        before = np.asarray(life.seen.x[0])
        fill = np.arange(len(before)) < len(before) // 2
        np.save("a.npy", before)
        np.save("mask.npy", fill)
        picture, mask = "a.npy", "mask.npy"
    words = ["--image", picture, "-n", "2", "--out", "x.npz", *DDIM]
    for method in ("replacement", "repaint", "gradient"):
        more = ["--resamplings", "2"] if method == "repaint" else []
        life.command("edit", "inpaint", life.folder, "--mask", mask, "--method", method, *more, *words)
        x = np.load("x.npz")["arr_0"]
        np.testing.assert_allclose(x[:, ~fill], np.broadcast_to(before[~fill], x[:, ~fill].shape), rtol=1e-6)
        assert not np.allclose(x[0][fill], x[1][fill]), method
    life.command("edit", "image-to-image", life.folder, "--strength", "0", *words)
    np.testing.assert_allclose(np.load("x.npz")["arr_0"][0], before, atol=close)
    if spec.kind == "image":
        life.command("edit", "colorize", life.folder, *words)
        luma = np.array([0.299, 0.587, 0.114])
        grey = np.load("x.npz")["arr_0"] @ luma
        np.testing.assert_allclose(grey, np.broadcast_to(before @ luma, grey.shape), atol=0.51)
    life.command("edit", "interpolate", life.folder, "--to", picture, "--method", "ddpm", *words, "-n", "3")
    ends = np.load("x.npz")["arr_0"]
    np.testing.assert_allclose(ends[0], ends[1], atol=close)  # between a picture and itself


def test_its_likelihood_by_both_methods(life: Life, tmp_path: Path) -> None:
    """Bits and nats are one number in two units, and the record says of how many samples and by what method. Where there is no likelihood of
    the data, a line says why."""
    model = life.model
    dimensions = model.spec.dimensions
    without = {
        "how likely data are": isinstance(model.recipe.objective, DistillationObjective),  # its belief is no mean
        "the latents of an autoencoder": model.codec.latent,
    }
    if any(without.values()):
        refused = said("evaluate", life.folder, "--metrics", "nll", "-n", "2")
        assert [why in refused for why in without] == list(without.values())
        return
    for method, more in {
        "ode": ["--nll-tolerance", "0.1"],
        "variational": ["--nll-terms", "2", "--nll-steps", "10"],
    }.items():
        if method == "variational" and model.spec.dtype.startswith("float"):
            continue
        steps = [] if method == "ode" or hasattr(model.denoiser.process, "alpha_bar") else more[2:]
        words = [
            "--metrics",
            "nll",
            "--nll-method",
            method,
            *more[:2],
            *steps,
            "-n",
            "2",
            "--json",
            tmp_path / "nll.json",
        ]
        life.command("evaluate", life.folder, *words)
        found = json.loads((tmp_path / "nll.json").read_text())["nll"]
        assert found["n"] == 2
        assert method in found["method"]
        assert math.isfinite(found["nats"])
        assert found["bits_per_dim"] == pytest.approx(found["nats"] / math.log(2) / dimensions, rel=1e-6)


def test_its_evaluation_judges_the_samples_that_it_draws(life: Life, tmp_path: Path) -> None:
    """The distance of a run is that of the file of the same samples, each from what the samples are to be like."""
    spec = life.model.spec
    features = {"image": "pixels", "signal": "spectrum", "points": "coordinates"}[spec.kind]
    judged = ["--metrics", "fd", "--features", features]
    seed = ["--seed", "3", "--labels", "none", *DDIM]
    computed = any(condition.kind == "grid" for condition in spec.conditions.values())
    if computed and not spec.always:
        seed += ["--no-match-conditions"]
    life.command(
        "evaluate", life.folder, *judged, "-n", "6", "--no-match-conditions", *seed, "--json", tmp_path / "r.json"
    )
    drawn = [word for word in seed if word != "--no-match-conditions"]
    life.command("sample", life.folder, "-n", "6", *drawn, "--out", tmp_path / "x.npz")
    np.savez(tmp_path / "data.npz", x=np.asarray(life.seen.x[:]))
    like = ["--data", tmp_path / "data.npz"]
    life.command("evaluate", tmp_path / "x.npz", *like, *judged, "--json", tmp_path / "f.json")
    run_fd, file_fd = (json.loads((tmp_path / f"{name}.json").read_text())["fd"] for name in "rf")
    assert run_fd["n"] == file_fd["n"] == 6
    assert run_fd["value"] == pytest.approx(file_fd["value"], rel=1e-3)


def test_every_command_that_info_shows_works(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it names every condition that can be asked for, the captions among them that only its prior or its CLIP reads."""
    monkeypatch.chdir(tmp_path)
    name = Run(life.folder).read_recipe()[0]
    capsys.readouterr()
    life.command("info", life.folder)
    lines = capsys.readouterr().out.splitlines()
    for key, condition in life.model.known().items():
        if condition.seen:
            assert any(line.strip().startswith(f"--{key.replace('_', '-')} ") for line in lines), key
    commands = [line.strip().partition(" unstir ")[2] for line in lines if " unstir " in line]
    assert len(commands) >= 2
    pixels = np.full((12, 10, 3), 99, np.uint8)
    pixels[4:8] = 255  # as a mask: what to fill
    Image.fromarray(pixels).save("FILE.png")
    for command in commands:
        if "--resume" in command:
            continue
        words = ["FILE.png" if word == "FILE" else word for word in shlex.split(command)]
        if "-n" in words:
            words[words.index("-n") + 1] = "2"
        run([*words, "--steps", "2", *cheaper(name, "--")])
        assert Path(words[words.index("--out") + 1]).exists(), command
