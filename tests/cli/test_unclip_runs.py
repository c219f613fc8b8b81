"""unCLIP through the command line: three models by one command, captions to pictures, variations, what is reused, what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from runs import as_if_learnt, said, same_weights

import unstir
from unstir.cli import run
from unstir.conditioning.derived.image_embedding import NAME
from unstir.data import DataConfig, load
from unstir.editing.embedding import embedding
from unstir.run import Run, fetch
from unstir.training.checkpoint import Checkpoints
from unstir.unclip import TEXT, embeddings, open_clip, prior_of, reader

TINY = ["--network.channels", "8", "--network.middle", "1", "--network.head-channels", "8"]
CLIP = ["--clip.network.channels", "8", "--clip.denoiser.width", "16", "--clip.denoiser.text-width", "16"]
PRIOR = ["--prior.network.width", "16", "--prior.network.depth", "1", "--prior.sampling.steps", "3"]
PLAN = [
    "--training.steps",
    "6",
    "--training.checkpoint-every",
    "2",
    "--training.batch-size",
    "8",
    "--sampling.steps",
    "3",
]


def train(data: Path | str, out: Path, *words: str) -> None:
    run(["train", "unclip", "--data", str(data), "--out", str(out), *PLAN, *TINY, *words])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("unclip") / "u"
    train(tiny_arrays["image"], out, *CLIP, *PRIOR)
    return out


@pytest.fixture(scope="module")
def learnt(chain: Path) -> Path:
    """Six steps teach a network little of its conditions: weights as if it had learnt something of them."""
    copy = chain.parent / "learnt"
    shutil.copytree(chain, copy)
    for folder in (copy, copy / "prior"):
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        generator = torch.Generator().manual_seed(0)
        for value in weights.values():
            value += 0.1 * torch.randn(value.shape, generator=generator).to(value)
        safetensors.torch.save_file(weights, folder / "model.safetensors")
    return copy


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_chain_is_three_runs(chain: Path, tiny_arrays: dict[str, Path]) -> None:
    name, recipe, spec = Run(chain).read_recipe()
    prior_name, prior, of_prior = Run(chain / "prior").read_recipe()
    assert (name, prior_name) == ("unclip", "unclip-prior")
    assert (recipe.derived.clip, prior.vectors, recipe.sampling.prior) == ("clip", "../clip", "prior")  # type: ignore[attr-defined]
    assert (of_prior.kind, of_prior.shape, set(of_prior.conditions)) == ("points", (16,), {"text", TEXT})
    clip = open_clip(str(chain / "clip"), fetch, torch.device("cpu"))
    made = spec.conditions[NAME]
    assert made.encoder == of_prior.conditions[TEXT].encoder == clip.fingerprint
    # The units of both are those of the vectors of the training data.
    dataset = load(DataConfig(source=str(tiny_arrays["image"])))
    z = clip.embedding(dataset.samples(torch.arange(40))).double()
    torch.testing.assert_close(z.norm(dim=1), torch.ones(40, dtype=torch.float64), rtol=1e-5, atol=0)
    np.testing.assert_allclose(made.offset, z.mean(0), atol=1e-6)
    np.testing.assert_allclose(made.scale, z.var(0, unbiased=False).mean().sqrt(), rtol=1e-4)
    assert (of_prior.offset, of_prior.scale) == (made.offset, made.scale)


@pytest.mark.parametrize("stage", ["clip", "prior", ""])
def test_killed_in_any_stage_and_resumed_equals_never_killed(stage: str, chain: Path, tmp_path: Path) -> None:
    """As kill -9 leaves it: the stages after it were never begun, its last steps are lost."""
    cut = tmp_path / "cut"
    shutil.copytree(chain, cut)
    Checkpoints(cut / stage / "checkpoints", 3).path(6).unlink()
    later = {"clip": ["prior", ""], "prior": [""], "": []}[stage]
    for folder in later:
        for path in [cut / folder / "recipe.toml", cut / folder / "model.safetensors", cut / folder / "metrics.jsonl"]:
            path.unlink()
        shutil.rmtree(cut / folder / "checkpoints")
    run(["train", "--resume", str(cut)])
    assert all(same_weights(cut / folder, chain / folder) for folder in ("clip", "prior", ""))


def test_longer_leaves_the_clip_as_it_is(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain, tmp_path / "longer")
    run(["train", "--resume", str(tmp_path / "longer"), "--training.steps", "8"])
    assert same_weights(tmp_path / "longer" / "clip", chain / "clip")
    for folder in ("prior", ""):
        assert Checkpoints(tmp_path / "longer" / folder / "checkpoints", 3).steps()[-1] == 8


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_captions_go_through_the_prior(learnt: Path, tmp_path: Path) -> None:
    words = ["-n", "5", "--seed", "3", "--batch-size", "2", "--out", str(tmp_path / "x.npy")]
    run(["sample", str(learnt), "--text", "a low one", "--text", "a high one", *words])
    model = unstir.load(learnt, "cpu")
    settings = model.recipe.sampling
    prior = prior_of(model, settings)
    assert prior is not None
    captions = ["a low one", "a high one", "a low one", "a high one", "a low one"]
    z = embeddings(prior, captions, settings, 3, range(5))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))
    by_hand = model.sample(5, seed=3, **{NAME: z})
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), model.spec.to_data(by_hand), atol=1)
    torch.testing.assert_close(embeddings(prior, captions[3:], settings, 3, range(3, 5)), z[3:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(z[0], z[2]), "every sample has noise of its own"
    z_t = reader(prior).understood(captions)
    one = embeddings(prior, captions, model.settings(prior_candidates=1), 3, range(5))
    many = embeddings(prior, captions, model.settings(prior_candidates=8), 3, range(5))
    assert ((many * z_t).sum(1) >= (one * z_t).sum(1) - 1e-6).all()
    assert ((many * z_t).sum(1) > (one * z_t).sum(1) + 1e-5).any()


def test_a_student_is_asked_by_captions_too(learnt: Path, tmp_path: Path) -> None:
    """Through the prior of its teacher, with the CLIP that both keep: the same embeddings."""
    few = ["--method", "consistency", "--steps", "1", "--training.steps", "1"]
    run(["distill", str(learnt), *few, "--out", str(tmp_path / "s")])
    teacher, student = unstir.load(learnt, "cpu"), unstir.load(tmp_path / "s", "cpu")
    asked = {"text": ["a low one", "a high one"]}
    said_to = [
        model.conditions(asked, replace(model.recipe.sampling, prior_candidates=3), 5, range(3))[NAME]
        for model in (teacher, student)
    ]
    assert torch.equal(*said_to)
    run(["sample", str(tmp_path / "s"), "--text", "a low one", "-n", "2", "--out", str(tmp_path / "x.npy")])
    drawn = student.spec.to_data(student.sample(2, text="a low one"))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), drawn)
    run(["distill", str(learnt / "prior"), *few, "--out", str(tmp_path / "p")])
    by_student = teacher.conditions(asked, replace(teacher.recipe.sampling, prior=str(tmp_path / "p")), 5, range(3))
    assert not torch.allclose(by_student[NAME], said_to[0], atol=1e-3), "a student of the prior is a prior"


def test_what_nobody_asked_for_is_null(learnt: Path) -> None:
    model = unstir.load(learnt, "cpu")
    settings = model.settings(labels="none")
    assert NAME not in model.conditions({}, settings, 0, range(3))
    some = model.conditions({"text": ["a low one", ""]}, settings, 0, range(3))[NAME]
    assert some.isnan().all(1).tolist() == [False, True, False]
    cycled = model.conditions({}, model.recipe.sampling, 0, range(3))
    assert cycled.keys() == {NAME}, "captions that the decoder does not read are not shown to it"
    assert not cycled[NAME].isnan().any()
    assert "prior_steps must be positive" in said("sample", learnt, "--text", "a low one", "--prior-steps", "-1")


def test_a_picture_in_place_of_a_caption(learnt: Path, picture: Path, tmp_path: Path) -> None:
    words = ["-n", "3", "--out", str(tmp_path / "x.npy")]
    run(["sample", str(learnt), "--image", str(picture), *words])
    model = unstir.load(learnt, "cpu")
    x_0 = model.spec.to_model(np.array(Image.open(picture))[None])
    x = model.sample(3, **{NAME: embedding(model, x_0)})
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), model.spec.to_data(x))
    cond = model.conditions({NAME: embedding(model, x_0)}, model.recipe.sampling, 0, [7])[NAME]
    clip = open_clip(str(learnt / "clip"), fetch, torch.device("cpu"))
    condition = model.spec.conditions[NAME]
    both = ["--image", picture, "--text", "a low one", "-n", "2"]
    assert "leave one of the two out" in said("sample", learnt, *both)
    assert "leave one of the two out" in said("edit", "variations", learnt, *both)
    raw = cond[0] * torch.tensor(condition.scale) + torch.tensor(condition.offset)
    torch.testing.assert_close(raw, clip.pictures(x_0, torch.zeros((), dtype=torch.float64))[0], rtol=1e-4, atol=1e-5)


def test_the_prior_is_a_model_of_points(learnt: Path, tmp_path: Path) -> None:
    run(["sample", str(learnt / "prior"), "-n", "4", "--text", "a low one", "--out", str(tmp_path / "z.npy")])
    z = np.load(tmp_path / "z.npy")
    assert z.shape == (4, 16)
    np.save(tmp_path / "one.npy", z[0])
    assert "takes --text, --text-embedding" in said("sample", learnt / "prior", "--label", "zero")
    assert "points, which have no size" in said("edit", "upscale", learnt / "prior", "--image", tmp_path / "one.npy")


def test_info_says_what_works(learnt: Path, picture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(["info", str(learnt)])
    told = capsys.readouterr().out
    assert "--text" in told
    assert "the vector of a CLIP, 16 numbers" in told
    assert "stage 2" in told
    for start in ("  sample ", "  vary "):
        line = next(line for line in told.splitlines() if line.startswith(start))
        words = [str(picture) if word == "FILE" else word for word in shlex.split(line.removeprefix(start))]
        words[words.index("--out") + 1] = str(tmp_path / "x.png")
        run([*words[1:], "--steps", "2"])
        assert (tmp_path / "x.png").is_file()
    run(["info", str(learnt / "prior")])
    told = capsys.readouterr().out
    assert "vectors    of the CLIP ../clip" in told


# ---- editing ---------------------------------------------------------------------------------------------------------


def test_edits(learnt: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = np.array(Image.open(picture))
    edit = ["--image", str(picture), "--steps", "60", "--out", str(tmp_path / "x.npy")]
    run(["edit", "variations", str(learnt), "-n", "3", *edit[:2], "--out", str(tmp_path / "x.npy")])
    plain = np.load(tmp_path / "x.npy")
    assert plain.shape == (3, 12, 10, 3)
    assert (plain[0] != plain[1]).any()
    further = []
    for keep in ("1", "0.9", "0.3"):
        run(["edit", "variations", str(learnt), "-n", "2", "--keep", keep, *edit])
        both = np.load(tmp_path / "x.npy").astype(float)
        further.append(float(np.abs(both - before).mean()))
        assert (both[0] == both[1]).all() == (keep == "1"), "without fresh noise there is but one"
    assert further[0] < 10
    assert further[0] < further[1] < further[2]
    assert "between 0 and 1" in said("edit", "variations", learnt, "--keep", "2", *edit)
    same = ["--to-text", "a low one", "--from-text", "a low one"]
    assert 'mean the same to the CLIP, so there is no direction from one to the other ("a low one"' in said(
        "edit", "restyle", learnt, *same, *edit
    )
    run(["edit", "restyle", str(learnt), "--to-text", "a high one", "--strength", "0", *edit])
    np.testing.assert_allclose(np.load(tmp_path / "x.npy")[0], before, atol=6)
    assert 'taken for "a ' in capsys.readouterr().out
    run(["edit", "restyle", str(learnt), "--to-text", "a high one", "--from-text", "a low one", "-n", "3", *edit])
    steps = np.load(tmp_path / "x.npy").astype(float)
    moved = [np.abs(x - before).mean() for x in steps]
    assert moved[0] < moved[1] < moved[2]
    run(["edit", "interpolate", str(learnt), "--to", str(picture), "-n", "3", *edit])
    for x in np.load(tmp_path / "x.npy"):
        np.testing.assert_allclose(x, before, atol=6)


# ---- what is there already, and what does not fit -----------------------------------------------------------------------


def test_a_clip_and_a_prior_are_brought_along(chain: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    data = tiny_arrays["image"]
    train(data, tmp_path / "a", "--clip", str(chain / "clip"), *PRIOR)
    assert same_weights(tmp_path / "a" / "clip", chain / "clip")
    assert same_weights(tmp_path / "a", chain), "the same CLIP, the same data and seed"
    assert same_weights(tmp_path / "a" / "prior", chain / "prior")
    shutil.copytree(tmp_path / "a", tmp_path / "gone")
    train(data, tmp_path / "b", "--prior", str(tmp_path / "gone" / "prior"))
    shutil.rmtree(tmp_path / "gone")  # copies were made
    assert same_weights(tmp_path / "b" / "prior", chain / "prior")
    assert unstir.load(tmp_path / "b").sample(2, text="a low one").shape == (2, 3, 12, 10)
    run(["train", "--resume", str(tmp_path / "b"), "--training.steps", "7"])
    train(data, tmp_path / "c", "--clip", str(chain / "clip"), "--prior", "none")
    assert unstir.load(tmp_path / "c").sample(2).shape == (2, 3, 12, 10)
    assert "takes no --text" in said("sample", tmp_path / "c", "--text", "x")


def test_what_does_not_fit_is_told(chain: Path, tiny_arrays: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    data, archive = tiny_arrays["image"], dict(np.load(tiny_arrays["image"]))
    silent = tmp_path / "silent.npz"
    np.savez(silent, x=archive["x"])
    start = ["train", "unclip", "--out", tmp_path / "r", *PLAN, *TINY]
    assert "comes without" in said(*start, "--data", silent)
    assert "unCLIP's prior learns from captions" in said(*start, "--data", silent, "--clip", chain / "clip")
    assert "is not a CLIP" in said(*start, "--data", data, "--clip", chain)
    assert "is not a prior" in said(*start, "--data", data, "--prior", chain / "clip")
    np.savez(tmp_path / "large.npz", x=np.repeat(archive["x"], 2, 1), text=archive["text"])
    large = ["--data", tmp_path / "large.npz", "--clip", chain / "clip"]
    message = said(*start, *large)
    assert f"{chain / 'clip'} was trained on" in message
    assert "cannot work together" in message
    assert not (tmp_path / "r").exists(), "nothing is begun, so that the next try may have the same name"
    assert "learns the vectors of a CLIP" in said("train", "prior", "--data", data)
    assert "unclip and prior" in said("train", "quick", "--data", data, "--clip", chain / "clip")
    assert "does not draw pictures of a CLIP's vectors" in said(
        "edit", "variations", str(_quick(data, tmp_path)), "--image", picture
    )
    # Another CLIP in the run's folder: none of the vectors mean what they did.
    train(data, tmp_path / "other", *CLIP, *PRIOR, "--clip.training.seed", "1")
    assert "vectors of another CLIP" in said(
        "sample", chain, "--prior", tmp_path / "other" / "prior", "--text", "a low one", "-n", "2"
    )
    both = ["--clip", tmp_path / "other" / "clip", "--prior", chain / "prior"]
    assert "leave --clip out" in said(*start, "--data", data, *both)
    shutil.copytree(chain, tmp_path / "swapped")
    shutil.copy(tmp_path / "other" / "clip" / "model.safetensors", tmp_path / "swapped" / "clip" / "model.safetensors")
    assert "vectors of another CLIP" in said("sample", tmp_path / "swapped", "--image", picture, "-n", "2")
    assert "vectors of another CLIP" in said("train", "--resume", tmp_path / "swapped", "--training.steps", "9")
    assert "vectors of another CLIP" in said("sample", tmp_path / "swapped", "--text", "a low one", "-n", "2")


def test_nothing_is_lost_where_a_copy_goes(chain: Path, tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    def files(folder: Path) -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    everything = files(chain / "clip")
    shutil.copytree(chain / "clip", tmp_path / "own" / "clip")
    own = ["--clip", str(tmp_path / "own" / "clip"), "--prior", "none"]
    train(tiny_arrays["image"], tmp_path / "own", *own)  # it is where a copy would be
    assert files(tmp_path / "own" / "clip") == everything
    assert unstir.load(tmp_path / "own").sample(2).shape == (2, 3, 12, 10)
    shutil.copytree(chain / "clip", tmp_path / "others" / "clip")
    both = ["--data", tiny_arrays["image"], "--out", tmp_path / "others", "--clip", chain / "clip"]
    for start in (["train", "unclip", *both, "--prior", "none"], ["train", "prior", *both, "--training.steps", "1"]):
        assert "is in the way" in said(*start)
        assert files(tmp_path / "others" / "clip") == everything


def test_a_prior_as_it_was_at_a_checkpoint(chain: Path, tmp_path: Path) -> None:
    found = []
    for name in ("prior", "prior@6"):
        out = ["-n", "2", "--text", "a low one", "--out", str(tmp_path / "x.npy")]
        run(["sample", str(chain), "--prior", str(chain / name), *out])
        found.append(np.load(tmp_path / "x.npy"))
    np.testing.assert_array_equal(*found)
    assert "there is no checkpoint" in said("sample", chain, "--prior", chain / "prior@5", "--text", "a low one")


def test_without_its_prior_a_decoder_draws_of_no_caption(chain: Path, tmp_path: Path) -> None:
    run(["sample", str(chain), "--prior", "none", "-n", "2", "--out", str(tmp_path / "x.npz")])
    model = unstir.load(chain)
    drawn = model.spec.to_data(model.sample(2, prior=""))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], drawn)
    assert not np.array_equal(drawn, model.spec.to_data(model.sample(2)))
    assert "takes no --text" in said("sample", chain, "--prior", "none", "--text", "a low one", "-n", "2")


def _quick(data: Path, tmp_path: Path) -> Path:
    run(["train", "quick", "--data", str(data), "--out", str(tmp_path / "quick"), *PLAN, *TINY])
    return tmp_path / "quick"


# ---- with everything else --------------------------------------------------------------------------------------------


def test_judged_like_any_model(learnt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, features in ((learnt, "pixels"), (learnt / "prior", "coordinates")):
        capsys.readouterr()
        run(["evaluate", str(folder), "--metrics", "fd", "--features", features, "-n", "8", "--json", "-"])
        found = json.loads(capsys.readouterr().out)["fd"]
        assert (found["features"], found["n"]) == (features, 8)
        assert found["value"] >= 0


def test_in_latents_and_with_captions_besides(
    chain: Path, tiny_arrays: dict[str, Path], picture: Path, tmp_path: Path
) -> None:
    out, brought = tmp_path / "z", ["--prior", str(chain / "prior")]
    train(tiny_arrays["image"], out, *brought, "--autoencoder", "haar:2", "--data.text", "bytes", "--data.flip")
    _, recipe, spec = Run(out).read_recipe()
    assert recipe.objective.caption_dropout == 0.5  # type: ignore[attr-defined]
    assert set(spec.conditions) == {"text", NAME}
    model = unstir.load(out, "cpu")
    assert model.latent_spec.shape == (12, 6, 5)
    assert model.conditions({"text": "a low one"}, model.recipe.sampling, 0, range(2)).keys() == {"text", NAME}
    x_0 = model.spec.to_model(np.array(Image.open(picture))[None])
    alone = model.conditions({NAME: embedding(model, x_0)}, model.recipe.sampling, 0, range(2))
    assert (alone["text"] == -1).all(), "a caption that nobody asked for would contradict the picture"
    run(["edit", "variations", str(out), "--image", str(picture), "-n", "2", "--out", str(tmp_path / "x.npz")])
    assert np.load(tmp_path / "x.npz")["arr_0"].shape == (2, 12, 10, 3)


def test_signals(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    """A caption is a signal by way of the prior: the decoder's, asked for what the prior draws."""
    train(tiny_arrays["signal"], tmp_path / "s", *CLIP, *PRIOR, "--training.steps", "2")
    for folder in (tmp_path / "s" / "prior", tmp_path / "s"):
        as_if_learnt(folder, 0.05)
    model, captions = unstir.load(tmp_path / "s"), ["a low one", "a high one", "a low one"]
    prior = prior_of(model, model.recipe.sampling)
    assert prior is not None
    z = embeddings(prior, captions, model.recipe.sampling, 0, range(3))
    x = model.sample(3, text=["a low one", "a high one"])
    torch.testing.assert_close(x, model.sample(3, **{NAME: z}))
    assert x.shape == (3, 2, 50)
    assert not torch.allclose(x, model.sample(3, **{NAME: -z}), atol=1e-3), "the vector is not heard"
