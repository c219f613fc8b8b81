"""`unstir evaluate --metrics nll`, `unstir compress` and `decompress`, and what was believed on the way, from words to files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import in_two_processes
from numeric import same_states
from PIL import Image

import unstir
from unstir.cli import run
from unstir.compression import HEAD
from unstir.errors import UserError

SMALL = ["--network.width", "16", "--network.depth", "1", "--training.batch-size", "16"]
TINY = ["--network.channels", "8", "--network.blocks", "1", "--training.batch-size", "4"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSTIR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def points_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("likelihood") / "points"
    run(
        [
            "train",
            "swiss-roll",
            "--data",
            str(tiny_arrays["points"]),
            "--out",
            str(out),
            *SMALL,
            "--training.steps",
            "60",
        ]
    )
    return out


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("likelihood") / "image"
    run(["train", "improved-ddpm", "--data", str(tiny_arrays["image"]), "--out", str(out), *TINY, "--training.steps", "30",
         "--training.learning-rate", "2e-3"])  # fmt: skip
    return out


def judged(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    run(["evaluate", *map(str, words), "--metrics", "nll", "--json", "-"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["nll"]
    return found


# ---- evaluate ----------------------------------------------------------------------------------------------------------------


def test_both_methods_on_points(points_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ode = judged(points_run, "-n", "40", capsys=capsys)
    bound = judged(
        points_run, "-n", "40", "--nll-method", "variational", "--nll-terms", "0", "--nll-steps", "200", capsys=capsys
    )
    assert (ode["method"], bound["method"], ode["n"], ode["given"]) == ("ode", "variational", 40, ["label"])
    assert ode["held_out"] is False
    for found in (ode, bound):
        assert found["nats"] == pytest.approx(2 * math.log(2) * found["bits_per_dim"])
        assert 0.01 < found["error"] < 1
    assert bound["nats"] > ode["nats"]
    assert sum(bound["terms"].values()) == pytest.approx(bound["bits_per_dim"], rel=1e-6)
    rates, errors = zip(*bound["rate_distortion"], strict=True)
    assert list(rates) == sorted(rates)
    assert errors[-1] < errors[0]


def test_the_numbers_are_those_of_the_library(
    points_run: Path, tiny_arrays: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from unstir.likelihood import log_volume, ode_likelihood

    found = judged(points_run, "-n", "40", "--no-match-conditions", "--batch-size", "7", capsys=capsys)
    model = unstir.load(points_run, "cpu")
    x = model.spec.to_model(np.load(tiny_arrays["points"])["x"])
    model.denoiser.autocast = None
    nats = log_volume(model.spec) - ode_likelihood(model.denoiser, x, None).log_prob
    assert found["nats"] == pytest.approx(float(nats.mean()), abs=1e-3)
    assert found["given"] == []


def test_it_prints_records_and_info_shows_it(points_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["evaluate", str(points_run), "-n", "12", "--steps", "3", "--metrics", "fd", "nll"])
    said = capsys.readouterr().out
    assert "FD[coordinates, n=12]" in said
    line = next(line for line in said.splitlines() if "nll[ode, " in line)
    assert " bits/dim, " in line
    assert "warning: nll on the data that the model was trained on" in said
    row = json.loads((points_run / "evaluation.jsonl").read_text().splitlines()[-1])
    assert set(row["results"]) == {"fd", "nll"}
    run(["info", str(points_run)])
    assert line.strip() in capsys.readouterr().out


def test_pictures(image_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fixed and learned variances are bounds of other chains; whatever is looked at, they agree with themselves."""
    words = [image_run, "-n", "8", "--nll-method", "variational", "--nll-steps", "50"]
    learned = judged(*words, "--nll-terms", "0", capsys=capsys)
    fixed = judged(*words, "--nll-terms", "0", "--nll-noise", "posterior", capsys=capsys)
    assert learned["bits_per_dim"] != fixed["bits_per_dim"]
    some = judged(*words, "--nll-terms", "25", "--nll-repeats", "2", capsys=capsys)
    assert some["bits_per_dim"] == pytest.approx(learned["bits_per_dim"], rel=0.2)
    assert some["settings"]["repeats"] == 2
    ode = judged(image_run, "-n", "4", "--nll-tolerance", "1e-3", capsys=capsys)
    assert 0 < ode["bits_per_dim"] < 40


def test_a_test_split_is_taken_where_there_is_one() -> None:
    from unstir.cli.likelihood import data_to_judge
    from unstir.data import DataConfig

    assert data_to_judge(DataConfig(source="fashion-mnist"), asked=False).split == "test"
    assert data_to_judge(DataConfig(source="fashion-mnist"), asked=True).split == "train"
    assert data_to_judge(DataConfig(source="digits"), asked=False).split == "train"
    assert data_to_judge(DataConfig(source="fashion-mnist", split="train-2"), asked=False).split == "train-2"


