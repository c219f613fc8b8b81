"""Runs of several stages through the command line: train, stop, go on, sample, enlarge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numeric import same_states
from PIL import Image
from runs import UNET, as_if_learnt, picture, said, same_weights, state_of, told_command

import unstir
from unstir.cli import run
from unstir.conditioning.derived.low_res import enlarged, shrunk
from unstir.editing import colorize, image_to_image, inpaint, interpolate
from unstir.evaluation.samples import order
from unstir.run import Run
from unstir.training.checkpoint import Checkpoints
from unstir.training.session import Session

PLAN = [
    "--training.steps",
    "6",
    "--training.checkpoint-every",
    "2",
    "--sampling.steps",
    "3",
    *UNET,
    "--training.batch-size",
    "4",
]


def train(data: Path, out: Path, *words: str, recipe: str = "cascade") -> None:
    run(["train", recipe, "--data", str(data), "--out", str(out), *PLAN, *words])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("chains") / "c"
    train(tiny_arrays["image"], out, "--base.network.channels", "16")
    return out


@pytest.fixture(scope="module")
def learnt(chain: Path) -> Path:
    copy = chain.parent / "learnt"
    shutil.copytree(chain, copy)
    return as_if_learnt(copy)


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_chain_is_two_runs(chain: Path) -> None:
    name, recipe, spec = Run(chain).read_recipe()
    below, base, small = Run(chain / "base").read_recipe()
    assert (name, below) == ("cascade", "cascade-base")
    assert (spec.shape, small.shape) == ((3, 12, 10), (3, 6, 5))
    assert set(spec.conditions) - {"text"} == {"label", "low_res", "low_res_level"}
    assert set(small.conditions) - {"text"} == {"label"}
    assert (recipe.network.channels, base.network.channels) == (8, 16)  # type: ignore[attr-defined]
    assert Checkpoints(chain / "base" / "checkpoints", 3).steps()[-1] == 6
    assert len(list((chain / "samples").iterdir())) == 1


@pytest.mark.parametrize("stage", ["base", ""])
def test_killed_in_either_stage_and_resumed_equals_never_killed(
    stage: str, chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As kill -9 leaves it: the stages after it were never begun, its last steps are lost."""
    cut = tmp_path / "cut"
    shutil.copytree(chain, cut)
    Checkpoints(cut / stage / "checkpoints", 3).path(6).unlink()
    if stage == "base":
        for path in [cut / "recipe.toml", cut / "model.safetensors", cut / "metrics.jsonl"]:
            path.unlink()
        shutil.rmtree(cut / "checkpoints")
        assert "last stage of" in said("sample", cut)
        assert "is a run already" in said("train", "cascade", "--data", "emoji", "--out", cut)
    run(["train", "--resume", str(cut)])
    assert ("stage 1 of 2" in capsys.readouterr().out) == (stage == "base")
    for each in ("base", ""):
        assert same_weights(cut / each, chain / each)
        assert same_states(state_of(cut / each), state_of(chain / each))  # of step 6, which was lost


