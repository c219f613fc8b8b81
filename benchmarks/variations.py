"""How much variations of a picture have in common with it, in features that no model here was trained with.

    python benchmarks/variations.py RUN [--data SOURCE] [--keeps 0 0.5 0.8] [-n 64] [--each 4] [--features NAME] [--scale W] [--out FILE.jsonl] [--picture FILE.png]

RUN is an unCLIP model (unstir train unclip). For n pictures of the data (--data: others than those that it was trained on) ``each`` variations are drawn,
and for each share ``keep`` of the picture's own noise that is kept. Compared are vectors of --features (EfficientNet's, for pictures): the mean
cosine of a variation and its source, beside that of a variation and some other picture, of two pictures of the data, and of two that have the same
caption; all less the mean vector of the data, so that what all pictures have in common does not count. Also how often a variation's source is the nearest
of all n, where chance is 1 in n. Every finished line of --out is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import unstir
from contenders.contender import Pictures
from report import heading, table
from unstir.data import Dataset, load
from unstir.editing import variations
from unstir.editing.embedding import variation_settings
from unstir.evaluation.features import FeatureSpace, feature_space
from unstir.evaluation.samples import as_files_hold, order, rows_of
from unstir.media.grid import picture_grid
from unstir.model import Model


class Comparer:
    """Cosines of pictures in a feature space, about the mean of the data.

    Args:
        dataset: the pictures; those that are compared are the first n of its fixed random order.
        name: of the space; by default that of this kind of data.
    """

    def __init__(self, dataset: Dataset, n: int, name: str | None, cache: Path) -> None:
        self.rows = order(len(dataset))[:n]
        self.dataset = dataset
        self.space: FeatureSpace = feature_space(name, dataset, torch.device("cpu"), cache)
        self.sources = rows_of(dataset, self.rows)
        raw = self._raw(self.sources)
        self.mean = raw.mean(0)
        self.known = F.normalize(raw - self.mean, dim=1)

    def _raw(self, x: Pictures) -> Tensor:
        return torch.cat([self.space(x[start : start + 100]).vectors.cpu() for start in range(0, len(x), 100)])

    def vectors(self, x: Pictures) -> Tensor:
        """(N, ...) as files hold them -> (N, D) unit vectors."""
        return F.normalize(self._raw(x) - self.mean, dim=1)

    def __call__(self, drawn: Pictures, each: int) -> dict[str, float]:
        """Of ``each`` variations of every source, those of one source side by side."""
        cosine = self.vectors(drawn) @ self.known.mT  # (n each, n)
        own = torch.arange(len(self.known)).repeat_interleave(each)
        is_own = F.one_hot(own, len(self.known)).bool()
        return {
            "source": round(float(cosine[is_own].mean()), 4),
            "another": round(float(cosine[~is_own].mean()), 4),
            "found": round(float((cosine.argmax(1) == own).double().mean()), 4),
        }

    def among_data(self) -> tuple[float, float]:
        """The mean cosine of two pictures of the data, and of two with the same caption (NaN where no two have one)."""
        cosine = self.known @ self.known.mT
        different = ~torch.eye(len(cosine), dtype=torch.bool)
        said = np.array([self.dataset.captions[row] if self.dataset.captions else "" for row in self.rows])
        same = torch.from_numpy((said[:, None] == said[None]) & (said[:, None] != "")) & different
        return float(cosine[different].mean()), float(cosine[same].mean())


def draw(model: Model, comparer: Comparer, keep: float, options: argparse.Namespace) -> tuple[Pictures, float]:
    """The variations, those of one source side by side, as files hold them; and the seconds that they took."""
    begun, pieces = time.perf_counter(), []
    settings = variation_settings(model.recipe.sampling, keep)
    if options.scale is not None:
        settings = settings if keep else dataclasses.replace(settings, guidance_scale=options.scale)
    x = model.spec.to_model(np.asarray(comparer.dataset.x[comparer.rows]))
    for number, x_0 in enumerate(x):
        pieces.append(variations(model, x_0, n=options.each, keep=keep, settings=settings, seed=number))
    drawn = as_files_hold(model.spec.to_data(torch.cat(pieces)), model.spec)
    return drawn, time.perf_counter() - begun


def finish(model: Model, comparer: Comparer, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for every share of noise that is kept: found in --out, or drawn and compared."""
    path = Path(options.out)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    facts = {
        "run": str(options.run),
        "n": len(comparer.known),
        "each": options.each,
        "scale": options.scale,
        "data": options.data,
        "features": options.features,
    }
    known = {json.dumps({key: row.get(key) for key in (*facts, "keep")}): row for row in rows}
    result = []
    for keep in options.keeps:
        asked = {**facts, "keep": keep}
        if json.dumps(asked) not in known:
            drawn, seconds = draw(model, comparer, keep, options)
            np.save(path.with_name(f"{path.stem}-keep{keep:g}.npy"), drawn[: options.shown * options.each])
            row = {**asked, "seconds": round(seconds, 1), **comparer(drawn, options.each)}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            known[json.dumps(asked)] = row
        result.append(known[json.dumps(asked)])
    return result