def test_two_processes_find_what_one_does(points_run: Path, tmp_path: Path) -> None:
    """Eleven samples, which two cannot share evenly."""
    words = ["evaluate", str(points_run), "-n", "11", "--metrics", "nll", "--device", "cpu", "--nll-method", "variational", "--nll-steps", "9", "--nll-terms", "0"]  # fmt: skip
    run([*words, "--json", str(tmp_path / "one.json")])
    in_two_processes("-m", "unstir", *words, "--json", str(tmp_path / "two.json"))
    one, two = (json.loads((tmp_path / f"{name}.json").read_text())["nll"] for name in ("one", "two"))
    for key in ("bits_per_dim", "nats", "error"):
        assert two[key] == pytest.approx(one[key], rel=1e-5)
    assert two["rate_distortion"] == [pytest.approx(row, abs=1e-4) for row in one["rate_distortion"]]


def test_mistakes(points_run: Path, image_run: Path, tiny_arrays: dict[str, Path]) -> None:
    for words, expected in (
        ([points_run, "--nll-tolerance", "0"], "--nll-tolerance must be positive"),
        ([points_run, "--nll-probes", "0"], "--nll-probes must be at least 1"),
        ([points_run, "--nll-terms", "-1"], "--nll-terms must be at least 0"),
        ([points_run, "--nll-method", "exact"], "ode"),
        ([points_run, "--nll-noise", "learned", "--nll-method", "variational"], "learn-variance"),
        ([points_run, "-n", "41"], "holds 40 samples, fewer than -n 41"),
        ([points_run, "--data", tiny_arrays["signal"]], "cannot be compared"),
        ([points_run, "--device", "abacus"], "unknown device 'abacus'"),
    ):
        with pytest.raises(UserError) as error:
            run(["evaluate", *map(str, words), "--metrics", "nll"])
        assert expected in str(error.value), words
        assert len(str(error.value).splitlines()) <= 2


# ---- compress ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "one.png"
    Image.fromarray(np.load(tiny_arrays["image"])["x"][0]).save(path)
    return path


FAST = ["--window", "6", "--steps", "24"]


def test_there_and_back(image_run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "one.bin"
    run(["compress", str(image_run), "--image", str(picture), "--rate", "0.5", "--out", str(out), *FAST])
    said = capsys.readouterr().out
    size = out.stat().st_size
    assert f"{out}: {size} bytes" in said
    assert 12 < size <= 12 + math.ceil(0.5 * 360 / 8)
    command = said.splitlines()[-1].split()
    assert command[:2] == ["unstir", "decompress"]
    run(command[1:])
    with Image.open(tmp_path / "one.png") as written, Image.open(picture) as original:
        difference = np.asarray(written).astype(float) - np.asarray(original).astype(float)
    told = float(said.split("root-mean-square error ")[1].split()[0])
    assert math.sqrt((difference**2).mean()) == pytest.approx(told, abs=0.5)  # rounding to bytes
    run(["decompress", str(image_run), str(out), "--finish", "sample", "--out", str(tmp_path / "other.png")])
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "one.png").read_bytes()
    again = tmp_path / "again.bin"
    run(["compress", str(image_run), "--image", str(picture), "--rate", "0.5", "--out", str(again), *FAST])
    assert again.read_bytes() == out.read_bytes()


