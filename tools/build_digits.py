"""Builds src/unstir/data/builtin/digits.npz from scikit-learn's copy of the UCI digits: python tools/build_digits.py

The 8 x 8 counts 0 ... 16 become uint8 pictures: round(count * 255 / 16), from which the counts can be had back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUT = Path(__file__).resolve().parents[1] / "src/unstir/data/builtin/digits.npz"

if __name__ == "__main__":
    digits = load_digits()
    x = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    np.savez_compressed(OUT, x=x, y=digits.target.astype(np.uint8))
    print(f"{OUT}: {len(x)} digits, {OUT.stat().st_size / 1e3:.0f} kB")
