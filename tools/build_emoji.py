"""Builds src/unstir/data/builtin/emoji.npz from npm's emoji-datasource-google.

    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
    python tools/build_emoji.py package

Every base emoji (no skin tones: those are variations inside an entry), 64 x 64 RGBA, is laid on white and halved by the
exact mean of each 2 x 2 block. Names are those of Unicode, in lower case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from unstir.data.resize import composite

OUT = Path(__file__).resolve().parents[1] / "src/unstir/data/builtin/emoji.npz"


def build(package: Path) -> None:
    """Reads the unpacked npm package and writes the archive."""
    entries = [e for e in json.loads((package / "emoji.json").read_text("utf-8")) if e["has_img_google"]]
    pictures = []
    for entry in entries:
        with Image.open(package / "img/google/64" / entry["image"]) as picture:
            rgb = composite(np.asarray(picture.convert("RGBA")), "white")
        pictures.append(np.asarray(Image.fromarray(rgb).reduce(2)))
    categories = sorted({e["category"] for e in entries})
    np.savez_compressed(
        OUT,
        x=np.stack(pictures),
        y=np.array([categories.index(e["category"]) for e in entries], dtype=np.uint8),
        classes=np.array(categories),
        name=np.array([(e["name"] or e["short_name"].replace("_", " ")).lower() for e in entries]),
        subcategory=np.array([e["subcategory"] for e in entries]),
        unified=np.array([e["unified"] for e in entries]),
    )
    print(f"{OUT}: {len(entries)} emoji, {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]))
