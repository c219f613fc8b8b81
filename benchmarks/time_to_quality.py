"""Quality after equal minutes: every contender trains so many seconds and draws 2,000 pictures; one judge for all.

    python benchmarks/time_to_quality.py [--data SOURCE ...] [--seconds 180] [--seeds 0 1 2] [--only NAME ...] [--out FILE.jsonl]
    python benchmarks/time_to_quality.py --tune lucidrains diffusers [--rates 5e-4 1e-3 2e-3 4e-3] [--batches 32]
    python benchmarks/time_to_quality.py --only unstir --ablate adamw='--training.optimizer adamw' --ablate 'no labels=--data.no-labels'
    python benchmarks/time_to_quality.py --judge-again

The peers train under bf16 autocast, with the allocator set and a tuned rate, on pictures at their native size where they take it
(28 x 28 is fine), and draw with 20 steps of their best sampler. unstir's contenders are the commands a user types; each --ablate adds
one more, with further flags for `unstir train`, and --flags gives them to all of unstir's. The clock starts after the first step for
all (it builds kernels) and includes everything in the training loop, not starting the process; pictures a second are those of all
later steps over that time. Every finished (contender, seed) is a line of --out and is not repeated; samples stay beside it, so that
another judge can judge them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chart import Bar, bar_chart
from contenders import SETTINGS, Tuning, contender
from contenders.contender import Pictures
from judge import Judge
from pictures import padded, read, source_at_hand
from report import heading, machine, table
from rounds import Job, Result, serve, worker
from unstir.run import Run

STEPS = 20  # of the peers' samplers
MULTIPLE = 4  # the peers' networks halve the picture twice


# ---- the peers ---------------------------------------------------------------------------------------------------------


def work(job: Job) -> None:
    """In the worker: trains a peer for the seconds, draws, saves."""
    x = read(job["data"])
    height, width = x.shape[1:3]
    size = -(-max(height, width) // MULTIPLE) * MULTIPLE
    one = contender(job["contender"])(padded(x, size), SETTINGS["bf16"], Tuning(**job["tuning"]), job["seed"])

    def measure() -> Result:
        one.train_step(0.0)
        start, fraction, steps = time.perf_counter(), 0.0, 1
        while fraction < 1:
            one.train_step(fraction)
            steps += 1
            fraction = (time.perf_counter() - start) / job["seconds"]
        trained = time.perf_counter() - start
        drawn = _cropped(one.sample(job["n"], STEPS), height, width)
        np.savez(job["samples"], arr_0=drawn)
        sampling = time.perf_counter() - start - trained
        speed = (steps - 1) * one.tuning.batch_size / trained
        return {"steps": steps, "pictures_per_second": round(speed, 1), "sampling_seconds": round(sampling, 1)}

    serve(measure, {})


def _cropped(x: Pictures, height: int, width: int) -> Pictures:
    """The middle: what ``padded`` put a border around."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def train_peer(job: Job) -> Result:
    """Trains a peer in a process of its own."""
    with worker(__file__, job) as process:
        process.answer()
        return process.measure()


# ---- unstir ------------------------------------------------------------------------------------------------------------


def train_unstir(job: Job) -> Result:
    """``unstir train quick`` and plain ``unstir sample``, as a user types them."""
    unstir = [sys.executable, "-m", "unstir"]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        train = [*unstir, "train", "quick", "--data", job["data"], "--training.minutes", str(job["seconds"] / 60)]
        train += ["--training.seed", str(job["seed"]), "--out", str(run.folder), *job["flags"]]
        subprocess.run(train, check=True, stdout=sys.stderr)
        start = time.perf_counter()
        sample = [*unstir, "sample", str(run.folder), "-n", str(job["n"]), "--seed", str(job["seed"])]
        subprocess.run([*sample, "--out", job["samples"]], check=True, stdout=sys.stderr)
        sampling = time.perf_counter() - start
        last, (_, recipe, _) = run.metrics()[-1], run.read_recipe()
    speed = (last["step"] - 1) * recipe.training.batch_size / last["seconds"]
    return {
        "steps": last["step"],
        "pictures_per_second": round(speed, 1),
        "sampling_seconds": round(sampling, 1),  # the process's start included
    }


