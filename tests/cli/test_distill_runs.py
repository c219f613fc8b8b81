"""Distillation through the command line: a chain of students, stopped and gone on with, sampled, judged, guided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numeric import same_states
from runs import UNET, as_if_learnt, said, same_weights, session_of, state_of, weights

import unstir
from unstir.cli import run
from unstir.cli.distill import default_folder, take_numbers
from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, scale_range
from unstir.errors import UserError
from unstir.guidance import ScaleInput
from unstir.objectives import ProgressiveObjective, Teacher
from unstir.recipes import RECIPES
from unstir.run import Run
from unstir.samplers import DDIM
from unstir.samplers.grids import Karras, Strided
from unstir.stages import read_stages
from unstir.training.checkpoint import Checkpoints

TINY = ["--training.batch-size", "4"]
PLAN = ["--training.steps", "4", "--training.checkpoint-every", "2"]
LAST = ["--steps", "1", "--start", "2", "--training.steps", "2"]
"""A single stage, from two steps to one."""


def train(recipe: str, data: Path, out: Path, *words: str) -> Path:
    run(["train", recipe, "--data", str(data), "--out", str(out), "--training.steps", "2", *TINY, *words])
    return as_if_learnt(out)


def distill(teacher: Path | str, out: Path, *words: str) -> Path:
    run(["distill", str(teacher), "--method", "progressive", "--out", str(out), *words])
    return out


@torch.no_grad()
def believed_by(folder: Path, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor, **settings: float) -> torch.Tensor:
    """What a run believes of x_t, guided as it recommends but for these settings."""
    model = unstir.load(folder)
    return model.guided(model.settings(**settings))(x, t, label=label).x_0  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    """With classes, guidance in an interval, and a linear denoiser that it corrects."""
    words = [*UNET, "--denoiser.linear-components", "3", "--network.dropout", "0.1"]
    return train("quick", tiny_arrays["image"], tmp_path_factory.mktemp("teachers") / "t", *words)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    """64 -> 16 -> 8 -> 4."""
    return distill(teacher, tmp_path_factory.mktemp("students") / "s", *PLAN)


# ---- the chain -------------------------------------------------------------------------------------------------------


def test_every_stage_is_a_run_that_samples_in_its_steps(chain: Path, teacher: Path) -> None:
    found = read_stages(chain)
    assert found is not None
    assert found[0] == "progressive"
    assert list(found[1]) == ["steps-16", "steps-8", ""]
    original, model = unstir.load(teacher), unstir.load(chain)
    teachers = {"steps-16": (str(teacher.resolve()), 4), "steps-8": ("../steps-16", 2), "": ("steps-8", 2)}
    for (folder, (name, substeps)), steps in zip(teachers.items(), (16, 8, 4), strict=True):
        recipe = unstir.load(chain / folder).recipe
        objective, sampling = recipe.objective, recipe.sampling
        assert isinstance(objective, ProgressiveObjective)
        assert (recipe.base, objective.teacher) == (name, name)
        assert (objective.steps, objective.substeps, sampling.steps) == (steps, substeps, steps)
        assert objective.grid == sampling.grid == Strided(original.recipe.sampling.grid, 64)
        assert (sampling.sampler, sampling.guidance_scale) == (DDIM(), 1)
        assert objective.dropout == 0.1
        assert recipe.network.dropout == 0  # type: ignore[attr-defined]
        assert recipe.training.learning_rate == original.recipe.training.learning_rate / 4
    assert model.spec == original.spec
    evaluations = [step.evaluations for step in model.trajectory(range(2))]
    assert evaluations == [1, 1, 1, 1]
    times = torch.tensor([float(step.t) for step in model.trajectory(range(2))])
    torch.testing.assert_close(
        times.double(), Karras(sigma_min=0.02).times(model.denoiser.process, 64)[:-1:16], rtol=1e-5, atol=0
    )


def test_a_stage_learns_from_the_one_before_as_it_samples(chain: Path, teacher: Path) -> None:
    """The first one from the run itself, guided and clipped as plain unstir sample has it."""
    x, t = 3 * torch.randn(4, 3, 12, 10), torch.tensor([0.1, 1.0, 4.0, 30.0], dtype=torch.float64)
    label = torch.tensor([0, 1, -1, 1])
    for folder, taught_by in (("steps-16", teacher), ("steps-8", chain / "steps-16"), ("", chain / "steps-8")):
        session = session_of(chain / folder)
        companion = session.state.companion
        assert isinstance(companion, Teacher)
        believed = companion.believe(x, t, {"label": label}).x_0
        assert torch.equal(believed, believed_by(taught_by, x, t, label))
        assert believed.abs().max() <= 1
    plain, guided = (believed_by(teacher, x, t, label, **settings) for settings in ({"guidance_scale": 1.0}, {}))
    assert not torch.allclose(plain[1], guided[1], atol=0.01)
    assert torch.allclose(plain[3], guided[3], atol=0.01), "outside of the interval it is not guided"


def test_a_student_begins_with_its_teacher_s_weights(teacher: Path, tmp_path: Path) -> None:
    words = ["--training.learning-rate", "1e-12", "--training.optimizer", "adamw"]
    out = distill(teacher, tmp_path / "s", *LAST, *words)
    assert read_stages(out) is None, "a single stage is a run as any other"
    mine, theirs = weights(out), weights(teacher)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-6)
    assert unstir.load(out).sample(2).shape == (2, 3, 12, 10)


@pytest.mark.parametrize(("stage", "left"), [("steps-16", 2), ("steps-8", 2), ("steps-8", 0), ("", 2), ("", 0)])
def test_killed_anywhere_and_resumed_equals_never_killed(stage: str, left: int, chain: Path, tmp_path: Path) -> None:
    """As kill -9 leaves it: its last steps are lost, or all of them, and the stages after it were never begun."""
    cut = tmp_path / "cut"
    shutil.copytree(chain, cut)
    after = {"steps-16": ["steps-8", ""], "steps-8": [""], "": []}[stage]
    for folder in [*after, *([] if left else [stage])]:
        for path in [cut / folder / name for name in ("recipe.toml", "model.safetensors", "metrics.jsonl")]:
            path.unlink()
        shutil.rmtree(cut / folder / "checkpoints")
    if left:
        Checkpoints(cut / stage / "checkpoints", 3).path(4).unlink()
    run(["train", "--resume", str(cut)])
    for folder in ("steps-16", "steps-8", ""):
        assert same_weights(cut / folder, chain / folder), folder
        assert same_states(state_of(cut / folder), state_of(chain / folder)), folder


def test_a_stage_that_was_lost_is_trained_again_and_is_the_same_teacher(chain: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(chain, moved)
    shutil.rmtree(moved / "steps-8")
    assert torch.equal(unstir.load(moved).sample(2), unstir.load(chain).sample(2)), "who only samples needs no teacher"
    Checkpoints(moved / "checkpoints", 3).path(4).unlink()
    run(["train", "--resume", str(moved)])
    assert same_weights(moved / "steps-8", chain / "steps-8")
    assert same_weights(moved, chain)


def test_a_teacher_that_was_changed_is_noticed(chain: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(chain, cut)
    as_if_learnt(cut / "steps-8")
    Checkpoints(cut / "checkpoints", 3).path(4).unlink()
    assert "steps-8 is not the teacher that this run began with" in said("train", "--resume", cut)


def test_a_missing_teacher_is_named(teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(teacher, copy)
    out = distill(copy, tmp_path / "s", *LAST)
    shutil.move(copy, tmp_path / "there")
    message = said("train", "--resume", out, "--training.steps", "3")
    assert f"learns from {copy}" in message
    assert "--objective.teacher RUN" in message
    run(["train", "--resume", str(out), "--training.steps", "3", "--objective.teacher", str(tmp_path / "there")])
    assert Checkpoints(out / "checkpoints", 3).steps()[-1] == 3


def test_a_student_is_distilled_further(chain: Path, tmp_path: Path) -> None:
    out = distill(chain, tmp_path / "one", "--steps", "1", *PLAN)
    stages = read_stages(out)
    assert stages is not None
    assert [recipe.sampling.steps for recipe in stages[1].values()] == [2, 1]
    assert stages[1][""].sampling.grid == unstir.load(chain).recipe.sampling.grid
    assert stages[1]["steps-2"].objective.substeps == 2  # type: ignore[attr-defined]
    assert "can be halved to 2, 1" in said("distill", chain, "--method", "progressive", "--steps", "3")


def test_the_first_student_may_have_any_steps(teacher: Path, tmp_path: Path) -> None:
    """Straight to four steps, each of which is four of Heun's."""
    words = ["--steps", "4", "--first", "4", "--start", "16", "--objective.solver", "heun", "--training.steps", "1"]
    recipe = Run(distill(teacher, tmp_path / "s", *words)).read_recipe()[1]
    assert isinstance(recipe.objective, ProgressiveObjective)
    assert (recipe.objective.steps, recipe.objective.substeps, recipe.objective.solver) == (4, 4, "heun")
    assert recipe.objective.teacher == str(teacher.resolve())
    assert recipe.objective.grid == recipe.sampling.grid == Strided(Karras(sigma_min=0.02), 16)


