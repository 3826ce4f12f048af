"""FaithDiff Before / After in the browser: its graph, its view, and what the screen shows of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VIEW = ".faithdiff-compare-root"
WIDTH_PX, HEIGHT_PX = 250, 200
"""Of the after; the before is half as large."""
BEFORE_BLUE, AFTER_BLUE, SECOND_BLUE = 0, 200, 100
NODE_AT = (100, 120)
NODE_SIZE = (520, 520)


def write_pictures(folder: Path) -> None:
    """Pictures whose red and green say where each pixel is, and whose blue says which picture it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scale, blue in (("before", 2, BEFORE_BLUE), ("after", 1, AFTER_BLUE), ("second", 1, SECOND_BLUE)):
        height, width = HEIGHT_PX // scale, WIDTH_PX // scale
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[..., 0] = np.arange(width) * scale + scale // 2
        pixels[..., 1] = np.arange(height)[:, None] * scale + scale // 2
        pixels[..., 2] = blue
        Image.fromarray(pixels).save(folder / f"compare_{name}.png")


PROMPT: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "compare_before.png"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "compare_after.png"}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "compare_second.png"}},
    "4": {"class_type": "ImageBatch", "inputs": {"image1": ["2", 0], "image2": ["3", 0]}},
    "5": {"class_type": "FaithDiffCompare", "inputs": {"before": ["1", 0], "after": ["4", 0], "direction": "right"}},
}  # fmt: skip


class Shown:
    """The view on the screen: box in screen px, and pixels as the browser drew them."""

    def __init__(self, frontend: Any, name: str) -> None:
        self.box = frontend.ask("boxOf", selector=VIEW)
        with Image.open(frontend.photograph(name, clip=self.box)) as image:
            self.pixels = np.asarray(image.convert("RGB")).astype(np.float64)

    def point(self, x_frac: float, y_frac: float) -> tuple[float, float]:
        """A place on the screen, by fractions of the view."""
        return self.box["x"] + x_frac * self.box["width"], self.box["y"] + y_frac * self.box["height"]

    def row(self, y_frac: float, from_frac: float, to_frac: float) -> np.ndarray:
        """Pixels (n, 3) of a part of a row."""
        height, width = self.pixels.shape[:2]
        return self.pixels[int(y_frac * height), int(from_frac * width) : int(to_frac * width)]
