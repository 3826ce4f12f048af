"""The before/after picture of the demo."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

DIVIDER_PX = 4
MAX_SIDE_PX = 1600
"""Of the whole picture: it is to be looked at, the result itself is saved apart."""


def before_after(before: Image.Image, after: Image.Image, labels: tuple[str, str]) -> Image.Image:
    """`before` (enlarged by Lanczos to the size of `after`) and `after` side by side, labelled, a thin line between."""
    size = after.size
    enlarged = before.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    # Small results are shown larger, pixel for pixel (nearest), so that what is compared is not changed by the showing.
    zoom = max(1, min(MAX_SIDE_PX // (2 * size[0]), MAX_SIDE_PX // size[1], 4))
    shown = [
        picture.resize((size[0] * zoom, size[1] * zoom), Image.Resampling.NEAREST) for picture in (enlarged, after.convert("RGB"))
    ]
    width, height = shown[0].size
    font = ImageFont.load_default(max(14, min(28, width // 28)))
    bar_px = int(font.getbbox("Ag")[3] * 1.6)
    sheet = Image.new("RGB", (2 * width + DIVIDER_PX, height + bar_px), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(shown, labels, strict=True)):
        left = index * (width + DIVIDER_PX)
        sheet.paste(picture, (left, bar_px))
        draw.text((left + bar_px // 3, bar_px // 2), label, fill="black", font=font, anchor="lm")
    draw.rectangle((width, 0, width + DIVIDER_PX - 1, sheet.height), fill="black")
    return sheet
