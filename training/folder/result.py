"""The outcome of a prompt: the history entry of a server, and the picture it names."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from training.common.folders import NOT_READ
from training.common.images import IMAGE_SUFFIXES, open_picture, warnings_of
from training.folder.client import one_line
from training.folder.prompt import PromptForm

KEPT = frozenset(NOT_READ) - {".svg"}
"""Suffixes of pictures that some save node writes and that are not decoded here: their bytes are kept as they are."""
EXR_MAGIC = b"\x76\x2f\x31\x01"
"""Every OpenEXR file begins with it (openexr.com, "OpenEXR File Layout")."""


class NoResult(Exception):
    """A prompt ended without the picture that was asked for. The message says why, in one line."""


class PictureAtFault(NoResult):
    """The picture itself cannot be read: another try would end the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """A prompt that ended well: where its picture is (filename, subfolder, type), and how long it ran (None = not known)."""

    image: Mapping[str, str]
    seconds: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A picture as the server sent it, and the suffix of its file. It was decoded once to be sure; sizes in px and Pillow's mode
    are None for a format that is not read here.
    """

    data: bytes
    suffix: str
    width_px: int | None
    height_px: int | None
    mode: str | None


def read_ending(entry: Mapping[str, Any], form: PromptForm) -> Ending:
    """Read a history entry.

    Raises:
        PictureAtFault: the node that loads the picture failed.
        NoResult: another failed, somebody interrupted, there is not exactly one picture, or the entry is none of ComfyUI's.
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
            kind = PictureAtFault if str(data.get("node_id")) == form.input_node else NoResult
            raise kind(one_line(f"{node}: {data.get('exception_message') or data.get('exception_type')}"))
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


def read_result(data: bytes, name: str) -> Result:
    """Look at the file that a server calls `name`. Its bytes stay as they are.

    Raises:
        NoResult: it cannot be decoded, or is called nothing that a picture is called.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in KEPT:
        if not data or (suffix == ".exr" and not data.startswith(EXR_MAGIC)):
            raise NoResult(f"expected a picture from the server, got {len(data)} bytes that are no {suffix}")
        return Result(data=data, suffix=suffix, width_px=None, height_px=None, mode=None)
    try:
        with open_picture(io.BytesIO(data), "the server's file") as picture:
            picture.load()
            own = suffix if suffix in IMAGE_SUFFIXES else f".{(picture.format or 'png').lower()}"
            return Result(data=data, suffix=own, width_px=picture.width, height_px=picture.height, mode=picture.mode)
    except MemoryError as error:
        raise NoResult(f"expected memory for the server's picture of {len(data)} bytes, got too little") from error
    except Exception as error:  # its decoders raise many kinds for damaged files
        raise NoResult(one_line(f"expected a picture from the server, got {len(data)} bytes that are none ({error})")) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upload:
    """What a server is given of a source: bytes, suffix, and what they lack."""

    data: bytes
    suffix: str
    warnings: tuple[str, ...]


def for_upload(data: bytes, suffix: str) -> Upload:
    """A source as it is, but the first frame of several: LoadImage would make a batch of them, and one result is asked for.

    Raises:
        PictureAtFault: it is no picture, or too large.
    """
    try:
        warnings = warnings_of(data, "the source")
        if not warnings:
            return Upload(data=data, suffix=suffix, warnings=())
        with open_picture(io.BytesIO(data), "the source") as picture:
            kept = {name: picture.info[name] for name in ("icc_profile", "exif", "dpi") if picture.info.get(name)}
            first, written = picture.copy(), io.BytesIO()
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise PictureAtFault(one_line(str(error))) from error
    (first if first.mode in PNG_MODES else first.convert("RGB")).save(written, "PNG", **kept)
    return Upload(data=written.getvalue(), suffix=".png", warnings=warnings)


PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})
"""Pillow's modes that PNG can hold; a picture of another is made RGB."""
