"""unstir edit, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from runs import UNET, said

import unstir
from unstir.cli import run
from unstir.cli.edit import EDITS
from unstir.cli.edit_options import ConditionalOptions
from unstir.data import DataConfig, DataSpec
from unstir.data.pictures import decode
from unstir.editing import ByResampling, inpaint
from unstir.editing.conditional import METHODS
from unstir.editing.files import fit_nearest, own_shape, read_mask, read_sample
from unstir.errors import UserError

TINY = ["--training.steps", "3", "--training.batch-size", "4", "--sampling.steps", "3"]


def train(recipe: str, data: Path, out: Path, *words: str) -> Path:
    run(["train", recipe, "--data", str(data), "--out", str(out), *TINY, *words])
    return out


def test_every_method_can_be_asked_for() -> None:
    held = [edit.options for edit in EDITS.values() if issubclass(edit.options, ConditionalOptions)]
    assert len(held) == 3
    for options in held:
        assert METHODS.keys() <= set(get_args(get_type_hints(options)["method"])), options


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    return train("edm", tiny_arrays["image"], tmp_path_factory.mktemp("edited") / "image", *UNET)


@pytest.fixture(scope="module")
def grey_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edited")
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8))
    return train("edm", folder / "x.npy", folder / "grey", *UNET, "--data.kind", "image")


@pytest.fixture(scope="module")
def signal_run(tmp_path_factory: pytest.TempPathFactory, tiny_arrays: dict[str, Path]) -> Path:
    return train("ecg", tiny_arrays["signal"], tmp_path_factory.mktemp("edited") / "signal", *UNET)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.png, b.png of 12 x 10, their grey, and a mask with a hole in the middle; the working directory."""
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    with Image.open(tmp_path / "a.png") as picture:
        picture.convert("L").save(tmp_path / "grey.png")
    mask = np.zeros((12, 10), dtype=np.uint8)
    mask[3:9, 2:8] = 255
    mask[0, 0], mask[0, 1] = 127, 128  # the threshold lies between
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.mark.parametrize("method", ["repaint", "replacement", "gradient"])
def test_inpaint_keeps_the_bytes_outside_the_mask(image_run: Path, files: Path, method: str) -> None:
    words = ["--image", "a.png", "--mask", "mask.png", "--method", method, "--resamplings", "2"]
    run(["edit", "inpaint", str(image_run), *words, "--out", "one.png"])
    before, after, fill = pixels("a.png"), pixels("one.png"), pixels("mask.png") >= 128
    assert after.shape == before.shape == (12, 10, 3)
    np.testing.assert_array_equal(after[~fill], before[~fill])
    assert (after[fill] != before[fill]).any()
    run(["edit", "inpaint", str(image_run), *words, "-n", "3", "--out", "many.npz"])
    many = np.load("many.npz")["arr_0"]
    assert many.shape == (3, 12, 10, 3)
    np.testing.assert_array_equal(many[0], after)
    np.testing.assert_array_equal(many[:, ~fill], np.broadcast_to(before[~fill], (3, (~fill).sum(), 3)))
    run(["edit", "inpaint", str(image_run), *words, "-n", "2", "--compare", "--out", "folder"])
    written = [pixels(path) for path in sorted(Path("folder").iterdir())]
    assert len(written) == 4
    np.testing.assert_array_equal(written[0], before)
    np.testing.assert_array_equal(written[1][~fill], before[~fill])
    np.testing.assert_array_equal(written[2], after)


def test_the_command_is_the_function(image_run: Path, files: Path) -> None:
    words = ["--image", "a.png", "--mask", "mask.png", "--resamplings", "2", "--jump", "2", "--label", "one"]
    run(["edit", "inpaint", str(image_run), *words, "--seed", "7", "--steps", "4", "--out", "x.npy"])
    model = unstir.load(image_run)
    x_0 = model.spec.to_model(pixels("a.png")[None])[0]
    fill = torch.from_numpy(pixels("mask.png") >= 128).unsqueeze(0)
    settings = model.settings(steps=4)
    x = inpaint(model, x_0, fill, method=ByResampling(2, 2), settings=settings, seed=7, label="one")
    np.testing.assert_array_equal(np.load("x.npy"), model.spec.to_data(x))