def test_a_student_is_no_base(chain: Path, tiny_arrays: dict[str, Path]) -> None:
    words = ["train", "quick", "--base", chain, "--data", tiny_arrays["image"]]
    assert "was distilled: it has learned to sample in 4 steps" in said(*words)


def test_minutes_are_shared_out_and_stages_have_options_of_their_own(teacher: Path, tmp_path: Path) -> None:
    words = ["--training.minutes", "9", "--steps-8.training.learning-rate", "0.001", "--training.steps", "1"]
    out = distill(teacher, tmp_path / "s", *words)
    stages = read_stages(out)
    assert stages is not None
    assert [recipe.training.minutes for recipe in stages[1].values()] == [3, 3, 3]
    assert [recipe.training.learning_rate == 0.001 for recipe in stages[1].values()] == [False, True, False]


# ---- using students --------------------------------------------------------------------------------------------------


def test_sampling_and_judging_as_any_run(chain: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    run(["sample", str(chain), "-n", "5", "--label", "one", "--out", str(tmp_path / "x.npz")])
    model = unstir.load(chain)
    np.testing.assert_array_equal(
        np.load(tmp_path / "x.npz")["arr_0"], model.spec.to_data(model.sample(5, label="one"))
    )
    words = ["--metrics", "fd", "-n", "8", "--features", "pixels", "--json", str(tmp_path / "e.json")]
    run(["evaluate", str(chain), "--data", str(tiny_arrays["image"]), *words])
    assert json.loads((tmp_path / "e.json").read_text())["fd"]["value"] > 0


def test_info_says_what_was_learned(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["info", str(chain)])
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("  sampling   ddim") and line.endswith("the guidance of its teacher learned") for line in lines
    )
    assert [line.split(": ")[1] for line in lines if line.startswith("  stage")] == [
        "3x12x10 in 16 steps, step 4",
        "3x12x10 in 8 steps, step 4",
        "3x12x10 in 4 steps, step 4 (this run)",
    ]


