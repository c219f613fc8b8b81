"""Whole runs through the command line: train, sample, resume, kill, share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from launch import in_two_processes
from numeric import same_states
from PIL import Image
from runs import same_weights, state_of, told_command

import unstir
import unstir.run
from unstir.cli import run
from unstir.errors import UserError
from unstir.training.checkpoint import Checkpoints

SMALL = ["--network.width", "16", "--network.depth", "1", "--training.batch-size", "16"]


def train_points(out: Path, *words: str, data: str = "swiss-roll") -> None:
    run(["train", "swiss-roll", "--data", data, "--out", str(out), *SMALL, *words])


@pytest.fixture(scope="module")
def points_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "points"
    train_points(out, "--training.steps", "30", "--training.log-every", "10", data=str(tiny_arrays["points"]))
    return out


def test_a_run_folder_holds_what_it_promises(points_run: Path) -> None:
    names = {path.name for path in points_run.iterdir()}
    assert {"recipe.toml", "model.safetensors", "checkpoints", "metrics.jsonl", "samples"} <= names
    rows = [json.loads(line) for line in (points_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert {path.name for path in (points_run / "samples").iterdir()} == {"step-0000030.png", "trajectory.png"}


def test_sample_writes_every_format_in_the_units_of_the_data(points_run: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "a.npy", "a.csv", "a.png", "a.gif", "folder"):
        run(["sample", str(points_run), "-n", "6", "--steps", "3", "--out", str(tmp_path / name)])
    x = np.load(tmp_path / "a.npz")["arr_0"]
    assert x.shape == (6, 2)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), x)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1, usecols=(0, 1)), x, rtol=1e-6)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames >= 3  # the last two states look the same, and are one frame
    assert len(list((tmp_path / "folder").iterdir())) == 6
    model = unstir.load(points_run)
    torch.testing.assert_close(model.sample(6, steps=3, seed=0), torch.from_numpy(x))


def test_a_sample_depends_on_its_number_and_the_seed_alone(points_run: Path) -> None:
    model = unstir.load(points_run)
    for sampler in ("ddpm", "dpmpp_2m"):
        many = model.sample(64, sampler=sampler, steps=4, seed=3)
        few = model.sample(8, sampler=sampler, steps=4, seed=3, batch_size=3)
        torch.testing.assert_close(few, many[:8], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model.sample(8, sampler=sampler, steps=4, seed=4), few)


def test_labels_by_name_and_number_and_unknown_ones(points_run: Path) -> None:
    model = unstir.load(points_run)
    by_name, by_number = model.sample(4, label="one", steps=3), model.sample(4, label=1, steps=3)
    assert torch.equal(by_name, by_number)
    assert not torch.equal(by_name, model.sample(4, label="zero", steps=3))
    mixed = model.sample(4, label=["zero", "one"], steps=3)
    torch.testing.assert_close(mixed[1::2], by_name[1::2])
    for words, expected in (
        (["--label", "noe"], "did you mean one"),
        (["--text", "x"], "takes no --text; it takes --label"),
        (["--sampler", "huen"], "did you mean heun?"),
        (["--out", "x.xyz"], ".xyz"),
    ):
        with pytest.raises(UserError, match=expected):
            run(["sample", str(points_run), "-n", "2", "--steps", "2", *words])


def test_info_says_what_it_is_and_commands_that_work(
    points_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "a run"
    shutil.copytree(points_run, copy)
    monkeypatch.chdir(tmp_path)
    run(["info", str(copy)])
    said = capsys.readouterr().out
    assert "40 samples, points 2, float32" in said
    assert "30 steps" in said
    assert "class of 2: zero, one" in said
    for name in ("sample", "go on"):
        run(told_command(said, name))
    assert (tmp_path / "samples.png").is_file()
    assert unstir.run.Run(copy).metrics()[-1]["step"] == 60


def test_a_run_goes_on_from_any_folder(
    tmp_path: Path, tiny_arrays: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_arrays["points"].parent)
    train_points(tmp_path / "r", "--training.steps", "2", data=tiny_arrays["points"].name)
    monkeypatch.chdir(tmp_path)
    run(["train", "--resume", "r", "--training.steps", "4"])
    assert state_of(tmp_path / "r")["step"] == 4


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    plan = ["--training.steps", "40", "--training.checkpoint-every", "5", "--training.gradient-clip", "0"]
    with pytest.raises(UserError, match=r"stopped at step \d+: the loss or gradient is no longer finite") as error:
        train_points(tmp_path / "r", *plan, "--training.learning-rate", "1e18", "--training.warmup", "0.9")
    assert "--training.learning-rate" in str(error.value)
    for step in Checkpoints(tmp_path / "r" / "checkpoints", 3).steps():
        assert step < int(str(error.value).split("step ")[1].split(":")[0])


def test_a_run_is_never_overwritten(points_run: Path) -> None:
    with pytest.raises(UserError, match="is a run already"):
        train_points(points_run, "--training.steps", "1")


def test_killed_and_resumed_equals_never_killed_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 in the middle; what comes after the last checkpoint is trained again, and the end is the same."""
    plan = ["--training.steps", "400", "--training.checkpoint-every", "25", "--training.log-every", "5"]
    train_points(tmp_path / "whole", *plan)
    words = ["train", "swiss-roll", "--data", "swiss-roll", "--out", str(tmp_path / "cut"), *SMALL, *plan]
    # Exact means on the same number of threads, which split sums differently; here the tests' one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "unstir", *words], stdout=subprocess.DEVNULL, env=environment)
    checkpoints = Checkpoints(tmp_path / "cut" / "checkpoints", 3)
    deadline = time.monotonic() + 60
    while not checkpoints.steps() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = checkpoints.steps()[-1]
    assert 0 < stopped < 400, "the kill came too late to test anything"
    run(["train", "--resume", str(tmp_path / "cut")])
    assert same_states(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("cut", "whole")
    ]
    assert [(row["step"], row["loss"]) for row in rows[0]] == [(row["step"], row["loss"]) for row in rows[1]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_a_state_from_which_the_run_goes_on_exactly(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped anywhere, it ends the step in progress; resumed, it becomes the run that was never stopped."""
    # A learning rate that does not depend on the planned length, so that runs of other plans can be compared.
    plan = ["--training.checkpoint-every", "0", "--training.decay", "constant", "--training.warmup", "0"]
    words = ["train", "swiss-roll", "--data", "swiss-roll", "--out", str(tmp_path / "r"), *SMALL, *plan]
    command = [sys.executable, "-m", "unstir", *words, "--training.steps", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "loss" in line:
                break
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait() == 130
    step = Checkpoints(tmp_path / "r" / "checkpoints", 3).steps()[-1]
    assert f"Stopped at step {step:,}, and saved. Go on:  unstir train --resume {tmp_path / 'r'}" in rest
    run(["train", "--resume", str(tmp_path / "r"), "--training.steps", str(step + 7)])
    train_points(tmp_path / "whole", *plan, "--training.steps", str(step + 7))
    assert same_states(state_of(tmp_path / "r"), state_of(tmp_path / "whole"))


def test_a_run_killed_before_its_first_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    train_points(tmp_path / "whole", "--training.steps", "6")
    train_points(tmp_path / "r", "--training.steps", "6")
    shutil.rmtree(tmp_path / "r" / "checkpoints")
    (tmp_path / "r" / "model.safetensors").unlink()
    run(["train", "--resume", str(tmp_path / "r")])
    assert same_states(state_of(tmp_path / "r"), state_of(tmp_path / "whole"))
    assert same_weights(tmp_path / "r", tmp_path / "whole")


def test_damaged_runs(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    train_points(folder, "--training.steps", "20", "--training.checkpoint-every", "10")
    checkpoint = folder / "checkpoints" / "step-000000020.pt"
    good = state_of(folder)
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        unstir.load(folder)
    run(["train", "--resume", str(folder)])  # falls back to step 10 and trains the rest again
    assert same_states(state_of(folder), good)
    unstir.load(folder)
    (folder / "recipe.toml").write_text("format = 1\n")
    with pytest.raises(UserError, match="not a valid recipe"):
        unstir.load(folder)


def test_other_data_cannot_be_resumed_by_mistake(tmp_path: Path) -> None:
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    train_points(tmp_path / "r", "--training.steps", "5", data=str(data))
    np.save(data, np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32))
    with pytest.raises(UserError, match="not what"):
        run(["train", "--resume", str(tmp_path / "r"), "--training.steps", "10"])


def train_in_two_processes(out: Path, *words: str) -> None:
    command = ["-m", "unstir", "train", "swiss-roll", "--data", "swiss-roll", "--out", str(out), *SMALL, *words]
    said = in_two_processes(*command)
    assert "on cpu x 2" in said  # two that share a batch, not two that each think they are alone


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """Up to float error."""
    one, two = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    """The same global batch, shared by two processes over gloo, gives the same weights up to float error."""
    plan = ["--training.steps", "20", "--objective.dropout", "0.3"]
    train_points(tmp_path / "one", *plan)
    train_in_two_processes(tmp_path / "two", *plan)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "samples").exists()


def test_a_sharded_run_is_the_same_and_goes_on_in_one_process(tmp_path: Path) -> None:
    """Half of the training state on each of two processes; what they write is whole."""
    plan = ["--training.steps", "20", "--training.checkpoint-every", "10", "--training.sample-every", "10"]
    train_points(tmp_path / "one", *plan)
    train_in_two_processes(tmp_path / "two", *plan, "--training.shard")
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    pictures = [{path.name for path in (tmp_path / name / "samples").iterdir()} for name in ("one", "two")]
    assert pictures[0] == pictures[1]
    assert {"step-0000010.png", "step-0000020.png", "trajectory.png"} <= pictures[0]
    Checkpoints(tmp_path / "two" / "checkpoints", 3).path(20).unlink()
    with pytest.raises(UserError, match=r"there is one: start it with torchrun .* or give --training\.no-shard"):
        run(["train", "--resume", str(tmp_path / "two")])
    run(["train", "--resume", str(tmp_path / "two"), "--training.no-shard"])
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert state_of(tmp_path / "two")["step"] == 20
