"""The study's pictures: crops of photos that no training saw, rendered words, and both at Levels I to III.

The photos are scikit-image's samples, which come with that package; the words are those of reading/word_pictures.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from faithdiff_core.listing.walk import list_pictures
from training.common.images import read_image, to_unit, unit_to_u8, write_png
from training.degradation.folder import degrade_paths
from training.reading.annotations import NAME as ANNOTATIONS
from training.reading.word_pictures import write_set

LEVELS = ("I", "II", "III")
SCALE = 4
"""The paper's and the official degradation's: the small-scale study's."""
MAX_SHORT_SIDE_PX = 512
"""Larger photos are scaled down to it: a 256 px crop of hubble_deep_field at its own size is mostly noise."""
HELD_OUT = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""scikit-image's samples with a shorter side of 256 px and more, without drawings, masks and the second of a stereo pair."""


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """hq[key] and lq[level][key] are pictures of `side_px` and `side_px / scale` px; `annotations` the words of a text set.

    Crops of one photo have keys `photo/number`: they are not independent, so intervals resample photos.
    """

    name: str
    side_px: int
    scale: int
    hq: Mapping[str, Path]
    lq: Mapping[str, Mapping[str, Path]]
    annotations: Path | None = None


def held_out_photos() -> list[tuple[str, Path]]:
    """(key, path) of scikit-image's samples.

    Raises:
        ValueError: that package, or one of its files, is missing.
    """
    try:
        import skimage
    except ImportError as error:
        raise ValueError("expected the package scikit-image for its photos, got none; install it, or name --photos") from error
    folder = Path(skimage.__file__).parent / "data"
    missing = [name for name in HELD_OUT if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"expected scikit-image's sample photos in {folder}, got none of {', '.join(missing)}, name --photos")
    return [(Path(name).stem, folder / name) for name in HELD_OUT]


def photo_set(
    name: str, folder: Path, photos: list[tuple[str, Path]], *, side_px: int, crops: int, levels: tuple[str, ...], seed: int,
    scale: int = SCALE,
) -> StudySet:  # fmt: skip
    """`crops` square crops of each photo, side by side about its middle, as many as do not overlap.

    What was in the folder goes.

    Raises:
        ValueError: a photo whose shorter side is below `side_px`.
    """
    _clear(folder)
    for key, path in photos:
        for number, crop_CHW in enumerate(_crops(key, to_unit(read_image(path)), side_px, crops)):
            write_png(folder / "hq" / key / f"{number}.png", unit_to_u8(crop_CHW))
    return _degraded(name, folder, side_px=side_px, levels=levels, seed=seed, scale=scale)


def text_set(
    name: str, folder: Path, *, count: int, font_px: tuple[int, ...], side_px: int, levels: tuple[str, ...], seed: int,
    scale: int = SCALE,
) -> StudySet:  # fmt: skip
    """`count` pictures of words, the font sizes taking turns. What was in the folder goes."""
    _clear(folder)
    write_set(folder / "hq", count=count, font_px=font_px, seed=seed, font=None, side_px=side_px)
    annotations = folder / "hq" / ANNOTATIONS
    return _degraded(name, folder, side_px=side_px, levels=levels, seed=seed, scale=scale, annotations=annotations)


def _clear(folder: Path) -> None:
    """Delete a set that an earlier study has made.

    Raises:
        ValueError: the folder holds something else.
    """
    others = (
        [path.name for path in folder.iterdir() if path.name != "hq" and not path.name.startswith("lq-")]
        if folder.is_dir()
        else []
    )
    if others:
        raise ValueError(f"expected a set of an earlier study in {folder}, got {others[0]!r} there; choose another --out")
    shutil.rmtree(folder, ignore_errors=True)


def _degraded(
    name: str, folder: Path, *, side_px: int, levels: tuple[str, ...], seed: int, scale: int, annotations: Path | None = None
) -> StudySet:
    for level in levels:
        degrade_paths(folder / "hq", folder / f"lq-{level}", level=level, scale=scale, seed=seed)
    lq = {level: dict(list_pictures([folder / f"lq-{level}"]).pictures) for level in levels}
    hq = dict(list_pictures([folder / "hq"]).pictures)
    return StudySet(name=name, side_px=side_px, scale=scale, hq=hq, lq=lq, annotations=annotations)


def _crops(key: str, photo_CHW: torch.Tensor, side_px: int, crops: int) -> Iterator[torch.Tensor]:
    short_px = min(photo_CHW.shape[1:])
    if short_px > MAX_SHORT_SIDE_PX:
        scale = MAX_SHORT_SIDE_PX / short_px
        size = [round(length * scale) for length in photo_CHW.shape[1:]]
        photo_CHW = F.interpolate(photo_CHW[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    height, width = photo_CHW.shape[1:]
    if min(height, width) < side_px:
        raise ValueError(f"expected photos of at least {side_px} px, got {width} x {height} px for {key!r}, leave it out")
    cells = [(row, column) for row in range(height // side_px) for column in range(width // side_px)]
    top_px, left_px = (height % side_px) // 2, (width % side_px) // 2
    # Spread over the photo: with 2 of 16 cells, the first and the ninth.
    for index in range(min(crops, len(cells))):
        row, column = cells[index * len(cells) // min(crops, len(cells))]
        y, x = top_px + row * side_px, left_px + column * side_px
        yield photo_CHW[:, y : y + side_px, x : x + side_px]
