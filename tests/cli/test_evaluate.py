"""`unstir evaluate` from words to numbers, and evaluation during training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from launch import in_two_processes
from PIL import Image

import unstir
from unstir.cli import run
from unstir.data.builtin import FASHION_FOLDER
from unstir.errors import UserError
from unstir.evaluation.frechet import frechet_distance
from unstir.evaluation.moments import Moments
from unstir.run import Run

SMALL = ["--network.width", "16", "--network.depth", "1", "--training.batch-size", "16"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSTIR_CACHE", str(tmp_path / "cache"))


def train(out: Path, data: Path, *words: str) -> None:
    run(["train", "swiss-roll", "--data", str(data), "--out", str(out), *SMALL, *words])


@pytest.fixture(scope="module")
def points_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "points"
    train(out, tiny_arrays["points"], "--training.steps", "30")
    return out


def judged(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    run(["evaluate", *map(str, words), "--json", "-"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_is_judged_by_the_samples_it_writes(
    points_run: Path, tiny_arrays: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same samples by way of a file, and by hand."""
    words = ["--steps", "4", "--seed", "3"]
    run(["sample", str(points_run), "-n", "40", *words, "--labels", "cycle", "--out", str(tmp_path / "s.npy")])
    plain = ["-n", "40", "--metrics", "fd", "kd", "--features", "coordinates"]
    direct = judged(points_run, *words, *plain, "--no-match-conditions", capsys=capsys)
    by_file = judged(tmp_path / "s.npy", "--data", tiny_arrays["points"], *plain, capsys=capsys)
    assert direct["fd"]["value"] == pytest.approx(by_file["fd"]["value"], rel=1e-5)
    data = unstir.load(points_run).spec
    x, y = (torch.from_numpy(a) for a in (np.load(tmp_path / "s.npy"), np.load(tiny_arrays["points"])["x"]))
    to_space = [(a - torch.tensor(data.offset)) / torch.tensor(data.scale) for a in (x, y)]
    by_hand = frechet_distance(*(Moments.of(a) for a in to_space))
    assert by_file["fd"]["value"] == pytest.approx(by_hand, rel=1e-4)
    assert (by_file["fd"]["features"], by_file["fd"]["n"], by_file["fd"]["reference_n"]) == ("coordinates", 40, 40)


