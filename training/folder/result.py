"""The outcome of a prompt: the history entry of a server, and the picture it names."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from PIL import Image

from training.common.images import IMAGE_FORMATS
from training.folder.client import one_line
from training.folder.prompt import PromptForm

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})
"""Pillow's modes that PNG can hold; a picture of another is made RGB."""


RESULT_FORMATS = (*IMAGE_FORMATS, "GIF", "AVIF")
"""What nodes that save pictures write."""
MAX_PX = 2**29
"""Pillow refuses beyond twice this, 32768 x 32768: a few kilobytes can say that they are a picture of any size."""


class NoResult(Exception):
    """A prompt ended without the picture that was asked for. The message says why, in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """A prompt that ended well: where its picture is (filename, subfolder, type), and how long it ran (None = not known)."""

    image: Mapping[str, str]
    seconds: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A picture as PNG bytes, decoded once to be sure."""

    png: bytes
    width_px: int
    height_px: int
    mode: str


def read_ending(entry: Mapping[str, Any], form: PromptForm) -> Ending:
    """Read a history entry.

    Raises:
        NoResult: a node failed, somebody interrupted, there is not exactly one picture, or the entry is none of ComfyUI's.
    """
    try:
        return _read_ending(entry, form)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise NoResult(one_line(f"expected a history entry of ComfyUI, got another answer ({error!r:.120})")) from error


def _read_ending(entry: Mapping[str, Any], form: PromptForm) -> Ending:
    status = entry.get("status") or {}
    messages: list[tuple[str, dict[str, Any]]] = [(kind, data) for kind, data in status.get("messages", [])]
    for kind, data in messages:
        node = form.shown(str(data.get("node_id")))
        if kind == "execution_error":
            raise NoResult(one_line(f"{node}: {data.get('exception_message') or data.get('exception_type')}"))
        if kind == "execution_interrupted":
            raise NoResult(f"interrupted on the server in {node}")
    if status.get("status_str") == "error":
        raise NoResult("ComfyUI says only that it failed; see its log")
    images = entry.get("outputs", {}).get(form.output_node, {}).get("images", [])
    if len(images) != 1:
        raise NoResult(
            f"expected one picture from {form.shown(form.output_node)}, got {len(images)}; name another by --output-node"
        )
    if not all(isinstance(images[0].get(name, ""), str) for name in ("filename", "subfolder", "type")):
        raise TypeError("a picture without a name")
    return Ending(image=images[0], seconds=_seconds(messages))


def _seconds(messages: list[tuple[str, dict[str, Any]]]) -> float | None:
    """From start to success by the server's clock, without the time in the queue. Stamps are milliseconds
    (ComfyUI execution.py, add_message).
    """
    stamps = {kind: data.get("timestamp") for kind, data in messages}
    start, end = stamps.get("execution_start"), stamps.get("execution_success")
    return round((end - start) / 1000, 3) if start is not None and end is not None else None


def read_result(data: bytes) -> Result:
    """Decode a picture; a PNG keeps its bytes, another format becomes one.

    Raises:
        NoResult: it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=RESULT_FORMATS) as picture:
            picture.load()
            png = data if picture.format == "PNG" else _as_png(picture)
            return Result(png=png, width_px=picture.width, height_px=picture.height, mode=picture.mode)
    except MemoryError as error:
        raise NoResult(f"expected memory for the server's picture of {len(data)} bytes, got too little") from error
    except Exception as error:  # its decoders raise many kinds for damaged files
        raise NoResult(one_line(f"expected a picture from the server, got {len(data)} bytes that are none ({error})")) from error


def _as_png(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    (picture if picture.mode in PNG_MODES else picture.convert("RGB")).save(written, "PNG")
    return written.getvalue()


@contextmanager
def large_pictures() -> Iterator[None]:
    """Inside, Pillow opens pictures up to 32768 x 32768: its own limit is for strangers' files, and 16K results are beyond it."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PX
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # between MAX_PX and twice that
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
