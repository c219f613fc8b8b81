"""Distribution matching through the command line: its two stages, stopped and gone on with, sampled; what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from numeric import same_states
from runs import UNET, as_if_learnt, said, same_weights, session_of, state_of, weights

import unstir
from unstir.cli import run
from unstir.objectives import ConsistencyObjective, LogNormal, MatchingObjective
from unstir.objectives.matching import Rivals
from unstir.samplers import Consistency
from unstir.stages import read_stages
from unstir.training.checkpoint import Checkpoints

TINY = ["--training.batch-size", "4", "--training.steps", "4", "--training.checkpoint-every", "2"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    """With classes, guidance in an interval, and a linear denoiser that it corrects."""
    out = tmp_path_factory.mktemp("teachers") / "t"
    words = ["--data", str(tiny_arrays["image"]), "--out", str(out), "--denoiser.linear-components", "3"]
    run(["train", "quick", *words, *TINY, *UNET])
    return as_if_learnt(out)


def distill(teacher: Path, out: Path, *words: str) -> Path:
    run(["distill", str(teacher), "--method", "matching", "--out", str(out), *TINY, *words])
    return out


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    return distill(teacher, tmp_path_factory.mktemp("students") / "s", "--steps", "2")


def test_it_begins_as_a_consistency_model_and_samples_like_one(student: Path, teacher: Path) -> None:
    found = read_stages(student)
    assert found is not None
    assert (found[0], list(found[1])) == ("matching", ["consistency", ""])
    first, last = unstir.load(student / "consistency").recipe, unstir.load(student).recipe
    assert isinstance(first.objective, ConsistencyObjective)
    assert isinstance(last.objective, MatchingObjective)
    assert first.base == first.objective.teacher == last.objective.teacher == str(teacher.resolve())
    assert last.base == "consistency"
    assert last.sampling == first.sampling
    assert (last.sampling.sampler, last.sampling.steps) == (Consistency(), 2)
    assert (last.objective.steps, last.objective.grid) == (2, last.sampling.grid)
    model = unstir.load(student)
    assert [step.evaluations for step in model.trajectory(range(2))] == [1, 1]
    assert "distilled with its guidance inside" in said("sample", student, "--guidance-scale", "2")


def test_both_denoisers_of_noised_samples_are_what_they_should_be(student: Path, teacher: Path) -> None:
    session, model = session_of(student), unstir.load(teacher)
    companion = session.state.companion
    assert isinstance(companion, Rivals)
    x, label = torch.randn(3, 3, 12, 10), torch.tensor([0, 1, -1])
    t = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    with torch.no_grad():
        guided = model.guided(model.recipe.sampling)(x, t, label=label).x_0
        assert torch.equal(companion.believe(x, t, {"label": label}).x_0, guided)
        # A fresh one begins as the teacher, unguided.
        bare = model.denoiser(x, t, label=label).x_0
        assert torch.equal(companion.fake(x, t, label=label).x_0, bare)
        assert not torch.allclose(bare, guided, atol=0.01)
        # The trained one has learned something since, and is in the checkpoint.
        session.resume()
        assert not torch.allclose(companion.fake(x, t, label=label).x_0, bare, atol=1e-4)


def test_killed_and_resumed_equals_never_killed(student: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(student, cut)
    Checkpoints(cut / "checkpoints", 3).path(4).unlink()
    run(["train", "--resume", str(cut)])
    assert same_weights(cut, student)
    assert same_states(state_of(cut), state_of(student))
    assert not same_weights(student, student / "consistency")


def test_it_begins_with_the_weights_of_its_first_stage(teacher: Path, tmp_path: Path) -> None:
    out = distill(teacher, tmp_path / "s", "--training.learning-rate", "1e-12", "--training.optimizer", "adamw")
    assert unstir.load(out).recipe.sampling.steps == 1
    for name, value in weights(out).items():
        torch.testing.assert_close(value, weights(out / "consistency")[name], rtol=1e-5, atol=1e-6)


def test_another_student_to_begin_with(student: Path, teacher: Path, tmp_path: Path) -> None:
    still = ["--training.learning-rate", "1e-12", "--training.optimizer", "adamw", "--objective.times.mean", "-0.5"]
    out = distill(teacher, tmp_path / "s", "--base", str(student / "consistency"), *still)
    assert read_stages(out) is None
    recipe = unstir.load(out).recipe
    assert isinstance(recipe.objective, MatchingObjective)
    assert (recipe.base, recipe.objective.teacher) == (
        str((student / "consistency").resolve()),
        str(teacher.resolve()),
    )
    assert recipe.objective.times == LogNormal(-0.5, 1.4)
    for name, value in weights(out).items():
        torch.testing.assert_close(value, weights(student / "consistency")[name], rtol=1e-5, atol=1e-6)


def test_points_and_signals_too(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    for recipe, kind in (("swiss-roll", "points"), ("ecg", "signal")):
        data, base = str(tiny_arrays[kind]), tmp_path / recipe
        run(["train", recipe, "--data", data, "--out", str(base), *TINY, "--sampling.steps", "3"])
        model = unstir.load(distill(base, tmp_path / f"{recipe}-student"))
        drawn = model.sample(3)
        assert torch.isfinite(drawn).all()
        assert drawn.std(0).mean() > 1e-3, "not all the same"


def test_what_is_refused(student: Path, teacher: Path, tmp_path: Path) -> None:
    words = ["--method", "matching", "--out", tmp_path / "x"]
    assert "has no belief about noised ones to match" in said("distill", student, *words)
    assert "has no belief about noised ones to match" in said("distill", student / "consistency", *words)
    assert "one guidance scale for good" in said("distill", teacher, *words, "--guidance-scale", "1", "4")
    assert "samples in 12 steps already" in said("distill", teacher, *words, "--steps", "12")
    assert "not made by halving" in said("distill", teacher, *words, "--start", "32")
    for method in ("progressive", "consistency", "consistency-tuning", "guidance"):
        other = ["--method", method, "--out", tmp_path / "x", "--base", student]
        assert "--base is for --method matching" in said("distill", teacher, *other)
    assert "there is no run folder" in said("distill", teacher, *words, "--base", tmp_path / "gone")
    assert not (tmp_path / "x").exists()
