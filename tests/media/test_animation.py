from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unstir.media.animation import trajectory_frames, with_one_palette, write_animation


def frames(n: int) -> list[Image.Image]:
    """A black square that moves over white."""
    made = []
    for i in range(n):
        picture = np.full((20, 60, 3), 255, dtype=np.uint8)
        picture[5:15, 2 * i : 2 * i + 10] = 0
        made.append(Image.fromarray(picture))
    return made


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_frames_come_back_in_order_and_the_last_is_held(tmp_path: Path, suffix: str) -> None:
    path = write_animation(frames(7), tmp_path / f"a{suffix}", duration_ms=60, hold_ms=900)
    with Image.open(path) as read:
        assert read.n_frames == 7  # type: ignore[attr-defined]
        assert read.info.get("loop") == 0
        durations = []
        for i, frame in enumerate(frames(7)):
            read.seek(i)
            read.load()
            durations.append(read.info["duration"])
            difference = np.abs(np.asarray(read.convert("RGB"), dtype=int) - np.asarray(frame))
            assert difference.mean() < (0.01 if suffix == ".gif" else 3)
    assert durations == [60] * 6 + [900]


def test_a_still_part_of_a_gif_stays_still(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (16, 16, 3))
    moving = [
        Image.fromarray(np.concatenate([still, rng.integers(0, 256, (16, 16, 3))], axis=1).astype(np.uint8))
        for _ in range(9)
    ]
    with Image.open(write_animation(moving, tmp_path / "a.gif")) as read:
        halves = []
        for i in range(9):
            read.seek(i)
            halves.append(np.asarray(read.convert("RGB"))[:, :16])
    assert all((half == halves[0]).all() for half in halves)


def test_all_frames_share_a_palette_with_paper_and_ink() -> None:
    noisy = [
        Image.fromarray(np.random.default_rng(i).integers(240, 256, (32, 32, 3), dtype=np.uint8)) for i in range(5)
    ]
    noisy[2].putpixel((3, 4), (255, 255, 255))
    noisy[2].putpixel((5, 4), (0, 0, 0))
    made = with_one_palette(noisy)
    assert len({bytes(frame.getpalette() or ()) for frame in made}) == 1
    assert made[2].convert("RGB").getpixel((3, 4)) == (255, 255, 255)
    assert made[2].convert("RGB").getpixel((5, 4)) == (0, 0, 0)


def test_thinning_keeps_the_first_and_the_last() -> None:
    states = [np.array(i) for i in range(1000)]
    seen: list[int] = []
    made = trajectory_frames(states, lambda state: seen.append(int(state)) or Image.new("L", (1, 1)), most=36)  # type: ignore[func-returns-value]
    assert len(made) == 36
    assert (seen[0], seen[-1]) == (0, 999)
    assert set(np.diff(seen)) <= {28, 29}
    assert len(trajectory_frames(states[:5], lambda state: Image.new("L", (1, 1)))) == 5