def test_samples_are_asked_for_as_the_data_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine of ten samples are of class 0; a cycle through the labels would make it half."""
    from unstir.data import DataConfig, load
    from unstir.evaluation.samples import conditions_like

    y = (np.arange(50) % 10 == 0).astype(np.int64)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), y=y)
    data = load(DataConfig(source=str(tmp_path / "d.npz")))
    found = conditions_like(data, data.spec.conditions)
    assert sorted(found["label"].tolist()) == sorted(y.tolist())
    train(tmp_path / "r", tmp_path / "d.npz", "--training.steps", "5")
    words = [tmp_path / "r", "-n", "50", "--metrics", "fd", "--steps", "3"]
    assert judged(*words, capsys=capsys) != judged(*words, "--no-match-conditions", capsys=capsys)


def test_it_prints_records_and_info_shows_it(
    points_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["evaluate", str(points_run), "-n", "30", "--steps", "3", "--metrics", "fd", "neighbours", "--json", str(tmp_path / "e.json")])  # fmt: skip
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "FD[coordinates, n=30]" in line)
    assert "(real data: " in line
    assert "±" in line
    assert "warning: n=30 is few" in said
    found = json.loads((tmp_path / "e.json").read_text())
    assert set(found) == {"fd", "neighbours"}
    row = json.loads((points_run / "evaluation.jsonl").read_text().splitlines()[-1])
    assert row["results"] == found
    assert (row["settings"]["steps"], row["settings"]["seed"]) == (3, 0)
    assert row["hardware"] == "cpu"
    run(["info", str(points_run)])
    assert line.strip() in capsys.readouterr().out


def test_pictures_in_a_folder_and_in_a_file_are_one(
    tiny_arrays: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = np.load(tiny_arrays["image"])["x"]
    np.savez(tmp_path / "p.npz", arr_0=pictures[:30])
    (tmp_path / "folder").mkdir()
    for i, picture in enumerate(pictures[:30]):
        Image.fromarray(picture).save(tmp_path / "folder" / f"{i:03d}.png")
    words = ["--data", tiny_arrays["image"], "--features", "pixels"]
    by_file = judged(tmp_path / "p.npz", *words, "--metrics", "fd", "kid", capsys=capsys)
    by_folder = judged(tmp_path / "folder", *words, "--metrics", "fd", "kid", capsys=capsys)
    for name in ("fd", "kd"):
        assert by_folder[name]["value"] == pytest.approx(by_file[name]["value"], rel=1e-9)
    run(
        ["evaluate", str(tmp_path / "p.npz"), *map(str, words), "--metrics", "fd", "--out", str(tmp_path / "pairs.png")]
    )
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.size[0] > 8 * 90
    assert "nearest-neighbour distance / real" in capsys.readouterr().out  # every picture is a copy
    same = judged(tmp_path / "p.npz", *words, "--metrics", "neighbours", capsys=capsys)["neighbours"]
    assert (same["value"], same["closer_than_1_percent_of_real"]) == (0, 1)


@pytest.mark.skipif(not FASHION_FOLDER.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_a_test_split_is_judged_in_the_space_of_the_training_split(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A classifier that learnt the test labels would be another one."""
    from unstir.evaluation.features import own
    from unstir.networks.classifier import ClassifierConfig

    monkeypatch.setattr(own, "SEEN", 6400)
    monkeypatch.setattr(own, "NETWORK", ClassifierConfig((8, 16, 32)))
    plain = ["fashion-mnist", "-n", "100", "--reference-samples", "300", "--features", "own", "--metrics", "fd", "is"]
    run(["evaluate", *plain, "--data", "fashion-mnist", "--split", "test", "--json", "-"])
    said = capsys.readouterr()
    assert "training a classifier on 54,000 labelled samples" in said.err
    by_test = json.loads(said.out)
    assert by_test["fd"]["reference"] == "fashion-mnist (test)"
    run(["evaluate", *plain, "--data", "fashion-mnist", "--json", "-"])
    said = capsys.readouterr()
    assert "training a classifier" not in said.err
    by_train = json.loads(said.out)
    assert by_train["fd"]["features"] == by_test["fd"]["features"]
    assert by_train["is"]["value"] == by_test["is"]["value"] > 1  # of the samples alone


