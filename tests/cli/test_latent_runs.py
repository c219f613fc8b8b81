"""Runs in an autoencoder's latents, through the command line: trained, resumed, sampled, guided, edited, judged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from launch import in_two_processes
from PIL import Image
from runs import UNET, as_if_learnt, said, weights

import unstir
from unstir.cli import run
from unstir.codec import LatentCodec
from unstir.conditioning.derived import Edges, Posterized
from unstir.data import DataConfig, load
from unstir.editing import inpaint, upscale
from unstir.errors import UserError
from unstir.kept import copy_run
from unstir.model import Model
from unstir.networks.layers import space_to_depth
from unstir.run import Run
from unstir.stages import read_stages
from unstir.training.checkpoint import Checkpoints

PLAN = ["--training.steps", "3", "--training.batch-size", "4", "--sampling.steps", "3"]
AE = ["--training.steps", "2", "--training.batch-size", "4", "--network.channels", "8", "--objective.perceptual", "0"]


def train(recipe: str, data: Path, out: Path, *words: str) -> Path:
    run(["train", recipe, "--data", str(data), "--out", str(out), *PLAN, *words])
    return out


@pytest.fixture(scope="module")
def data(tiny_arrays: dict[str, Path]) -> Path:
    return tiny_arrays["image"]


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("latent") / "ae"
    run(["train", "autoencoder", "--data", str(data), "--out", str(out), *AE])
    return out


@pytest.fixture(scope="module")
def haar_run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run in Haar's latents, with weights as if it had learnt something."""
    out = train("latent", data, tmp_path_factory.mktemp("latent") / "haar", "--autoencoder", "haar:2", *UNET)
    found, generator = weights(out), torch.Generator().manual_seed(0)
    for value in found.values():
        value += 0.1 * torch.randn(value.shape, generator=generator).to(value)
    safetensors.torch.save_file(found, out / "model.safetensors")
    return out


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return path


# ---- training --------------------------------------------------------------------------------------------------------


def test_without_an_autoencoder(data: Path, tmp_path: Path) -> None:
    message = said("train", "latent", "--data", data, "--out", tmp_path / "r")
    assert (
        "unstir train autoencoder --data SOURCE --out AE, then --autoencoder AE; or let --train-autoencoder do both"
        in message
    )
    assert not (tmp_path / "r").exists()