@dataclass(frozen=True)
class Entrant:
    """One row of the table.

    Args:
        flags: for ``unstir train``.
        seconds: instead of everybody's.
    """

    train: Callable[[Job], Result]
    flags: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def labels(self) -> bool:
        """Whether it may see them, which is an advantage."""
        return self.train is train_unstir and "--data.no-labels" not in self.flags


NO_LABELS = ("--data.no-labels",)
ENTRANTS = {
    "lucidrains": Entrant(train_peer),
    "diffusers": Entrant(train_peer),
    "unstir-unconditional": Entrant(train_unstir, NO_LABELS),
    "unstir": Entrant(train_unstir),
    "unstir-15s": Entrant(train_unstir, seconds=15.0),
    "unstir-unconditional-15s": Entrant(train_unstir, NO_LABELS, seconds=15.0),
}


def entrants(options: argparse.Namespace) -> dict[str, Entrant]:
    """All that can take part, by name: with the ablations, and with --flags given to everyone of unstir's."""
    every = dict(ENTRANTS)
    for words in options.ablate:
        name, equals, flags = words.partition("=")
        if not name or not equals or name in ENTRANTS:
            raise SystemExit(f"--ablate wants NAME='FLAGS' with a name of its own, not {words!r}")
        every[name] = Entrant(train_unstir, tuple(shlex.split(flags)))
    given = tuple(shlex.split(options.flags))
    return {
        name: dataclasses.replace(one, flags=one.flags + given) if one.train is train_unstir else one
        for name, one in every.items()
    }


# ---- all of it ---------------------------------------------------------------------------------------------------------


class Results:
    """The finished lines, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[Result] = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def find(self, job: Job) -> Result | None:
        """The line of such a job, if it is finished."""
        key = _key(job)
        return next((row for row in self.rows if _key(row) == key), None)

    def add(self, row: Result) -> None:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rewrite(self) -> None:
        """After the lines were changed."""
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))


def _key(row: Job) -> tuple[Any, ...]:
    """What makes two runs the same."""
    tuning = json.dumps(row["tuning"], sort_keys=True)
    return row["contender"], row["seed"], row["seconds"], row["data"], row["n"], tuning, tuple(row["flags"])


def job_of(
    name: str, entrant: Entrant, seed: int, tuning: Tuning | None, data: str, options: argparse.Namespace
) -> Job:
    """Everything that says what to train."""
    if entrant.train is train_peer:
        tuning = tuning or contender(name).tuned()
    job: Job = {
        "contender": name,
        "seed": seed,
        "seconds": entrant.seconds or options.seconds,
        "data": data,
        "n": options.n,
        "tuning": dataclasses.asdict(tuning) if tuning else None,
        "flags": list(entrant.flags),
    }
    tag = f"-{tuning.learning_rate:g}-{tuning.batch_size}-{tuning.ema:g}-{tuning.cosine:d}" if tuning else ""
    if options.flags and not tuning:
        tag += f"-{options.flags}"
    stem = f"{Path(data).stem}-{name}{tag}-{job['seconds']:g}s-n{options.n}-seed{seed}"
    stem = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in stem)
    return {**job, "samples": str(Path(options.out).resolve().parent / "samples" / f"{stem}.npz")}


def finish(job: Job, entrant: Entrant, results: Results, judge: Judge) -> Result:
    """The job's line: found, or trained, judged and written."""
    if (found := results.find(job)) is not None:
        return found
    Path(job["samples"]).parent.mkdir(exist_ok=True)
    trained = entrant.train(job)
    where = {key: value for key, value in machine().items() if key in ("date", "processor", "threads", "torch")}
    row = {**job, **trained, "judge": judge.name, "distance": judge.distances(read(job["samples"])), **where}
    results.add(row)
    print(f"{job['contender']} seed {job['seed']}: {row['distance']}", file=sys.stderr)
    return row


