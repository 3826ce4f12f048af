"""The outcome of a prompt: the history entry of a server, and the picture it names."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from faithdiff_core.photo.photo import Photo, to_unit
from faithdiff_core.photo.write import Output, encode_photo
from training.common.folders import NOT_READ
from training.common.images import IMAGE_SUFFIXES, Picture, decode_picture, enlarged_alpha, open_picture
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
    output = entry.get("outputs", {}).get(form.output_node, {})
    images = output.get("photos") or output.get("images", [])  # what FaithDiff Save Photo shows of a TIFF is a preview
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
class Beside:
    """What a source has beside its colours, for a result that comes from a node which knows nothing of it."""

    photo: Photo
    """Without its colours, which need not be held while a server works."""

    @classmethod
    def of(cls, picture: Picture) -> Beside | None:
        """None if there is nothing."""
        source = picture.photo.source
        if not (source.has_alpha or source.profile or source.exif or source.xmp or source.dpi or source.depth_bits > 8):
            return None
        return cls(photo=dataclasses.replace(picture.photo, color_HWC=picture.photo.color_HWC[:0]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upload:
    """What a server is given of a source: bytes, suffix, what they lack, and what the result has to be given afterwards."""

    data: bytes
    suffix: str
    warnings: tuple[str, ...]
    beside: Beside | None = None


def for_upload(data: bytes, name: str, form: PromptForm) -> Upload:
    """A source for the form's input node: as it is for FaithDiff Load Photo, else in sRGB, upright, the first frame of several.

    LoadImage takes a damaged file for a grey one, and numbers of any profile for sRGB; so each is decoded here first.

    Raises:
        PictureAtFault: it is no picture, damaged, or too large.
    """
    suffix = PurePosixPath(name).suffix.lower()
    try:
        picture = decode_picture(data, name)
    except ValueError as error:
        raise PictureAtFault(one_line(str(error))) from error
    photo = picture.photo
    beside = None if form.saves_photos else Beside.of(picture)
    if photo.is_plain or form.loads_photos:
        return Upload(data=data, suffix=suffix, warnings=photo.warnings, beside=beside)
    source = dataclasses.replace(photo.source, profile=None, exif=None, xmp=None)
    alpha_HW = None if photo.alpha_HW is None else to_unit(photo.alpha_HW)
    png = encode_photo(to_unit(photo.color_HWC), alpha_HW, source, Output(container="PNG")).data
    return Upload(data=png, suffix=".png", warnings=photo.warnings, beside=beside)


def with_beside(result: Result, beside: Beside | None, *, in_srgb: bool) -> tuple[Result, tuple[str, ...]]:
    """The result with its source's profile, alpha and metadata, and notes on what could not be kept.

    Raises:
        NoResult: it cannot be decoded.
    """
    container = CONTAINERS.get(result.suffix)
    if beside is None:
        return result, ()
    if container is None:
        return result, (f"{result.suffix} is kept as the server gave it, without its source's profile, alpha and metadata",)
    try:
        made = decode_picture(result.data, "the server's file").photo
    except ValueError as error:
        raise NoResult(one_line(str(error))) from error
    height_px, width_px = made.color_HWC.shape[:2]
    alpha_HW, notes = enlarged_alpha(beside.photo, height_px, width_px)
    if made.alpha_HW is not None:
        alpha_HW, notes = to_unit(made.alpha_HW), ()
    # At 100 WebP loses nothing more, and JPEG next to nothing: the server has chosen its quality already.
    output = Output(
        container=container, depth_bits=made.source.depth_bits, in_srgb=in_srgb, quality=100, texts=_texts(result.data)
    )
    written = encode_photo(to_unit(made.color_HWC), alpha_HW, beside.photo.source, output)
    return dataclasses.replace(result, data=written.data), (*notes, *written.notes)


def _texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG, and what ComfyUI has written of itself into a WebP."""
    with open_picture(io.BytesIO(data), "the server's file") as picture:
        if picture.format == "PNG":
            return {name: str(value) for name, value in getattr(picture, "text", {}).items() if name != "XML:com.adobe.xmp"}
        told = [value for value in picture.getexif().values() if isinstance(value, str)]
    return {name: value for name, _, value in (text.partition(":") for text in told) if name in ("prompt", "workflow")}


CONTAINERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Suffixes of results that can be given their source's profile and metadata -> faithdiff_core.photo's name."""