def test_one_scale_for_good_is_not_guided_again(teacher: Path, chain: Path, tmp_path: Path) -> None:
    assert "distilled with its guidance inside" in said("sample", chain, "-n", "1", "--guidance-scale", "2")
    out = distill(teacher, tmp_path / "s", *LAST, "--guidance-scale", "1.5")
    companion = session_of(out).state.companion
    assert isinstance(companion, Teacher)
    x, t, label = torch.randn(2, 3, 12, 10), torch.tensor(1.0, dtype=torch.float64), torch.tensor([0, 1])
    expected = believed_by(teacher, x, t, label, guidance_scale=1.5)
    assert torch.equal(companion.believe(x, t, {"label": label}).x_0, expected)
    assert GUIDANCE_SCALE not in unstir.load(out).spec.conditions


def test_the_scale_as_an_input(
    teacher: Path, tmp_path: Path, tiny_arrays: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = distill(teacher, tmp_path / "s", "--steps", "4", "--start", "16", "--guidance-scale", "1", "4", *PLAN)
    stages = read_stages(out)
    assert stages is not None
    assert list(stages[1]) == ["guided", "steps-8", ""], "at every scale the guidance is learned first"
    for folder in ("guided", "steps-8", ""):
        as_if_learnt(out / folder)
        model = unstir.load(out / folder)
        assert scale_range(model.spec.conditions[GUIDANCE_SCALE]) == (1, 4)
        assert model.recipe.sampling.guidance_scale == 2.5, "what its teacher recommends"
        assert isinstance(model.guided(model.settings(clip=False)), ScaleInput)
        assert [step.evaluations for step in model.trajectory(range(2))] == [1] * model.recipe.sampling.steps
    assert torch.equal(model.sample(2), model.sample(2, guidance_scale=2.5))
    assert not torch.equal(model.sample(2), model.sample(2, guidance_scale=4.0))
    run(["sample", str(out), "-n", "2", "--guidance-scale", "4", "--label", "one", "--out", str(tmp_path / "x.npz")])
    drawn = model.spec.to_data(model.sample(2, guidance_scale=4.0, label="one"))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], drawn)
    assert "learned guidance scales from 1 to 4, not 5" in said("sample", out, "--guidance-scale", "5")
    capsys.readouterr()
    run(["info", str(out)])
    info = capsys.readouterr().out
    assert "guidance scale 2.5, learned from 1 to 4" in info
    assert "--guidance-scale " not in info, "it is no condition to be asked for"
    words = ["--metrics", "fd", "-n", "8", "--features", "pixels", "--guidance-scale", "3"]
    run(["evaluate", str(out), "--data", str(tiny_arrays["image"]), *words])
    # The second student is taught with a scale of each sample's own, which the first one is told.
    companion = session_of(out).state.companion
    assert isinstance(companion, Teacher)
    x, t, label = torch.randn(3, 3, 12, 10), torch.full((3,), 1.0, dtype=torch.float64), torch.tensor([0, 1, 1])
    scale = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    together = companion.believe(x, t, {"label": label, GUIDANCE_SCALE: scale}).x_0
    for i in range(3):
        alone = believed_by(out / "steps-8", x, t, label, guidance_scale=float(scale[i]))
        torch.testing.assert_close(together[i], alone[i], atol=0.02, rtol=0)  # bf16, where the hardware has it
    assert (believed_by(out / "steps-8", x, t, label) - together).abs().max() > 0.05
    # The first one alone is guided by those scales.
    guided = session_of(out / "guided").state.companion
    assert isinstance(guided, Teacher)
    for i in range(3):
        alone = believed_by(teacher, x, t, label, guidance_scale=float(scale[i]))
        theirs = guided.believe(x, t, {"label": label, GUIDANCE_SCALE: scale}).x_0
        torch.testing.assert_close(theirs[i], alone[i], atol=0.02, rtol=0)
    # A further student keeps the range.
    further = distill(out, tmp_path / "one", "--steps", "2", *PLAN[:2])
    assert scale_range(unstir.load(further).spec.conditions[GUIDANCE_SCALE]) == (1, 4)