def test_stopped_in_the_first_stage_the_second_does_not_begin(
    tiny_arrays: dict[str, Path], chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_three(session: Session) -> bool:
        session.stopping = session.state.step == 3
        return session.stopping

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_should_stop", at_three)
        with pytest.raises(SystemExit) as stop:
            train(tiny_arrays["image"], tmp_path / "c", "--base.network.channels", "16")
    assert stop.value.code == 130
    assert not Run(tmp_path / "c").exists()
    run(["train", "--resume", str(tmp_path / "c")])
    assert same_weights(tmp_path / "c", chain)


def test_longer_by_resuming(chain: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    shutil.copytree(chain, longer)
    run(["train", "--resume", str(longer), "--training.steps", "8", "--base.training.steps", "7"])
    steps = [Checkpoints(longer / stage / "checkpoints", 3).steps()[-1] for stage in ("base", "")]
    assert steps == [7, 8]


def test_groups_of_unlabelled_data_are_the_first_stage_s_alone(tmp_path: Path) -> None:
    """Those found at two sizes would not be the same."""
    x = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    train(tmp_path / "x.npy", tmp_path / "c", "--training.steps", "1")
    small, large = (Run(tmp_path / "c" / stage).read_recipe()[2].conditions for stage in ("base", ""))
    assert set(small) == {"group"}
    assert set(large) == {"low_res", "low_res_level"}
    assert unstir.load(tmp_path / "c").sample(2).shape == (2, 3, 8, 8)


def test_what_a_chain_refuses(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "c"
    assert "trains on data of kind image" in said("train", "cascade", "--data", tiny_arrays["signal"], "--out", out)
    assert "what to train on?" in said("train", "cascade", "--out", out)
    assert "unknown option --networkk" in said("train", "cascade", "--data", tiny_arrays["image"], "--networkk", "3")
    assert "starts from no other run" in said("train", "cascade", "--data", tiny_arrays["image"], "--base", "x")
    assert not out.exists()


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_a_chain_samples_through_all_stages(learnt: Path, tmp_path: Path) -> None:
    chain = learnt
    run(["sample", str(chain), "-n", "5", "--label", "one", "--out", str(tmp_path / "x.npz")])
    model = unstir.load(chain)
    again = model.sample(5, label="one")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], model.spec.to_data(again))
    below = unstir.load(chain / "base")
    small = below.spec.to_model(below.spec.to_data(below.sample(5, label="one")))
    asked = model.conditions({"label": "one"}, model.settings(low_res_from="base"), 0, range(5))
    level = model.recipe.derived.level  # type: ignore[attr-defined]
    assert asked["low_res_level"].flatten().tolist() == [pytest.approx(level)] * 5
    clean = model.conditions({"label": "one", "low_res_level": [0.0]}, model.recipe.sampling, 0, range(5))
    torch.testing.assert_close(clean["low_res"], enlarged(small, 2, (12, 10)))
    run(["sample", str(chain), "-n", "5", "--label", "one", "--batch-size", "2", "--out", str(tmp_path / "y.npz")])
    difference = np.load(tmp_path / "y.npz")["arr_0"].astype(int) - np.load(tmp_path / "x.npz")["arr_0"]
    assert np.abs(difference).max() <= 1


def test_a_chain_can_be_moved(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(chain, moved)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(unstir.load("elsewhere").sample(2), unstir.load(chain).sample(2))
    shutil.rmtree(moved / "base")
    assert "there is no run folder" in said("sample", moved, "-n", "2")
    other = said("sample", moved, "-n", "2", "--low-res-from", chain)
    assert "draws images of shape 3x12x10, and this model enlarges images of shape 3x6x5 by 2" in other
    run(["sample", str(moved), "-n", "2", "--low-res-from", str(chain / "base"), "--out", "x.png"])


def test_info_tells_the_stages_and_commands_that_work(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "a chain"
    shutil.copytree(chain, copy)
    monkeypatch.chdir(tmp_path)
    run(["info", str(copy)])
    info = capsys.readouterr().out
    lines = info.splitlines()
    assert [line for line in lines if line.startswith("  stage")] == [
        f"  stage 1    {copy / 'base'}: 3x6x5, step 6",
        f"  stage 2    {copy}: 3x12x10, step 6 (this run)",
    ]
    assert any(line.startswith("  derived    low-res (factor 2") for line in lines)
    assert any(line.startswith("  --low-res") for line in lines)

    run(told_command(info, "sample"))
    with Image.open(tmp_path / "samples.png") as samples:
        assert samples.size[0] > 12
    picture(tmp_path / "small.png", 6, 5, 3)
    run(["small.png" if word == "FILE" else word for word in told_command(info, "enlarge")])
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (10, 12)
    run(told_command(info, "go on"))
    assert [Checkpoints(copy / stage / "checkpoints", 3).steps()[-1] for stage in ("base", "")] == [12, 12]


@pytest.mark.parametrize(
    ("words", "edit"),
    [
        (
            ["inpaint", "--mask", "mask.png", "--method", "replacement"],
            lambda model, a, b, mask, **cond: inpaint(model, a, mask, method="replacement", **cond),
        ),
        (["image-to-image"], lambda model, a, b, mask, **cond: image_to_image(model, a, 0.5, **cond)),
        (
            ["interpolate", "--to", "b.png", "-n", "3", "--method", "ddpm"],
            lambda model, a, b, mask, **cond: interpolate(model, a, b, n=3, method="ddpm", **cond),
        ),
        (["colorize"], lambda model, a, b, mask, **cond: colorize(model, a, **cond)),
    ],
)
def test_edits_of_a_last_stage(
    learnt: Path, words: list[str], edit: Callable[..., torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be enlarged is drawn, or given."""
    monkeypatch.chdir(tmp_path)
    a = picture(tmp_path / "a.png", 12, 10, 3)
    Image.fromarray(a[::-1]).save("b.png")
    mask = np.eye(12, 10, dtype=np.uint8) * 255
    Image.fromarray(mask).save("mask.png")
    small = picture(tmp_path / "small.png", 6, 5, 3)
    model, below = unstir.load(learnt), unstir.load(learnt / "base").spec
    files = (*model.spec.to_model(np.stack([a, a[::-1]])), torch.from_numpy(mask > 0)[None])
    given = {"low_res": enlarged(below.to_model(small[None]), 2, (12, 10)), "low_res_level": [0.1]}
    results = []
    for more, cond in (([], {}), (["--low-res", "small.png", "--low-res-level", "0.1"], given)):
        run(["edit", words[0], str(learnt), "--image", "a.png", *words[1:], *more, "--out", "x.npz"])
        results.append(np.load("x.npz")["arr_0"])
        np.testing.assert_array_equal(results[-1], model.spec.to_data(edit(model, *files, **cond)))
    assert (results[0] != results[1]).any(), "what is enlarged makes no difference"


def test_evaluate_goes_through_the_chain(learnt: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    """It judges what the chain draws when it is asked, in the order of the data, for their classes."""
    words = ["--metrics", "fd", "-n", "8", "--features", "pixels", "--json", str(tmp_path / "e.json")]
    run(["evaluate", str(learnt), "--data", str(tiny_arrays["image"]), *words])
    found = json.loads((tmp_path / "e.json").read_text())["fd"]["value"]
    labels = torch.from_numpy(np.load(tiny_arrays["image"])["y"])[order(40)[:8]]
    model = unstir.load(learnt)
    drawn = model.spec.to_data(model.sample(8, label=labels))
    np.savez(tmp_path / "drawn.npz", x=drawn)
    run(["evaluate", str(tmp_path / "drawn.npz"), "--data", str(tiny_arrays["image"]), *words])
    assert json.loads((tmp_path / "e.json").read_text())["fd"]["value"] == pytest.approx(found, rel=1e-3)


# ---- what is enlarged, from files --------------------------------------------------------------------------------------


def test_low_res_from_files(learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chain = learnt
    pixels = picture(tmp_path / "small.png", 6, 5, 3)
    run(["sample", str(chain), "-n", "2", "--low-res", "small.png", "--low-res-level", "0", "--out", "x.npz"])
    model = unstir.load(chain)
    small = unstir.load(chain / "base").spec.to_model(pixels[None])
    low_res = enlarged(small, 2, (12, 10))
    expected = model.sample(2, low_res=low_res, low_res_level=[0.0])
    np.testing.assert_array_equal(np.load("x.npz")["arr_0"], model.spec.to_data(expected))
    assert (model.spec.to_data(model.sample(2)) != np.load("x.npz")["arr_0"]).mean() > 0.1, "it makes no difference"
    large = picture(tmp_path / "large.png", 12, 10, 3)
    run(["sample", str(chain), "-n", "2", "--image", "large.png", "--out", "y.npz"])
    of_large = enlarged(shrunk(model.spec.to_model(large[None]), 2), 2, (12, 10))
    np.testing.assert_array_equal(np.load("y.npz")["arr_0"], model.spec.to_data(model.sample(2, low_res=of_large)))


def test_what_a_chain_cannot_be_asked(chain: Path) -> None:
    assert "takes no --image" in said("sample", chain / "base", "--image", "nothing.png")
    assert "takes no --text" in said("sample", chain, "--text", "x")
    assert "holds none to enlarge" in said("compress", chain, "--image", "x.png")
    assert "between 0 and 0.15" in said("sample", chain, "-n", "1", "--low-res-level", "0.9")


# ---- enlarging -------------------------------------------------------------------------------------------------------


def test_upscale_files_of_any_size(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for height, width in ((6, 5), (9, 14)):
        pixels = picture(tmp_path / "small.png", height, width, 3)
        run(["edit", "upscale", str(chain), "--image", "small.png", "-n", "2", "--out", "x.npz", "--seed", "3"])
        found = np.load("x.npz")["arr_0"]
        assert found.shape == (2, 2 * height, 2 * width, 3)
        assert found.dtype == np.uint8
        means = found.reshape(2, height, 2, width, 2, 3).astype(float).mean((2, 4))
        error = np.sqrt(((means - pixels) ** 2).mean())
        printed = capsys.readouterr().out
        assert float(printed.split("differs by ")[1].split(" of 255")[0]) == pytest.approx(error, rel=0.05)
    run(["edit", "upscale", str(chain), "--image", "small.png", "--compare", "--out", "folder"])
    with Image.open(sorted(Path("folder").iterdir())[0]) as given:
        np.testing.assert_array_equal(np.array(given), pixels.repeat(2, 0).repeat(2, 1))
    assert "there is no file" in said("edit", "upscale", chain, "--image", "nothing.png")
    assert "which picture?" in said("edit", "upscale", chain)


def test_upscale_with_any_other_model(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "small.png", 3, 5, 3)
    assert "made 2 times larger is not one of 6x5" in said("edit", "upscale", chain / "base", "--image", "small.png")
    assert "not trained to enlarge" in said(
        "edit", "upscale", chain / "base", "--image", "small.png", "--method", "model"
    )
    picture(tmp_path / "half.png", 6, 5, 3)
    run(["edit", "upscale", str(chain), "--image", "half.png", "--method", "replacement", "--out", "x.npz"])
    # Exact in real numbers; rounding to bytes moves a mean of four by half a level at most.
    assert float(capsys.readouterr().out.split("differs by ")[1].split(" of 255")[0]) < 1e-2
