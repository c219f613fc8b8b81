"""A noisy classifier's life through the command line, and other runs guided by it or by a worse model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numeric import same_states
from runs import said, state_of, told_command

import unstir
from unstir.cli import run
from unstir.errors import UserError
from unstir.guidance import FunctionGuidance
from unstir.noisy_classifier import NoisyClassifier
from unstir.run import Run, fetch
from unstir.training.checkpoint import Checkpoints

SMALL = ["--network.width", "16", "--network.depth", "1", "--training.batch-size", "16"]
CPU = torch.device("cpu")


def train_classifier(data: Path, out: Path, *words: str) -> None:
    run(["train", "classifier", "--network", "mlp", "--data", str(data), "--out", str(out), *SMALL, *words])


def train_points(data: Path, out: Path, *words: str) -> None:
    run(["train", "swiss-roll", "--data", str(data), "--out", str(out), *SMALL, *words])


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clouds of points, three apart, with names; some points are of no known class."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = rng.normal(size=(400, 2)) * 0.5 + np.where(y[:, None] == 1, [1.5, 0.0], [-1.5, 0.0])
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(path, x=x.astype(np.float32), y=y, classes=np.array(["left", "right"]))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, blobs: Path) -> Path:
    """classifier; model (with labels), plain (without)."""
    folder = tmp_path_factory.mktemp("runs")
    plan = ["--training.steps", "300", "--training.log-every", "50", "--training.sample-every", "150"]
    train_classifier(blobs, folder / "classifier", *plan, "--training.learning-rate", "3e-3")
    plan = ["--training.steps", "200", "--training.checkpoint-every", "50"]
    train_points(blobs, folder / "model", *plan)
    train_points(blobs, folder / "plain", *plan, "--data.no-labels")
    return folder


def test_it_learns_and_says_how_well(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((runs / "classifier" / "accuracy.json").read_text())
    assert (record["of"], record["samples"], record["step"]) == ("held-out", 40, 300)
    levels = {float(level): share for level, share in record["levels"].items()}
    assert levels[0.03] > 0.95  # the clouds hardly overlap
    assert levels[10.0] < 0.8  # and nobody can tell them apart in so much noise
    assert record["overall"] == pytest.approx(np.mean(list(levels.values())))
    rows = Run(runs / "classifier").metrics()
    assert rows[-1]["accuracy"] > rows[0]["accuracy"] - 0.05  # of training, by the objective
    assert [row["step"] for row in rows if "held_out_accuracy" in row] == [150, 300]
    assert rows[-1]["held_out_accuracy[0.1]"] == pytest.approx(levels[0.1])
    run(["info", str(runs / "classifier")])
    info = capsys.readouterr().out
    assert "trained    noisy-classifier" in info
    assert "of 40 held-out samples" in info
    assert "sampling" not in info
    words = told_command(info, "guide")
    assert words[:2] == ["sample", "RUN"]
    assert words[-2:] == ["--label", "left"]
    words[1] = str(runs / "plain")
    run([*words, "-n", "4", "--steps", "3", "--out", str(runs / "told.png")])  # the command works
    assert (runs / "told.png").is_file()


def test_held_out_samples_are_never_trained_on(blobs: Path, tmp_path: Path) -> None:
    """Whatever stands in their rows, the weights are the same."""
    from accelerate import Accelerator

    from unstir.data import DataConfig, load
    from unstir.recipes import RECIPES
    from unstir.recipes.serial import override
    from unstir.training.draw import Draw, held_out
    from unstir.training.session import Session

    dataset = load(DataConfig(source=str(blobs)))
    train, held = held_out(np.arange(400), 0.1)
    assert len(held) == 40
    assert sorted([*train, *held]) == list(range(400))
    recipe = override(RECIPES["classifier"], {"network": {"name": "mlp", "width": 16}, "data": {"source": str(blobs)}})
    session = Session(Run(tmp_path / "r"), "classifier", recipe, dataset, Accelerator(cpu=True))
    np.testing.assert_array_equal(session.rows, train)
    np.testing.assert_array_equal(session.held_out, held)
    draw = Draw(dataset, 400, 0, False, session.rows)
    batch = draw(0, list(range(360)), unstir.SampleNoise(0, range(360)))  # one epoch
    expected = dataset.batch(train)[0]
    torch.testing.assert_close(batch.x[batch.x[:, 0].argsort()], expected[expected[:, 0].argsort()])


def test_resumed_is_the_run_that_never_stopped(blobs: Path, tmp_path: Path) -> None:
    plan = ["--training.decay", "constant", "--training.warmup", "0"]
    train_classifier(blobs, tmp_path / "whole", *plan, "--training.steps", "12")
    train_classifier(blobs, tmp_path / "cut", *plan, "--training.steps", "5")
    run(["train", "--resume", str(tmp_path / "cut"), "--training.steps", "12"])
    assert same_states(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))


def share_right(x: np.ndarray, label: int) -> float:
    return float(((x[:, 0] > 0) == (label == 1)).mean())


@pytest.mark.parametrize("name", ["plain", "model"])
def test_an_unconditional_model_draws_what_the_classifier_wants(runs: Path, tmp_path: Path, name: str) -> None:
    words = ["sample", str(runs / name), "-n", "200", "--batch-size", "200", "--steps", "12", "--seed", "1"]
    guided = ["--classifier", str(runs / "classifier"), "--classifier-scale", "2"]
    for label in ("left", "right"):
        out = tmp_path / f"{label}.npy"
        run([*words, *guided, "--label", label, "--out", str(out)])
        assert share_right(np.load(out), ["left", "right"].index(label)) > 0.95
    run([*words, *guided, "--out", str(tmp_path / "cycle.npy")])  # each class in turn
    x = np.load(tmp_path / "cycle.npy")
    assert min(share_right(x[::2], 0), share_right(x[1::2], 1)) > 0.95
    if name == "plain":
        run([*words, "--out", str(tmp_path / "free.npy")])
        assert 0.3 < share_right(np.load(tmp_path / "free.npy"), 0) < 0.7
        with pytest.raises(UserError, match="takes no --label; it was trained without conditions"):
            run([*words, "--label", "left"])


def test_from_python(runs: Path) -> None:
    model = unstir.load(runs / "plain", CPU)
    settings = {"classifier": str(runs / "classifier"), "classifier_scale": 2.0}
    x = model.sample(50, steps=12, label="right", **settings)
    assert share_right(x.numpy(), 1) > 0.9
    assert torch.equal(x, model.sample(50, steps=12, label=1, batch_size=50, **settings))
    with pytest.raises(UserError, match="no class 'up'"):
        model.sample(2, label="up", **settings)

    def near_the_top(x_0: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        return (x_0[:, 1] - 0.8).square()

    free, pulled = (
        model.sample(50, steps=8, guide=guide)
        for guide in (None, lambda denoiser: FunctionGuidance(denoiser, near_the_top, 1.0))
    )
    assert (pulled[:, 1] - free[:, 1]).mean() > 0.3


def test_autoguidance_by_another_run_and_by_an_earlier_step(runs: Path) -> None:
    model = unstir.load(runs / "model", CPU)
    early = fetch(f"{runs / 'model'}@100", CPU)
    state = Checkpoints(runs / "model" / "checkpoints", 3).at(100)["averaged"]
    assert all(torch.equal(value, state[name]) for name, value in early.module.state_dict().items())
    plain = model.sample(8, steps=4, label=0)
    for name in (f"{runs / 'model'}@100", str(runs / "plain")):
        guided = model.sample(8, steps=4, label=0, autoguidance=name, autoguidance_scale=3.0)
        assert not torch.allclose(guided, plain, atol=1e-3)
        off = model.sample(8, steps=4, label=0, autoguidance=name, autoguidance_scale=1.0)
        torch.testing.assert_close(off, plain)
    itself = model.sample(8, steps=4, label=0, autoguidance=str(runs / "model"), autoguidance_scale=3.0)
    torch.testing.assert_close(itself, plain, rtol=1e-3, atol=1e-4)  # nothing to get away from
    # An unconditional model as the worse one is classifier-free guidance, up to what the two learnt.
    with pytest.raises(UserError, match=r"no checkpoint of step 7 in .*; of steps: 100, 150, 200"):
        model.sample(2, steps=2, autoguidance=f"{runs / 'model'}@7")


def test_what_does_not_fit_is_told(runs: Path, blobs: Path, tmp_path: Path, tiny_arrays: dict[str, Path]) -> None:
    model, classifier = str(runs / "model"), str(runs / "classifier")

    assert "holds no model that draws samples" in said("sample", classifier)
    assert "is not a classifier; train one" in said("sample", model, "-n", "2", "--classifier", model)
    assert "draws samples, so none" in said("sample", model, "-n", "2", "--autoguidance", classifier)
    assert "there is no run folder" in said("sample", model, "--classifier", str(runs / "clasifier"))
    assert "did you mean classifier?" in said("sample", model, "--classifier", str(runs / "clasifier"))
    assert "holds no model that draws samples" in said("evaluate", classifier, "-n", "4")
    x, y = np.load(blobs)["x"], np.load(blobs)["y"]
    np.savez(tmp_path / "other.npz", x=x, y=y, classes=np.array(["left", "up"]))
    np.savez(tmp_path / "wide.npz", x=3 * x, y=y, classes=np.array(["left", "right"]))
    np.savez(tmp_path / "deep.npz", x=np.repeat(x, 2, 1), y=y)
    for name, expected in (
        ("other", "knows another label than this model: left, up there, left, right here"),
        ("wide", "another mean or spread"),
        ("deep", "points of shape 4, and this model on points of shape 2"),
    ):
        train_classifier(tmp_path / f"{name}.npz", tmp_path / name, "--training.steps", "1")
        assert expected in said("sample", model, "-n", "2", "--classifier", str(tmp_path / name))
    np.save(tmp_path / "bare.npy", x)
    np.savez(tmp_path / "one.npz", x=x, y=np.zeros(len(x), int))
    train = ["train", "classifier", "--network", "mlp", "--out", str(tmp_path / "r"), "--training.steps", "1"]
    assert "a classifier learns classes, and bare comes without" in said(*train, "--data", str(tmp_path / "bare.npy"))
    assert "at least 2 classes" in said(*train, "--data", str(tmp_path / "one.npz"))
    assert "use --network mlp" in said("train", "classifier", "--data", str(blobs), "--out", str(tmp_path / "r"))
    assert "judges samples" in said(*train, "--data", str(blobs), "--training.evaluate-every", "1")
    mixed = ["--objective", "denoising"]
    assert "the objective denoising does not train a noisy-classifier" in said(*train, "--data", str(blobs), *mixed)
    mixed = [
        "train",
        "swiss-roll",
        "--data",
        str(blobs),
        "--out",
        str(tmp_path / "r"),
        "--denoiser",
        "noisy-classifier",
    ]
    assert "does not train a noisy-classifier" in said(*mixed)
    assert not (tmp_path / "r" / "recipe.toml").exists()


def test_pictures_with_the_encoder(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    """The recipe as it is, of pictures and signals; and a model of another process guided by it, in every way."""
    tiny = ["--network.channels", "8", "--training.steps", "2", "--training.batch-size", "8"]
    for kind in ("image", "signal"):
        run(["train", "classifier", "--data", str(tiny_arrays[kind]), "--out", str(tmp_path / kind), *tiny])
    trained = Run(tmp_path / "image").trained(CPU)
    assert isinstance(trained.module, NoisyClassifier)
    assert not trained.module.training
    ddpm = ["train", "ddpm", "--out", str(tmp_path / "ddpm"), "--sampling.steps", "2"]
    run([*ddpm, "--data", str(tiny_arrays["image"]), *tiny])
    guided = ["--classifier", str(tmp_path / "image"), "--label", "one", "--steps", "3", "-n", "3"]
    for how in ([], ["--sampler", "ddpm", "--sampler.mean-shift"], ["--dynamic-threshold", "99.5"]):
        run(["sample", str(tmp_path / "ddpm"), *guided, *how, "--out", str(tmp_path / "x.npz")])
        assert np.load(tmp_path / "x.npz")["arr_0"].shape == (3, 12, 10, 3)
    shutil.rmtree(tmp_path / "image")
    with pytest.raises(UserError, match="there is no run folder"):
        run(["sample", str(tmp_path / "ddpm"), *guided])