# ---- the guidance alone ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    out = tmp_path_factory.mktemp("guided") / "g"
    run(["distill", str(teacher), "--method", "guidance", "--out", str(out), *PLAN])
    return out


def test_a_student_with_the_guidance_inside_samples_as_its_teacher_by_one_evaluation_a_step(
    guided: Path, teacher: Path
) -> None:
    assert read_stages(guided) is None
    mine, theirs = unstir.load(guided).recipe, unstir.load(teacher).recipe
    assert isinstance(mine.objective, ProgressiveObjective)
    assert (mine.base, mine.objective.teacher) == (str(teacher.resolve()),) * 2
    assert (mine.objective.steps, mine.objective.substeps) == (64, 1)
    for name in ("sampler", "grid", "steps"):
        assert getattr(mine.sampling, name) == getattr(theirs.sampling, name)
    assert (mine.sampling.guidance_scale, theirs.sampling.guidance_scale) == (1, 2.5)
    companion = session_of(guided).state.companion
    assert isinstance(companion, Teacher)
    x, label = 3 * torch.randn(3, 3, 12, 10), torch.tensor([0, 1, -1])
    t = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    assert torch.equal(companion.believe(x, t, {"label": label}).x_0, believed_by(teacher, x, t, label))


def test_it_is_halved_as_any_run_and_not_guided_again(guided: Path, chain: Path, tmp_path: Path) -> None:
    out = distill(guided, tmp_path / "s", "--steps", "8", *PLAN)
    stages = read_stages(out)
    assert stages is not None
    assert list(stages[1]) == ["steps-16", ""]
    assert stages[1]["steps-16"].sampling.grid == unstir.load(chain / "steps-16").recipe.sampling.grid
    assert stages[1]["steps-16"].objective.substeps == 4  # type: ignore[attr-defined]
    for student in (chain, guided):
        words = ["distill", student, "--out", tmp_path / "x"]
        for method in ("progressive", "consistency"):
            few = ["--method", method, "--steps", "2", "--guidance-scale"]
            assert "takes no other" in said(*words, *few, "2")
            assert "takes no other" in said(*words, *few, "1", "4")
    again = ["distill", guided, "--out", tmp_path / "x", "--method", "guidance"]
    assert "nothing guides" in said(*again)
    assert "leave --steps and --first out" in said(*again, "--steps", "4")
    assert not (tmp_path / "x").exists()


