"""Consistency models through the command line: distilled, tuned and from nothing; stopped and gone on with; sampled, edited."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import UNET, as_if_learnt, said, session_of, weights

import unstir
from unstir.cli import run
from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.editing import image_to_image, inpaint
from unstir.editing.inpaint import method_for
from unstir.errors import UserError
from unstir.objectives import ConsistencyObjective, ContinuousConsistencyObjective
from unstir.objectives.consistency import ConsistencyCompanion
from unstir.objectives.discretization import MOST_NOISE
from unstir.samplers import Consistency
from unstir.sampling import SampleNoise
from unstir.training.checkpoint import Checkpoints

TINY = ["--training.batch-size", "4", "--training.steps"]
AVERAGED = ["--objective.target-decay", "0.9", "--objective.pairs.growth", "square-root",
            "--objective.pairs.first", "3"]  # fmt: skip


def train(recipe: str, data: Path, out: Path, *words: str) -> Path:
    run(["train", recipe, "--data", str(data), "--out", str(out), *TINY, "2", *words])
    return as_if_learnt(out)


def distill(teacher: Path, out: Path, method: str, *words: str) -> Path:
    run(["distill", str(teacher), "--method", method, "--out", str(out), *TINY, "4", *words])
    return out


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    """With classes, guidance in an interval, and a linear denoiser that it corrects."""
    words = [*UNET, "--denoiser.linear-components", "3"]
    return train("quick", tiny_arrays["image"], tmp_path_factory.mktemp("teachers") / "t", *words)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    """Distilled, with a target that is an average and pairs that move together: all that there is to remember."""
    words = [*AVERAGED, "--training.checkpoint-every", "2"]
    return distill(teacher, tmp_path_factory.mktemp("students") / "s", "consistency", *words)


# ---- what comes of it ----------------------------------------------------------------------------------------------------------


def test_a_distilled_student_samples_in_two_steps_and_in_one(student: Path, teacher: Path) -> None:
    model, theirs = unstir.load(student), unstir.load(teacher)
    recipe = model.recipe
    assert isinstance(recipe.objective, ConsistencyObjective)
    assert recipe.objective.teacher == recipe.base == str(teacher.resolve())
    assert (recipe.sampling.sampler, recipe.sampling.steps, recipe.sampling.guidance_scale) == (Consistency(), 2, 1)
    assert recipe.process == theirs.recipe.process
    steps = list(model.trajectory(range(2)))
    assert [float(step.t) for step in steps] == pytest.approx([60, 1.6 * model.spec.std], abs=1e-3)
    assert [step.evaluations for step in steps] == [1, 1]
    assert [float(s.t) for s in model.trajectory(range(2), model.settings(steps=1))] == [60]
    assert model.sample(3, label="one").shape == (3, 3, 12, 10)
    with pytest.raises(UserError, match="distilled with its guidance inside"):
        model.sample(1, guidance_scale=2.0)


def test_it_is_taught_by_the_guided_teacher_along_its_paths(student: Path, teacher: Path) -> None:
    model, companion = unstir.load(teacher), session_of(student).state.companion
    assert isinstance(companion, ConsistencyCompanion)
    x, label = torch.randn(3, 3, 12, 10), torch.tensor([0, 1, -1])
    t = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    with torch.no_grad():
        wanted = model.guided(model.recipe.sampling)(x, t, label=label).x_0
        plain = model.guided(model.settings(guidance_scale=1.0))(x, t, label=label).x_0
    assert torch.equal(companion.believe(x, t, {"label": label}).x_0, wanted)
    assert not torch.allclose(plain, wanted, atol=0.01)


def test_it_begins_as_its_teacher(teacher: Path, tmp_path: Path) -> None:
    for method in ("consistency", "consistency-tuning", "consistency-continuous"):
        still = ["--training.learning-rate", "1e-12", "--training.optimizer", "adamw"]
        out = distill(teacher, tmp_path / method, method, *still)
        mine, theirs = weights(out), weights(teacher)
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_tuning_learns_from_the_data_alone(teacher: Path, tmp_path: Path) -> None:
    out = distill(teacher, tmp_path / "s", "consistency-tuning", "--steps", "1")
    model, companion = unstir.load(out), session_of(out).state.companion
    assert isinstance(model.recipe.objective, ConsistencyObjective)
    assert (model.recipe.objective.teacher, model.recipe.base) == ("", str(teacher.resolve()))
    assert model.recipe.sampling.steps == 1
    assert isinstance(companion, ConsistencyCompanion)
    assert not companion.teaches
    shutil.rmtree(out.parent / "gone", ignore_errors=True)
    moved = shutil.copytree(teacher, tmp_path / "copy")
    again = distill(moved, tmp_path / "again", "consistency-tuning")
    shutil.rmtree(moved)
    run(["train", "--resume", str(again), "--training.steps", "5"])  # which needs its base no more
    assert Checkpoints(again / "checkpoints", 3).steps()[-1] == 5


@pytest.mark.parametrize("method", ["consistency", "consistency-tuning", "consistency-continuous"])
def test_killed_and_resumed_equals_never_killed(method: str, student: Path, teacher: Path, tmp_path: Path) -> None:
    whole = student
    if method != "consistency":
        whole = distill(teacher, tmp_path / "whole", method, "--training.checkpoint-every", "2")
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    Checkpoints(cut / "checkpoints", 3).path(4).unlink()  # as kill -9 leaves it
    run(["train", "--resume", str(cut)])
    ours, theirs = (Checkpoints(folder / "checkpoints", 3).at(4) for folder in (cut, whole))
    for part in ("module", "averaged", "companion"):
        assert ours[part].keys() == theirs[part].keys()
        for name, value in ours[part].items():
            assert torch.equal(value, theirs[part][name]), name
    assert ("target.network.stem.weight" in ours["companion"]) == (method == "consistency")


def test_from_nothing(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    out = train("consistency", tiny_arrays["image"], tmp_path / "c", *UNET, "--objective.pairs", "log-normal")
    model = unstir.load(out)
    assert (model.recipe.sampling.sampler, model.recipe.sampling.steps) == (Consistency(), 2)
    run(["sample", str(out), "-n", "3", "--steps", "1", "--label", "one", "--out", str(tmp_path / "x.npz")])
    wanted = model.spec.to_data(model.sample(3, steps=1, label="one"))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], wanted)


def test_from_nothing_in_continuous_time(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    out = train("consistency", tiny_arrays["image"], tmp_path / "c", *UNET, "--objective", "continuous-consistency")
    model, companion = unstir.load(out), session_of(out).state.companion
    assert isinstance(model.recipe.objective, ContinuousConsistencyObjective)
    assert isinstance(companion, ConsistencyCompanion)
    assert not companion.teaches
    assert model.sample(2).shape == (2, 3, 12, 10)


def test_the_scale_as_an_input(teacher: Path, tmp_path: Path) -> None:
    out = as_if_learnt(distill(teacher, tmp_path / "s", "consistency", "--guidance-scale", "1", "4"))
    model = unstir.load(out)
    assert GUIDANCE_SCALE in model.spec.conditions
    assert [step.evaluations for step in model.trajectory(range(2))] == [1, 1]
    assert torch.equal(model.sample(2), model.sample(2, guidance_scale=2.5))
    assert not torch.equal(model.sample(2), model.sample(2, guidance_scale=4.0))


# ---- every kind of model -------------------------------------------------------------------------------------------------------

OTHERS = {
    "improved-ddpm": ("image", UNET),  # learned variance, the cosine chain, and a network that gives eps
    "rectified-flow": ("image", UNET),
    "score-sde-subvp": ("image", [*UNET, "--sampling.sampler", "heun"]),
    "ecg": ("signal", ["--sampling.steps", "3"]),
    "swiss-roll": ("points", ["--sampling.steps", "3"]),
    "quick": ("image", [*UNET, "--derived", "edges"]),
}


@pytest.mark.parametrize("recipe", OTHERS)
def test_every_kind_of_model(recipe: str, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    kind, words = OTHERS[recipe]
    base = train(recipe, tiny_arrays[kind], tmp_path / "t", *words)
    methods = ["consistency", "consistency-tuning", "consistency-continuous"]
    if recipe == "improved-ddpm":
        refused = ["distill", base, "--method", methods.pop(), "--out", tmp_path / "x"]
        assert "whole steps" in said(*refused)
        assert not (tmp_path / "x").exists()
    for method in methods:
        out = distill(base, tmp_path / method, method, "--steps", "2")
        model = unstir.load(out)
        drawn = model.sample(3)
        assert torch.isfinite(drawn).all()
        # It starts where it was trained, also where its process goes on to nothing but noise.
        t = next(iter(model.trajectory(range(1)))).t
        assert float(model.denoiser.process.sigma(t) / model.denoiser.process.alpha(t)) <= MOST_NOISE * (1 + 1e-9)
        losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all(0 < loss < 1e5 for loss in losses)


# ---- editing -------------------------------------------------------------------------------------------------------------------


def test_inpainting_keeps_what_is_known_and_fills_by_belief(
    student: Path, tiny_arrays: dict[str, Path], tmp_path: Path
) -> None:
    model = unstir.load(student)
    assert method_for(model.recipe) == "belief"
    picture = np.load(tiny_arrays["image"])["x"][3]
    mask = np.zeros((12, 10), np.uint8)
    mask[3:8, 2:7] = 255
    Image.fromarray(picture).save(tmp_path / "p.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    words = ["--image", str(tmp_path / "p.png"), "--mask", str(tmp_path / "m.png"), "-n", "3"]
    run(["edit", "inpaint", str(student), *words, "--out", str(tmp_path / "x.npz")])
    filled = np.load(tmp_path / "x.npz")["arr_0"]
    for one in filled:
        np.testing.assert_array_equal(one[mask == 0], picture[mask == 0])
    assert not np.array_equal(filled[0], filled[1])
    x_0, hole = model.spec.to_model(picture[None])[0], torch.from_numpy(mask == 255)[None]
    np.testing.assert_array_equal(filled, model.spec.to_data(inpaint(model, x_0, hole, n=3, method="belief")))
    # Other methods work with it as well, and the default is another one for a diffusion model.
    run(["edit", "inpaint", str(student), *words, "--method", "repaint", "--out", str(tmp_path / "y.npz")])
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["arr_0"][:, mask == 0], filled[:, mask == 0])


def test_variations(student: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    """SDEdit: one of the two steps is left."""
    Image.fromarray(np.load(tiny_arrays["image"])["x"][3]).save(tmp_path / "p.png")
    words = ["--image", str(tmp_path / "p.png"), "--strength", "0.5", "-n", "2", "--out", str(tmp_path / "x.npz")]
    run(["edit", "image-to-image", str(student), *words])
    model, found = unstir.load(student), np.load(tmp_path / "x.npz")["arr_0"]
    x_0 = model.spec.to_model(np.load(tiny_arrays["image"])["x"][3:4])
    np.testing.assert_array_equal(found, model.spec.to_data(image_to_image(model, x_0[0], 0.5, n=2)))
    # By hand: the picture under the noise of the second step's level, and what is believed of it.
    t = list(model.trajectory(range(2)))[1].t
    noise = SampleNoise(0, range(2)).normal((3, 12, 10))
    with torch.no_grad():
        x_t = model.denoiser.process.add_noise(x_0.expand(2, -1, -1, -1), t, noise)
        believed = model.guided(model.recipe.sampling)(x_t, t, label=torch.tensor([-1, -1])).x_0
    assert np.abs(found.astype(int) - model.spec.to_data(believed)).max() <= 1


# ---- what is refused -----------------------------------------------------------------------------------------------------------


def test_what_is_refused(teacher: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        return said("distill", teacher, "--out", tmp_path / "s", *words)

    assert "samples in 12 steps already" in refused("--method", "consistency", "--steps", "12")
    assert "--start and --first are for --method progressive" in refused("--method", "consistency", "--start", "8")
    assert "which nobody guides" in refused("--method", "consistency-tuning", "--guidance-scale", "1", "4")
    assert "did you mean consistency or consistency-tuning?" in refused("--method", "consistensy")
    assert not (tmp_path / "s").exists()
    with pytest.raises(UserError, match=r"name it with --objective\.teacher RUN"):
        run(["train", "consistency", "--data", "digits", "--out", str(tmp_path / "x"),
             "--objective.guidance-scale", "2"])  # fmt: skip


def test_what_needs_a_mean_is_refused(student: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / "a.png")
    for words in (
        ["evaluate", student, "--metrics", "nll", "-n", "2"],
        ["compress", student, "--image", tmp_path / "a.png"],
    ):
        with pytest.raises(UserError, match=r"tells nothing of how likely data are.*such as its teacher"):
            run([str(word) for word in words])
