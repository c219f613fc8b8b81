"""Autoencoders from the command line: trained, resumed, shown, judged, and refused where they are no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import in_two_processes
from PIL import Image

from unstir.autoencoder import Autoencoder
from unstir.cli import run
from unstir.data import DataConfig, load
from unstir.errors import UserError
from unstir.networks.autoencoder import GridCoder
from unstir.networks.quantize import Codebook
from unstir.run import Run
from unstir.training.checkpoint import Checkpoints

TINY = ["--network.channels", "8", "--network.head-channels", "8", "--training.batch-size", "8", "--training.precision", "fp32",
        "--objective.adversarial", "0.5", "--objective.discriminator-channels", "4", "--objective.perceptual", "0"]  # fmt: skip


def train(data: Path | str, out: Path, *words: str) -> Path:
    run(["train", "autoencoder", "--data", str(data), "--out", str(out), *TINY, *words])
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures, 14x10: each a plane wave in some colour."""
    rng = np.random.default_rng(0)
    k, phase, colour = (
        rng.normal(0, 0.4, (200, 2, 1, 1)),
        rng.uniform(0, 6, (200, 1, 1)),
        rng.uniform(20, 120, (200, 1, 1, 3)),
    )
    wave = np.sin(k[:, 0] * np.arange(14)[:, None] + k[:, 1] * np.arange(10) + phase)
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    np.savez(path, x=(127.5 + wave[..., None] * colour).round().astype(np.uint8), y=np.arange(200) % 2)
    return path


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    plan = ("--training.steps", "60", "--training.sample-every", "30", "--training.log-every", "10")
    kl = train(pictures, folder / "kl", *plan, "--network.no-linear")
    vq = train(pictures, folder / "vq", *plan, "--denoiser.bottleneck", "vq", "--denoiser.bottleneck.codes", "32")
    return {"kl": kl, "vq": vq}


def autoencoder(folder: Path) -> Autoencoder:
    module = Run(folder).trained("cpu").module
    assert isinstance(module, Autoencoder)
    return module


