"""`caption`: a manifest's pictures described one after another; what was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from faithdiff_core.captions import trim_caption
from training.common.images import read_image
from training.common.strict_json import parse_json
from training.data import manifest
from training.data.captioner import Captioner
from training.data.manifest import Record, Skipped

_ROW = ("key", "digest", "caption")


def caption_manifest(
    records: list[Record], out: Path, captioner: Captioner, *, batch_size: int, overwrite: bool, trim: bool
) -> tuple[int, list[Skipped]]:
    """Write `records` with captions to `out`, atomically. Returns how many captions were made, earlier calls included, and the
    pictures that could not be read (they keep the caption they have).

    Pictures with a caption are left alone unless `overwrite`. Each batch is appended to OUT.part.jsonl at once; a later call for
    the same model and prompt starts from it.

    Raises:
        ValueError: that file is of another model or prompt.
    """
    part = out.with_suffix(".part.jsonl")
    done = _resume(part, captioner)
    waiting = [record for record in records if (overwrite or not record.caption) and (record.key, record.digest) not in done]
    skipped: list[Skipped] = []
    with part.open("a", encoding="utf-8") as lines, tqdm(total=len(waiting), desc="captions", mininterval=2.0, delay=2.0) as bar:
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            readable, pictures = _read(batch, skipped)
            for record, text in zip(readable, captioner.describe(pictures) if pictures else [], strict=True):
                done[record.key, record.digest] = text
                lines.write(json.dumps({"key": record.key, "digest": record.digest, "caption": text}) + "\n")
            lines.flush()  # from here on a killed process loses nothing of this batch
            bar.update(len(batch))
    made = 0
    captioned = []
    for record in records:
        text = done.get((record.key, record.digest))
        if text is not None and (overwrite or not record.caption):
            record = replace(record, caption=trim_caption(text) if trim else text)
            made += 1
        captioned.append(record)
    manifest.write(captioned, out)
    part.unlink()
    return made, skipped


def _read(batch: list[Record], skipped: list[Skipped]) -> tuple[list[Record], list[torch.Tensor]]:
    readable, pictures = [], []
    for record in batch:
        try:
            pictures.append(read_image(record))
            readable.append(record)
        except ValueError as error:
            skipped.append(Skipped(record.key, record.path, str(error)))
    return readable, pictures


def _resume(part: Path, captioner: Captioner) -> dict[tuple[str, str], str]:
    """What an interrupted call left, by key and digest. Begins the file if it is not there; cuts off a last line that is not
    whole.
    """
    wanted = {"model": _model_digest(captioner), "prompt": captioner.text, "max_tokens": captioner.max_tokens}
    part.parent.mkdir(parents=True, exist_ok=True)
    data = part.read_bytes() if part.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1]
    rows: list[dict[str, Any]] = []
    for line in whole.splitlines():
        try:
            row = parse_json(line)
            sound = isinstance(row, dict) and (not rows or all(isinstance(row.get(name), str) for name in _ROW))
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(f"expected captions of an interrupted run in {part}, got {line[:40]!r}, delete that file")
        rows.append(row)
    if not rows:
        whole = (json.dumps(wanted) + "\n").encode()
    elif rows[0] != wanted:
        raise ValueError(
            f"expected {part} to be of the same model, prompt and --max-tokens, got another's, delete it or use those"
        )
    if whole != data:
        part.write_bytes(whole)
    return {(row["key"], row["digest"]): row["caption"] for row in rows[1:]}


def _model_digest(captioner: Captioner) -> str:
    """sha256 over the names and sizes of the model's files and its configuration: tells models apart without reading
    gigabytes.
    """
    files = sorted(path for path in captioner.folder.iterdir() if path.is_file())
    digest = hashlib.sha256("".join(f"{path.name} {path.stat().st_size}\n" for path in files).encode())
    digest.update((captioner.folder / "config.json").read_bytes())
    return digest.hexdigest()
