"""The benchmarks: that architectures are as equal as the tables say, that measures measure, and that nothing is trained twice."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import mmap
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from PIL import Image  # noqa: E402

import data_path  # noqa: E402
import estimate  # noqa: E402
import guidance  # noqa: E402
import judge  # noqa: E402
import memory  # noqa: E402
import overhead  # noqa: E402
import peers_sample  # noqa: E402
import peers_train  # noqa: E402
import rounds  # noqa: E402
import scaling  # noqa: E402
import time_to_quality as quality  # noqa: E402
import variations  # noqa: E402
from chart import Bar, bar_chart  # noqa: E402
from contenders import SETTINGS, Contender, Tuning  # noqa: E402
from contenders.ours import EqualUnstir, QuickUnstir, as_dataset  # noqa: E402
from unstir.cli import run as unstir  # noqa: E402
from unstir.data import Dataset  # noqa: E402
from unstir.evaluation.features import Features  # noqa: E402
from unstir.networks import UNetConfig  # noqa: E402
from unstir.objectives import Batch  # noqa: E402
from unstir.processes import EDM  # noqa: E402
from unstir.recipes import RECIPES, DenoiserConfig  # noqa: E402

PEERS = ("denoising_diffusion_pytorch", "diffusers", "ema_pytorch")
absent = [name for name in PEERS if find_spec(name) is None]
needs_peers = pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)} (make bench installs them)")
SMALL = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)

PROBE = """
import json, sys
import numpy as np
from contenders import CONTENDERS, SETTINGS, Tuning, contender
from peers_sample import counting
found = {}
for name in CONTENDERS:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1), np.uint8)
    one = contender(name)(pictures, SETTINGS["installed"], Tuning(batch_size=2))
    found[name] = {"parameters": one.parameters, "flops": one.flops(), "loss": one.train_step()}
    with counting(one.network()) as calls:
        drawn = one.sample(2, 3)
    found[name] |= {"calls": calls[0], "shape": drawn.shape, "dtype": str(drawn.dtype)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def probed() -> dict[str, Any]:
    """All contenders, in another process: stand-ins of torchvision must not reach other tests."""
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---- who is compared ---------------------------------------------------------------------------------------------------


@needs_peers
@pytest.mark.parametrize("peer", ["lucidrains", "diffusers"])
def test_the_equal_architecture_is_equal(probed: dict[str, Any], peer: str) -> None:
    for what in ("parameters", "flops"):
        assert probed["unstir"][what] == pytest.approx(probed[peer][what], rel=0.05), what
    assert probed["unstir-quick"]["flops"] < 0.6 * probed[peer]["flops"], "then it is no longer told apart for nothing"


@needs_peers
def test_the_peers_are_the_networks_of_the_tables(probed: dict[str, Any]) -> None:
    assert (probed["lucidrains"]["parameters"], probed["diffusers"]["parameters"]) == (2_607_681, 2_419_009)
    assert probed["lucidrains"]["flops"] == pytest.approx(845e6, rel=0.01)
    assert probed["diffusers"]["flops"] == pytest.approx(843e6, rel=0.01)


@needs_peers
@pytest.mark.parametrize("name", ["lucidrains", "diffusers", "unstir", "unstir-quick"])
def test_every_contender_trains_and_asks_its_network_once_a_step(probed: dict[str, Any], name: str) -> None:
    one = probed[name]
    assert (one["calls"], one["shape"], one["dtype"]) == (3, [2, 32, 32, 1], "uint8")
    assert 0.05 < one["loss"] < 3  # of networks that know nothing: about 1, and less where the library weights it


def operations(one: Contender) -> int:
    """Two for each multiplication and addition in convolutions, linear layers and attention, counted layer by layer."""
    total = 0

    def count(layer: nn.Module, x: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        nonlocal total
        weight = layer.get_parameter("weight")
        total += 2 * weight.numel() * (y.numel() // y.shape[1])  # every place of the output uses every weight once
        if isinstance(layer, nn.Conv2d) and layer.out_channels == 3 * layer.in_channels and layer.kernel_size == (1, 1):
            places = y.shape[2] * y.shape[3]  # q, k, v: of every place with every other, twice
            total += 2 * 2 * places**2 * layer.in_channels

    handles = [m.register_forward_hook(count) for m in one.network().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        one.network().eval()
        one.forward(torch.zeros(1, *one.shape))
    for handle in handles:
        handle.remove()
    return total


def test_flops_are_those_of_the_layers() -> None:
    """PyTorch's counter leaves out its own fused attention on CPUs, unless told."""
    one = EqualUnstir(
        np.zeros((4, 32, 32, 1), np.uint8) + np.arange(4, dtype=np.uint8).reshape(-1, 1, 1, 1), SETTINGS["allocator"]
    )
    assert one.flops() == operations(one)


def test_a_setting_decides_the_precision_and_batch_and_rate_are_the_tunings() -> None:
    tuning = Tuning(learning_rate=3e-4, batch_size=2)
    for setting, kind in (("allocator", None), ("bf16", torch.bfloat16)):
        one = QuickUnstir(SMALL, SETTINGS[setting], tuning)
        assert one.session.denoiser.autocast == kind
        config = one.session.recipe.training
        assert (config.learning_rate, config.batch_size, config.optimizer) == (
            3e-4,
            2,
            RECIPES["quick"].training.optimizer,
        )


# ---- how it is measured ------------------------------------------------------------------------------------------------


def test_rounds_take_turns_and_medians_are_medians(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import json, pathlib, sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom rounds import serve\n"
        "job = json.loads(sys.argv[2])\nnumbers = iter(job['numbers'])\n"
        "def measure():\n"
        "    with open(job['log'], 'a') as log: log.write(job['contender'])\n"
        "    print('noise that a library prints')\n"
        "    return {'x': next(numbers)}\n"
        "serve(measure, {'about': job['contender']})\n"
    )
    shared = {"setting": "s", "log": str(tmp_path / "log")}
    jobs = [{"contender": name, "numbers": n, **shared} for name, n in (("A", [1, 5, 3]), ("B", [2, 2, 4]))]
    a, b = rounds.interleaved(str(script), jobs, 3)
    assert (tmp_path / "log").read_text() == "ABABAB"
    assert (a.about, a.median("x"), a.spread("x")) == ({"about": "A"}, 3, pytest.approx(4 / 3))
    assert b.bar("x", "b") == Bar("b", 2, 2, 4, "B")


def test_the_kernels_peak_is_the_memory_that_was_touched() -> None:
    Path("/proc/self/clear_refs").write_text("5")
    before = memory.status("VmRSS")
    with mmap.mmap(-1, 48 * memory.MIB) as touched:  # pages of its own: the allocator may have some to spare
        touched[:: mmap.PAGESIZE] = b"x" * (len(touched) // mmap.PAGESIZE)
    assert memory.status("VmHWM") - before == pytest.approx(48, abs=1)
    assert memory.status("VmRSS") - before < 1


@contextlib.contextmanager
def in_this_process(script: Any, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A script's workers as plain calls, so that its short form takes seconds."""

    class Here:
        def __init__(self, job: rounds.Job) -> None:
            patch.setattr(script, "serve", lambda measure, about: vars(self).update(measure=measure, about=about))
            script.work(job)
            self.answer: Callable[[], Any] = lambda: vars(self)["about"]

    def interleaved(_: str, jobs: list[rounds.Job], count: int) -> list[rounds.Measured]:
        made = [(job, Here(job)) for job in jobs]
        return [rounds.Measured(job, h.answer(), [vars(h)["measure"]() for _ in range(count)]) for job, h in made]

    patch.setattr(script, "interleaved", interleaved, raising=False)
    patch.setattr(script, "worker", lambda _, job: contextlib.nullcontext(Here(job)), raising=False)
    yield


@pytest.mark.parametrize(
    ("script", "words", "unit"),
    [
        (peers_train, ["--steps", "1", "--batch", "2"], "pictures_per_second"),
        (peers_sample, ["-n", "2", "--steps", "2"], "seconds"),
        (memory, ["--steps", "1", "--batch", "2"], "peak"),
    ],
)
def test_short_forms_of_the_comparisons(
    script: Any,
    words: list[str],
    unit: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ["--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]
    few = ["--only", "unstir-quick", "--settings", "bf16", "--rounds", "2", "--size", "16", "--data", "digits"]
    monkeypatch.setattr(sys, "argv", ["script", *words, *few, *files])
    with in_this_process(script, monkeypatch):
        script.main()
    printed = capsys.readouterr().out
    assert "| unstir-quick, bf16 |" in printed
    assert "data: digits" in printed
    (found,) = json.loads((tmp_path / "x.json").read_text())["results"]
    assert len(found["rounds"]) == 2
    assert all(one[unit] > 0 for one in found["rounds"])
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 700


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    bar_chart(str(tmp_path / "x.png"), "title", "unit", [Bar("a", 1, 1, 1, "a"), Bar("b", 3, 3, 3, "b")])
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture).astype(int)
    rows = [pixels[80 - 8], pixels[120 - 8]]  # beside the thin line in a bar's middle
    short, long = (int(((row.max(1) - row.min(1)) > 60).sum()) for row in rows)
    assert long == pytest.approx(3 * short, rel=0.02)


def test_sampling_overhead_is_the_time_outside_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    one = QuickUnstir(SMALL, SETTINGS["bf16"], Tuning(batch_size=2))
    model = one.session.model()

    def slow(x: torch.Tensor, c_noise: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return x[:, :1]

    monkeypatch.setattr(model.denoiser.network, "forward", slow)
    settings = model.settings("heun", steps=3, guidance_scale=1.0)
    with overhead.watched(model) as spent:
        list(model.trajectory([0], settings))
    assert len(spent) == 5  # twice a step, once in the last
    network, beside, shares = overhead.sampling_overhead(model, settings, 1, 2)
    assert network == pytest.approx(20, rel=0.2)
    assert beside == pytest.approx(network * np.median(shares), rel=0.3)
    assert 0 < beside < 10


def test_feeding_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowDraw(data_path.Draw):
        def __call__(self, *words: Any) -> Batch:
            time.sleep(0.1)
            return super().__call__(*words)

    monkeypatch.setattr(data_path, "Draw", SlowDraw)
    name, step, batch, share = data_path.feeding("digits", 2)
    assert str(name).startswith("digits")
    assert 100 <= float(str(batch)) < 130 < float(str(step))
    assert float(str(share).split()[0]) == pytest.approx(100 * float(str(batch)) / float(str(step)), rel=0.15)
    with in_this_process(data_path, monkeypatch):
        row = data_path.folder_row("gray", (28, 28), 30)
    assert row[0] == "30 PNGs, gray"


# ---- the estimate ------------------------------------------------------------------------------------------------------


def test_the_estimate_counts_what_there_is() -> None:
    one = EqualUnstir(SMALL, SETTINGS["allocator"])
    counted = estimate.count(one.session.recipe, one.spec)
    assert (counted.parameters, counted.flops) == (one.parameters, one.flops())
    assert counted.operators > 100
    one.session.denoiser.autocast = torch.bfloat16
    few, many = (estimate._kept(one.session.denoiser, one.spec, batch)[0] for batch in (3, 7))
    assert many - few == 4 * counted.kept  # of one picture, and nothing else


def test_what_autograd_keeps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp keeps its result, and so does its square, twice over: the same memory, which counts once."""
    spec = as_dataset(SMALL).spec
    denoiser = DenoiserConfig(parameterization="x_0").build(UNetConfig(8, (1,), attention=()), EDM(), spec)
    before = estimate._kept(denoiser, spec, 4)[0] - estimate._kept(denoiser, spec, 2)[0]
    plain = type(denoiser.network).forward

    def longer(self: nn.Module, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return torch.exp(plain(self, x, *rest).float()).square()

    monkeypatch.setattr(type(denoiser.network), "forward", longer)
    after = estimate._kept(denoiser, spec, 4)[0] - estimate._kept(denoiser, spec, 2)[0]
    assert after - before == 2 * 4 * 16 * 16  # two more pictures, float32


def test_the_estimates_formulas() -> None:
    cluster = estimate.Cluster(
        peak=1e12, bandwidth=1e9, nvlink=1e9, network=1e8, efficiency=0.5, memory_efficiency=0.5, link_efficiency=0.5,
        launch=1e-3, latency=(0.0, 0.0), bucket=1e6,
    )  # fmt: skip
    counted = estimate.Counted(parameters=1_000_000, flops=10**9, kept=1000, operators=10)
    step = 3 * 1e9 * 100 / 5e11 + (4 * 1000 * 100 + 40e6) / 5e8
    assert estimate.step_seconds(counted, 100, cluster, graphs=True) == pytest.approx(step)
    assert estimate.step_seconds(dataclasses.replace(counted, operators=10**4), 100, cluster, graphs=False) == 10
    reduce = 2 * 7 / 8 * 4e6 / 5e8 + 2 * 3 / 4 * 4e6 / 8 / 5e7
    assert estimate.reduce_seconds(4e6, 8, 4, cluster) == pytest.approx(reduce)
    last = reduce / 4  # hidden but for the last bucket
    assert estimate.pictures_per_second(counted, 100, 8, 4, cluster, True) == pytest.approx(3200 / (step + last))
    assert estimate.pictures_per_second(counted, 100, 1, 1, cluster, True) == pytest.approx(100 / step)


def test_processes_share_the_cores_and_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Process:
        returncode = 0

        def __init__(self, command: list[str], **_: Any) -> None:
            started.append(command)

        def communicate(self) -> tuple[str, None]:
            return 'a library\'s line\n{"pictures_per_second": 7.0}\n', None

    monkeypatch.setattr(scaling.subprocess, "Popen", Process)
    job = {"batch": 64, "steps": 1, "data": "digits"}
    speeds = [scaling.measure(layout, job, cores=2)["pictures_per_second"] for layout in scaling.LAYOUTS.values()]
    jobs = [json.loads(command[-1]) for command in started]
    assert speeds == [7, 7, 14]
    assert [(job["batch"], job["threads"]) for job in jobs] == [(64, 2), (64, 1), (32, 1), (32, 1)]
    assert ["torch.distributed.run" in command for command in started] == [False, True, False, False]


# ---- time to quality ---------------------------------------------------------------------------------------------------


class MeanColour:
    """A feature space simple enough for a closed form."""

    name, fingerprint, frechet_name = "colour", "1", "FD"

    def __call__(self, x: np.ndarray[Any, Any]) -> Features:
        return Features(torch.from_numpy(x.reshape(len(x), -1, x.shape[-1]).astype(np.float32).mean(1)))


@pytest.fixture
def simple_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def space(name: str, dataset: Dataset, device: torch.device, cache: Path) -> MeanColour:
        return MeanColour()

    monkeypatch.setattr(judge, "feature_space", space)


@pytest.mark.usefixtures("simple_judge")
def test_the_judges_distance(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    one = judge.Judge(str(tiny_arrays["image"]), tmp_path)
    x = np.clip(np.asarray(one.train.x), 3, 252)
    one.references["train"] = dataclasses.replace(one.train, x=x, fingerprint="clipped")
    assert one.distances(x)["train"] == pytest.approx(0, abs=1e-3)
    assert one.distances(x + np.uint8(3))["train"] == pytest.approx(
        27, abs=1e-2
    )  # the mean of each of 3 channels moved by 3
    assert 0 < one.floor(10)["train"] < 50


@pytest.mark.usefixtures("simple_judge")
def test_nothing_is_trained_twice_and_everything_can_be_judged_again(
    tiny_arrays: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, trained = str(tiny_arrays["image"]), []

    def train(job: rounds.Job) -> rounds.Result:
        trained.append((job["contender"], job["seed"], job["seconds"], tuple(job["flags"])))
        np.savez(job["samples"], arr_0=np.load(source)["x"][: job["n"]])
        return {"steps": 2, "pictures_per_second": 10.0, "sampling_seconds": 1.0}

    monkeypatch.setattr(quality, "train_unstir", train)
    monkeypatch.setattr(
        quality, "ENTRANTS", {name: dataclasses.replace(one, train=train) for name, one in quality.ENTRANTS.items()}
    )
    out = tmp_path / "results.jsonl"

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["script", "--data", source, "-n", "20", "--out", str(out), *words])
        quality.main()
        return capsys.readouterr().out

    first = call("--only", "unstir", "unstir-15s", "unstir-unconditional", "--seeds", "0", "1")
    assert [(name, seed, seconds) for name, seed, seconds, _ in trained] == [
        (name, seed, 15.0 if "15s" in name else 180.0)
        for seed in (0, 1)
        for name in ("unstir", "unstir-15s", "unstir-unconditional")
    ]
    assert trained[2][3] == ("--data.no-labels",)
    assert "unstir, with labels, 15 s" in first.replace("unstir-15s", "unstir")
    assert "| unstir-unconditional, 180 s" in first
    call("--only", "unstir", "--seeds", "0", "1")
    assert len(trained) == 6
    table = call("--seeds", "0", "--ablate", "adam=--training.optimizer adamw", "--flags=--training.seed 3")
    assert trained[6:] == [("adam", 0, 180.0, ("--training.optimizer", "adamw", "--training.seed", "3"))]
    assert "| adam, with labels, 180 s, --training.optimizer adamw --training.seed 3" in table
    call("--only", "unstir", "--seeds", "0", "--flags=--training.seed 3")  # other flags are another run
    assert len(trained) == 8
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 8
    assert len({line["samples"] for line in lines}) == 8
    np.savez(lines[0]["samples"], arr_0=np.zeros((20, 12, 10, 3), np.uint8))
    call("--only", "unstir", "--seeds", "0", "--judge-again")
    again = [json.loads(line) for line in out.read_text().splitlines()]
    assert again[0]["distance"]["train"] > lines[0]["distance"]["train"] + 1000
    assert again[1:] == lines[1:]


def test_our_entrants_are_commands_that_work(
    tiny_arrays: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []

    def here(command: list[str], **_: Any) -> None:
        assert command[1:3] == ["-m", "unstir"]
        said.append(command[3:])
        unstir(command[3:])

    monkeypatch.setattr(quality.subprocess, "run", here)
    small = ["--network.channels", "8", "--training.batch-size", "4", "--training.steps", "3", "--data.groups", "2"]
    small += ["--training.log-every", "1"]
    job = {"data": str(tiny_arrays["image"]), "seconds": 600.0, "seed": 1, "n": 3, "samples": str(tmp_path / "s.npz")}
    found = quality.train_unstir({**job, "flags": [*quality.ENTRANTS["unstir-unconditional-15s"].flags, *small]})
    assert found["steps"] == 3
    assert found["pictures_per_second"] > 0
    drawn = np.load(tmp_path / "s.npz")["arr_0"]
    assert (drawn.shape, drawn.dtype) == ((3, 12, 10, 3), np.uint8)
    assert said[0][:4] == ["train", "quick", "--data", job["data"]]
    assert said[1][2:6] == ["-n", "3", "--seed", "1"]  # plain `unstir sample`: nothing about the sampler


def test_peers_are_cropped_to_what_was_padded() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 13, 10, 3), np.uint8)
    np.testing.assert_array_equal(quality._cropped(quality.padded(x, 16), 13, 10), x)


def test_a_schedule_warms_up_and_falls_to_nothing() -> None:
    tuning = Tuning()
    assert [round(tuning.factor(f), 3) for f in (0.0, 0.049, 0.5, 1.0)] == [0.02, 0.994, 0.5, 0.0]
    assert Tuning(cosine=False).factor(0.9) == 1


@needs_peers
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "peers_train.py --rounds 1 --steps 1 --batch 4 --settings installed bf16 --data digits",
        "peers_sample.py --rounds 1 -n 2 --steps 2 --settings bf16 --data digits",
        "memory.py --rounds 1 --steps 1 --batch 4 --settings installed --data digits",
        "overhead.py --steps 1",
        "data_path.py --pictures 50 --steps 2 --data digits",
        "scaling.py --rounds 1 --steps 1 --batch 4 --data digits",
        "scaling.py --estimate",
        "time_to_quality.py --seconds 1 --seeds 0 -n 32 --data digits --out {folder}/results.jsonl",
    ],
)
def test_short_forms_as_they_are_called(words: str, tmp_path: Path) -> None:
    command = words.format(folder=tmp_path).split()
    done = subprocess.run(
        [sys.executable, *command], cwd=BENCHMARKS, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "\n|" in done.stdout


def test_variations_are_compared_about_the_mean(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1), np.uint8)
    comparer = variations.Comparer(as_dataset(pictures), 10, "pixels", tmp_path)
    assert comparer.sources.shape == (10, 16, 16, 1)
    cells = comparer.sources.astype(float).reshape(10, 8, 2, 8, 2).mean((2, 4)).reshape(10, 64)
    cells -= cells.mean(0)
    cosine = cells @ cells.T / np.linalg.norm(cells, axis=1) / np.linalg.norm(cells, axis=1)[:, None]
    another = (cosine.sum() - 10) / 90
    same = comparer(np.repeat(comparer.sources, 3, 0), 3)
    assert same == {"source": 1.0, "another": pytest.approx(another, abs=1e-3), "found": 1.0}
    turned = comparer(np.roll(comparer.sources, 1, 0), 1)
    assert turned["found"] == 0
    assert turned["source"] == pytest.approx(np.diagonal(cosine, 1).sum() / 10 + cosine[0, 9] / 10, abs=1e-3)
    assert comparer.among_data()[0] == pytest.approx(another, abs=1e-3)


def test_variations_of_other_data_or_in_other_features_are_other_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparer, drawn = variations.Comparer(as_dataset(SMALL), 4, "pixels", tmp_path), []

    def draw(model: Any, comparer: variations.Comparer, keep: float, options: Any) -> tuple[Any, float]:
        drawn.append((options.data, options.features))
        return comparer.sources, 0.0

    monkeypatch.setattr(variations, "draw", draw)
    asked = [(None, None), (None, None), ("emoji", None), ("emoji", "pixels"), ("emoji", None)]
    for data, features in asked:
        facts = {"run": "r", "each": 1, "scale": None, "keeps": [0.5], "shown": 1, "data": data, "features": features}
        variations.finish(Any, comparer, argparse.Namespace(**facts, out=str(tmp_path / "v.jsonl")))  # type: ignore[arg-type]
    assert drawn == [(None, None), ("emoji", None), ("emoji", "pixels")]


def test_diversity_is_the_mean_distance_within_a_class() -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0], [100.0, 1.0], [100.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert guidance.spread(vectors, labels) == pytest.approx(
        (5 + (1 + 0 + 1) / 3) / 2
    )  # classes are as far as they like
