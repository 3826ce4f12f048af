"""Text sets: seeded pictures of English words at known places, to be degraded, restored and read again (docs/text_fidelity.md).

Unlike those of data/rendered_words.py, which train, these are words of a dictionary: both OCR engines expect language.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from faithdiff_core.photo.photo import MAX_PX
from training.common.results import ResultsFolder
from training.common.seeds import choose, generator_for, integer
from training.reading.annotations import NAME, AnnotatedPicture, Box, TrueWord, write_annotations

Font = ImageFont.FreeTypeFont
BOX_MARGIN_FRAC = 0.07
"""Margin of a word's box around its letters, as a share of the font size. Engines differ: tesseract's boxes hug the ink,
rapidocr's are as high as the line. Measured on undegraded words of 12 to 40 px: with this margin the least IoU of a word that
was read is 0.60 and 0.51; without it 0.74 and 0.48, so that rapidocr would lose 9 of 650 words that it reads."""
MIN_FONT_PX = 8
"""Below this the letters of Pillow's own font are 4 px high and do not differ any more."""
_LIST = """
    about above across action address after again against almost along already always amount animal answer apple around artist
    autumn balance basket battle beach beauty before begin behind below better between bicycle blanket bottle bottom branch bread
    bridge bright brother butter button camera candle captain carpet castle center chance change chapter cheese chicken children
    church circle city clean climb clock cloud coffee collect color common company copper corner cotton country cousin cover
    credit culture current daily dance danger daughter decide deep delivery desert detail dinner direct doctor dollar double
    dream drive early earth east eight electric empty engine enough equal evening every exact example express factory family
    famous farmer father field figure finger finish fire first flower follow forest forward fresh friend front fruit future
    garden gather general gentle glass gold ground guest guide half hammer handle happy harbor health heavy history hotel house
    hundred import inside iron island jacket journey kitchen ladder language large laugh leader leather letter library light
    listen local machine magic market master matter measure melody member metal middle minute mirror modern moment
    morning mother mountain museum music nature needle number ocean office open orange order owner paint paper parent people
    perfect picture place planet pocket police product promise public quality quarter question quick rabbit railway rather
    ready record region repair report result return river rocket round salad sample school season second service seven shadow
    shoulder silver simple sister small smooth soldier station storm story street strong summer supply surface system table
    teacher theater ticket tomato travel under valley village violin visit water weather window winter wonder yellow
"""
WORDS = tuple(_LIST.split())
"""Common English words of four letters and more: shorter ones are found anywhere by chance."""


def write_set(
    folder: Path, *, count: int, font_px: Sequence[int], seed: int, font: Path | None, side_px: int, again: bool = False
) -> list[str]:
    """Write `count` PNGs of side_px x side_px and annotations.json into `folder`, and return the keys.

    The sizes of `font_px` (the font's em in px) take turns, one a picture. The same arguments give the same files, as long
    as Pillow and its FreeType are the same. `again`: files that no earlier call has made are replaced, too.

    Raises:
        ValueError: a size that leaves no room for words; a bad font file; files of others in the folder.
    """
    if count < 1:
        raise ValueError(f"expected at least 1 picture, got {count}, raise --count")
    if side_px**2 > MAX_PX:
        raise ValueError(f"expected --side of at most {math.isqrt(MAX_PX)} px, got {side_px}, choose for example 256")
    if not font_px or len(set(font_px)) < len(font_px):
        raise ValueError(f"expected font sizes that differ, got {list(font_px)}, correct --size")
    if min(font_px) < MIN_FONT_PX:
        raise ValueError(f"expected font sizes of {MIN_FONT_PX} px and more, got {min(font_px)}, correct --size")
    fonts = {size: _open_font(font, size, side_px) for size in font_px}
    results = ResultsFolder(folder, folder, [], again=again)
    results.check(NAME)
    pictures: dict[str, AnnotatedPicture] = {}
    for index in range(count):
        size = font_px[index % len(font_px)]
        key = f"words-{seed}-{size:02d}px-{index:04d}"
        picture, words = render(seed, index, font=fonts[size], font_px=size, side_px=side_px)
        written = io.BytesIO()
        picture.save(written, format="PNG")
        results.write(f"{key}.png", written.getvalue())
        pictures[key] = AnnotatedPicture(words=tuple(words), size_px=(side_px, side_px))
    write_annotations(folder / NAME, pictures)
    results.note(NAME)
    return list(pictures)


