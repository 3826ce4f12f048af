"""The keyed manifest: one JSON line a picture. Everything downstream joins by key, never by order.

Each line: key, path, width_px, height_px, digest (sha256 of the picture's bytes), split ("train" or "val"), caption ("" if
none). A picture inside a shard has offset and size_bytes there; one of a pair has the same three for the LQ picture, its digest
and the scale between them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from faithdiff_core.listing.kinds import is_text
from training.common.files import write_text
from training.common.strict_json import parse_json
from training.data.shards import Segment, key_objection

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Record:
    """One picture of a manifest. `read_image` takes it as it is."""

    key: str
    path: str
    width_px: int
    height_px: int
    digest: str
    split: str
    caption: str = ""
    offset: int = 0
    size_bytes: int = 0
    """0 = the whole file `path`."""
    lq_path: str = ""
    """"" = no LQ picture: the picture is degraded when it is used."""
    lq_offset: int = 0
    lq_size_bytes: int = 0
    lq_digest: str = ""
    lq_scale: int = 0
    """How many times larger the picture is than the LQ one; 0 = there is none."""

    @property
    def lq(self) -> Segment | None:
        """Where the LQ picture lies."""
        return Segment(path=self.lq_path, offset=self.lq_offset, size_bytes=self.lq_size_bytes) if self.lq_path else None


_FIELDS = {field.name: field for field in fields(Record)}
_SKIPPED = ("key", "path", "reason")
MAX_LINE_BYTES = 2**20
"""Of a first line. The longest part of one is the caption, some kilobytes."""
_REQUIRED = {"key", "path", "width_px", "height_px", "digest", "split"}


@dataclass(frozen=True)
class Skipped:
    """A picture left out, and why. `kind`: a word or two, by which those that are left out are counted; "" = it has failed."""

    key: str
    path: str
    reason: str
    kind: str = ""


def write(records: list[Record], path: Path) -> None:
    """Write the manifest, one JSON object a line, atomically. Fields of shards and pairs are left out where there are none."""
    write_text(path, "".join(json.dumps(_as_line(record)) + "\n" for record in records))


def _as_line(record: Record) -> dict[str, Any]:
    always = _REQUIRED | {"caption"}
    return {name: value for name, value in asdict(record).items() if name in always or value != _FIELDS[name].default}


def write_skipped(skipped: list[Skipped], manifest: Path) -> Path | None:
    """List what was left out in MANIFEST.skipped.jsonl and return its path; with nothing to list, an old list is removed."""
    path = skipped_path(manifest)
    if not skipped:
        path.unlink(missing_ok=True)
        return None
    write_text(path, "".join(json.dumps({name: getattr(item, name) for name in _SKIPPED}) + "\n" for item in skipped))
    return path


def skipped_path(manifest: Path) -> Path:
    """Where what was left out is listed."""
    return manifest.with_suffix(".skipped.jsonl")


def is_manifest(path: Path) -> bool:
    """Whether the file begins like a manifest, or like a list of what one has left out.

    Raises:
        ValueError, OSError: its first line is no JSON; it cannot be read.
    """
    with path.open("rb") as lines:
        value = parse_json(lines.readline(MAX_LINE_BYTES))
    return isinstance(value, dict) and (set(value) >= _REQUIRED or set(value) == set(_SKIPPED))


def read(path: Path) -> list[Record]:
    """Read and check a manifest.

    Raises:
        ValueError: naming the line that is wrong.
    """
    if not path.is_file():
        raise ValueError(f"expected a manifest, got {path}, which does not exist; make one with `python -m training prepare`")
    records: list[Record] = []
    seen: set[str] = set()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = _parse(line, f"line {number} of {path}")
            if record.key in seen:
                raise ValueError(f"expected one line for key {record.key!r:.60} in {path}, got two, make the manifest again")
            seen.add(record.key)
            records.append(record)
    if not records:
        raise ValueError(f"expected at least one picture in {path}, got none, run `python -m training prepare` on some")
    return records


def _parse(line: bytes, where: str) -> Record:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise ValueError(f"expected JSON on {where}, got {line[:40]!r} ({error}), make the manifest again") from None
    if not isinstance(value, dict) or not _REQUIRED <= set(value) <= set(_FIELDS):
        raise ValueError(f"expected the fields {', '.join(_FIELDS)} on {where}, got {line[:60]!r}, make the manifest again")
    for name, given in value.items():
        kind = {"str": str, "int": int}[str(_FIELDS[name].type)]
        if type(given) is not kind or (kind is int and given < 0):
            raise ValueError(f"expected {name} as {kind.__name__} on {where}, got {given!r:.60}, make the manifest again")
    if reason := key_objection(value["key"]):
        raise ValueError(
            f"expected a key that can name files on {where}, got {value['key']!r:.60} ({reason}), make the manifest again"
        )
    if not is_text(value["digest"] + value.get("lq_digest", "")):
        raise ValueError(f"expected digests as UTF-8 on {where}, got {value['digest']!r:.60}, make the manifest again")
    if value["split"] not in SPLITS:
        raise ValueError(f"expected split {' or '.join(SPLITS)} on {where}, got {value['split']!r:.60}, correct it")
    if bool(value.get("lq_path")) != bool(value.get("lq_scale")):
        raise ValueError(f"expected lq_path and lq_scale together on {where}, got one of them, make the manifest again")
    return Record(**value)


def data_digest(records: list[Record]) -> str:
    """sha256 over the sorted keys and file digests (of LQ pictures, too): names the pictures independently of where they lie."""
    lines = sorted(
        f"{record.key} {record.digest}" + (f" {record.lq_digest}" if record.lq_path else "") + "\n" for record in records
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def common_scale(hq_HW_px: tuple[int, int], lq_HW_px: tuple[int, int]) -> int:
    """How many times larger the HQ picture is: a whole number, the same for both sides, each within rounding (less than one LQ
    pixel).

    Raises:
        ValueError: there is none.
    """
    scale = round(sum(hq_HW_px) / sum(lq_HW_px))
    if scale < 1 or any(abs(hq - scale * lq) >= scale for hq, lq in zip(hq_HW_px, lq_HW_px, strict=True)):
        hq, lq = (f"{height} x {width} px" for height, width in (hq_HW_px, lq_HW_px))
        raise ValueError(
            f"expected an HQ picture a whole number of times as large as its LQ picture, got {hq} and {lq}, make them fit"
        )
    return scale


def split_of(data: Path, split: str) -> list[Record]:
    """The records of one split of a manifest."""
    return [record for record in read(data) if record.split == split]
