"""The keyed manifest: one JSON line a picture. Everything downstream joins by key, never by order.

Each line: key, path, width_px, height_px, digest (sha256 of the file), split ("train" or "val"), caption ("" if none)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from training.files import write_text
from training.images import read_image
from training.seeds import generator_for, uniform

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Record:
    """One picture of a manifest."""

    key: str
    path: str
    width_px: int
    height_px: int
    digest: str
    split: str
    caption: str = ""


@dataclass(frozen=True)
class Skipped:
    """A picture left out, and why."""

    key: str
    path: str
    reason: str


def build(pictures: Iterable[tuple[str, Path]], *, val_frac: float, min_side_px: int) -> tuple[list[Record], list[Skipped]]:
    """Records of all readable pictures, and a list of what was left out.

    Two pictures with one key are refused (ValueError); a second copy of the same file, an unreadable and a too small picture are
    skipped.
    The split depends on the key alone, so that adding pictures moves none of the others. A caption is read from KEY.txt beside
    the picture."""
    records: list[Record] = []
    skipped: list[Skipped] = []
    by_key: dict[str, Path] = {}
    by_digest: dict[str, str] = {}
    for key, path in pictures:
        if key in by_key:
            raise ValueError(f"expected one picture for key {key!r}, got {by_key[key]} and {path}, rename one of them")
        by_key[key] = path
        try:
            height_px, width_px = read_image(path).shape[1:]
        except ValueError as error:
            skipped.append(Skipped(key, str(path), str(error)))
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if min(width_px, height_px) < min_side_px:
            skipped.append(Skipped(key, str(path), f"shorter side {min(width_px, height_px)} px, below {min_side_px} px"))
        elif digest in by_digest:
            skipped.append(Skipped(key, str(path), f"same file as {by_digest[digest]!r}"))
        else:
            by_digest[digest] = key
            split = "val" if uniform(generator_for(0, "split", key), 0.0, 1.0) < val_frac else "train"
            sidecar = path.with_suffix(".txt")
            caption = sidecar.read_text(encoding="utf-8").strip() if sidecar.is_file() else ""
            records.append(Record(key, str(path.resolve()), int(width_px), int(height_px), digest, split, caption))
    return records, skipped


def write(records: list[Record], path: Path) -> None:
    """Write the manifest, one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(asdict(record)) + "\n" for record in records))


def read(path: Path) -> list[Record]:
    """Read and check a manifest. Raises ValueError naming the line that is wrong."""
    if not path.is_file():
        raise ValueError(f"expected a manifest, got {path}, which does not exist; make one with `python -m training prepare`")
    names = {field.name for field in fields(Record)}
    records: list[Record] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"expected JSON on line {number} of {path}, got {line[:40]!r}, make the manifest again") from error
        if not isinstance(value, dict) or not names - {"caption"} <= set(value) <= names:
            raise ValueError(f"expected the fields {sorted(names)} on line {number} of {path}, got {line[:60]!r}, make it again")
        record = Record(**value)
        if record.key in seen:
            raise ValueError(f"expected one line for key {record.key!r} in {path}, got two, make the manifest again")
        if record.split not in SPLITS:
            raise ValueError(f"expected split {' or '.join(SPLITS)} on line {number} of {path}, got {record.split!r}, correct it")
        seen.add(record.key)
        records.append(record)
    if not records:
        raise ValueError(f"expected at least one picture in {path}, got none, run `python -m training prepare` on some")
    return records


def data_digest(records: list[Record]) -> str:
    """sha256 over the sorted (key, file digest) pairs: names the data independently of where it lies."""
    lines = sorted(f"{record.key} {record.digest}\n" for record in records)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
