"""Runs that compute conditions from their samples, through the command line: asked by pictures, shown, judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import UNET, as_if_learnt, picture, said

import unstir
from unstir.cli import run
from unstir.data import DataConfig, load
from unstir.evaluation.samples import RunSource, order
from unstir.likeness import rows_showing

PLAN = ["--training.steps", "3", "--sampling.steps", "3", *UNET, "--training.batch-size", "4"]


@pytest.fixture(scope="module")
def edges_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("derived") / "edges"
    run(["train", "edm", "--data", str(tiny_arrays["image"]), "--out", str(out), *PLAN, "--derived", "edges"])
    # A few steps teach a network little of its conditions: weights as if it had learnt something of them.
    as_if_learnt(out)
    return out


@pytest.fixture(scope="module")
def enlarging_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    """A stage with none below it."""
    out = tmp_path_factory.mktemp("derived") / "low-res"
    run(["train", "edm", "--data", str(tiny_arrays["image"]), "--out", str(out), *PLAN, "--derived", "low-res"])
    return out


def test_samples_like_a_picture(edges_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = picture(tmp_path / "a.png", 12, 10, 3)
    run(["sample", str(edges_run), "-n", "2", "--image", "a.png", "--out", "x.npz"])
    model = unstir.load(edges_run)
    x_0 = model.spec.to_model(pixels[None])
    edges = model.recipe.derived.given(x_0, model.spec)["edges"]
    found = np.load("x.npz")["arr_0"]
    np.testing.assert_array_equal(found, model.spec.to_data(model.sample(2, edges=edges)))
    assert (found != model.spec.to_data(model.sample(2))).mean() > 0.1, "the edges make no difference"
    # The map itself: as an array exactly, as a picture up to its bytes.
    np.save("e.npy", edges[0].numpy())
    run(["sample", str(edges_run), "-n", "2", "--edges", "e.npy", "--out", "y.npz"])
    np.testing.assert_array_equal(np.load("y.npz")["arr_0"], found)
    Image.fromarray((edges[0, 0] * 255).round().byte().numpy()).save("e.png")
    run(["sample", str(edges_run), "-n", "2", "--edges", "e.png", "--out", "z.npz"])
    assert np.abs(np.load("z.npz")["arr_0"].astype(int) - found).mean() < 2


def test_pictures_of_another_size_are_fitted_as_a_line_says(
    edges_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "large.png", 24, 40, 3)
    picture(tmp_path / "map.png", 9, 40)
    for words, size in (
        (["--image", "large.png"], "large.png is 40 x 24"),
        (["--edges", "map.png"], "map.png is 40 x 9"),
    ):
        run(["sample", str(edges_run), "-n", "1", *words, "--out", "x.npz"])
        assert f"{size}, the data are 10 x 12: scaled" in capsys.readouterr().out
    picture(tmp_path / "right.png", 12, 10)
    run(["sample", str(edges_run), "-n", "1", "--edges", "right.png", "--out", "x.npz"])
    assert "the data are" not in capsys.readouterr().out


def test_several_pictures_are_taken_in_turn(edges_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many").mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / "many" / f"{i}.png")
    np.savez("many.npz", arr_0=pixels)
    np.save("many.npy", pixels)
    images = [word for i in range(3) for word in ("--image", f"many/{i}.png")]
    found = []
    for words in (["--image", "many"], ["--image", "many.npz"], ["--image=many.npy"], images):
        run(["sample", str(edges_run), "-n", "4", *words, "--label", "one", "--out", "x.npz"])
        found.append(np.load("x.npz")["arr_0"])
    assert all(np.array_equal(found[0], other) for other in found)
    model = unstir.load(edges_run)
    edges = model.recipe.derived.given(model.spec.to_model(pixels), model.spec)["edges"]
    np.testing.assert_array_equal(found[0], model.spec.to_data(model.sample(4, edges=edges, label="one")))


def test_what_files_cannot_be(edges_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.save("wrong.npy", np.zeros((1, 4, 4), dtype=np.float32))
    Path("broken.npz").write_bytes(b"PK")
    np.save("none.npy", np.zeros((0, 12, 10, 3), dtype=np.uint8))
    assert "there is no file nothing.png" in said("sample", edges_run, "--image", "nothing.png")
    assert "there is no file nothing.npz" in said("sample", edges_run, "--image", "nothing.npz")
    assert "cannot read broken.npz" in said("sample", edges_run, "--image", "broken.npz")
    assert "empty holds no pictures" in said("sample", edges_run, "--image", "empty")
    assert "none.npy holds no samples" in said("sample", edges_run, "--image", "none.npy")
    assert "has the shape (1, 4, 4); --edges takes (1, 12, 10)" in said("sample", edges_run, "--edges", "wrong.npy")
    assert "has the shape (1, 4, 4)" in said("sample", edges_run, "--image", "wrong.npy")


# ---- shown and judged beside the data --------------------------------------------------------------------------------


def test_samples_are_judged_by_what_the_data_s_own_say(edges_run: Path, tiny_arrays: dict[str, Path]) -> None:
    model = unstir.load(edges_run)
    dataset = load(DataConfig(source=str(tiny_arrays["image"])))
    numbers = [41, 2, 7]  # of 40 samples, in their random order
    found = RunSource("x", model, model.recipe.sampling, 0, dataset).draw(numbers)
    rows = order(40)[[1, 2, 7]]
    x_0, cond = dataset.batch(rows)
    edges = model.recipe.derived.given(x_0, model.spec)["edges"]
    for number, row, label, own in zip(numbers, found, cond["label"], edges):
        steps = list(model.trajectory([number], edges=own, label=int(label)))
        expected = model.spec.to_data(steps[-1].x_s)[0]
        assert np.abs(row.astype(int) - expected).max() <= 1


def test_what_is_shown_is_of_the_classes_that_are_shown(tiny_arrays: dict[str, Path]) -> None:
    dataset = load(DataConfig(source=str(tiny_arrays["image"])))
    rows = rows_showing(dataset, {"label": torch.tensor([0, 0, 1, 1, 1])}, 5)
    assert len(set(rows)) == 5
    assert [row % 2 for row in rows] == [0, 0, 1, 1, 1]  # as the arrays were made
    captions = np.array(["a high one", "a low one", "never heard"])
    rows = rows_showing(dataset, {"text": captions}, 3)
    assert [row % 2 for row in rows[:2]] == [1, 0]
    assert rows_showing(dataset, {}, 3) == [0, 20, 39]
    # A run keeps captions tidied; the data have them as somebody wrote them.
    loose = replace(dataset, captions=[f" {caption.replace(' ', '  ')} " for caption in dataset.captions])
    assert rows_showing(loose, {"text": captions}, 3) == rows


def test_a_stage_without_one_below(
    enlarging_run: Path, tiny_arrays: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list((enlarging_run / "samples").glob("step-*.png"))) == 1, "shown with what the data say"
    assert "--low-res-from RUN names the run that draws them" in said("sample", enlarging_run, "-n", "2")
    run(["info", str(enlarging_run)])
    assert "--image FILE" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  sample "))
    words = ["--metrics", "fd", "nll", "-n", "8", "--features", "pixels", "--nll-method", "variational", "--json"]
    run(["evaluate", str(enlarging_run), "--data", str(tiny_arrays["image"]), *words, str(tmp_path / "e.json")])
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["nll"]["given"] == ["label", "low_res", "low_res_level"]
    assert np.isfinite(found["fd"]["value"])