def test_image_to_image(image_run: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["edit", "image-to-image", str(image_run), "--image", "a.png", "--strength", "0", "--out", "same.png"])
    np.testing.assert_array_equal(pixels("same.png"), pixels("a.png"))
    words = ["--strength", "1", "-n", "2", "--seed", "3", "--labels", "none"]
    run(["edit", "image-to-image", str(image_run), "--image", "a.png", *words, "--out", "new.npy"])
    run(["sample", str(image_run), "-n", "2", "--seed", "3", "--labels", "none", "--out", "sampled.npy"])
    np.testing.assert_array_equal(np.load("new.npy"), np.load("sampled.npy"))
    run(["edit", "image-to-image", str(image_run), "--image", "a.png"])  # without --out: into the run folder
    assert pixels(image_run / "samples" / "image-to-image-seed0.png").shape == (12, 10, 3)
    assert "1 result: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--sampler", "ddim", "--steps", "80"],
        ["--method", "ddim", "--steps", "30"],
        ["--method", "ddpm", "--steps", "20", "--strength", "0.05"],
    ],
)
def test_interpolate(image_run: Path, files: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    words = ["--image", "a.png", "--to", "b.png", *words]
    run(["edit", "interpolate", str(image_run), *words, "-n", "5", "--out", "walk.npy"])
    walk = np.load("walk.npy").astype(float)
    assert walk.shape == (5, 12, 10, 3)
    ends = np.stack([pixels("a.png"), pixels("b.png")]).astype(float)
    error = np.sqrt(np.mean((walk[[0, -1]] - ends) ** 2))
    assert error < 8  # levels of 255, of pictures like nothing that the model has seen
    said_error = float(capsys.readouterr().out.split("an error of ")[1].split()[0])
    assert said_error == pytest.approx(error, abs=0.6)  # told before rounding to bytes


def test_interpolate_as_an_animation(image_run: Path, files: Path) -> None:
    words = ["--image", "a.png", "--to", "b.png", "--steps", "3"]
    run(["edit", "interpolate", str(image_run), *words, "-n", "4", "--out", "walk.gif"])
    with Image.open("walk.gif") as animation:
        assert animation.n_frames == 4


def test_colorize_keeps_the_grey(image_run: Path, files: Path) -> None:
    for source in ("grey.png", "a.png"):  # of a picture in colours, its grey
        run(["edit", "colorize", str(image_run), "--image", source, "--resamplings", "2", "--out", "c.png"])
        with Image.open("c.png") as picture:
            assert picture.mode == "RGB"
            grey = np.array(picture.convert("L")).astype(int)
        assert np.abs(grey - pixels("grey.png")).max() <= 1
        assert (np.ptp(pixels("c.png"), axis=-1) > 0).mean() > 0.5  # colours there are


def test_signals_and_points_from_arrays(signal_run: Path, files: Path, tiny_arrays: dict[str, Path]) -> None:
    signal = np.load(tiny_arrays["signal"])["x"][0]
    np.save("beat.npy", signal)
    gap = np.zeros(50, dtype=bool)
    gap[20:30] = True
    np.save("gap.npy", gap)
    words = ["--image", "beat.npy", "--mask", "gap.npy", "--method", "replacement"]
    run(["edit", "inpaint", str(signal_run), *words, "-n", "2", "--out", "x.npy"])
    x = np.load("x.npy")
    assert x.shape == (2, 50, 2)
    np.testing.assert_allclose(x[:, ~gap], np.broadcast_to(signal[~gap], (2, 40, 2)), rtol=1e-5, atol=1e-6)
    lead = np.zeros((50, 2))
    lead[:, 1] = 1
    np.save("lead.npy", lead)
    run(["edit", "inpaint", str(signal_run), *words[:2], "--mask", "lead.npy", "--out", "x.npy"])
    np.testing.assert_allclose(np.load("x.npy")[0, :, 0], signal[:, 0], rtol=1e-5, atol=1e-6)
    assert "are signals; give one as a .npy file" in said("edit", "inpaint", signal_run, "--image", "a.png")
    assert "give the mask as a .npy" in said("edit", "inpaint", signal_run, "--image", "beat.npy", "--mask", "mask.png")
    assert "only a model of colour pictures" in said("edit", "colorize", signal_run, "--image", "beat.npy")


def test_grey_models_take_colour_pictures(grey_run: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["edit", "image-to-image", str(grey_run), "--image", "a.png", "--strength", "0", "--out", "x.png"])
    assert "a.png is 10 x 12, the data are 8 x 8: scaled, its middle cut out" in capsys.readouterr().out
    assert pixels("x.png").shape == (8, 8)
    with Image.open("a.png") as picture:
        wanted = Image.fromarray(decode(Path("a.png"), (8, 8), DataConfig())).convert("L")
        assert picture.size == (10, 12)
    np.testing.assert_array_equal(pixels("x.png"), np.array(wanted))
    assert "only a model of colour pictures" in said("edit", "colorize", grey_run, "--image", "grey.png")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("inpant RUN", "unknown 'unstir edit inpant'; did you mean inpaint?"),
        ("sharpen RUN", "known: "),
        ("inpaint --image a.png", "name the run folder first: unstir edit inpaint RUN --image FILE --mask FILE"),
        ("inpaint nowhere", "there is no run folder nowhere"),
        ("inpaint RUN", "which picture? name a file with --image FILE"),
        ("inpaint RUN --image a.png", "what to fill? name a picture with --mask FILE"),
        ("inpaint RUN --image=a.png", "what to fill? name a picture with --mask FILE"),
        ("inpaint RUN --image c.png --mask mask.png", "there is no file c.png"),
        ("inpaint RUN --image . --mask mask.png", ". is a folder; name one file"),
        ("inpaint RUN --image text.png --mask mask.png", "text.png is not a picture that can be read"),
        ("inpaint RUN --image cut.png --mask mask.png", "cannot read cut.png: "),
        ("inpaint RUN --image a.png --mask black.png", "the mask marks nothing to fill"),
        ("inpaint RUN --image a.png --mask mask.png --method repant", "invalid choice 'repant'"),
        ("inpaint RUN --image a.png --mask mask.png --resamplings 0", "--resamplings and --jump must be at least 1"),
        ("inpaint RUN --image a.png --mask mask.png -n 0", "must be at least 1"),
        ("inpaint RUN --image a.png --mask mask.png --out x.xyz", ".xyz"),
        ("inpaint RUN --image a.png --mask mask.png --text x", "takes no --text"),
        ("inpaint RUN --image bad.npy --mask mask.png", "bad.npy has the shape (3, 3)"),
        ("inpaint RUN --image nan.npy --mask mask.png", "NaN or infinite"),
        ("inpaint RUN --image objects.npy --mask mask.png", "cannot read objects.npy"),
        ("image-to-image RUN --image a.png --strength 1.5", "strength must lie between 0 and 1, not 1.5"),
        ("image-to-image RUN --image a.png --strenth 1", "did you mean --strength"),
        ("interpolate RUN --image a.png", "name a file with --to FILE"),
        ("interpolate RUN --image a.png --to b.png -n 1", "at least 2"),
        ("interpolate RUN --image a.png --to b.png --sampler ddpm", "use --sampler ddim"),
    ],
)
def test_one_plain_line(words: str, expected: str, image_run: Path, files: Path) -> None:
    Path("text.png").write_text("not a picture")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:200])
    Image.new("L", (12, 10)).save("black.png")
    np.save("bad.npy", np.zeros((3, 3)))
    np.save("nan.npy", np.full((12, 10, 3), np.nan))
    np.save("objects.npy", np.array([object()]), allow_pickle=True)
    before = set(files.iterdir())
    assert expected in said("edit", *(str(image_run) if word == "RUN" else word for word in words.split()))
    assert set(files.iterdir()) == before


