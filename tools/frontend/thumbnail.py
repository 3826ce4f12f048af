"""Makes a template's thumbnail: a square with the picture before on the left of a slider line and after on the right.

    python3 tools/environment.py --with demo --run tools/frontend/thumbnail.py BEFORE AFTER workflows/NAME.jpg

The template browser of ComfyUI shows thumbnails in squares and looks for workflows/NAME.jpg beside workflows/NAME.json.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

SIDE_PX = 512
LARGEST_BYTES = 60_000
"""Every user of the pack downloads all of them."""
QUALITIES = range(90, 30, -5)
LINE_PX = 4
HANDLE_RADIUS_PX = 16


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="thumbnail.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="the degraded picture")
    parser.add_argument("after", type=Path, help="the restored one, of any size but the same view")
    parser.add_argument("out", type=Path, help="the .jpg to write")
    options = parser.parse_args(arguments)
    try:
        write_thumbnail(options.before, options.after, options.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write_thumbnail(before: Path, after: Path, out: Path) -> None:
    """Write the thumbnail of two pictures of one view, each cropped to its middle square.

    Raises:
        OSError: a picture cannot be read, `out` cannot be written.
        ValueError: no quality makes it small enough.
    """
    with Image.open(before) as left, Image.open(after) as right:
        data = _small_jpeg(slider(left, right))
    temporary = out.with_name(out.name + ".part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def slider(before: Image.Image, after: Image.Image) -> Image.Image:
    """The two pictures as one square of 512 px, parted by a white line with a handle.

    `before` is enlarged by bicubic, as a viewer would do it.
    """
    size, middle = (SIDE_PX, SIDE_PX), SIDE_PX // 2
    left = ImageOps.fit(before.convert("RGB"), size, Image.Resampling.BICUBIC)
    sheet = ImageOps.fit(after.convert("RGB"), size, Image.Resampling.LANCZOS)
    sheet.paste(left.crop((0, 0, middle, SIDE_PX)), (0, 0))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((middle - LINE_PX // 2, 0, middle + LINE_PX // 2 - 1, SIDE_PX), fill="white")
    draw.circle((middle, middle), HANDLE_RADIUS_PX, fill="white")
    for way in (-1, 1):
        tip, foot = middle + way * HANDLE_RADIUS_PX * 0.7, middle + way * HANDLE_RADIUS_PX * 0.25
        half = HANDLE_RADIUS_PX * 0.4
        draw.polygon([(tip, middle), (foot, middle - half), (foot, middle + half)], fill="#444444")
    return sheet


def _small_jpeg(picture: Image.Image) -> bytes:
    for quality in QUALITIES:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() < LARGEST_BYTES:
            return stream.getvalue()
    raise ValueError(
        f"expected a thumbnail under {LARGEST_BYTES} bytes, got {stream.tell()} at the lowest quality; take a calmer picture"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
