"""A CLIP's life through the command line: trained, shown, resumed; guiding a model that knows no captions; judging samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import in_two_processes
from numeric import same_states
from runs import as_if_learnt, said, state_of, told_command

import unstir
from unstir.cli import run
from unstir.cli.arguments import spelled_out
from unstir.clip import WANTED, Clip
from unstir.data import DataConfig, load
from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.guidance import FunctionGuidance
from unstir.model import Model
from unstir.recipes import RECIPES
from unstir.run import Run, fetch
from unstir.samplers import DDPM
from unstir.trained import Trained
from unstir.training.retrieval import read_retrieval

SMALL = ["--network.width", "32", "--network.depth", "1", "--training.batch-size", "32"]
CLIP = ["--network", "mlp", "--denoiser.width", "16", "--denoiser.text-width", "32", "--denoiser.text-depth", "1"]
CPU = torch.device("cpu")
PLACES = {"to the right": (1.5, 0.0), "on top": (0.0, 1.5), "to the left": (-1.5, 0.0), "at the bottom": (0.0, -1.5)}


def train_clip(data: Path, out: Path, *words: str) -> None:
    run(["train", "clip", "--data", str(data), "--out", str(out), *CLIP, *SMALL, *words])


def clouds(path: Path, count: int, seed: int, *, captions: bool = True) -> Path:
    rng, numbers = np.random.default_rng(seed), np.arange(count) % 4
    x = np.array(list(PLACES.values()))[numbers] + 0.25 * rng.normal(size=(count, 2))
    columns = {"text": np.array(list(PLACES))[numbers]} if captions else {}
    np.savez(path, x=x.astype(np.float32), **columns)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clouds of points with captions; and other points of the same clouds."""
    folder = tmp_path_factory.mktemp("data")
    clouds(folder / "others.npz", 400, 1)
    clouds(folder / "silent.npz", 400, 0, captions=False)
    return clouds(folder / "clouds.npz", 400, 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """clip, other (of other points); plain, which knows no captions."""
    folder = tmp_path_factory.mktemp("runs")
    plan = ["--training.steps", "80", "--training.log-every", "20", "--training.held-out", "0"]
    train_clip(data, folder / "clip", *plan, "--training.learning-rate", "3e-3", "--training.sample-every", "40")
    train_clip(data.with_name("others.npz"), folder / "other", *plan, "--training.learning-rate", "3e-3")
    run(["train", "swiss-roll", "--data", str(data), "--out", str(folder / "plain"), *SMALL, "--training.steps", "200",
         "--training.learning-rate", "3e-3"])  # fmt: skip
    return folder


def share_right(x: np.ndarray, caption: str) -> float:
    nearest = np.linalg.norm(x[:, None] - np.array(list(PLACES.values())), axis=2).argmin(1)
    return float((nearest == list(PLACES).index(caption)).mean())


def test_it_learns_and_says_how_well(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_retrieval(Run(runs / "clip").retrieval_file)
    assert found is not None
    assert (found.of, found.samples, found.distinct) == ("training", 400, 4)
    assert found.captions[0.0][1] > 0.95  # the clouds hardly overlap
    assert found.pictures[0.0][1] == 1.0
    assert 0.2 < found.captions[3.0][1] < 0.7  # and nobody can tell them apart in so much noise
    assert found.chance_captions == {1: 0.25, 5: 1.0}
    assert found.chance_pictures[1] == pytest.approx(0.25)
    record = json.loads((runs / "clip" / "retrieval.json").read_text())
    assert record["step"] == 80
    assert record["captions"]["0.1"]["1"] == found.captions[0.1][1]
    rows = Run(runs / "clip").metrics()
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
    assert rows[-1]["scale"] != rows[0]["scale"]  # it is learned
    assert [row["step"] for row in rows if "training_retrieval[top 1, noise 0]" in row] == [40, 80]
    run(["info", str(runs / "clip")])
    info = capsys.readouterr().out
    assert "trained    clip (width 16" in info
    assert "captions   found for 400 training pictures among 4 captions: " in info
    assert "(chance 0.250)" in info
    words = told_command(info, "guide")
    assert words[:2] == ["sample", "RUN"]
    assert words[-1] in PLACES
    words[1] = str(runs / "plain")
    run([*words, "-n", "4", "--steps", "3", "--out", str(runs / "told.png")])  # the command works
    assert (runs / "told.png").is_file()


def test_held_out_samples_are_those_of_held_out_captions(data: Path, tmp_path: Path) -> None:
    from accelerate import Accelerator

    from unstir.recipes.serial import override
    from unstir.training.draw import held_out
    from unstir.training.session import Session

    config = DataConfig(source=str(data), text="bytes")
    changes = {"network": {"name": "mlp", "width": 16}, "data": {"source": str(data)}}
    dataset = load(config)
    session = Session(Run(tmp_path / "r"), "clip", override(RECIPES["clip"], changes), dataset, Accelerator(cpu=True))
    kept, away = ({dataset.captions[row] for row in rows} for rows in (session.rows, session.held_out))
    assert (len(kept), len(away)) == (3, 1)  # a tenth of four captions, at least one
    assert not kept & away
    assert sorted([*session.rows, *session.held_out]) == list(range(400))
    rows = np.arange(0, 60, 2)
    for share in (0.0, 0.1, 0.5):  # where each is alone, as it always was
        for one, other in zip(held_out(rows, share), held_out(rows, share, np.arange(30)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_only_samples_with_a_caption_are_trained_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = dict(np.load(data))
    archive["text"][::3] = ""
    np.savez(tmp_path / "gaps.npz", **archive)
    train_clip(tmp_path / "gaps.npz", tmp_path / "r", "--training.steps", "2", "--training.held-out", "0")
    found = read_retrieval(Run(tmp_path / "r").retrieval_file)
    assert found is not None
    assert found.samples == 400 - 134
    assert "134 of 400 samples have no caption" in capsys.readouterr().out


def test_resumed_is_the_run_that_never_stopped(data: Path, tmp_path: Path) -> None:
    plan = ["--training.decay", "constant", "--training.warmup", "0"]
    train_clip(data, tmp_path / "whole", *plan, "--training.steps", "12")
    train_clip(data, tmp_path / "cut", *plan, "--training.steps", "5")
    run(["train", "--resume", str(tmp_path / "cut"), "--training.steps", "12"])
    assert same_states(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))


def test_a_model_without_captions_draws_what_they_say(runs: Path, tmp_path: Path) -> None:
    words = ["sample", str(runs / "plain"), "-n", "100", "--batch-size", "100", "--steps", "12", "--seed", "1"]
    guided = ["--clip", str(runs / "clip"), "--clip-scale", "3"]
    for caption in ("on top", "to the left"):
        run([*words, *guided, "--text", caption, "--out", str(tmp_path / "x.npy")])
        assert share_right(np.load(tmp_path / "x.npy"), caption) > 0.9
    in_turn = ["--text", "on top", "--text", "at the bottom"]
    run([*words, "--clip-model", str(runs / "clip"), "--clip-scale=3", *in_turn, "--out", str(tmp_path / "x.npy")])
    x = np.load(tmp_path / "x.npy")
    assert min(share_right(x[::2], "on top"), share_right(x[1::2], "at the bottom")) > 0.9
    run([*words, "--no-clip", "--out", str(tmp_path / "free.npy")])  # the switch is a switch still
    assert share_right(np.load(tmp_path / "free.npy"), "on top") < 0.6
    with pytest.raises(UserError, match="takes no --text"):
        run([*words, "--text", "on top"])


def test_from_python(runs: Path) -> None:
    model = unstir.load(runs / "plain", CPU)
    settings = {"clip_model": str(runs / "clip"), "clip_scale": 3.0}
    x = model.sample(40, steps=12, text="to the right", **settings)
    assert share_right(x.numpy(), "to the right") > 0.9
    torch.testing.assert_close(x[:3], model.sample(3, steps=12, text="to the right", **settings), rtol=1e-4, atol=1e-4)
    nothing = model.sample(10, steps=12, text="", **settings)
    torch.testing.assert_close(nothing, model.sample(10, steps=12))
    with pytest.raises(UserError, match="guides by words"):
        model.sample(2, text=torch.full((2, 13), 97), **settings)
    clip = Run(runs / "clip").trained(CPU).module
    assert isinstance(clip, Clip)
    assert not clip.training
    like = clip.understood(["to the right", "to the left"]) @ clip.understood(["to the right", "at the bottom"]).mT
    assert float(like[0, 0]) == pytest.approx(1, abs=1e-5)
    assert like[1].max() < 0.99


def test_a_model_that_reads_captions_by_itself_is_told_them_in_its_own_letters(
    runs: Path, data: Path, tmp_path: Path
) -> None:
    archive = dict(np.load(data))
    archive["text"] = np.char.add(archive["text"], " of everything")  # longer ones: another shape
    np.savez(tmp_path / "long.npz", **archive)
    dataset, recipe = load(DataConfig(source=str(tmp_path / "long.npz"), text="bytes")), RECIPES["swiss-roll"]
    reader = recipe.denoiser.build(recipe.network, recipe.process, dataset.spec)
    reader.fit(dataset.samples(torch.arange(400)))
    model = Model.of(Trained(reader, dataset.spec, recipe, fetch))
    settings = model.settings(clip_model=str(runs / "clip"), clip_scale=3.0)
    cond = model.conditions({"text": ["on top", "to the left"]}, settings, 0, range(3))
    assert cond["text"].shape == (3, 27)
    assert bytes(cond["text"][1, :11].tolist()) == b"to the left"
    clip = model.fetched(str(runs / "clip")).module
    assert isinstance(clip, Clip)
    torch.testing.assert_close(cond[WANTED], clip.understood(["on top", "to the left", "on top"]))
    free, off, guided = (
        model.sample(12, steps=6, text="on top", clip_model=name, clip_scale=scale)
        for name, scale in (("", 1.0), (str(runs / "clip"), 0.0), (str(runs / "clip"), 3.0))
    )
    torch.testing.assert_close(off, free)
    assert not torch.allclose(guided, free, atol=0.1)
    wanted = {WANTED: clip.understood(["on top"] * 12)}
    process = model.denoiser.process

    def by_hand(denoiser: Denoiser) -> Denoiser:
        return FunctionGuidance(denoiser, lambda x, t, _: -clip.log_prob(x, t, wanted, process), 3.0, on="x_t")

    torch.testing.assert_close(model.sample(12, steps=6, text="on top", guide=by_hand), guided, rtol=1e-4, atol=1e-4)


def test_the_switch_and_the_run_are_told_apart() -> None:
    words = [
        "-n",
        "3",
        "--clip",
        "runs/x",
        "--clip",
        "--steps",
        "2",
        "--clip=y",
        "--clip-scale",
        "2",
        "--no-clip",
        "--clip",
    ]
    long = [
        "--n",
        "3",
        "--clip-model",
        "runs/x",
        "--clip",
        "--steps",
        "2",
        "--clip-model=y",
        "--clip-scale",
        "2",
        "--no-clip",
        "--clip",
    ]
    assert spelled_out(words) == long


def test_judged_by_the_clip_of_other_points(
    runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def judged(what: Path, *words: str) -> dict:
        capsys.readouterr()
        run(["evaluate", str(what), "--metrics", "retrieval", "--judge", str(runs / "other"), *words, "--json", "-"])
        found: dict = json.loads(capsys.readouterr().out)
        return found

    draw = ["-n", "120", "--steps", "12", "--batch-size", "60"]
    free = judged(runs / "plain", *draw)["retrieval"]
    assert 0.1 < free["value"] < 0.45
    assert free["chance"]["1"] == 0.25
    assert not free["told"]
    guided = judged(runs / "plain", *draw, "--clip", str(runs / "clip"), "--clip-scale", "3")["retrieval"]
    assert guided["value"] > 0.9
    assert guided["shuffled"]["1"] < 0.45
    assert guided["real"]["top"]["1"] > 0.95
    assert guided["told"]
    both = judged(
        runs / "plain", *draw, "--clip", str(runs / "clip"), "--clip-scale", "3", "--metrics", "fd", "retrieval"
    )
    assert both["retrieval"] == guided
    assert both["fd"]["n"] == 120
    file = judged(data, "--data", str(data.with_name("others.npz")))[
        "retrieval"
    ]  # a file, whose samples say what they show
    assert (file["n"], file["captions"]) == (400, 4)
    assert file["value"] > 0.95
    run(
        [
            "evaluate",
            str(data),
            "--data",
            str(data),
            "--metrics",
            "retrieval",
            "--judge",
            str(runs / "clip"),
            "-n",
            "40",
        ]
    )
    info = capsys.readouterr().out
    assert "40 samples and their captions" in info
    assert "may know pictures by heart" in info
    run(["info", str(runs / "plain")])
    assert "retrieval[" in capsys.readouterr().out


def test_two_processes(data: Path, tmp_path: Path) -> None:
    """They contrast halves of the batch, which is not what one does; but they measure the same of what they learned."""
    plan = ["--training.steps", "4", "--training.held-out", "0.5"]
    words = ["train", "clip", "--data", str(data), "--out", str(tmp_path / "two"), *CLIP, *SMALL, *plan]
    assert "on cpu x 2; " in in_two_processes("-m", "unstir", *words)
    found = read_retrieval(Run(tmp_path / "two").retrieval_file)
    assert found is not None
    run(["train", "--resume", str(tmp_path / "two")])  # nothing left to train: it is shown once more, by one process
    assert read_retrieval(Run(tmp_path / "two").retrieval_file) == found


def test_what_does_not_fit_is_told(runs: Path, data: Path, tmp_path: Path) -> None:
    plain, clip = str(runs / "plain"), str(runs / "clip")

    assert "holds no model that draws samples" in said("sample", clip)
    assert "is not a CLIP; train one" in said("sample", plain, "-n", "2", "--clip", plain)
    assert "there is no run folder" in said("sample", plain, "--clip", str(runs / "clop"))
    x = np.load(data)["x"]
    np.savez(tmp_path / "wide.npz", x=3 * x, text=np.load(data)["text"])
    train_clip(tmp_path / "wide.npz", tmp_path / "wide", "--training.steps", "1")
    assert "another mean or spread" in said("sample", plain, "-n", "2", "--clip", str(tmp_path / "wide"))
    train = ["train", "clip", "--network", "mlp", "--out", str(tmp_path / "r"), "--training.steps", "1", "--data"]
    assert "has no captions" in said(*train, str(data.with_name("silent.npz")))
    assert "--data.text bytes" in said(*train, str(data), "--data.text", "")
    np.savez(tmp_path / "one.npz", x=x, text=np.array(["the same"] * len(x)))
    assert "at least 2 different captions" in said(*train, str(tmp_path / "one.npz"))
    assert "does not train a clip" in said(*train, str(data), "--objective", "denoising")
    assert "judges samples" in said(*train, str(data), "--training.evaluate-every", "1")
    assert not (tmp_path / "r" / "recipe.toml").exists()
    evaluate = ["evaluate", plain, "--metrics", "retrieval", "-n", "4"]
    assert "--judge RUN" in said(*evaluate)
    assert "is not a CLIP" in said(*evaluate, "--judge", plain)


def test_pictures_with_the_encoder(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    """The recipe as it is, of pictures and signals; and a model of another process guided by it, in every way."""
    tiny = ["--network.channels", "8", "--training.steps", "2", "--training.batch-size", "8"]
    for kind in ("image", "signal"):
        run(["train", "clip", "--data", str(tiny_arrays[kind]), "--out", str(tmp_path / kind), *tiny])
    ddpm = ["train", "ddpm", "--out", str(tmp_path / "ddpm"), "--sampling.steps", "2"]
    run([*ddpm, "--data", str(tiny_arrays["image"]), *tiny])
    guided = [
        "--clip",
        str(tmp_path / "image"),
        "--clip-scale",
        "300",
        "--text",
        "a low one",
        "--steps",
        "3",
        "-n",
        "3",
    ]
    model = unstir.load(as_if_learnt(tmp_path / "ddpm"))
    asked = {"clip_model": str(as_if_learnt(tmp_path / "image")), "clip_scale": 300.0, "text": "a low one", "steps": 3}
    ways: list[tuple[list[str], dict[str, Any]]] = [
        ([], {}),
        (["--sampler", "ddpm", "--sampler.mean-shift"], {"sampler": DDPM(mean_shift=True)}),
        (["--label", "one"], {"label": "one"}),
    ]
    for words, how in ways:
        run(["sample", str(tmp_path / "ddpm"), *guided, *words, "--out", str(tmp_path / "x.npz")])
        found = np.load(tmp_path / "x.npz")["arr_0"]
        np.testing.assert_array_equal(found, model.spec.to_data(model.sample(3, **asked, **how)))
        unguided = model.spec.to_data(model.sample(3, steps=3, **how))
        assert (found != unguided).mean() > 0.1, "it makes no difference"
