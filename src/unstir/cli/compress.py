"""unstir compress RUN --image FILE [--rate BITS | --error E] [--out FILE.bin] | unstir compress RUN --curve FILE.png"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unstir.cli.arguments import parse, take
from unstir.errors import UserError

if TYPE_CHECKING:
    from unstir.compression import Curve
    from unstir.model import Model
    from unstir.run import Run

USAGE = """usage: unstir compress RUN --image FILE [--rate BITS] [--error E] [--out FILE.bin]
       unstir compress RUN --curve FILE.png|.json [--data SOURCE] [-n N]

Writes a picture into a file of a few bytes that the same run's model reads back: unstir decompress RUN FILE.bin --out FILE.png
With --curve: how many bits which error costs, for some pictures of the data (of the test split, where there is one), as the model
promises and as the coder does it."""


@dataclass(frozen=True)
class CompressOptions:
    """What to compress, and how far."""

    image: str = ""
    """The picture; it is read like the model's data. For other data than pictures: a .npy of one sample."""
    rate: float = 0.5
    """Most bits for each number of the picture (each pixel of a grey one). 0: as many as there are to tell."""
    error: float = 0.0
    """Stop when the root-mean-square error, in the data's units (0 to 255 of pictures), is no larger."""
    window: int = 12
    """Bits that name a codeword of noise, 2 to 16: more come nearer to the bound, and each one more takes twice the time."""
    steps: int = 64
    """Stops of the way down: more follow the model more closely, fewer suit small pictures."""
    curve: str = ""
    """Instead of compressing: a picture of the rate-distortion curve, or a .json of it."""
    n: int = 8
    """Of the curve: how many samples of the data."""
    device: str = ""
    """cpu, cuda or mps; default: the best there is."""
    out: str = ""
    """The file. Default: the picture's name with .bin."""


def main(words: list[str]) -> None:
    """Runs the command."""
    from unstir.cli.sample import named_device
    from unstir.recipes.distillation import check_mean
    from unstir.run import Run

    if not words or words[0].startswith("-"):
        if words and words[0] not in ("-h", "--help"):
            raise UserError("name the run folder first: unstir compress RUN --image FILE")
        print(USAGE)
        return
    run = Run.open(words[0])
    rest = ["--n" if word == "-n" else word for word in words[1:]]
    source = take(rest, "--data")
    options = parse(CompressOptions(), rest, f"unstir compress {run.folder}")
    _check(options)
    model = run.model(named_device(options.device))
    check_mean(model.recipe, str(run.folder))
    if model.spec.always:
        raise UserError(
            f"{run.folder} enlarges smaller {model.spec.kind}s, and a compressed file holds none to enlarge: compress with another run"
        )
    if options.curve:
        _draw_curve(run, model, options, source)
    else:
        _compress(run, model, options)


def _check(options: CompressOptions) -> None:
    from unstir.media.files import check_writable

    if not options.image and not options.curve:
        raise UserError("compress what? unstir compress RUN --image FILE")
    if not 2 <= options.window <= 16:
        raise UserError(f"--window must lie between 2 and 16, not {options.window}")
    if options.rate < 0 or options.error < 0 or options.n < 1 or not 2 <= options.steps <= 1000:
        raise UserError("--rate and --error must not be negative, -n be positive, and --steps lie between 2 and 1,000")
    if options.curve and Path(options.curve).suffix not in (".png", ".json"):
        raise UserError(f"--curve {options.curve}: a picture ends in .png, numbers in .json")
    for path in (options.curve, options.out):
        if path:
            check_writable(Path(path).parent)


def _compress(run: Run, model: Model, options: CompressOptions) -> None:
    from unstir.compression import compress
    from unstir.editing.files import read_sample
    from unstir.media.files import replacing

    _, recipe, spec = run.read_recipe()
    path = Path(options.image)
    x_0, note = read_sample(path, spec, recipe.data)
    if note:
        print(note)
    rate = options.rate or float("inf")
    done = compress(model, x_0, rate, options.error, steps=options.steps, window=options.window)
    out = Path(options.out) if options.out else path.with_suffix(".bin")
    with replacing(out) as file:
        file.write(done.data)
    print(
        f"{out}: {len(done.data):,} bytes, {done.bits / spec.dimensions:.3f} bits for each of {spec.dimensions:,} numbers and 12 bytes of head; "
        f"root-mean-square error {done.error:.4g}"
    )
    print(f"  unstir decompress {run.folder} {out} --out {out.with_suffix('.png' if spec.kind == 'image' else '.npy')}")


def _draw_curve(run: Run, model: Model, options: CompressOptions, source: str | None) -> None:
    import torch

    from unstir.cli.likelihood import data_to_judge
    from unstir.compression import curve
    from unstir.data import DataConfig, load
    from unstir.evaluation.samples import check_alike, order
    from unstir.media.files import replacing
    from unstir.media.plot import curves

    _, recipe, spec = run.read_recipe()
    config = recipe.data.plain()
    if source is not None:
        config = dataclasses.replace(config, source=source, split=DataConfig.split)
    data = load(data_to_judge(config, asked=False))
    check_alike(spec, data.spec, ("the model", data.name))
    if options.n > len(data):
        raise UserError(f"{data.name} holds {len(data):,} samples, fewer than -n {options.n:,}")
    x_0 = spec.to_model(data.x[order(len(data))[: options.n]])
    found = curve(model, x_0.to(torch.float32), steps=options.steps, window=options.window)
    print("\n".join(_table(found)))
    path = Path(options.curve)
    with replacing(path) as file:
        if path.suffix == ".json":
            file.write(json.dumps({"bound": found.bound, "coder": found.coder}, indent=1).encode())
        else:
            lines = {"bound": tuple(zip(*found.bound, strict=True)), "coder": tuple(zip(*found.coder, strict=True))}
            shown = {name: (rates, errors) for name, (rates, errors) in lines.items()}
            curves(shown, "", "bits/dim", "root-mean-square error").save(file, format="PNG")
    print(f"{len(x_0)} samples of {data.report.source or data.name}: {path}")


def _table(found: Curve) -> list[str]:
    """What the coder spent, and what the bound promises for the same error."""
    rows = ["bits/dim   error   bound for this error   ratio"]
    for rate, error in found.coder:
        bound = found.bound_at(error)
        rows.append(f"{rate:8.3f} {error:7.3f} {bound:22.3f} {rate / bound if bound > 0 else float('nan'):7.2f}")
    return rows
