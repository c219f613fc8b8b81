"""What conditions computed from pictures do: the agreement of samples with the control they were asked for, and the error inside filled holes.

    python benchmarks/control.py agreement RUN [--base RUN] [--data SOURCE] [--strengths 0.5 1 1.5] [-n 128] [--picture FILE.png]
    python benchmarks/control.py holes RUN [--base RUN] [--data SOURCE] [-n 64] [--picture FILE.png]

agreement: RUN is a ControlNet. The controls are those of n pictures of the data; the base and RUN draw with the same noise and the pictures'
own labels or captions, and the control of what they drew is computed again. The number is the correlation of the two maps over all pixels, beside
that of the pictures' controls dealt out anew (chance).
holes: RUN was trained to fill holes (glide-inpaint). Random holes, as in its training, are cut into n pictures; RUN fills them once a
step, the base by RePaint and by replacement, all with the pictures' own captions or labels. The number is the root of the mean squared error
inside the holes, pictures in [-1, 1], beside that of the grey mean of what is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unstir
from report import heading, table
from unstir.conditioning.derived import Hole
from unstir.data import DataConfig, Dataset, load
from unstir.editing import ByModel, ByReplacement, ByResampling, Method, inpaint
from unstir.media.grid import picture_grid
from unstir.model import Model
from unstir.sampling import SampleNoise

SEED = 0x0C0


def rows_of(dataset: Dataset, n: int) -> np.ndarray[Any, Any]:
    """n samples of the data, evenly spread."""
    return np.linspace(0, len(dataset) - 1, n).round().astype(np.int64)


def asked(dataset: Dataset, rows: np.ndarray[Any, Any], model: Model) -> dict[str, Any]:
    """What these samples are called, as far as the model knows it."""
    known = {name for name, condition in model.spec.conditions.items() if condition.seen}
    if "text" in known:
        return {"text": [dataset.captions[row] for row in rows]}
    _, cond = dataset.batch(rows)
    return {name: value for name, value in cond.items() if name in known}


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def show(path: str, spec: Any, columns: Sequence[Tensor], most: int = 12) -> None:
    """A row for each of the first samples, a column for each thing that was done to it."""
    if not path:
        return
    across = [column.expand(-1, spec.shape[0], *column.shape[2:])[:most] for column in columns]
    x = torch.stack(across, 1).flatten(0, 1)
    picture_grid(np.asarray(spec.to_data(x)), columns=len(columns)).save(path)
    print(f"picture: {path}")


# ---- agreement -------------------------------------------------------------------------------------------------------


def agreement(options: argparse.Namespace, model: Model, base: Model | None, dataset: Dataset) -> list[list[str]]:
    rows = rows_of(dataset, options.n)
    x_0 = dataset.samples(torch.from_numpy(rows))
    derived, spec = model.recipe.derived, model.spec
    name = next(name for name, condition in derived.declare(dataset.spec).items() if condition.kind == "grid")
    wanted = derived.given(x_0, spec)
    others = derived.given(x_0.roll(1, 0), spec)[name]

    def drawn(of: Model, **cond: Any) -> Tensor:
        return of.sample(options.n, seed=options.seed, **asked(dataset, rows, of), **cond)

    found = {"the pictures themselves": x_0}
    if base is not None:
        found["base"] = drawn(base)
    found |= {f"strength {s:g}": drawn(model, **wanted, control_strength=s) for s in options.strengths}
    show(options.picture, spec, [x_0, 2 * wanted[name] - 1, *list(found.values())[1:]])
    lines = []
    for what, x in found.items():
        own = derived.given(x, spec)[name]
        lines.append([what, f"{correlation(own, wanted[name]):.3f}", f"{correlation(own, others):.3f}"])
    return [["", f"{name}: correlation with what was asked for", "with those of another picture"], *lines]


# ---- holes -----------------------------------------------------------------------------------------------------------


def holes(options: argparse.Namespace, model: Model, base: Model | None, dataset: Dataset) -> list[list[str]]:
    rows = rows_of(dataset, options.n)
    x_0 = dataset.samples(torch.from_numpy(rows))
    hole = model.recipe.derived
    assert isinstance(hole, Hole)
    known = hole.training(x_0, SampleNoise(SEED, range(options.n)))["known"]
    cut = known.isnan().all(1, keepdim=True)  # (n, 1, H, W)
    chosen = [i for i in range(options.n) if 0.05 < float(cut[i].float().mean()) < 0.9]
    ways: dict[str, tuple[Model, Method]] = {"RUN, as it was trained to": (model, ByModel())}
    if base is not None:
        ways["base, RePaint"] = (base, ByResampling())
        ways["base, replacement"] = (base, ByReplacement())
    filled: dict[str, Tensor] = {}
    for what, (of, method) in ways.items():
        given = asked(dataset, rows[chosen], of)
        each = [{name: value[k : k + 1] for name, value in given.items()} for k in range(len(chosen))]
        drawn = [
            inpaint(of, x_0[i], cut[i], method=method, seed=options.seed + i, **one)
            for i, one in zip(chosen, each, strict=True)
        ]
        filled[what] = torch.cat(drawn)
    truth, inside = x_0[chosen], cut[chosen].expand_as(x_0[chosen])
    mean = torch.where(inside, torch.nan, truth).flatten(2).nanmean(-1)[:, :, None, None].expand_as(truth)
    filled["the mean of what is known"] = torch.where(inside, mean, truth)
    show(options.picture, model.spec, [truth, torch.where(inside, torch.zeros(()), truth), *filled.values()])
    lines = []
    for what, x in filled.items():
        errors = ((x - truth).square() * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
        spread = float(errors.sqrt().std() / len(chosen) ** 0.5)
        lines.append([what, f"{float(errors.sqrt().mean()):.3f} ± {spread:.3f}"])
    return [["", f"error inside {len(chosen)} holes"], *lines]


WHAT: dict[str, Callable[..., list[list[str]]]] = {"agreement": agreement, "holes": holes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("run")
    parser.add_argument("--base", default="")
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="")
    options = parser.parse_args()
    model = unstir.load(options.run)
    base = unstir.load(options.base) if options.base else None
    dataset = load(DataConfig(source=options.data, size=model.spec.shape[1:]))
    found = WHAT[options.what](options, model, base, dataset)
    print(heading(f"{options.what}: {Path(options.run).name} on {options.data}, n = {options.n}"))
    print(table(found[0], found[1:]))


if __name__ == "__main__":
    main()