def show(rows: list[dict[str, Any]], comparer: Comparer, options: argparse.Namespace) -> None:
    """A line for each share, and one for pictures of the data among themselves."""
    lines: list[list[object]] = [
        [f"variations, keep {row['keep']:g}", row["source"], row["another"], row["found"], row["seconds"]]
        for row in rows
    ]
    two, alike = comparer.among_data()
    lines.append(["two pictures of the data", "", f"{two:.4f}", f"{1 / len(comparer.known):.4f}", ""])
    lines.append(["two with one caption", f"{alike:.4f}", "", "", ""])
    title = f"{options.run}, {options.each} variations of {len(comparer.known)}; cosines in {comparer.space.name}"
    print(heading(title, comparer.dataset.report.source or comparer.dataset.name))
    print(table(["pictures", "to its source", "to another", "source found", "seconds"], lines))
    if options.picture:
        write_picture(comparer, rows, options)


def write_picture(comparer: Comparer, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """A row for each of some sources: it, and its variations with each share of its noise."""
    path, each = Path(options.out), options.each
    shown = min(options.shown, len(comparer.known))
    drawn = [np.load(path.with_name(f"{path.stem}-keep{row['keep']:g}.npy")) for row in rows]
    lines = [
        np.concatenate([comparer.sources[i : i + 1], *(x[i * each : (i + 1) * each] for x in drawn)])
        for i in range(shown)
    ]
    picture_grid(np.concatenate(lines), columns=1 + each * len(rows), scale=2).save(options.picture)


def main() -> None:
    """Reads the options; draws what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--data", help="by default what the run was trained on")
    parser.add_argument("--keeps", type=float, nargs="+", default=[0, 0.5, 0.8])
    parser.add_argument("-n", type=int, default=64, help="pictures")
    parser.add_argument("--each", type=int, default=4, help="variations of each")
    parser.add_argument("--features")
    parser.add_argument("--scale", type=float, help="guidance scale where no noise is kept; by default the run's")
    parser.add_argument("--shown", type=int, default=8, help="pictures in --picture")
    parser.add_argument("--out", default="runs/benchmarks/variations.jsonl")
    parser.add_argument("--picture", help="a PNG: a row for each source")
    options = parser.parse_args()
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    model = unstir.load(options.run)
    config = model.recipe.data.plain()
    if options.data:
        size = model.spec.shape[1:] if model.spec.kind == "image" else None
        config = type(config)(**{**vars(config), "source": options.data, "split": "train", "size": size})
    comparer = Comparer(load(config), options.n, options.features, config.cache_folder())
    show(finish(model, comparer, options), comparer, options)


if __name__ == "__main__":
    main()