def test_autoencoders_that_cannot_be(data: Path, haar_run: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    for name, message in {
        "nothing": "there is no autoencoder nothing",
        str(haar_run): "is a run, but no autoencoder",
        "haar:3": "2, 4, 8, ..., not 3",
        "haar:x": "as in haar:2",
        "taef2:nothing": "there is no autoencoder taef2:nothing",
    }.items():
        assert message in said("train", "latent", "--data", data, "--autoencoder", name, "--out", tmp_path / "r", *PLAN)
    points = ["--data", str(tiny_arrays["points"]), "--out", str(tmp_path / "r"), *PLAN]
    assert "not for points" in said("train", "swiss-roll", *points, "--autoencoder", "haar:2")
    assert not (tmp_path / "r").exists()


def test_a_run_keeps_its_autoencoder(autoencoder: Path, data: Path, tmp_path: Path) -> None:
    """It needs no other, stays as it was when that one is trained on, and notices when its own is exchanged."""
    original = tmp_path / "ae"
    shutil.copytree(autoencoder, original)
    out = train("latent", data, tmp_path / "r", "--autoencoder", str(original), *UNET)
    assert (out / "autoencoder" / "model.safetensors").is_file()
    assert (out / "autoencoder" / "recipe.toml").is_file()
    expected = unstir.load(out).sample(2)
    shutil.rmtree(original)
    out = Path(shutil.move(out, tmp_path / "elsewhere"))
    assert torch.equal(unstir.load(out).sample(2), expected)
    model = unstir.load(out)
    ae = Run(autoencoder).trained("cpu").module
    assert isinstance(model.codec, LatentCodec)
    x = model.spec.to_model(np.load(data)["x"][:3])
    raw = ae.encode(x)  # type: ignore[operator]
    z = (raw - torch.tensor(model.latent_spec.offset).reshape(-1, 1, 1)) / torch.tensor(
        model.latent_spec.scale
    ).reshape(-1, 1, 1)
    torch.testing.assert_close(model.encode(x), z)
    torch.testing.assert_close(model.decode(z), ae.decode(raw, (12, 10)).clamp(-1, 1))  # type: ignore[operator]
    inner = weights(out / "autoencoder")
    next(value for name, value in inner.items() if name.endswith("weight")).mul_(1.01)
    safetensors.torch.save_file(inner, out / "autoencoder" / "model.safetensors")
    assert "does not match this run's latents" in said("sample", out, "-n", "1")
    assert "does not match this run's latents" in said("train", "--resume", out, "--training.steps", "5")


def test_no_run_is_lost_to_a_copy(autoencoder: Path, data: Path, tmp_path: Path) -> None:
    """Where a run keeps its autoencoder there may be one already that somebody trained there."""
    own, other = tmp_path / "x" / "autoencoder", tmp_path / "y" / "autoencoder"
    for folder in (own, other):
        shutil.copytree(autoencoder, folder)
    files = sorted(path.relative_to(own) for path in own.rglob("*"))
    assert Path("checkpoints") in files
    out = train("latent", data, tmp_path / "x", "--autoencoder", str(own), *UNET)
    assert sorted(path.relative_to(own) for path in own.rglob("*")) == files
    assert unstir.load(out).sample(1).shape == (1, 3, 12, 10)
    words = ["train", "latent", "--data", data, "--autoencoder", autoencoder, "--out", tmp_path / "y", *PLAN, *UNET]
    assert "choose another --out" in said(*words)
    assert sorted(path.relative_to(other) for path in other.rglob("*")) == files
    with pytest.raises(UserError, match="choose another --out"):
        copy_run(str(autoencoder), other)
    copy_run(str(other), other)
    assert sorted(path.relative_to(other) for path in other.rglob("*")) == files


def test_a_student_works_in_its_teachers_latents(autoencoder: Path, data: Path, tmp_path: Path) -> None:
    """With the autoencoder that the teacher keeps, wherever that one's came from."""
    shutil.copytree(autoencoder, tmp_path / "ae")
    train("latent", data, tmp_path / "r", "--autoencoder", str(tmp_path / "ae"), *UNET)
    shutil.rmtree(tmp_path / "ae")
    out, few = tmp_path / "s", ["--method", "consistency", "--steps", "1", "--training.steps", "1"]
    run(["distill", str(tmp_path / "r"), "--out", str(out), *few])
    shutil.rmtree(tmp_path / "r")
    student, ae = unstir.load(out), Run(autoencoder).trained("cpu").module
    assert weights(out / "autoencoder").keys() == weights(autoencoder).keys()
    x = student.spec.to_model(np.load(data)["x"][:3])
    z = student.encode(x)
    torch.testing.assert_close(student.decode(z), ae.decode(ae.encode(x), (12, 10)).clamp(-1, 1))  # type: ignore[operator]
    every = student.encode(student.spec.to_model(np.load(data)["x"]))
    assert float(every.mean()) == pytest.approx(0, abs=1e-4)
    assert float(every.std()) == pytest.approx(1, abs=1e-2)
    assert student.sample(2, label="one").shape == (2, 3, 12, 10)


class Counted:
    """How many samples an encoder was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, raw = 0, LatentCodec.raw

        def counted(codec: LatentCodec, x: torch.Tensor) -> torch.Tensor:
            self.count += len(x)
            return raw(codec, x)

        monkeypatch.setattr(LatentCodec, "raw", counted)


@pytest.mark.parametrize("derived", ["nothing", "edges"])
def test_training_asks_no_encoder_and_resumes_exactly(
    derived: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "--autoencoder",
        "haar:2",
        "--data.flip",
        "--data.cache",
        str(tmp_path / "cache"),
        "--derived",
        derived,
        *UNET,
    ]
    asked = Counted(monkeypatch)
    whole = train("latent", data, tmp_path / "whole", *words, "--training.steps", "4")
    assert asked.count == 80, "every sample once, and mirrored"
    part = train("latent", data, tmp_path / "part", *words, "--training.steps", "4", "--training.checkpoint-every", "2")
    assert asked.count == 80, "the second run finds them"
    (last,) = (part / "checkpoints").glob("*0004*")  # as if killed after step 2
    last.unlink()
    assert Checkpoints(part / "checkpoints", 3).steps() == [2]
    shutil.rmtree(tmp_path / "cache" / "latents")
    run(["train", "--resume", str(part)])
    assert asked.count == 160, "a lost cache is made anew"
    one, other = weights(whole), weights(part)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_the_network_is_shown(data: Path, tmp_path: Path) -> None:
    """Latents of unit variance, and edges of the pixels cut into blocks."""
    from unstir.recipes import RECIPES
    from unstir.recipes.serial import override
    from unstir.sampling import SampleNoise
    from unstir.training.devices import engine
    from unstir.training.session import Session

    changes: dict[str, Any] = {
        "autoencoder": "haar:2",
        "derived": "edges",
        "data": {"source": str(data), "flip": True},
        "network": {"channels": 8, "middle": 1, "head_channels": 8},
        "training": {"steps": 1, "batch_size": 8},
    }
    dataset = load(DataConfig(source=str(data)))
    session = Session(Run(tmp_path), "latent", override(RECIPES["latent"], changes), dataset, engine())
    shown: list[Any] = []
    session.denoiser.network.register_forward_pre_hook(lambda m, args, kwargs: shown.append(kwargs), with_kwargs=True)
    for _ in session:
        pass
    assert shown[0]["edges"].shape == (8, 4, 6, 5)
    z = session.seen.samples(np.arange(40))
    assert float(z.std()) == pytest.approx(1, abs=0.05)
    assert session.spec.shape == (3, 12, 10)
    assert session.denoiser.sigma_data == 1
    # Row by row what a batch is: mirrored pixels, their latents, their edges.
    from unstir.training.draw import Draw

    draw = Draw(session.seen, 8, 0, True, derived=Edges(), source=dataset, codec=session.codec)
    batch = draw(3, list(range(8)), SampleNoise(7, range(8)))
    pixels = Draw(dataset, 8, 0, True, derived=Edges())(3, list(range(8)), SampleNoise(7, range(8)))
    torch.testing.assert_close(batch.x, session.codec.encode(pixels.x), rtol=1e-4, atol=1e-5)
    assert torch.equal(batch.cond["edges"], space_to_depth(pixels.cond["edges"], 2))
    assert torch.equal(batch.cond["label"], pixels.cond["label"])


@pytest.mark.parametrize("name", ["", "haar:2"])
def test_what_a_condition_tells_is_measured_on_the_same_samples(name: str, data: Path, tmp_path: Path) -> None:
    """The linear denoiser that is corrected is the straight line through what the network sees, sample by sample."""
    from unstir.conditioning.derived.low_res import enlarged, shrunk
    from unstir.linear import CorrectingDenoiser, RestDenoiser
    from unstir.recipes import RECIPES
    from unstir.recipes.serial import override
    from unstir.training.devices import engine
    from unstir.training.session import Session

    changes: dict[str, Any] = {
        "autoencoder": name,
        "data": {"source": str(data), "flip": True, "cache": str(tmp_path / "cache")},
        "derived": {"max_level": 0.0},
        "network": {"channels": 8, "middle": 1, "head_channels": 8},
        "training": {"steps": 1, "batch_size": 8},
    }
    dataset = load(DataConfig(source=str(data)))
    session = Session(Run(tmp_path), "cascade", override(RECIPES["cascade"], changes), dataset, engine())
    pixels = dataset.samples(np.arange(40))
    small = enlarged(shrunk(pixels, 2), 2, (12, 10))
    x = session.codec.encode(pixels)
    c = space_to_depth(small, 2) if name else small
    gain, offset = np.polyfit(c.double().flatten().numpy(), x.double().flatten().numpy(), 1)
    assert isinstance(session.module, CorrectingDenoiser)
    linear = session.module.linear
    assert isinstance(linear, RestDenoiser)
    assert float(linear.gain) == pytest.approx(gain, rel=1e-3)
    assert float(linear.offset) == pytest.approx(offset, abs=1e-3)
    assert float(linear.rest) == pytest.approx(float((x - offset - gain * c).square().mean()), rel=1e-3)
    assert float(linear.rest) < 0.99 * float(x.var())
    for progress in session:
        assert bool(torch.isfinite(progress.loss))


def test_a_run_stays_in_its_latents(haar_run: Path, tmp_path: Path) -> None:
    message = said("train", "--resume", haar_run, "--autoencoder", "haar:4", "--training.steps", "9")
    assert "cannot go on in those of haar:4" in message


def test_two_processes_train_what_one_does(autoencoder: Path, data: Path, tmp_path: Path) -> None:
    words = ["train", "latent", "--data", str(data), "--autoencoder", str(autoencoder), *PLAN, *UNET]
    words += ["--training.precision", "fp32", "--data.flip", "--data.cache"]
    run([*words, str(tmp_path / "a"), "--out", str(tmp_path / "one")])
    two = in_two_processes("-m", "unstir", *words, str(tmp_path / "b"), "--out", str(tmp_path / "two"))
    assert "on cpu x 2" in two
    one, other = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=3e-4)
    assert unstir.load(tmp_path / "two").latent_spec == unstir.load(tmp_path / "one").latent_spec


# ---- two models ------------------------------------------------------------------------------------------------------


def test_an_autoencoder_is_trained_first(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r"
    of_first = [word.replace("--", "--autoencoder.", 1) if word.startswith("--") else word for word in AE]
    words = ["--out", str(out), "--sampling.steps", "3", "--training.batch-size", "4", *UNET]
    run(["train", "latent", "--train-autoencoder", "--data", str(data), *words, *of_first, "--training.steps", "3"])
    found = read_stages(out)
    assert found is not None
    assert list(found[1]) == ["autoencoder", ""]
    assert found[1]["autoencoder"].data.size == found[1][""].data.size == (12, 10)
    assert found[1]["autoencoder"].data.groups == 0
    first = weights(out / "autoencoder")
    assert unstir.load(out).sample(2).shape == (2, 3, 12, 10)
    capsys.readouterr()
    run(["info", str(out)])
    told = capsys.readouterr().out
    assert "stage 1" in told
    assert "of the autoencoder autoencoder, by which this run decodes by itself" in told
    # Longer: only what works in the latents, which would be others if the autoencoder went on.
    run(["train", "--resume", str(out), "--training.steps", "5"])
    assert Checkpoints(out / "checkpoints", 3).steps()[-1] == 5
    assert all(torch.equal(first[name], value) for name, value in weights(out / "autoencoder").items())
    assert unstir.load(out).sample(1).shape == (1, 3, 12, 10)


def test_what_cannot_train_an_autoencoder_first(data: Path) -> None:
    for name in ("cascade", "classifier", "controlnet"):
        assert f"not for {name}" in said("train", name, "--data", data, "--train-autoencoder")
    both = ["--train-autoencoder", "--autoencoder", "haar:2"]
    assert "leave one of the two out" in said("train", "latent", "--data", data, *both)


# ---- use -------------------------------------------------------------------------------------------------------------


def test_samples_are_data(haar_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = unstir.load(haar_run)
    assert model.spec.shape == (3, 12, 10)
    assert model.latent_spec.shape == (12, 6, 5)
    x = model.sample(3, label="one", seed=2)
    assert x.shape == (3, 3, 12, 10)
    assert float(x.abs().max()) <= 1
    ended = list(model.trajectory(range(3), seed=2, label="one"))[-1].x_s
    torch.testing.assert_close(x, model.codec.decode(ended, model.spec))
    run(["sample", str(haar_run), "-n", "3", "--label", "one", "--seed", "2", "--out", str(tmp_path / "x.npz")])
    written = np.load(tmp_path / "x.npz")["arr_0"]
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, ((x + 1) * 127.5).round().permute(0, 2, 3, 1).numpy())
    for name, words in {"a.gif": [], "b.gif": ["--beliefs"], "c.png": ["--beliefs"]}.items():
        run(["sample", str(haar_run), "-n", "2", *words, "--out", str(tmp_path / name)])
    with Image.open(tmp_path / "a.gif") as gif:
        assert getattr(gif, "n_frames", 1) >= 4
    run(["info", str(haar_run)])
    assert "12x6x5 of the autoencoder haar:2" in capsys.readouterr().out


def test_pictures_are_edited(haar_run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((12, 10), np.uint8)
    mask[3:9, 2:7] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    given = np.asarray(Image.open(picture))
    edit = ["edit", "inpaint", str(haar_run), "--image", str(picture), "--out", str(tmp_path / "x.npz"), "-n", "2"]
    run([*edit, "--mask", str(tmp_path / "m.png")])
    found = np.load(tmp_path / "x.npz")["arr_0"]
    assert np.array_equal(found[:, mask == 0], np.broadcast_to(given[mask == 0], (2, int((mask == 0).sum()), 3)))
    assert (found[0] != found[1]).any()
    edit[1] = "image-to-image"
    run([*edit, "--strength", "0"])
    assert np.array_equal(np.load(tmp_path / "x.npz")["arr_0"][0], given)
    run([*edit, "--strength", "0.5"])
    edit[1] = "interpolate"
    run([*edit, "--to", str(picture)])
    edit[1] = "colorize"
    run(edit)
    grey = given @ np.array([0.299, 0.587, 0.114])
    assert np.abs(np.load(tmp_path / "x.npz")["arr_0"] @ np.array([0.299, 0.587, 0.114]) - grey).max() < 1
    assert "--method gradient" in said(*edit, "--method", "replacement")
    Image.fromarray(given[:6, :5]).save(tmp_path / "small.png")
    capsys.readouterr()
    run(["edit", "upscale", str(haar_run), "--image", str(tmp_path / "small.png"), "--out", str(tmp_path / "l.npz")])
    told = capsys.readouterr().out  # what is written is clipped
    assert float(re.findall(r"differs by (\S+) of 255", told)[0]) < 1e-3


def test_a_run_is_judged_as_data(haar_run: Path, data: Path, tmp_path: Path) -> None:
    run(
        [
            "evaluate",
            str(haar_run),
            "-n",
            "40",
            "--metrics",
            "fd",
            "--features",
            "pixels",
            "--json",
            str(tmp_path / "a.json"),
        ]
    )
    run(["sample", str(haar_run), "-n", "40", "--out", str(tmp_path / "x.npz")])
    judged = json.loads((tmp_path / "a.json").read_text())
    assert judged["fd"]["n"] == 40
    assert np.isfinite(judged["fd"]["value"])
    assert "latents of an autoencoder" in said("evaluate", haar_run, "--metrics", "nll")
    message = said("compress", haar_run, "--image", "nothing.png")
    assert "there is no file" in message
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / "a.png")
    assert "latents of an autoencoder" in said("compress", haar_run, "--image", tmp_path / "a.png")
    assert "latents of an autoencoder" in said("compress", haar_run, "--curve", tmp_path / "c.png", "-n", "2")


# ---- together with other runs ----------------------------------------------------------------------------------------


def test_runs_of_one_space_work_together(haar_run: Path, data: Path, tmp_path: Path) -> None:
    pixels = train("edm", data, tmp_path / "pixels", *UNET)
    other = train("latent", data, tmp_path / "other", "--autoencoder", "haar:4", *UNET)
    worse = train("latent", data, tmp_path / "worse", "--autoencoder", "haar:2", *UNET)
    sample = ["sample", str(haar_run), "-n", "1", "--out", str(tmp_path / "x.npz")]
    run([*sample, "--autoguidance", str(worse)])
    assert "was trained on the data themselves, and this model works in latents" in said(
        *sample, "--autoguidance", pixels
    )
    assert "the latents of another autoencoder" in said(*sample, "--autoguidance", other)
    into = ["--data", str(data), "--out", str(tmp_path / "tuned"), *PLAN]
    run(
        [
            "train",
            "latent",
            "--base",
            str(haar_run),
            *into,
            "--training.steps",
            "1",
            "--training.learning-rate",
            "1e-12",
        ]
    )
    tuned = unstir.load(tmp_path / "tuned")
    assert tuned.recipe.autoencoder == "haar:2"
    assert tuned.latent_spec == unstir.load(haar_run).latent_spec
    torch.testing.assert_close(tuned.sample(2), unstir.load(haar_run).sample(2), rtol=1e-4, atol=1e-4)
    into[3] = str(tmp_path / "no")
    assert "latents of another autoencoder" in said(
        "train", "latent", "--base", haar_run, "--autoencoder", "haar:4", *into
    )
    assert "was trained on the data themselves" in said(
        "train", "latent", "--base", pixels, "--autoencoder", "haar:2", *into
    )
    assert "on the data themselves" in said("train", "quick", "--base", haar_run, "--autoencoder", "", *into)


def test_classifiers_and_guides_of_the_same_latents(haar_run: Path, data: Path, tmp_path: Path) -> None:
    small = ["--network.channels", "8"]
    plan = ["--training.steps", "2", "--training.batch-size", "4"]
    for name, words in {"latent": ["--autoencoder", "haar:2"], "pixels": []}.items():
        run(["train", "classifier", "--data", str(data), "--out", str(tmp_path / name), *plan, *small, *words])
    assert (tmp_path / "latent" / "accuracy.json").is_file()
    sample = ["sample", str(haar_run), "-n", "2", "--label", "one", "--out", str(tmp_path / "x.npz")]
    run([*sample, "--classifier", str(tmp_path / "latent"), "--classifier-scale", "3"])
    message = said(*sample, "--classifier", tmp_path / "pixels", "--classifier-scale", "3")
    assert "was trained on the data themselves, and this model works in latents" in message


def test_a_controlnet_in_latents(haar_run: Path, data: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "control"
    run(["train", "controlnet", "--base", str(haar_run), "--data", str(data), "--out", str(out), *PLAN])
    model, base = unstir.load(out), unstir.load(haar_run)
    assert model.spec.conditions["edges"].shape == (1, 12, 10)
    assert model.latent_spec.conditions["edges"].shape == (4, 6, 5)
    off = model.sample(2, control_strength=0.0, edges=torch.zeros(1, 12, 10))
    torch.testing.assert_close(off, base.sample(2), rtol=1e-4, atol=1e-4)
    run(["sample", str(out), "-n", "2", "--image", str(picture), "--out", str(tmp_path / "x.npz")])
    x_0 = model.spec.to_model(np.asarray(Image.open(picture))[None])
    expected = model.spec.to_data(model.sample(2, edges=Edges().of(x_0)))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], expected)


# ---- other kinds of data, networks and conditions ----------------------------------------------------------------------


def test_signals_and_transformers(tiny_arrays: dict[str, Path], data: Path, tmp_path: Path) -> None:
    judged = ["--training.evaluate-every", "3", "--training.evaluate-samples", "8"]
    out = train("latent", tiny_arrays["signal"], tmp_path / "s", "--autoencoder", "haar:4", *UNET, *judged)
    assert any(name.startswith("fd[") for name in Run(out).metrics()[-1]), "samples are judged as data while it trains"
    model = unstir.load(out)
    assert model.latent_spec.shape == (8, 13)
    assert model.sample(2, label="zero").shape == (2, 2, 50)
    dit = [
        "--network",
        "dit",
        "--network.patch",
        "1",
        "--network.depth",
        "1",
        "--network.width",
        "12",
        "--network.heads",
        "2",
    ]
    out = train("latent", data, tmp_path / "d", "--autoencoder", "haar:2", *dit)
    assert unstir.load(out).sample(2).shape == (2, 3, 12, 10)


def test_captions_reach_the_network(data: Path, tmp_path: Path) -> None:
    words = [
        "--autoencoder",
        "haar:2",
        "--data.text",
        "bytes",
        "--network.text-width",
        "8",
        "--network.text-depth",
        "1",
    ]
    out = train("latent", data, tmp_path / "r", *words, *UNET)
    shown: list[Any] = []
    model = unstir.load(out)
    model.denoiser.network.register_forward_pre_hook(lambda m, args, kwargs: shown.append(kwargs), with_kwargs=True)
    assert model.sample(1, text="a low one").shape == (1, 3, 12, 10)
    assert bytes(shown[0]["text"][0][shown[0]["text"][0] >= 0].tolist()) == b"a low one"


@pytest.mark.parametrize("derived", ["low-res", "hole", "posterized"])
def test_conditions_computed_from_pixels(derived: str, data: Path, picture: Path, tmp_path: Path) -> None:
    out = train("latent", data, tmp_path / "r", "--autoencoder", "haar:2", "--derived", derived, *UNET)
    mask = np.zeros((12, 10), np.uint8)
    mask[3:9, 2:7] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    small = np.asarray(Image.open(picture))[::2, ::2]
    Image.fromarray(small).save(tmp_path / "small.png")
    as_if_learnt(out, 0.05)
    command = {
        "low-res": ["edit", "upscale", str(out), "--image", str(tmp_path / "small.png")],
        "hole": ["edit", "inpaint", str(out), "--image", str(picture), "--mask", str(tmp_path / "m.png")],
        "posterized": ["sample", str(out), "-n", "1", "--image", str(picture)],
    }[derived]
    run([*command, "--out", str(tmp_path / "x.npz")])
    model = unstir.load(out)
    x_0, fill = model.spec.to_model(np.asarray(Image.open(picture))[None])[0], torch.from_numpy(mask > 0)[None]
    by_hand: dict[str, Callable[[], torch.Tensor]] = {
        "low-res": lambda: upscale(model, model.spec.to_model(small[None])[0]),
        "hole": lambda: inpaint(model, x_0, fill, method="model"),
        "posterized": lambda: model.sample(1, regions=Posterized().of(x_0[None], torch.tensor([3]))),
    }
    found = np.load(tmp_path / "x.npz")["arr_0"]
    np.testing.assert_array_equal(found, model.spec.to_data(by_hand[derived]()))
    assert (found != model.spec.to_data(model.sample(1, **asked_for_nothing(model)))).any(), (
        "the condition is not heard"
    )


def asked_for_nothing(model: Model) -> dict[str, torch.Tensor]:
    """Only what such a model cannot do without, of a black picture."""
    if "low_res" not in model.spec.conditions:
        return {}
    return {"low_res": -torch.ones(model.spec.shape)}


def test_a_cascade_s_stage_may_work_in_latents(data: Path, tmp_path: Path) -> None:
    """What the stage below draws is decoded, and shrunken pixels condition the one above."""
    below = train("latent", data, tmp_path / "below", "--autoencoder", "haar:2", *UNET, "--data.size", "6", "5")
    words = ["--derived", "low-res", "--sampling.low-res-from", str(below), *UNET]
    above = train("latent", data, tmp_path / "above", "--autoencoder", "haar:2", *words)
    model = unstir.load(above)
    x = model.sample(2, label="one", seed=1)
    assert x.shape == (2, 3, 12, 10)
    small = unstir.load(below).sample(2, label="one", seed=1)
    given = model.recipe.derived.enlarge(model.spec.to_model(model.spec.to_data(small)), model.spec)  # type: ignore[attr-defined]
    torch.testing.assert_close(model.sample(2, label="one", seed=1, low_res=given), x)


def test_a_cascade_in_the_latents_of_an_autoencoder(autoencoder: Path, data: Path, tmp_path: Path) -> None:
    """Its latents have not the shape of the small picture, which can then not be corrected: said before anything is trained."""
    out, words = tmp_path / "r", ["--autoencoder", str(autoencoder), *UNET]
    message = said("train", "cascade", "--data", data, "--out", out, *PLAN, *words)
    assert "leave it out with --denoiser.given ''" in message
    assert len(message.splitlines()) == 1
    assert not out.exists()
    train("cascade", data, out, *words, "--denoiser.given", "")
    model, below = unstir.load(out), unstir.load(out / "base")
    assert (model.latent_spec.shape, below.latent_spec.shape) == ((4, 3, 3), (4, 2, 2))
    assert model.latent_spec.conditions["low_res"].shape == (48, 3, 3)
    x = model.sample(2, label="one", seed=1)
    small = below.sample(2, label="one", seed=1)
    given = model.recipe.derived.enlarge(model.spec.to_model(model.spec.to_data(small)), model.spec)  # type: ignore[attr-defined]
    torch.testing.assert_close(model.sample(2, label="one", seed=1, low_res=given), x)
    other = train("cascade", data, tmp_path / "haar", "--autoencoder", "haar:2", *UNET, "--denoiser.given", "low_res")
    assert unstir.load(other).sample(1).shape == (1, 3, 12, 10)


def test_an_autoencoder_where_its_copy_would_be_stays(autoencoder: Path, data: Path, tmp_path: Path) -> None:
    everything = sorted(path.name for path in autoencoder.iterdir())
    shutil.copytree(autoencoder, tmp_path / "own" / "autoencoder")
    train("latent", data, tmp_path / "own", "--autoencoder", str(tmp_path / "own" / "autoencoder"), *UNET)
    assert sorted(path.name for path in (tmp_path / "own" / "autoencoder").iterdir()) == everything
    assert unstir.load(tmp_path / "own").sample(2).shape == (2, 3, 12, 10)
    shutil.copytree(autoencoder, tmp_path / "others" / "autoencoder")
    start = ["train", "latent", "--data", data, "--out", tmp_path / "others", *PLAN, *UNET]
    assert "is in the way" in said(*start, "--autoencoder", autoencoder)
    assert sorted(path.name for path in (tmp_path / "others" / "autoencoder").iterdir()) == everything
