"""Runs that start from a run: fine-tuning, a ControlNet, GLIDE's inpainting; through the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import in_two_processes
from numeric import same_states
from PIL import Image
from runs import UNET, as_if_learnt, said, same_weights, state_of, told_command, weights

import unstir
from unstir.cli import run
from unstir.conditioning.derived import Edges, Hole
from unstir.data import load
from unstir.data.resize import fit_array
from unstir.editing import ByModel, inpaint
from unstir.errors import UserError
from unstir.networks import ControlNetConfig, UNetConfig
from unstir.run import Run

TINY = ["--training.steps", "3", "--training.batch-size", "4"]
SAMPLING = ["--sampling.steps", "3"]


def train(recipe: str, data: Path, out: Path, *words: str) -> Path:
    run(["train", recipe, "--data", str(data), "--out", str(out), *TINY, *words])
    return out


@pytest.fixture(scope="module")
def data(tiny_arrays: dict[str, Path]) -> Path:
    return tiny_arrays["image"]


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of another size, with three classes of other names."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("other") / "other.npz"
    x, y = rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8), np.arange(30) % 3
    np.savez(path, x=x, y=y, classes=np.array(["p", "q", "r"]))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run with two classes, long enough that its last layer is not 0."""
    out = tmp_path_factory.mktemp("base") / "base"
    return train("quick", data, out, *UNET, *SAMPLING, "--training.steps", "12", "--training.learning-rate", "0.01")


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    """A ControlNet on edges, whose base is gone."""
    folder = tmp_path_factory.mktemp("control")
    shutil.copytree(base, folder / "base")
    out = train("controlnet", data, folder / "c", "--base", str(folder / "base"))
    shutil.rmtree(folder / "base")
    return out


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    return train("glide-inpaint", data, tmp_path_factory.mktemp("filler") / "f", "--base", str(base))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.png of 12 x 10, and a mask with a hole in the middle; the working directory."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((12, 10), dtype=np.uint8)
    mask[3:9, 2:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- a ControlNet ----------------------------------------------------------------------------------------------------


def test_a_control_net_is_what_its_base_was_and_more(base: Path, control: Path) -> None:
    """The base's weights are in its folder, to the bit; the recipe says all that is needed to build it."""
    theirs, ours = weights(base), weights(control)
    for key, value in theirs.items():
        assert torch.equal(ours[f"network.base.{key.removeprefix('network.')}"], value), key
    _, recipe, spec = Run(control).read_recipe()
    _, base_recipe, base_spec = Run(base).read_recipe()
    assert isinstance(recipe.network, ControlNetConfig)
    assert recipe.network.base == base_recipe.network
    assert recipe.network.knows == ("label", "text")
    assert recipe.derived == Edges()
    assert recipe.denoiser.sigma_data == base_spec.std  # type: ignore[attr-defined]
    assert (recipe.process, recipe.sampling) == (base_recipe.process, base_recipe.sampling)
    assert set(spec.conditions) == {"label", "text", "edges"}
    assert recipe.training.minutes == 3.0  # its own


def test_control_strength_0_is_the_base(base: Path, control: Path, files: Path) -> None:
    model, plain = unstir.load(control, "cpu"), unstir.load(base, "cpu")
    edges = torch.rand(3, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    expected = plain.sample(3, label="one", seed=4)
    torch.testing.assert_close(model.sample(3, label="one", seed=4, edges=edges, control_strength=0.0), expected)
    # moved, so that its zero convolutions say something after 3 steps
    with torch.no_grad():
        for parameter in model.denoiser.network.get_submodule("zeros").parameters():
            parameter += 0.5
    full = model.sample(3, label="one", seed=4, edges=edges)
    assert not torch.allclose(full, expected, atol=1e-3)
    torch.testing.assert_close(model.sample(3, label="one", seed=4, edges=edges, control_strength=0.0), expected)
    half = model.sample(3, label="one", seed=4, edges=edges, control_strength=0.5)
    assert not torch.allclose(half, full, atol=1e-3)
    one = model.sample(1, label="one", seed=4, edges=edges[:1], control_strength=0.5, batch_size=1)
    torch.testing.assert_close(half[:1], one, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="no control whose strength"):
        plain.sample(1, control_strength=0.5)
    run(["sample", str(control), "--image", "a.png", "-n", "2", "--control-strength", "0.5", "--out", "x.npz"])
    assert np.load("x.npz")["arr_0"].shape == (2, 12, 10, 3)


def test_a_control_net_goes_on_without_its_base(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 steps, the base's folder deleted, and 3 more: to the bit 6 steps."""
    shutil.copytree(base, tmp_path / "base")
    for name, steps in (("whole", "6"), ("parts", "3")):
        words = ["--base", str(tmp_path / "base"), "--training.steps", steps, "--training.warmup", "0"]
        train("controlnet", data, tmp_path / name, *words, "--training.decay", "constant")
    assert "of the weights start from it" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "base")
    run(["train", "--resume", str(tmp_path / "parts"), "--training.steps", "6"])
    assert "start from it" not in capsys.readouterr().out
    assert same_states(state_of(tmp_path / "parts"), state_of(tmp_path / "whole"))
    run(["info", str(tmp_path / "parts")])
    out = capsys.readouterr().out
    assert f"began as   {tmp_path / 'base'}" in out
    assert "--edges" in out
    assert "controlnet (base unet" in out


def test_two_processes_train_what_one_does(base: Path, data: Path, tmp_path: Path) -> None:
    words = ["train", "controlnet", "--data", str(data), "--base", str(base), *TINY, "--training.precision", "fp32"]
    run([*words, "--out", str(tmp_path / "one")])
    assert "on cpu x 2" in in_two_processes("-m", "unstir", *words, "--out", str(tmp_path / "two"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=3e-4)  # steps are of 1e-3, whatever the gradient
        assert torch.equal(two[key], value) or not key.startswith("network.base."), key


def test_conditions_that_mean_something_else_are_left_out(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    """A base stays as it is: it is told the classes that it knows, or none."""
    array = dict(np.load(data))
    np.savez(tmp_path / "renamed.npz", **{**array, "classes": np.array(["zero", "won"])})
    out = train("controlnet", tmp_path / "renamed.npz", tmp_path / "renamed", "--base", str(base))
    assert "base: label of renamed mean something else to it or nothing, and are left out" in capsys.readouterr().out
    assert Run(out).read_recipe()[2].conditions["label"].names == ("zero", "one")
    np.savez(tmp_path / "plain.npz", x=array["x"])
    out = train("controlnet", tmp_path / "plain.npz", tmp_path / "plain", "--base", str(base), "--data.groups", "0")
    assert "left out" not in capsys.readouterr().out
    assert unstir.load(out).sample(2, label="one").shape == (2, 3, 12, 10)
    out = train("controlnet", data, tmp_path / "same", "--base", str(base))
    assert "left out" not in capsys.readouterr().out


def test_pictures_are_brought_to_the_size_of_the_base(base: Path, other_data: Path, tmp_path: Path) -> None:
    out = train("controlnet", other_data, tmp_path / "c", "--base", str(base))
    recipe, spec, theirs = *Run(out).read_recipe()[1:], Run(base).read_recipe()[2]
    assert (spec.shape, spec.offset, spec.scale) == ((3, 12, 10), theirs.offset, theirs.scale)
    x = np.load(other_data)["x"]
    np.testing.assert_array_equal(load(recipe.data).x, fit_array(x, (12, 10), recipe.data.fit, "white"))


@pytest.mark.parametrize("name", ["edges", "posterized", "low-res", "hole"])
def test_every_derived_condition_can_control(name: str, base: Path, data: Path, tmp_path: Path, files: Path) -> None:
    out = train("controlnet", data, tmp_path / "c", "--base", str(base), "--derived", name)
    run(["sample", str(out), "--image", "a.png", "-n", "2", "--out", "x.npz"])
    model = unstir.load(out)
    picture = model.spec.to_model(np.asarray(Image.open("a.png"))[None])
    given = model.recipe.derived.given(picture, model.spec)
    expected = model.spec.to_data(model.sample(2, **given))
    np.testing.assert_array_equal(np.load("x.npz")["arr_0"], expected)


def test_a_control_net_of_signals(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    start = as_if_learnt(train("ecg", tiny_arrays["signal"], tmp_path / "base", *UNET, *SAMPLING))
    out = train("controlnet", tiny_arrays["signal"], tmp_path / "c", "--base", str(start), "--derived", "low-res")
    theirs, ours = weights(start), weights(out)
    assert all(torch.equal(ours[key.replace("network.", "network.base.", 1)], theirs[key]) for key in theirs)
    model, plain = unstir.load(out), unstir.load(start)
    x, t, label = torch.randn(2, 2, 50), torch.tensor(1.0, dtype=torch.float64), torch.tensor([0, 1])
    shown = {"low_res": 2 * torch.ones(2, 2, 50), "low_res_level": torch.zeros(2, 1)}
    with torch.no_grad():  # a stage that enlarges draws noise of its own, so that beliefs are compared, not samples
        expected = plain.denoiser(x, t, label=label).x_0
        found = model.denoiser(x, t, label=label, **shown, control_strength=torch.zeros(2)).x_0
    torch.testing.assert_close(found, expected)
    low_res = 2 * torch.ones(2, 50)
    before = model.sample(2, label="one", low_res=low_res, control_strength=0.0)
    with torch.no_grad():
        for parameter in model.denoiser.network.get_submodule("zeros").parameters():
            parameter += 0.5
    steered = model.sample(2, label="one", low_res=low_res)
    assert steered.shape == (2, 2, 50)
    assert not torch.allclose(steered, before, atol=0.01)
    assert not torch.allclose(steered, model.sample(2, label="one", low_res=-low_res), atol=0.01)


# ---- fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_begins_as_its_base(
    base: Path, other_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step at a learning rate of nearly 0: the base's weights; its class table starts anew, and one line says so."""
    out = train(
        "quick",
        other_data,
        tmp_path / "f",
        "--base",
        str(base),
        "--training.steps",
        "1",
        "--training.learning-rate",
        "1e-12",
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("base: "))
    assert "label is another one than there, and starts anew" in line
    theirs, ours = weights(base), weights(out)
    table = "network.embedding.conditions.parts.0.table.weight"
    for key in theirs.keys() - {table}:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[table], theirs[table][:1].expand(4, -1), rtol=0, atol=1e-6)
    _, recipe, spec = Run(out).read_recipe()
    assert isinstance(recipe.network, UNetConfig)
    assert recipe.network.channels == 8
    assert spec.conditions["label"].names == ("p", "q", "r")
    assert recipe.base == str(base.resolve())
    model = unstir.load(out)
    assert model.sample(2, label="q").shape == (2, 3, 12, 10)
    np.testing.assert_allclose(
        unstir.load(base).sample(2, label=-1, labels="none"), model.sample(2, label="p", guidance_scale=1.0), atol=1e-3
    )


def test_fine_tuning_from_a_checkpoint_and_with_flags(base: Path, data: Path, tmp_path: Path) -> None:
    words = ["--base", f"{base}@12", "--network.dropout", "0.1", "--data.size", "8", "--sampling.guidance-scale", "1"]
    out = train("edm", data, tmp_path / "f", *words)
    _, recipe, spec = Run(out).read_recipe()
    assert recipe.base.endswith("@12")
    assert recipe.network.dropout == 0.1  # type: ignore[attr-defined]
    assert spec.shape == (3, 8, 8)
    assert recipe.sampling.guidance_scale == 1
    assert recipe.training.optimizer.beta_2 == 0.999  # type: ignore[attr-defined]  # edm's own
    run(["train", "--resume", str(out), "--training.steps", "5"])
    again = ["--config", str(out / "recipe.toml"), "--training.steps", "5"]  # all of it, from a file
    run(["train", "edm", "--data", str(data), "--out", str(tmp_path / "again"), *again])
    assert same_states(state_of(tmp_path / "again"), state_of(out))


def test_a_run_killed_before_its_first_checkpoint_begins_anew_from_its_base(
    base: Path, data: Path, tmp_path: Path
) -> None:
    for name in ("whole", "killed"):
        train("quick", data, tmp_path / name, "--base", str(base))
    shutil.rmtree(tmp_path / "killed" / "checkpoints")
    (tmp_path / "killed" / "model.safetensors").unlink()
    run(["train", "--resume", str(tmp_path / "killed")])
    assert same_states(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))
    assert same_weights(tmp_path / "killed", tmp_path / "whole")


# ---- GLIDE's inpainting ----------------------------------------------------------------------------------------------


def test_the_inpainting_run_begins_as_its_base_with_more_inputs(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--base", str(base), "--training.steps", "1", "--training.learning-rate", "1e-12"]
    out = train("glide-inpaint", data, tmp_path / "f", *words)
    assert "known is new" in capsys.readouterr().out
    theirs, ours = weights(base), weights(out)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6)
    assert ours.keys() - theirs.keys() == {"network.grid_stem.weight", "network.grid_stem.bias"}
    assert ours["network.grid_stem.weight"].shape[1] == 4 * 4  # colours and a mask, in patches of 2 x 2
    assert float(ours["network.grid_stem.weight"].abs().max()) < 1e-6


def test_holes_are_filled_by_the_model(
    filler: Path, base: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--image", "a.png", "--mask", "mask.png", "-n", "2"]
    run(["edit", "inpaint", str(filler), *words, "--out", "x.npz"])
    x = np.load("x.npz")["arr_0"]
    before, fill = np.asarray(Image.open("a.png")), np.asarray(Image.open("mask.png")) >= 128
    np.testing.assert_array_equal(x[:, ~fill], np.broadcast_to(before[~fill], (2, (~fill).sum(), 3)))
    assert (x[:, fill] != before[fill]).any()
    model = unstir.load(filler)
    x_0, hole = model.spec.to_model(before[None])[0], torch.from_numpy(fill).unsqueeze(0)
    asked: list[dict[str, torch.Tensor]] = []
    hook = model.denoiser.register_forward_pre_hook(lambda d, a, k: asked.append(k), with_kwargs=True)
    np.testing.assert_array_equal(model.spec.to_data(inpaint(model, x_0, hole, n=2, method=ByModel())), x)
    hook.remove()
    assert len(asked) == 3  # once a step
    assert all(torch.equal(one["known"].isnan(), hole.expand(2, 3, 12, 10)) for one in asked)
    assert all(torch.equal(one["known"][0][:, ~fill], x_0[:, ~fill]) for one in asked)
    capsys.readouterr()
    run(["info", str(filler)])
    words = told_command(capsys.readouterr().out, "fill")
    assert words[:3] == ["edit", "inpaint", str(filler)]
    words[words.index("--image") + 1], words[words.index("--mask") + 1] = "a.png", "mask.png"
    run(words)
    assert Path("filled.png").is_file()


def test_other_methods_ask_the_model_for_nothing_and_other_runs_have_no_such_method(
    filler: Path, base: Path, files: Path
) -> None:
    words = ["--image", "a.png", "--mask", "mask.png", "--resamplings", "1", "--out", "x.npz"]
    run(["edit", "inpaint", str(filler), *words, "--method", "repaint"])
    message = said("edit", "inpaint", base, *words, "--method", "model")
    assert "unstir train glide-inpaint --base RUN" in message
    model = unstir.load(filler)
    x_0, hole = torch.zeros(3, 12, 10), torch.ones(1, 12, 10, dtype=torch.bool)
    hole[:, :3] = False
    by_replacement = inpaint(model, x_0, hole, method="replacement", seed=1)
    assert not torch.allclose(by_replacement, inpaint(model, x_0, hole, seed=1))


def test_captions_come_along(data: Path, tmp_path: Path, files: Path) -> None:
    """A run that reads captions, taught to fill holes, and steered: both are asked by captions still."""
    longer = ["--training.steps", "12", "--training.learning-rate", "0.01"]
    start = train("glide", data, tmp_path / "glide", *UNET, *SAMPLING, "--network.text-width", "16", *longer)
    filler = train("glide-inpaint", data, tmp_path / "f", "--base", str(start), "--training.learning-rate", "1e-12")
    theirs, ours = weights(start), weights(filler)
    assert any("captions" in key for key in theirs)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6)
    fill = ["edit", "inpaint", str(filler), "--image", "a.png", "--mask", "mask.png"]
    run([*fill, "--text", "a low one", "--guidance-scale", "2", "--out", "x.png"])
    out = train("controlnet", data, tmp_path / "c", "--base", str(start))
    assert set(Run(out).read_recipe()[2].conditions) == {"text", "edges"}
    model, plain = unstir.load(out), unstir.load(start)
    low, high = (model.sample(2, text=f"a {word} one", control_strength=0.0) for word in ("low", "high"))
    torch.testing.assert_close(low, plain.sample(2, text="a low one"))
    assert not torch.equal(low, high)


def test_without_a_base_it_learns_to_fill_from_nothing(data: Path, tmp_path: Path) -> None:
    out = train("glide-inpaint", data, tmp_path / "f", *UNET, *SAMPLING)
    assert Run(out).read_recipe()[1].derived == Hole()
    assert Run(out).read_recipe()[1].base == ""


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dit_run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    size = ["--network.depth", "1", "--network.width", "24", "--network.heads", "3"]
    return train("dit", data, tmp_path_factory.mktemp("dit") / "r", *size, *SAMPLING)


@pytest.fixture(scope="module")
def points_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("points") / "r"
    return train("swiss-roll", tiny_arrays["points"], out, "--network.width", "8", "--network.depth", "1", *SAMPLING)


@pytest.mark.parametrize(
    ("recipe", "base_of", "expected"),
    [
        ("controlnet", "", "unstir train controlnet --base RUN --data SOURCE"),
        ("controlnet", "nowhere", "there is no run folder nowhere"),
        ("controlnet", "dit_run", "a ControlNet is built around a U-Net"),
        ("controlnet", "points_run", "a ControlNet is built around a U-Net"),
        ("quick", "points_run", "trains on data of kind points"),
        ("classifier", "points_run", "another kind of model"),
    ],
)
def test_bases_that_will_not_do(
    recipe: str, base_of: str, expected: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = [str(request.getfixturevalue(base_of)) if base_of.endswith("_run") else base_of] if base_of else []
    words = [word for name in given for word in ("--base", name)]
    assert expected in said("train", recipe, "--data", data, "--out", tmp_path / "x", *TINY, *words)
    assert not (tmp_path / "x").exists()


def test_more_errors(base: Path, control: Path, filler: Path, data: Path, tmp_path: Path) -> None:
    start = ["--data", data, "--out", tmp_path / "x", *TINY]
    assert "--base starts a new run" in said("train", "--resume", control, "--base", base)
    assert "leave out --network options" in said("train", "quick", *start, "--base", base, "--network.channels", "12")
    assert "leave out --network options" in said(
        "train", "controlnet", *start, "--base", base, "--network.base.channels", "12"
    )
    assert "choose a base without one" in said("train", "controlnet", *start, "--base", filler)
    assert "--derived edges" in said("train", "controlnet", *start, "--base", base, "--derived", "nothing")
    np.save(tmp_path / "large.npy", np.zeros((9, 24, 24, 3), np.uint8))
    large = ["--data", tmp_path / "large.npy", "--out", tmp_path / "x", *TINY, "--data.size", "24"]
    assert "it stays as it is" in said("train", "controlnet", *large, "--base", base)
    shutil.copytree(base, tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    assert "no model.safetensors yet" in said("train", "quick", *start, "--base", tmp_path / "empty")