# ---- every kind of model ---------------------------------------------------------------------------------------------


OTHERS = {
    "improved-ddpm": ("image", UNET),  # learned variance, the cosine chain, and a network that gives eps
    "rectified-flow": ("image", UNET),
    "score-sde-subvp": ("image", [*UNET, "--sampling.sampler.rtol", "0.1", "--sampling.sampler.atol", "0.1"]),
    "ncsnv2": ("image", ["--sampling.sampler.repeats", "1"]),
    "ecg": ("signal", ["--sampling.steps", "3"]),
    "swiss-roll": ("points", ["--sampling.steps", "3"]),
    "quick": ("image", [*UNET, "--derived", "edges"]),
    "cascade": ("image", UNET),  # its last stage, which enlarges what the one below draws
}


@pytest.mark.parametrize("recipe", OTHERS)
def test_every_kind_of_model(recipe: str, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    kind, words = OTHERS[recipe]
    base = train(recipe, tiny_arrays[kind], tmp_path / "t", *words)
    out = distill(base, tmp_path / "s", *LAST)
    theirs, ours = Run(base).read_recipe()[1], Run(out).read_recipe()[1]
    assert ours.process == theirs.process
    given = theirs.denoiser.parameterization  # type: ignore[attr-defined]
    assert ours.denoiser.parameterization == ("edm" if given in ("eps", "score") else given)  # type: ignore[attr-defined]
    drawn = unstir.load(out).sample(3)
    assert torch.isfinite(drawn).all()
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < loss < 1e5 for loss in losses)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_distilled(teacher: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "s"
    words = ["distill", teacher, "--method", "progressive", "--out", out]
    assert "how? --method progressive" in said("distill", teacher)
    assert "did you mean progressive?" in said("distill", teacher, "--method", "progresive")
    assert "name the run" in said("distill", "--method", "progressive")
    assert "there is no run folder" in said("distill", tmp_path / "nothing", "--method", "progressive")
    assert "samples in 12 steps already" in said(*words, "--steps", "12")
    assert "positive whole number, not '0'" in said(*words, "--steps", "0")
    assert "unknown option --step;" in said(*words, "--step", "3")
    assert "--guidance-scale takes numbers, not 'much'" in said(*words, "--guidance-scale", "much")
    assert "at most 1" in said(*words, "--guidance-scale", "2", "4")
    assert "not 3" in said(*words, "--guidance-scale", "1", "2", "3")
    assert "is a run already" in said(*words[:-1], teacher)
    assert "there is no checkpoint of step 7" in said("distill", f"{teacher}@7", *words[2:], *LAST)
    assert not out.exists()


def test_other_data_must_fit(teacher: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    words = ["distill", teacher, "--method", "progressive", "--out", tmp_path / "s", *LAST]
    assert "trains on data of kind image" in said(*words, "--data", tiny_arrays["points"])
    assert not (tmp_path / "s").exists()
    chained = ["distill", teacher, "--method", "progressive", "--out", tmp_path / "s", *PLAN]
    assert "trains on data of kind image" in said(*chained, "--data", tiny_arrays["points"])
    assert not (tmp_path / "s").exists(), "the folder is free for the next try"
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "large.npz", x=rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), y=np.arange(20) % 2)
    message = said(*words, "--data", tmp_path / "large.npz")
    assert "trained on image of shape 3x12x10, and this model on image of shape 3x16x16" in message
    classes = np.array(["zero", "two"])
    np.savez(tmp_path / "other.npz", x=np.load(tiny_arrays["image"])["x"], y=np.arange(40) % 2, classes=classes)
    assert "knows another label than this model" in said(*words, "--data", tmp_path / "other.npz")