def test_mistakes(points_run: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    image, signal, one = tiny_arrays["image"], tiny_arrays["signal"], points_run
    for words, expected in (
        ([image], "with what? unstir evaluate"),
        (["--metrics", "fd"], "name what to judge first"),
        ([tmp_path / "nothing", "--data", image], "no data at"),
        ([one, "--metrics", "df"], "unknown metric 'df'; did you mean kd or fd"),
        ([image, "--data", image, "--metrics", "nll"], "is no run folder"),
        ([one, "-n", "1"], "cannot be judged by 1 sample"),
        ([one, "-n", "8", "--metrics", "is"], "needs a classifier's probabilities"),
        ([one, "-n", "8", "--features", "coordinate"], "did you mean coordinates"),
        ([one, "--stpes", "3"], "unknown option --stpes; did you mean --steps"),
        ([image, "--data", image, "--steps", "3"], "unknown option --steps"),
        ([image, "--data", signal, "--features", "spectrum"], "holds image of shape 12x10x3, uint8, and"),
        ([image, "--data", image, "-n", "41"], "holds 40 samples, fewer than -n 41"),
        ([one, "--out", "x.gif"], "a picture ends in .png, .webp"),
        ([one, "--out", "x.png"], "points have no picture of"),
        ([one, "--device", "abacus"], "unknown device 'abacus'"),
    ):
        with pytest.raises(UserError) as error:
            run(["evaluate", *map(str, words)])
        assert expected in str(error.value), words
        assert len(str(error.value).splitlines()) <= 2


def test_two_processes_find_what_one_does(points_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """31 samples, which two cannot share evenly; each with a cache of its own, so that both compute everything."""
    words = [
        "evaluate",
        str(points_run),
        "-n",
        "31",
        "--steps",
        "3",
        "--metrics",
        "fd",
        "kd",
        "pr",
        "neighbours",
        "--device",
        "cpu",
    ]
    run([*words, "--json", str(tmp_path / "one.json")])
    monkeypatch.setenv("UNSTIR_CACHE", str(tmp_path / "cache of two"))
    in_two_processes("-m", "unstir", *words, "--json", str(tmp_path / "two.json"))
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert json.loads((points_run / "evaluation.jsonl").read_text().splitlines()[-1])["hardware"] == "cpu x 2"

    def same(a: Any, b: Any) -> None:
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                same(a[key], b[key])
        else:
            assert b == (pytest.approx(a, rel=1e-6) if isinstance(a, float) else a)

    same(one, two)


EVALUATE = ["--training.evaluate-every", "8", "--training.evaluate-samples", "20"]


def test_evaluation_does_not_change_training(
    tiny_arrays: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["--training.steps", "20", "--training.log-every", "5", "--objective.dropout", "0.3"]
    train(tmp_path / "without", tiny_arrays["points"], *plan)
    capsys.readouterr()
    train(tmp_path / "with", tiny_arrays["points"], *plan, *EVALUATE)
    said = capsys.readouterr().out
    assert "evaluation: fd[coordinates, n=20] every 8 steps, about" in said
    assert "of the time of 8 training steps" in said
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step-000000020.pt", weights_only=True)
        for name in ("with", "without")
    ]
    for part in ("module", "averaged"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), name
    weights = [safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("with", "without")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = {row["step"]: row for row in Run(tmp_path / "with").metrics()}
    assert sorted(rows) == [5, 8, 10, 15, 16, 20]
    assert [step for step in sorted(rows) if "fd[coordinates, n=20]" in rows[step]] == [8, 16]
    run(["info", str(tmp_path / "with")])


def test_the_logged_distance_is_the_model_s(
    tiny_arrays: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the last step, what evaluating the finished run gives."""
    train(tmp_path / "r", tiny_arrays["points"], "--training.steps", "8", *EVALUATE)
    logged = Run(tmp_path / "r").metrics()[-1]["fd[coordinates, n=20]"]
    assert logged == pytest.approx(
        judged(tmp_path / "r", "-n", "20", "--metrics", "fd", capsys=capsys)["fd"]["value"], rel=1e-5
    )


def test_evaluation_does_not_count_as_training_time(
    tiny_arrays: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation of half a second every 8 steps leaves the clock of 24 fast steps far below one evaluation."""
    import time

    from unstir.evaluation.during import DuringTraining

    def slow(self: DuringTraining, model: object) -> dict[str, float]:
        time.sleep(0.5)
        return {"fd": 1.0}

    monkeypatch.setattr(DuringTraining, "__call__", slow)
    train(tmp_path / "r", tiny_arrays["points"], "--training.steps", "24", *EVALUATE)
    seconds = [row["seconds"] for row in Run(tmp_path / "r").metrics()]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 0.5
    run(["train", "--resume", str(tmp_path / "r"), "--training.steps", "48"])  # the clock goes on from where it was
    assert seconds[-1] < Run(tmp_path / "r").metrics()[-1]["seconds"] < 1


def test_two_processes_evaluate_while_they_train(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    plan = ["--training.steps", "8", *EVALUATE]
    train(tmp_path / "one", tiny_arrays["points"], *plan)
    words = ["train", "swiss-roll", "--data", str(tiny_arrays["points"]), "--out", str(tmp_path / "two"), *SMALL, *plan]
    assert "on cpu x 2; " in in_two_processes("-m", "unstir", *words)
    one, two = (Run(tmp_path / name).metrics()[-1]["fd[coordinates, n=20]"] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-3)
