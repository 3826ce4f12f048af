"""`prepare`: from folders, files and shards to the records of a manifest, each picture decoded once to see that it can be.

Among the folders are the packages `comfyui-workflow-templates-media-*`, whose stills every host already has.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from faithdiff_core.captions import trim_caption
from faithdiff_core.listing.walk import list_pictures
from training.common.devices import warn
from training.common.folders import without_scale
from training.common.images import decode_picture, read_bytes
from training.common.seeds import generator_for, uniform
from training.data import caption_files
from training.data.caption_files import CaptionFile
from training.data.manifest import Record, Skipped, common_scale
from training.data.shards import Segment, key_objection, read_contents

Source = Path | Segment
AHEAD = 32
"""Pictures under examination at a time: bounds the memory."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
PACKAGE_PREFIX = "comfyui-workflow-templates-media-"
STILL_SUFFIXES = frozenset({".webp", ".png", ".jpg", ".jpeg"})


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Pictures found, by key, with the LQ pictures and captions found with them, and what was refused at sight."""

    pictures: list[tuple[str, Source]] = field(default_factory=list)
    lq: dict[str, Source] = field(default_factory=dict)
    captions: dict[str, CaptionFile] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    """Their `kind` says why they are left out."""


def find(inputs: Iterable[Path]) -> Listing:
    """Every picture named, below a folder, or in a .tar shard (named or below a folder), with captions beside it.

    Keys: a picture's path below the folder without suffix; a file's stem; a shard's member without its suffixes.

    Raises:
        ValueError: an input that does not exist.
    """
    found = Listing()
    for item in inputs:
        listed = list_pictures([item], shards=True)
        found.pictures.extend(listed.pictures)
        found.captions.update(caption_files.beside(listed.pictures))
        for each in listed.left_out:
            found.skipped.append(Skipped(_key_in(item, each.path), each.path, each.reason, kind=each.kind))
        for shard in listed.shards:
            contents = read_contents(shard)
            found.pictures.extend(contents.pictures)
            found.lq.update(contents.lq)
            found.captions.update(contents.captions)
            found.skipped.extend(Skipped(name, str(shard), reason, kind="refused") for name, reason in contents.refused)
            found.skipped.extend(Skipped(name, str(shard), "", kind="hidden") for name in contents.hidden)
    return found


def _key_in(folder: Path, path: str) -> str:
    return Path(path).relative_to(folder).with_suffix("").as_posix()


def by_key(pictures: Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """The pictures as a table.

    Raises:
        ValueError: two pictures of one key.
    """
    table: dict[str, Source] = {}
    for key, source in pictures:
        if key in table:
            raise ValueError(
                f"expected one picture for key {key!r}, got {_path(table[key])} and {_path(source)}, rename one of them"
            )
        table[key] = source
    return table


def join(
    pictures: list[tuple[str, Source]], lq: Mapping[str, Source], *, required: bool
) -> tuple[list[tuple[str, Source]], list[Skipped]]:
    """The pictures to use, and what has no partner: LQ pictures without an HQ one and, where one is `required`, pictures without
    one.
    """
    keys = {key for key, _ in pictures}
    skipped = [
        Skipped(key, _path(source), "an LQ picture without an HQ one of this key", kind="without a partner")
        for key, source in lq.items()
        if key not in keys
    ]
    if required:
        reason, kind = "no LQ picture of this key", "without a partner"
        skipped += [Skipped(key, _path(source), reason, kind=kind) for key, source in pictures if key not in lq]
        pictures = [(key, source) for key, source in pictures if key in lq]
    return pictures, skipped


def lq_by_key(pictures: Iterable[tuple[str, Source]], keys: Iterable[str]) -> dict[str, Source]:
    """LQ pictures by the keys of their HQ pictures, `keys`: 0001x4 is that of 0001.

    Raises:
        ValueError: two of one key.
    """
    return without_scale(by_key(pictures), keys)


def build(
    pictures: Iterable[tuple[str, Source]], *, val_frac: float, min_side_px: int, lq: Mapping[str, Source] | None = None,
    captions: Mapping[str, CaptionFile] | None = None, trim: bool = False,
) -> tuple[list[Record], list[Skipped]]:  # fmt: skip
    """Records of all usable pictures, sorted by key, and a list of what was left out.

    Two pictures with one key are refused (ValueError). Skipped are: a second copy of the same file, an unreadable or too small
    picture, one whose LQ picture is unreadable or of another shape, one whose caption's file is damaged. The split depends on the
    key alone, so that adding pictures moves none of the others. `trim`: captions are shortened as the official trainer does.
    """
    chosen = by_key(pictures)
    lq, captions = lq or {}, captions or {}

    def examine(key: str) -> Record | Skipped:
        if reason := key_objection(key):
            return Skipped(key, _path(chosen[key]), f"{reason}, rename it", kind="name")
        try:
            record = _examine(key, chosen[key], lq.get(key), captions.get(key), min_side_px)
        except _TooSmallError as error:
            return Skipped(key, _path(chosen[key]), str(error), kind="too small")
        except (ValueError, OSError) as error:
            return Skipped(key, _path(chosen[key]), str(error))
        split = "val" if uniform(generator_for(0, "split", key), 0.0, 1.0) < val_frac else "train"
        return replace(record, split=split, caption=trim_caption(record.caption) if trim else record.caption)

    records: list[Record] = []
    skipped: list[Skipped] = []
    by_digest: dict[tuple[str, str], str] = {}
    for result in tqdm(_in_order(examine, sorted(chosen)), total=len(chosen), desc="pictures", mininterval=2.0, delay=2.0):
        if isinstance(result, Skipped):
            skipped.append(result)
        elif (same := by_digest.setdefault((result.digest, result.lq_digest), result.key)) != result.key:
            skipped.append(Skipped(result.key, result.path, f"same file as {same!r}", kind="double"))
        else:
            records.append(result)
    return records, skipped


class _TooSmallError(ValueError):
    """A picture below the size asked for, which is no fault of it."""


def _examine(key: str, source: Source, lq: Source | None, caption: CaptionFile | None, min_side_px: int) -> Record:
    """The record of one picture, without split.

    Raises:
        ValueError, OSError: it cannot be used.
    """
    digest, size = _look_at(source)
    if min(size) < min_side_px:
        raise _TooSmallError(f"shorter side {min(size)} px, below {min_side_px} px")
    segment = _segment(source)
    record = Record(
        key=key, path=segment.path, width_px=size[1], height_px=size[0], digest=digest, split="", offset=segment.offset,
        size_bytes=segment.size_bytes, caption=caption.read() if caption else "",
    )  # fmt: skip
    if lq is None:
        return record
    lq_digest, lq_size = _look_at(lq)
    segment = _segment(lq)
    return replace(
        record, lq_path=segment.path, lq_offset=segment.offset, lq_size_bytes=segment.size_bytes, lq_digest=lq_digest,
        lq_scale=common_scale(size, lq_size),
    )  # fmt: skip


def _look_at(source: Source) -> tuple[str, tuple[int, int]]:
    """(sha256, (height, width) px) of a picture, decoded whole: a truncated file shows only then."""
    data = read_bytes(source)
    picture = decode_picture(data, _path(source))
    for text in picture.warnings:
        warn(f"{_path(source)} {text}")
    height_px, width_px = picture.photo.color_HWC.shape[:2]
    return hashlib.sha256(data).hexdigest(), (int(height_px), int(width_px))


def _path(source: Source) -> str:
    return str(source) if isinstance(source, Path) else source.path


def _segment(source: Source) -> Segment:
    return Segment(path=str(source.resolve())) if isinstance(source, Path) else source


def _in_order(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """`map` by threads (decoding releases Python's lock), at most AHEAD items in work."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def bundled_stills() -> list[tuple[str, Path]]:
    """(key, path) of every opaque still in the installed packages, sorted by key. Animations and pictures with real transparency
    are left out.

    Raises:
        ValueError: no such package is installed.
    """
    found: dict[str, Path] = {}
    packages = sorted((dist for dist in metadata.distributions() if _name(dist).startswith(PACKAGE_PREFIX)), key=_name)
    if not packages:
        raise ValueError(f"expected installed packages {PACKAGE_PREFIX}*, got none, pip install comfyui-workflow-templates")
    for dist in packages:
        for file in dist.files or []:
            path = Path(str(dist.locate_file(file)))
            if path.suffix.lower() in STILL_SUFFIXES and path.is_file() and _is_opaque_still(path):
                # The version is left out of the key: a newer package must not turn every key over.
                found[f"{_name(dist)}/{path.name}"] = path
    return sorted(found.items())


def _name(dist: metadata.Distribution) -> str:
    return str(dist.metadata["Name"]).lower().replace("_", "-")


def _is_opaque_still(path: Path) -> bool:
    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                return False
            if "A" not in opened.getbands() and "transparency" not in opened.info:
                return True
            return bool(np.asarray(opened.convert("RGBA"))[..., 3].min() == 255)
    except (OSError, ValueError, SyntaxError):
        return True  # listed, so that `prepare` reports it as unreadable instead of hiding it
