"""Pictures one after another: how noise became a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unstir.media.files import replacing
from unstir.media.grid import flatten

MOST_FRAMES = 36
SHORTEST_MS = 20  # browsers show GIF frames that are shorter for 100 ms
PALETTE_FRAMES = 6


def trajectory_frames(
    states: Sequence[np.ndarray[Any, Any]],
    render: Callable[[np.ndarray[Any, Any]], Image.Image],
    most: int = MOST_FRAMES,
) -> list[Image.Image]:
    """A picture of each state, at most ``most`` of them, evenly spread; the first and the last are always among them."""
    if not states:
        raise ValueError("an animation needs at least one state")
    chosen = np.unique(np.linspace(0, len(states) - 1, min(len(states), most)).round().astype(int))
    return [render(states[i]) for i in chosen]


def write_animation(
    frames: Sequence[Image.Image], path: str | Path, duration_ms: int = 60, hold_ms: int = 1500, loop: int = 0
) -> Path:
    """Writes a .gif or an animated .webp.

    A GIF has 256 colours. One palette serves all frames and nothing is dithered: a still part of the picture stays still, and
    the file small. Half of what the palette is made from is the last frame, the one that is looked at.

    Args:
        frames: all of one size; transparency is laid on white.
        path: its extension says which.
        duration_ms: of each frame, 20 or more; GIF counts in steps of 10.
        hold_ms: of the last frame.
        loop: how often to play; 0 is for ever.

    Raises:
        UserError: the file cannot be written.
    """
    if not frames:
        raise ValueError("an animation needs at least one frame")
    path = Path(path)
    frames = [flatten(frame) for frame in frames]
    durations = [max(SHORTEST_MS, duration_ms)] * (len(frames) - 1) + [max(SHORTEST_MS, hold_ms)]
    if path.suffix.lower() == ".gif":
        frames = with_one_palette(frames)
        options: dict[str, Any] = {"format": "GIF", "optimize": False}
    else:
        options = {"format": "WEBP", "quality": 85, "method": 4}
    with replacing(path) as file:
        frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=loop, **options)
    return path


def with_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """RGB frames -> palette frames that share 256 colours."""
    width, height = frames[0].size
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), PALETTE_FRAMES)).round().astype(int))
    sources = [frames[i] for i in chosen] + [frames[-1]] * (len(chosen) - 1)
    sheet = Image.new("RGB", (width, height * len(sources)))
    for row, frame in enumerate(sources):
        sheet.paste(frame, (0, row * height))
    numbers = sheet.quantize(254, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).getpalette() or []
    found = np.array(numbers[: 254 * 3], dtype=np.uint8).reshape(-1, 3)
    # Pillow looks for the nearest colour in steps of 4, so white is sought as 252: colours nearer to that would replace the paper.
    found[(found > 246).all(axis=1)] = 255
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, 0, 0, 0, *found.ravel().tolist()])
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