def render(seed: int, index: int, *, font: Font, font_px: int, side_px: int) -> tuple[Image.Image, list[TrueWord]]:
    """Picture number `index` of the series `seed`, RGB, and its words, all of them whole inside it."""
    generator = generator_for(seed, "text-set", index, font_px, side_px)
    dark_on_light = integer(generator, 0, 1) == 1
    paper, ink = ((180, 255), (0, 90)) if dark_on_light else ((0, 80), (170, 255))
    canvas = _ramp(generator, paper, side_px)
    draw = ImageDraw.Draw(canvas)
    gap_px = _gap_px(font_px)
    words: list[TrueWord] = []
    baseline_px = font_px + integer(generator, 2, gap_px)
    # A third of the em below the baseline holds the descenders of common fonts.
    while baseline_px + font_px // 3 < side_px:
        line = _line(generator, font, gap_px, baseline_px, side_px)
        if line and integer(generator, 0, 3) == 0:
            panel = (line[0][1] - gap_px, baseline_px - font_px, line[-1][2].box_px[2] + gap_px, baseline_px + font_px // 3)
            draw.rectangle(panel, fill=_colour(generator, paper))
        colour = _colour(generator, ink)
        for text, x_px, word in line:
            draw.text((x_px, baseline_px), text, font=font, fill=colour, anchor="ls")
            words.append(word)
        baseline_px += int(font_px * 1.4) + integer(generator, 0, gap_px)
    return canvas, words


def word_box(font: Font, text: str, x_px: int, baseline_px: int) -> Box:
    """The box of a word set at (x_px, baseline_px): its ink, made to reach from the baseline up to a capital's height, and
    BOX_MARGIN_FRAC around. Without the capital's height the box of "sum" would be half as high as that of "Sum".
    """
    left, top, right, bottom = _ink(font, text)
    _, capital_top, _, capital_bottom = _ink(font, "H")
    margin_px = BOX_MARGIN_FRAC * font.size
    edges = (
        x_px + left - margin_px,
        baseline_px + min(top, capital_top) - margin_px,
        x_px + right + margin_px,
        baseline_px + max(bottom, capital_bottom) + margin_px,
    )
    return round(edges[0], 2), round(edges[1], 2), round(edges[2], 2), round(edges[3], 2)


def _line(generator: torch.Generator, font: Font, gap_px: int, baseline_px: int, side_px: int) -> list[tuple[str, int, TrueWord]]:
    """(text, where its pen starts, word) of one line, as many as fit."""
    line: list[tuple[str, int, TrueWord]] = []
    x_px = gap_px + integer(generator, 0, side_px // 32)
    while True:
        text = _word(generator)
        box = word_box(font, text, x_px, baseline_px)
        if box[2] > side_px - gap_px or box[3] > side_px - 2:
            return line
        line.append((text, x_px, TrueWord(text=text, box_px=box)))
        x_px = int(box[2]) + gap_px + integer(generator, 0, gap_px)


def _gap_px(font_px: int) -> int:
    return max(2, font_px // 3)


def _word(generator: torch.Generator) -> str:
    word = WORDS[integer(generator, 0, len(WORDS) - 1)]
    kind = choose(generator, {"lower": 6.0, "title": 3.0, "upper": 1.0})
    return {"lower": word, "title": word.title(), "upper": word.upper()}[kind]


def _ink(font: Font, text: str) -> tuple[int, int, int, int]:
    """The painted pixels of a text whose pen starts at (0, 0) on the baseline."""
    left, top, right, bottom = (round(edge) for edge in ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font, "ls"))
    margin = 4  # px; the pen's start may lie inside the ink or before it
    canvas = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(canvas).text((margin - left, margin - top), text, font=font, fill=255, anchor="ls")
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"expected a font with the letters of {text!r}, got one that paints nothing, choose another --font")
    return box[0] - margin + left, box[1] - margin + top, box[2] - margin + left, box[3] - margin + top


def _ramp(generator: torch.Generator, paper: tuple[int, int], side_px: int) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((side_px, side_px))
    if integer(generator, 0, 1):
        ramp = ramp.transpose(Image.Transpose.ROTATE_90)
    first, second = (Image.new("RGB", ramp.size, _colour(generator, paper)) for _ in range(2))
    return Image.composite(first, second, ramp)


def _colour(generator: torch.Generator, levels: tuple[int, int]) -> tuple[int, int, int]:
    low, high = levels
    return integer(generator, low, high), integer(generator, low, high), integer(generator, low, high)


def _open_font(file: Path | None, size_px: int, side_px: int) -> Font:
    try:
        # BASIC is what Pillow's own font uses; the other layout depends on a library that not every machine has.
        basic = ImageFont.Layout.BASIC
        font = ImageFont.load_default(size_px) if file is None else ImageFont.truetype(file, size_px, layout_engine=basic)
    except OSError as error:
        raise ValueError(f"expected a font file (.ttf, .otf), got {file} ({error}), correct --font") from error
    assert isinstance(font, ImageFont.FreeTypeFont), "load_default with a size needs FreeType, which every wheel has"
    widest = max((word.upper() for word in WORDS), key=font.getlength)
    gap_px = _gap_px(size_px)
    # So every line has a word, and every picture a line.
    room = word_box(font, widest, gap_px + side_px // 32, 0)[2] <= side_px - gap_px and 2 * size_px + gap_px < side_px
    if size_px < MIN_FONT_PX or not room:
        raise ValueError(
            f"expected font sizes of {MIN_FONT_PX} px and more at which {widest!r} fits into {side_px} px, got {size_px}, "
            "correct --size or raise --side"
        )
    return font
