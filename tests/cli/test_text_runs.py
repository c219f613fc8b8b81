"""Models of captions through the command line: train, info, sample by captions, evaluate by the data's."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import told_command

import unstir
from unstir.cli import run
from unstir.data import DataConfig, load
from unstir.errors import UserError
from unstir.evaluation.nll import conditions_of
from unstir.evaluation.samples import order
from unstir.model import Model

SMALL = ["--network.width", "32", "--network.depth", "2", "--training.batch-size", "40", "--sampling.steps", "6"]


def train(out: Path, data: Path, *words: str) -> None:
    """A few steps."""
    run(["train", "swiss-roll", "--data", str(data), "--out", str(out), *SMALL, "--training.steps", "6", *words])


LEFT, RIGHT = "left", "right"


def points(path: Path, shift: float = 0.0) -> Path:
    """Two clumps, and captions that say which; the tenth of each ten samples has none."""
    rng = np.random.default_rng(0)
    side = np.arange(80) % 2
    x = rng.normal(0, 0.3, (80, 3)) + np.stack([4.0 * side - 2 + shift, *np.zeros((2, 80))], 1)
    text = np.array([LEFT, RIGHT])[side]
    text[9::10] = ""
    np.savez(path, x=x.astype(np.float32), y=side, text=text)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data") / "points.npz")


@pytest.fixture(scope="module")
def text_run(data: Path) -> Path:
    out = data.parent / "run"
    train(out, data, "--data.text", "bytes", "--data.no-labels", "--training.learning-rate", "0.1")
    return out


@pytest.fixture(scope="module")
def both_run(data: Path) -> Path:
    """Of classes and captions. What training said lies beside it."""
    with (data.parent / "said").open("w") as file, contextlib.redirect_stdout(file):
        train(data.parent / "both", data, "--data.text", "bytes")
    return data.parent / "both"


@pytest.fixture(scope="module")
def model(text_run: Path) -> Model:
    return unstir.load(text_run)


def test_training_says_what_it_reads(both_run: Path) -> None:
    said = (both_run.parent / "said").read_text()
    assert "8 of 80 samples have no caption, and train without one" in said
    assert "label (2 classes), text (bytes)" in said


def test_classes_and_captions_never_contradict_each_other(both_run: Path, tmp_path: Path) -> None:
    both = unstir.load(both_run)
    settings = both.recipe.sampling

    def told(**given: Any) -> tuple[list[int], list[str]]:
        label = both.conditions(given, settings, 0, range(2))["label"].tolist()
        return label, both.captions(given, settings, 0, range(2))["text"]

    assert told() == ([-1, -1], [LEFT, RIGHT])
    assert told(label=1) == ([1, 1], ["", ""])
    assert told(text=LEFT) == ([-1, -1], [LEFT, LEFT])
    assert told(text=LEFT, label=[0, 1]) == ([0, 1], [LEFT, LEFT])
    run(["sample", str(both_run), "--label", "1", "-n", "4", "--steps", "2", "--out", str(tmp_path / "x.npz")])
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["label"].tolist() == [1] * 4
        assert "text" not in archive


def test_info_shows_captions_and_commands_that_work(
    text_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["info", str(text_run)])
    info = capsys.readouterr().out
    assert f'--text     a caption, of at most 5 tokens (bytes), such as "{LEFT}", "{RIGHT}"' in info
    words = told_command(info, "sample")
    assert words[words.index("--text") + 1] == LEFT
    run(words)
    assert (tmp_path / "samples.png").is_file()


def test_captions_on_the_command_line(text_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.npz")
    run(["sample", str(text_run), "--text", RIGHT, f"--text={LEFT}", "-n", "5", "--steps", "6", "--out", out])
    with np.load(out) as archive:
        assert archive["text"].tolist() == [RIGHT, LEFT, RIGHT, LEFT, RIGHT]
        assert "label" not in archive
        by_python = unstir.load(text_run).sample(5, text=[RIGHT, LEFT], steps=6)
        np.testing.assert_allclose(archive["arr_0"], by_python.numpy(), rtol=1e-5)
    assert load(DataConfig(source=out)).captions == [RIGHT, LEFT, RIGHT, LEFT, RIGHT]
    run(["sample", str(text_run), "--steps", "2", "--out", out])
    with np.load(out) as archive:
        assert sorted(set(archive["text"].tolist())) == [LEFT, RIGHT]
    capsys.readouterr()
    run(["sample", str(text_run), "--text", "a caption that is far too long", "-n", "1", "--steps", "2", "--out", out])
    assert "longer than the 5 tokens of a caption that this model reads, and cut: a caption that is far too long" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("labels", [True, False])
def test_a_model_that_does_not_read_captions_refuses_them(data: Path, tmp_path: Path, labels: bool) -> None:
    words = [] if labels else ["--data.no-labels"]
    train(tmp_path / "r", data, *words)
    expected = (
        "it takes --label; its data have captions, which training reads with --data.text" if labels else "without cond"
    )
    for word in (["--text", "x"], ["--text=x"]):
        with pytest.raises(UserError, match=f"takes no --text; .*{expected}"):
            run(["sample", str(tmp_path / "r"), *word])
    with pytest.raises(UserError, match="trained without its data's captions" if labels else "no condition 'text'"):
        unstir.load(tmp_path / "r").sample(1, text="x")


def test_evaluation_asks_for_the_datas_own_captions(text_run: Path, model: Model, data: Path, tmp_path: Path) -> None:
    def judged(what: Path, reference: Path, *words: str) -> float:
        words = ("--data", str(reference), "--metrics", "fd", "-n", "40", *words)
        run(["evaluate", str(what), *words, "--json", str(tmp_path / "e.json")])
        return float(json.loads((tmp_path / "e.json").read_text())["fd"]["value"])

    def drawn(name: str, text: list[str]) -> Path:
        np.savez(tmp_path / name, x=model.sample(40, steps=4, text=text).numpy())
        return tmp_path / name

    other = points(tmp_path / "other.npz", shift=0.1)
    captions = np.load(data)["text"][order(80)[:40]].tolist()
    asked, unasked = drawn("asked.npz", captions), drawn("unasked.npz", [""] * 40)
    for reference in (data, other):  # the captions of other data mean the same
        found = judged(text_run, reference, "--steps", "4")
        assert found == pytest.approx(judged(asked, reference), rel=1e-4)
        free = judged(text_run, reference, "--steps", "4", "--labels", "none", "--no-match-conditions")
        assert free == pytest.approx(judged(unasked, reference), rel=1e-4)
        assert free != pytest.approx(found, rel=1e-3)
    np.savez(tmp_path / "silent.npz", x=np.load(data)["x"])  # data without captions can be compared with, too
    found = judged(text_run, tmp_path / "silent.npz", "--steps", "4")
    in_turn = drawn("in turn.npz", [LEFT, RIGHT] * 20)
    assert found == pytest.approx(judged(in_turn, tmp_path / "silent.npz"), rel=1e-4)


def test_likelihood_is_told_the_captions(text_run: Path, model: Model, data: Path, tmp_path: Path) -> None:
    dataset = load(DataConfig(source=str(data)))
    given = conditions_of(dataset, model.spec)
    assert list(given) == ["text"]
    rows = torch.tensor([9, 0])
    assert torch.equal(
        given["text"][rows], model.conditions({"text": ["", LEFT]}, model.recipe.sampling, 0, [0, 1])["text"]
    )
    bits = []
    for words in ([], ["--no-match-conditions"]):
        run(
            [
                "evaluate",
                str(text_run),
                "--metrics",
                "nll",
                "-n",
                "6",
                "--nll-tolerance",
                "0.05",
                "--json",
                str(tmp_path / "n.json"),
                *words,
            ]
        )
        found = json.loads((tmp_path / "n.json").read_text())["nll"]
        assert found["given"] == ([] if words else ["text"])
        bits.append(found["nats"])
    assert bits[0] != bits[1]


def test_text_runs_go_on_and_are_edited(text_run: Path, both_run: Path, tmp_path: Path, data: Path) -> None:
    one = tmp_path / "one.npy"
    np.save(one, np.load(data)["x"][0])
    for text in (LEFT, RIGHT):
        run(["edit", "image-to-image", str(text_run), "--image", str(one), "--text", text, "--steps", "4",
             "--out", str(tmp_path / f"{text}.npy")])  # fmt: skip
    assert not np.allclose(np.load(tmp_path / f"{LEFT}.npy"), np.load(tmp_path / f"{RIGHT}.npy"))
    copy = tmp_path / "copy"
    shutil.copytree(both_run, copy)
    run(["train", "--resume", str(copy), "--training.steps", "8"])
    with pytest.raises(UserError, match="not what"):
        run(["train", "--resume", str(copy), "--data.text", ""])
