"""unstir decompress RUN FILE.bin [--out FILE.png]"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unstir.cli.arguments import parse
from unstir.errors import UserError

USAGE = """usage: unstir decompress RUN FILE.bin [--out FILE.png|.npy|.npz]

Reads back a file that `unstir compress` wrote with the same run."""


@dataclass(frozen=True)
class DecompressOptions:
    """What to make of the file."""

    finish: Literal["estimate", "sample"] = "estimate"
    """estimate: what is known of the picture. sample: one of those that it may have been, sharp, and further from the original."""
    seed: int = 0
    """Of what is made up for --finish sample."""
    device: str = ""
    """cpu, cuda or mps; default: the best there is."""
    out: str = ""
    """The picture, or .npy or .npz. Default: the file's name with .png."""


def main(words: list[str]) -> None:
    """Runs the command."""
    from unstir.cli.sample import named_device
    from unstir.compression import decompress
    from unstir.media.write import check_path, write
    from unstir.run import Run

    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        if words and words[0] not in ("-h", "--help") and "--help" not in words:
            raise UserError("name the run folder and the file: unstir decompress RUN FILE.bin")
        print(USAGE)
        return
    run, path = Run.open(words[0]), Path(words[1])
    options = parse(DecompressOptions(), words[2:], f"unstir decompress {run.folder} {path}")
    _, _, spec = run.read_recipe()
    out = Path(options.out) if options.out else path.with_suffix(".png" if spec.kind == "image" else ".npy")
    check_path(out, spec)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    model = run.model(named_device(options.device))
    try:
        x_0 = decompress(model, data, finish=options.finish, seed=options.seed)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    print(write(spec.to_data(x_0), out, spec)[0])