def judge_again(results: Results, judge: Judge) -> None:
    """Judges every kept sample by the judge as it is now."""
    for row in results.rows:
        if row["data"] == judge.source and Path(row["samples"]).is_file():
            row["distance"], row["judge"] = judge.distances(read(row["samples"])), judge.name
    results.rewrite()


def title(row: Result, labels: bool) -> str:
    """A contender's name with all that is not everybody's."""
    parts = [f"{row['contender']}{', with labels' if labels else ''}", f"{row['seconds']:g} s"]
    parts += [f"{key} {value}" for key, value in (row["tuning"] or {}).items()]
    parts += [" ".join(row["flags"])] if row["flags"] and row["contender"] not in ENTRANTS else []
    return ", ".join(parts)


def show(rows: list[tuple[Result, bool]], judge: Judge, options: argparse.Namespace) -> None:
    """A line for each contender: the median over seeds and all of them. Rows come with whether they saw labels."""
    references = list(judge.known)
    groups: dict[str, list[Result]] = {}
    for row, labels in rows:
        groups.setdefault(title(row, labels), []).append(row)
    lines: list[list[object]] = []
    bars: list[Bar] = []
    for name, found in groups.items():
        values = [[row["distance"].get(reference, float("nan")) for row in found] for reference in references]
        speed = statistics.median(row["pictures_per_second"] for row in found)
        seeds = ", ".join(f"{value:.3g}" for value in values[0])
        medians = [f"{statistics.median(of_reference):.3g}" for of_reference in values]
        lines.append([name, *medians, seeds, f"{speed:.0f}"])
        bars.append(Bar(name, statistics.median(values[0]), min(values[0]), max(values[0]), found[0]["contender"]))
    floor = judge.floor(options.n)
    lines.append(["real pictures", *(f"{floor[name]:.2f}" for name in references), "", ""])
    print(heading(f"{judge.name} after training, n = {options.n}", judge.source))
    print(table(["contender", *(f"to {name}" for name in references), "each seed", "pictures/s"], lines))
    if options.plot:
        path = Path(options.plot)
        path = path if len(options.data) == 1 else path.with_stem(f"{path.stem}-{Path(judge.source).stem}")
        bar_chart(str(path), f"{judge.name} to {references[0]}, {judge.source}", "smaller is better", bars)


def run(data: str, options: argparse.Namespace, results: Results) -> None:
    """Trains on one data set what is not there yet, judges, prints."""
    judge = Judge(data, results.path.parent)
    if options.judge_again:
        judge_again(results, judge)
    every = entrants(options)
    chosen = list(dict.fromkeys([*options.only, *(name for name in every if name not in ENTRANTS)]))
    plan: list[tuple[str, Tuning | None]] = [(name, None) for name in chosen]
    if options.tune:
        sweep = [Tuning(r, b, e) for b in options.batches for e in options.emas for r in options.rates]
        plan = [(name, tuning) for name in options.tune for tuning in sweep]
    rows = [
        (
            finish(job_of(name, every[name], seed, tuning, data, options), every[name], results, judge),
            every[name].labels,
        )
        for seed in options.seeds
        for name, tuning in plan
    ]
    show(rows, judge, options)


def main() -> None:
    """Reads the options; every data set is a table of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[source_at_hand()])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ENTRANTS), default=None)
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("--out", default="runs/benchmarks/time_to_quality.jsonl")
    parser.add_argument("--judge-again", action="store_true")
    parser.add_argument("--ablate", action="append", default=[], metavar="NAME='FLAGS'", help="one more of unstir's")
    parser.add_argument("--flags", default="", help="for `unstir train`, of all of unstir's")
    parser.add_argument("--tune", nargs="+", choices=["lucidrains", "diffusers"], help="sweep these peers' settings")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3, 4e-3])
    parser.add_argument("--batches", type=int, nargs="+", default=[32])
    parser.add_argument("--emas", type=float, nargs="+", default=[0.99])
    parser.add_argument("--plot", help="a PNG; one for each of several data sets")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    if options.only is None:
        options.only = [] if options.ablate else list(ENTRANTS)
    results = Results(Path(options.out))
    for data in options.data:
        run(data, options, results)


if __name__ == "__main__":
    main()
