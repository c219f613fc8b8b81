"""A teacher under its samplers, and its students: quality against steps, and the seconds of 1,000 samples.

    unstir train quick --data fashion-mnist --out runs/teacher
    unstir distill runs/teacher --method progressive --steps 4 --out runs/four
    unstir distill runs/teacher --method consistency --out runs/two
    python benchmarks/few_steps.py runs/teacher --students runs/four/steps-8=8 runs/four=4 runs/two=1,2,4 [-n 2000] [--steps 1 2 4 8 16]
    python benchmarks/few_steps.py runs/teacher --students runs/any=4 --scales 1 2 3 4 --steps 12 --samplers dpmpp_2m

Every run is sampled as plain ``unstir sample`` samples it (guidance, clipping, grid) but for what is varied: the teacher's sampler and steps, a
student's steps, and with --scales the guidance scale. All start from the same noise, class after class, and are judged as in guidance.py. Seconds are
those of drawing, on the threads that there are (OMP_NUM_THREADS); --rounds draws 1,000 more of each in turn, so often, and gives the median. Every
finished line of --out is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unstir
from guidance import Examiner, draw
from judge import Judge
from report import heading, table
from unstir.media.grid import picture_grid
from unstir.model import Model
from unstir.recipes import SamplingConfig

TIMED = 1000


@dataclass(frozen=True)
class Way:
    """One way to draw samples: a run, its sampler ("": its own), its steps, its guidance scale (None: its own)."""

    run: str
    sampler: str
    steps: int
    scale: float | None

    @property
    def key(self) -> str:
        scale = "" if self.scale is None else f", scale {self.scale:g}"
        return f"{self.run}{self.sampler and ' by ' + self.sampler}, {self.steps} steps{scale}"

    def settings(self, model: Model) -> SamplingConfig:
        return model.settings(self.sampler or None, self.steps, self.scale, labels="cycle")


def ways(options: argparse.Namespace) -> Iterator[Way]:
    """The teacher's, then each student's (as the command names them: RUN=steps,steps)."""
    scales = options.scales or [None]
    for sampler in options.samplers:
        yield from (Way(options.run, sampler, steps, scale) for steps in options.steps for scale in scales)
    for student in options.students:
        run, _, steps = student.rpartition("=")
        yield from (Way(run, "", int(number), scale) for number in steps.split(",") for scale in scales)


def evaluations(model: Model, settings: SamplingConfig) -> int:
    """How often one sample asks the network."""
    return sum(step.evaluations for step in model.trajectory(range(1), settings))


def finish(examiner: Examiner, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for every way: found in --out, or drawn and judged."""
    path = Path(options.out)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["way"], row["n"]): row for row in rows}
    for way in ways(options):
        if (way.key, options.n) in known:
            continue
        model = unstir.load(way.run)
        x, seconds = draw(model, way.settings(model), options.n)
        np.save(path.with_name(f"{path.stem}-{slug(way)}.npy"), x[: options.shown])
        found = examiner(x, torch.arange(options.n) % examiner.condition.size)
        asked = evaluations(model, way.settings(model))
        row = {"way": way.key, "n": options.n, "evaluations": asked, "seconds": round(seconds, 2), **found}
        known[way.key, options.n] = row
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return [known[way.key, options.n] for way in ways(options)]


def slug(way: Way) -> str:
    return "".join(c if c.isalnum() or c in ".=" else "-" for c in way.key)


def timed(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of TIMED samples, by way; the ways take turns."""
    found: dict[str, list[float]] = {way.key: [] for way in ways(options)}
    models = {way.run: unstir.load(way.run) for way in ways(options)}
    for _ in range(options.rounds):
        for way in ways(options):
            found[way.key].append(draw(models[way.run], way.settings(models[way.run]), TIMED)[1])
    return {key: statistics.median(seconds) for key, seconds in found.items() if seconds}


def show(rows: list[dict[str, Any]], examiner: Examiner, options: argparse.Namespace) -> None:
    judge, reference, seconds = examiner.judge, next(iter(examiner.judge.known)), timed(options)
    lines: list[list[object]] = []
    for row in rows:
        taken = seconds.get(row["way"], row["seconds"] / row["n"] * TIMED)
        quality = [f"{row['distance'][reference]:.3g}", row["accuracy"], row["diversity"]]
        lines.append([row["way"], row["evaluations"], *quality, f"{taken:.1f}"])
    title = f"{judge.name} to {reference}, n = {options.n}; {options.n} real pictures get {judge.floor(options.n)[reference]:.2g}"
    print(heading(title, judge.source))
    print(table(["way", "evaluations", "distance", "accuracy", "diversity", f"seconds of {TIMED}"], lines))
    if options.picture:
        path = Path(options.out)
        x = [np.load(path.with_name(f"{path.stem}-{slug(way)}.npy"))[: options.shown] for way in ways(options)]
        names = [way.key.removeprefix(str(Path(way.run).parent) + "/") for way in ways(options)]
        picture_grid(np.concatenate(x), columns=options.shown, scale=2, row_labels=names).save(options.picture)


def main() -> None:
    """Reads the options; draws what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the teacher")
    parser.add_argument("--students", nargs="*", default=[], metavar="RUN=STEPS")
    parser.add_argument("--samplers", nargs="*", default=["ddim", "dpmpp_2m", "unipc"], help="of the teacher")
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2, 4, 8, 16], help="of the teacher")
    parser.add_argument("--scales", type=float, nargs="*", help="guidance scales, of all")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument(
        "--rounds", type=int, default=0, help=f"draw {TIMED} samples more of each so often, for the seconds"
    )
    parser.add_argument("--shown", type=int, default=20, help="samples of each in the picture")
    parser.add_argument("--out", default="runs/benchmarks/few_steps.jsonl")
    parser.add_argument("--picture", help="a PNG: a row for each way")
    options = parser.parse_args()
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    examiner = Examiner(Judge(options.data, Path(options.out).parent), options.n)
    show(finish(examiner, options), examiner, options)


if __name__ == "__main__":
    main()