def ratios(folder: Path, pictures: Path, rows: list[int]) -> float:
    """PSNR in bytes, from the pictures themselves."""
    x = np.load(pictures)["x"][rows]
    z = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        back = autoencoder(folder).decode(autoencoder(folder).encode(z), (14, 10))
    y = ((back.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).double().numpy()
    return float((10 * np.log10(255**2 / ((x - y) ** 2).mean((1, 2, 3)))).mean())


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_it_learns_says_how_well_and_shows_it(
    trained: dict[str, Path], pictures: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained[kind]
    rows = Run(folder).metrics()
    assert rows[-1]["reconstruction"] < (0.75 if kind == "kl" else 0.9) * rows[0]["reconstruction"]
    assert "adversarial" not in rows[2]  # step 30 and all before
    assert "adaptive_weight" in rows[-1]
    of = [row["held_out_psnr"] for row in rows if "held_out_psnr" in row]
    fidelity = json.loads((folder / "fidelity.json").read_text())
    assert (fidelity["of"], fidelity["samples"], len(of)) == ("held-out", 20, 2)
    assert fidelity["psnr"] == of[-1] > (15 if kind == "kl" else 20)  # the one began from nothing
    with Image.open(folder / "samples" / "step-0000060.png") as shown:
        assert shown.width > shown.height
    run(["info", str(folder)])
    said = capsys.readouterr().out
    assert f"fidelity   {fidelity['psnr']:.2f} dB PSNR on 20 held-out samples" in said
    assert f"unstir train latent --data {pictures} --autoencoder {folder}" in said
    assert ("of 32 codes in use" in said) == (kind == "vq")


def test_held_out_samples_are_never_trained_on(trained: dict[str, Path], pictures: Path) -> None:
    """What fidelity.json says is the mean over these rows, and only these."""
    from unstir.training.draw import held_out

    _, away = held_out(np.arange(200), 0.1)
    said = json.loads((trained["kl"] / "fidelity.json").read_text())["psnr"]
    assert ratios(trained["kl"], pictures, away.tolist()) == pytest.approx(said, abs=1e-3)


def test_the_averaged_model_has_the_codebook_as_it_is(trained: dict[str, Path]) -> None:
    state, _ = Checkpoints(trained["vq"] / "checkpoints", 3).load()
    name = "network.bottleneck.codes"
    assert torch.equal(state["averaged"][name], state["module"][name])
    uses = float(state["module"]["network.bottleneck.uses"].sum())
    assert uses == pytest.approx(8 * 4 * 3 * (1 - 0.99**60), rel=0.5)  # of the positions of a batch; restarts add some
    network = autoencoder(trained["vq"]).network
    assert isinstance(network, GridCoder)
    assert isinstance(network.bottleneck, Codebook)
    assert torch.equal(network.bottleneck.codes, state["module"][name])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


@pytest.mark.parametrize("bottleneck", ["kl", "vq"])
def test_resumed_is_the_run_that_never_stopped(pictures: Path, tmp_path: Path, bottleneck: str) -> None:
    """To the bit: the discriminator, its optimiser and the codebook as well."""
    words = ("--denoiser.bottleneck", bottleneck, "--objective.adversarial-start", "0", "--training.decay", "constant",
             "--training.warmup", "0")  # fmt: skip
    whole = train(pictures, tmp_path / "whole", *words, "--training.steps", "6")
    part = train(pictures, tmp_path / "part", *words, "--training.steps", "3")
    run(["train", "--resume", str(part), "--training.steps", "6"])
    (one, _), (two, _) = (Checkpoints(folder / "checkpoints", 3).load() for folder in (whole, part))
    assert any(name.startswith("discriminator") for name in one["companion"])
    assert not any("perceptual" in name for name in one["companion"])
    assert same(one, two)


def test_two_processes_do_what_one_does(pictures: Path, tmp_path: Path) -> None:
    """Without a discriminator, whose weight is each process's own: also the codebook, with codes that start anew."""
    words = ["--denoiser.bottleneck", "vq", "--denoiser.bottleneck.codes", "64", "--objective.adversarial", "0",
             "--training.steps", "4", "--training.gradient-clip", "0"]  # fmt: skip
    alone = train(pictures, tmp_path / "one", *words)
    pieces = train(pictures, tmp_path / "pieces", *words, "--training.accumulate", "2")
    both = tmp_path / "two"
    in_two_processes("-m", "unstir", "train", "autoencoder", "--data", str(pictures), "--out", str(both), *TINY, *words)
    one, *others = (Checkpoints(folder / "checkpoints", 3).load()[0]["module"] for folder in (alone, pieces, both))
    for other in others:
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=1e-3)


def judged(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    run(["evaluate", *map(str, words), "--json", "-", "--features", "pixels", "--metrics", "fd"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_evaluate(trained: dict[str, Path], pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of its own data the samples it never saw; of other data all; the distance is between these and what came back."""
    own = judged(trained["kl"], capsys=capsys)
    said = json.loads((trained["kl"] / "fidelity.json").read_text())
    assert own["reconstruction"]["value"] == pytest.approx(said["psnr"], abs=1e-3)
    assert (own["reconstruction"]["n"], own["fd"]["n"], own["fd"]["reference_n"]) == (20, 20, 20)
    other = pictures.with_name("other.npz")
    np.savez(other, x=np.load(pictures)["x"][:50])
    found = judged(trained["kl"], "--data", other, capsys=capsys)
    assert (found["reconstruction"]["n"], found["fd"]["n"]) == (50, 50)
    assert found["reconstruction"]["value"] == pytest.approx(ratios(trained["kl"], pictures, list(range(50))), abs=1e-3)
    data = load(DataConfig(source=str(other)))
    back = other.with_name("back.npz")
    module = autoencoder(trained["kl"])
    with torch.no_grad():
        y = module.decode(module.encode(data.samples(torch.arange(50))), (14, 10)).clamp(-1, 1)
    np.savez(back, arr_0=data.spec.to_data(y))
    by_hand = judged(back, "--data", other, capsys=capsys)
    assert found["fd"]["value"] == pytest.approx(by_hand["fd"]["value"], rel=1e-4)
    quantised = judged(trained["vq"], "--data", other, capsys=capsys)
    assert 1 < quantised["reconstruction"]["perplexity"] <= quantised["reconstruction"]["codes"] == 32
    run(["info", str(trained["kl"])])
    assert "PSNR[n=50]" in capsys.readouterr().out


def test_another_size_is_judged_too(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "wide.npz", x=rng.integers(0, 255, (12, 9, 21, 3), dtype=np.uint8))
    assert judged(trained["kl"], "--data", tmp_path / "wide.npz", capsys=capsys)["reconstruction"]["n"] == 12


def test_what_it_is_not_for_is_told(
    trained: dict[str, Path], pictures: Path, tmp_path: Path, tiny_arrays: dict[str, Path]
) -> None:
    def refused(*words: str | Path) -> str:
        with pytest.raises(UserError) as error:
            run([str(word) for word in words])
        return str(error.value)

    kl = trained["kl"]
    assert "holds no model that draws samples" in refused("sample", kl, "-n", "2", "--out", tmp_path / "x.png")
    assert "holds no model that draws samples" in refused("evaluate", kl, "--metrics", "nll")
    assert "was trained on image" in refused("evaluate", kl, "--data", tiny_arrays["signal"], "--metrics", "fd")
    grey = tmp_path / "grey.npz"
    np.savez(grey, x=np.zeros((8, 10, 10), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None])
    assert "takes 3 channels" in refused("evaluate", kl, "--data", grey, "--data.kind", "image", "--metrics", "fd")
    start = ("train", "autoencoder", "--data", pictures, "--out", tmp_path / "no", "--training.steps", "1")
    assert "--network autoencoder" in refused(*start, "--network", "unet")
    assert "does not train" in refused(*start, "--objective", "denoising")
    assert "draws none" in refused(*start, "--training.evaluate-every", "1", "--objective.perceptual", "0")
    assert "points" in refused(
        "train", "autoencoder", "--data", tiny_arrays["points"], "--out", tmp_path / "no", "--training.steps", "1"
    )


def test_signals(tiny_arrays: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a line that says why nobody looks at them; their ratio is to their own spread."""
    out = tmp_path / "signal"
    run(["train", "autoencoder", "--data", str(tiny_arrays["signal"]), "--out", str(out), *TINY[:-2], "--training.steps", "3",
         "--objective.adversarial-start", "0"])  # fmt: skip
    said = capsys.readouterr().out
    assert said.count("objective.perceptual is set to 0") == 1
    assert "dB SNR on 4 held-out samples" in said
    assert "held_out_snr" not in json.dumps(Run(out).metrics())  # nobody asked for it along the way
    trained = Run(out).trained("cpu")
    dataset = load(DataConfig(source=str(tiny_arrays["signal"])))
    assert isinstance(trained.module, Autoencoder)
    x = dataset.samples(torch.arange(40))
    with torch.no_grad():
        y = trained.module.decode(trained.module.encode(x), (50,))
    from unstir.training.draw import held_out

    rows = held_out(np.arange(40), 0.1)[1]
    mse = (x - y).double().square().mean((1, 2))[rows]
    expected = float((10 * (dataset.spec.std**2 / mse).log10()).mean())
    assert json.loads((out / "fidelity.json").read_text())["psnr"] == pytest.approx(expected, abs=1e-3)