def test_usage_and_help(image_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["edit"])
    out = capsys.readouterr().out
    for name in EDITS:
        assert f"\n  {name} " in out
    run(["edit", "inpaint"])
    assert "usage: unstir edit inpaint RUN --image FILE --mask FILE" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["edit", "inpaint", str(image_run), "--help"])
    out = capsys.readouterr().out
    for flag in ("--mask", "--method", "--resamplings", "--steps", "--guidance-scale", "--seed", "--label"):
        assert flag in out


# ---- files -----------------------------------------------------------------------------------------------------------------------

IMAGES = DataSpec("image", (3, 8, 8), "uint8", (127.5,) * 3, (127.5,) * 3, channels_last=True, bounds=(-1.0, 1.0))


def test_a_picture_becomes_what_the_loader_makes_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for mode, shape in (("L", (20, 16)), ("RGB", (20, 16, 3)), ("RGBA", (20, 16, 4))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{mode}.png")
        for fit in ("crop", "pad", "stretch"):
            config = DataConfig(fit=fit, background="red")
            x, note = read_sample(tmp_path / f"{mode}.png", IMAGES, config)
            wanted = decode(tmp_path / f"{mode}.png", (8, 8), config)
            np.testing.assert_array_equal(IMAGES.to_data(x[None])[0], wanted)
            assert torch.equal(x, IMAGES.to_model(wanted[None])[0])
            assert "16 x 20" in note
    rgba = DataSpec("image", (4, 20, 16), "uint8", (127.5,) * 4, (127.5,) * 4, channels_last=True, bounds=(-1.0, 1.0))
    x, note = read_sample(tmp_path / "RGBA.png", rgba, DataConfig())
    with Image.open(tmp_path / "RGBA.png") as picture:
        np.testing.assert_array_equal(rgba.to_data(x[None])[0], np.array(picture))
    assert note == ""
    floats = DataSpec("image", (3, 8, 8), "float32")
    with pytest.raises(UserError, match="no pictures of bytes"):
        read_sample(tmp_path / "RGB.png", floats, DataConfig())


@pytest.mark.parametrize(
    ("spec", "own"),
    [
        (DataSpec("signal", (2, 7), channels_last=True), (7, 2)),
        (DataSpec("signal", (2, 7)), (2, 7)),
        (DataSpec("signal", (1, 7), channel_axis=False), (7,)),
        (DataSpec("points", (3,)), (3,)),
        (DataSpec("image", (3, 4, 5), channels_last=True), (4, 5, 3)),
        (DataSpec("image", (3, 4, 5)), (3, 4, 5)),
        (DataSpec("volume", (1, 2, 3, 4)), (1, 2, 3, 4)),
    ],
)
def test_arrays_have_the_data_s_own_axes(spec: DataSpec, own: tuple[int, ...], tmp_path: Path) -> None:
    assert own_shape(spec) == own
    array = np.random.default_rng(0).normal(size=own).astype(np.float32)
    wanted = spec.to_model(array[None])[0]
    for form in (array, array[None]):
        np.save(tmp_path / "x.npy", form)
        assert torch.equal(read_sample(tmp_path / "x.npy", spec, DataConfig())[0], wanted)
    fill = array > 0
    np.save(tmp_path / "m.npy", fill)
    got = read_mask(tmp_path / "m.npy", spec, DataConfig())[0].expand(spec.shape)
    assert torch.equal(got, spec.to_model(fill[None])[0] > 0)
    if spec.kind == "image":  # as unstir sample writes them
        np.save(tmp_path / "x.npy", np.moveaxis(wanted.numpy(), 0, -1))
        assert torch.equal(read_sample(tmp_path / "x.npy", spec, DataConfig())[0], wanted)


def test_masks_are_cut_like_pictures_and_never_blurred(tmp_path: Path) -> None:
    # Of a picture with two levels, nearest pixels and area means agree wherever the mean is not mixed.
    wide = np.zeros((16, 40), dtype=np.uint8)
    wide[:8, 12:20] = 255
    Image.fromarray(wide).save(tmp_path / "m.png")
    for fit in ("crop", "pad", "stretch"):
        fill, note = read_mask(tmp_path / "m.png", IMAGES, DataConfig(fit=fit))
        assert fill.shape == (1, 8, 8)
        assert "40 x 16" in note
        pure = decode(tmp_path / "m.png", (8, 8), DataConfig(fit=fit, background="black"))[..., 0]
        certain = (pure == 0) | (pure == 255)
        np.testing.assert_array_equal(fill[0].numpy()[certain], (pure == 255)[certain])
    fitted = np.array(fit_nearest(Image.fromarray(wide), (8, 8), "crop"))
    assert set(np.unique(fitted)) <= {0, 255}
    Image.fromarray(np.tile(np.array([127, 128], dtype=np.uint8), (8, 4))).save(tmp_path / "g.png")
    assert read_mask(tmp_path / "g.png", IMAGES, DataConfig())[0][0, 0].tolist() == [False, True] * 4
    clear = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    clear.putpixel((3, 2), (255, 255, 255, 255))
    clear.save(tmp_path / "t.png")
    fill = read_mask(tmp_path / "t.png", IMAGES, DataConfig())[0]
    assert fill.nonzero().tolist() == [[0, 2, 3]]