def test_rates_and_errors(image_run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for words in (["--rate", "0.2"], ["--rate", "1"], ["--rate", "0", "--error", "40"]):
        out = tmp_path / f"{len(sizes)}.bin"
        run(["compress", str(image_run), "--image", str(picture), "--out", str(out), *FAST, *words])
        sizes.append(out.stat().st_size)
    assert sizes[0] < sizes[1]
    assert sizes[0] <= 12 + math.ceil(0.2 * 360 / 8)


def test_a_file_is_only_read_by_its_model(
    image_run: Path, picture: Path, tiny_arrays: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "one.bin"
    run(["compress", str(image_run), "--image", str(picture), "--out", str(out), *FAST])
    good = out.read_bytes()
    other = tmp_path / "other"
    run(
        [
            "train",
            "improved-ddpm",
            "--data",
            str(tiny_arrays["image"]),
            "--out",
            str(other),
            *TINY,
            "--training.steps",
            "2",
        ]
    )
    flipped = bytearray(good)
    flipped[-1] ^= 1
    newer = bytearray(good)
    newer[2] = 9
    for model, data, expected in (
        (other, good, "written with another model"),
        (image_run, bytes(flipped), "is damaged"),
        (image_run, good[:-2], "is damaged"),
        (image_run, good[: HEAD.size - 1], "not a file that unstir compress wrote"),
        (image_run, picture.read_bytes(), "not a file that unstir compress wrote"),
        (image_run, bytes(newer), "of version 9"),
    ):
        (tmp_path / "x.bin").write_bytes(data)
        with pytest.raises(UserError, match=expected) as error:
            run(["decompress", str(model), str(tmp_path / "x.bin")])
        assert "x.bin" in str(error.value)


def test_points_too(points_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = np.array([0.4, 1.2], np.float32)
    np.save(tmp_path / "point.npy", point)
    run(["compress", str(points_run), "--image", str(tmp_path / "point.npy"), "--rate", "0", "--window", "4"])
    told = float(capsys.readouterr().out.split("root-mean-square error ")[1].split()[0])
    run(["decompress", str(points_run), str(tmp_path / "point.bin"), "--out", str(tmp_path / "back.npy")])
    back = np.load(tmp_path / "back.npy")
    assert back.shape == (1, 2)
    assert math.sqrt(((back[0] - point) ** 2).mean()) == pytest.approx(told, rel=1e-3)
    assert told < 0.5 * float(np.std(unstir.load(points_run, "cpu").sample(64).numpy()))  # it is that point, not any


def test_the_curve(image_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["compress", str(image_run), "--curve", str(tmp_path / "c.json"), "-n", "2", *FAST])
    assert "bound for this error" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    assert len(found["bound"]) == 24
    rates = [rate for rate, _ in found["coder"]]
    assert rates == sorted(rates)
    assert all(rate <= most for rate, most in zip(rates, (0.1, 0.2, 0.5, 1, 2), strict=True))
    run(["compress", str(image_run), "--curve", str(tmp_path / "c.png"), "-n", "1", *FAST])
    with Image.open(tmp_path / "c.png") as drawn:
        assert drawn.size[0] > 600


def test_mistakes_of_compression(image_run: Path, picture: Path, tmp_path: Path) -> None:
    for words, expected in (
        (["compress", image_run], "compress what?"),
        (["compress"], None),
        (["compress", "--image", picture], "name the run folder first"),
        (["compress", image_run, "--image", tmp_path / "none.png"], "no file"),
        (["compress", image_run, "--image", picture, "--window", "30"], "between 2 and 16"),
        (["compress", image_run, "--image", picture, "--rate", "-1"], "must not be negative"),
        (["compress", image_run, "--curve", "c.txt"], "ends in .png"),
        (["decompress", image_run], "name the run folder and the file"),
        (["decompress", image_run, tmp_path / "none.bin"], "cannot read"),
    ):
        if expected is None:
            run([str(word) for word in words])
            continue
        with pytest.raises(UserError, match=expected):
            run([str(word) for word in words])


# ---- what was believed -------------------------------------------------------------------------------------------------------


def test_beliefs(image_run: Path, points_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", str(image_run), "-n", "3", "--steps", "6"]
    run([*words, "--beliefs", "--out", str(tmp_path / "strip.png")])
    model = unstir.load(image_run, "cpu")
    settings = model.settings(steps=6)
    steps = list(model.trajectory(range(3), settings))
    columns = [model.spec.to_data(step.prediction.x_0) for step in steps] + [model.spec.to_data(steps[-1].x_s)]
    with Image.open(tmp_path / "strip.png") as strip:
        pixels = np.asarray(strip)
    scale = (pixels.shape[1] - 2) // len(columns) // 10
    assert pixels.shape[0] == 2 + 3 * (12 * scale + 2)
    for row in range(3):
        for column, x in enumerate(columns):
            top, left = 2 + row * (12 * scale + 2), 2 + column * (10 * scale + 2)
            np.testing.assert_array_equal(
                pixels[top : top + 12 * scale : scale, left : left + 10 * scale : scale], x[row]
            )
    run([*words, "--beliefs", "--out", str(tmp_path / "b.gif")])
    run([*words, "--out", str(tmp_path / "x.gif")])
    assert (tmp_path / "b.gif").read_bytes() != (tmp_path / "x.gif").read_bytes()
    run(["sample", str(points_run), "-n", "3", "--steps", "3", "--beliefs", "--out", str(tmp_path / "p.gif")])
    for arguments in ([image_run, "--out", tmp_path / "x.npz"], [points_run, "--out", tmp_path / "x.png"]):
        with pytest.raises(UserError, match="--beliefs draws pictures in a row"):
            run(["sample", *map(str, arguments), "-n", "2", "--beliefs"])


def test_a_resumed_run_remembers_its_losses(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    """L_vlb with importance sampling on a chain of three steps, which were all drawn ten times by the tenth step."""
    words = ["--data", str(tiny_arrays["image"]), *TINY, "--process.steps", "3"]
    for name, steps in (("whole", 16), ("half", 11)):
        run(["train", "improved-ddpm-vlb", *words, "--out", str(tmp_path / name), "--training.steps", str(steps), "--training.decay", "constant", "--training.warmup", "0"])  # fmt: skip
    run(["train", "--resume", str(tmp_path / "half"), "--training.steps", "16"])
    whole, half = (
        torch.load(tmp_path / name / "checkpoints" / "step-000000016.pt", weights_only=True)
        for name in ("whole", "half")
    )
    assert int(whole["companion"]["counts"].min()) == 10
    assert same_states(whole, half)


def test_hybrid_runs_log_their_parts(image_run: Path) -> None:
    row = json.loads((image_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["loss"] == pytest.approx(row["simple"] + 0.001 * row["vlb"], rel=1e-4)
    recipe = (image_run / "recipe.toml").read_text()
    assert f"bin_width = {1 / 127.5}" in recipe
    assert torch.isfinite(unstir.load(image_run, "cpu").sample(2, steps=3)).all()