def test_what_draws_no_samples_and_what_has_nothing_to_be_guided_by(
    tiny_arrays: dict[str, Path], tmp_path: Path
) -> None:
    short = ["--data", str(tiny_arrays["image"]), "--training.steps", "1", *TINY]
    run(["train", "classifier", "--out", str(tmp_path / "c"), *short])
    assert "holds no model that draws samples" in said("distill", tmp_path / "c", "--method", "progressive")
    np.save(tmp_path / "x.npy", np.load(tiny_arrays["image"])["x"])
    train("quick", tmp_path / "x.npy", tmp_path / "u", "--data.groups", "0", *UNET)
    words = ["distill", tmp_path / "u", "--method", "progressive"]
    assert "trained without conditions" in said(*words, "--guidance-scale", "1", "4")
    assert "trained without conditions" in said(*words, "--guidance-scale", "3")


@pytest.mark.parametrize(
    ("words", "numbers", "rest"),
    [
        ("a --w 1 4 --b 2", [1.0, 4.0], "a --b 2"),
        ("a --w=1 4", [1.0, 4.0], "a"),
        ("--w 2.5", [2.5], ""),
        ("a --b 3", [], "a --b 3"),
    ],
)
def test_numbers_behind_a_flag(words: str, numbers: list[float], rest: str) -> None:
    found = words.split()
    assert take_numbers(found, "--w") == numbers
    assert " ".join(found) == rest


def test_a_flag_without_its_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="--w needs a number"):
        take_numbers(["--w", "--b", "2"], "--w")


def test_the_default_folder_is_beside_the_teacher_wherever_that_is_named_from(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"": RECIPES["quick"]}
    beside = teacher.parent / f"{teacher.name}-progressive-{RECIPES['quick'].sampling.steps}"
    assert default_folder(str(teacher), "progressive", stages) == beside
    assert default_folder(f"{teacher}@2", "progressive", stages) == beside
    monkeypatch.chdir(teacher)
    assert default_folder(".", "progressive", stages) == beside.resolve()
    monkeypatch.chdir(teacher / "samples")
    assert default_folder("..", "progressive", stages) == beside.resolve()
