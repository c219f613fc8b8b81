"""Every mistake a user can make is told in one or two plain lines, with exit code 2, and loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs import said

from unstir.cli import run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "unknown command 'trian'; did you mean train?"),
        ("train quik --data digits", "unknown recipe 'quik'; did you mean quick?"),
        ("train quick", "what to train on?"),
        ("train --data digits", "name a recipe first"),
        (
            "train quick --data digits --training.stps 5",
            "unknown option --training.stps; did you mean --training.steps",
        ),
        ("train quick --data digits --training.steps many", "--training.steps takes INT, not 'many'"),
        (
            "train quick --data digits --training.batch-size many",
            "--training.batch-size takes a whole number, not 'many'",
        ),
        (
            "train quick --data digits --training.learning-rate fast",
            "--training.learning-rate takes a number, not 'fast'",
        ),
        ("train quick --data digits --training.precision fp8", "invalid choice 'fp8'"),
        ("train quick --data digits --process cosin", "unknown process 'cosin'; did you mean cosine?"),
        ("train quick --data digits --sampling.sampler", "needs a name: one of ddpm"),
        ("train quick --data digits --training.steps 0", "training.steps must be positive"),
        (
            "train quick --data digits --training.batch-size 9 --training.accumulate 2",
            "multiple of training.accumulate 2",
        ),
        ("train quick --data digits --training.learning-rate -1", "learning_rate must be positive"),
        ("train quick --data digits --training.seed -1", "training.seed must be at least 0"),
        ("train quick --data digits --training.keep 0", "training.keep must be at least 1"),
        ("train quick --data digits --training.decay.start 1", "start must lie in [0, 1)"),
        ("train quick --data digits --training.average.width 0.4", "width must lie between"),
        ("train quick --data digits --config nowhere.toml", "cannot read --config nowhere.toml: No such file"),
        ("train quick --data no-such-thing", "no-such-thing"),
        ("train quick --data swiss-roll", "holds points; try the recipe swiss-roll"),
        ("train --resume nowhere", "there is no run folder nowhere"),
        ("sample", ""),
        ("sample nowhere", "there is no run folder nowhere"),
        ("info nowhere", "there is no run folder nowhere"),
        ("recipes quik", "did you mean quick?"),
        ("formulas no-such-formula-xyz", "no formula with"),
        ("data chek x", "did you mean check?"),
        ("data check", "check what?"),
    ],
)
def test_one_plain_line(words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if not expected:  # `unstir sample` alone shows how to use it
        run(words.split())
        return
    assert expected in said(*words.split())
    assert list(tmp_path.iterdir()) == []  # no half-made run folder


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    assert "is not a run folder: it holds no recipe.toml" in said("sample", tmp_path)


def test_the_program_exits_with_2_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unstir", "sample", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "unstir: there is no run folder nowhere\n"
    assert done.stdout == ""


def test_config_with_a_wrong_field_names_its_place(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[training]\nstesp = 3\n")
    assert "unknown field 'training.stesp'; did you mean steps" in said(
        "train", "quick", "--data", "digits", "--config", config
    )
    config.write_text('[training]\nsteps = "three"\n')
    assert "training.steps = 'three' should be int" in said("train", "quick", "--data", "digits", "--config", config)
    config.write_text("[training\n")
    assert "is not valid TOML" in said("train", "quick", "--data", "digits", "--config", config)


def test_help_and_import_need_no_torch() -> None:
    code = "import sys, unstir, unstir.cli as c; c.run(['--help']); c.run(['formulas', 'heun']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for command in ("train", "sample", "data", "info", "recipes", "formulas"):
        assert f"\n  {command} " in done.stdout
