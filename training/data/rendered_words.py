"""Seeded pictures of rendered text: the stills hold little of it, and letters are what a reader sees fail first."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from training.common.files import write_atomically
from training.common.seeds import choose, generator_for, integer

SIZE_PX = 512
_LETTERS = dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 1.0) | dict.fromkeys("aeinorst", 3.0)
_OTHER = dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 1.0)


def _word(generator: torch.Generator) -> str:
    kind = choose(generator, {"lower": 6.0, "title": 2.0, "upper": 1.0, "mixed": 1.0})
    letters = [choose(generator, _OTHER if kind == "mixed" else _LETTERS) for _ in range(integer(generator, 2, 9))]
    word = "".join(letters)
    return {"lower": word, "title": word.title(), "upper": word.upper(), "mixed": word}[kind]


def _colour(generator: torch.Generator, low: int, high: int) -> tuple[int, int, int]:
    return integer(generator, low, high), integer(generator, low, high), integer(generator, low, high)


def render(seed: int, index: int, *, smallest_px: int = 12) -> Image.Image:
    """Picture number `index` of the series `seed`: 512 x 512 px, lines of made-up words in Pillow's own font at `smallest_px` to
    72 px.
    """
    generator = generator_for(seed, "text", index)
    dark_on_light = integer(generator, 0, 2) > 0
    paper, ink = ((180, 255), (0, 90)) if dark_on_light else ((0, 80), (170, 255))
    first, second = _colour(generator, *paper), _colour(generator, *paper)
    ramp = Image.linear_gradient("L").resize((SIZE_PX, SIZE_PX))
    if integer(generator, 0, 1):
        ramp = ramp.transpose(Image.Transpose.ROTATE_90)
    canvas = Image.composite(Image.new("RGB", ramp.size, first), Image.new("RGB", ramp.size, second), ramp)
    draw = ImageDraw.Draw(canvas)
    top_px = integer(generator, 4, 24)
    while top_px < SIZE_PX:
        size_px = integer(generator, smallest_px, 72 if integer(generator, 0, 1) else smallest_px + 16)
        font = ImageFont.load_default(size_px)
        colour = _colour(generator, *ink)
        if integer(generator, 0, 4) == 0:
            height_px = integer(generator, 10, 60)
            left, right = integer(generator, 0, SIZE_PX // 2), integer(generator, SIZE_PX // 2, SIZE_PX)
            draw.rectangle((left, top_px, right, top_px + height_px), fill=_colour(generator, 0, 255), outline=colour)
        line = " ".join(_word(generator) for _ in range(12))
        draw.text((integer(generator, -20, 60), top_px), line, font=font, fill=colour)
        top_px += int(size_px * 1.3) + integer(generator, 0, 12)
    return canvas


def write_series(folder: Path, *, seed: int, count: int, smallest_px: int = 12) -> list[tuple[str, Path]]:
    """Write `count` pictures as PNG (those that exist are kept) and return (key, path) of each."""
    pictures: list[tuple[str, Path]] = []
    for index in range(count):
        path = folder / f"text-{seed}-{index:04d}.png"
        if not path.is_file():
            picture = render(seed, index, smallest_px=smallest_px)
            write_atomically(path, lambda temporary, picture=picture: picture.save(temporary, format="PNG"))
        pictures.append((f"text/{path.stem}", path))
    return pictures
