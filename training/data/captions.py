"""`caption`: a manifest's pictures described one after another by a local image-to-text model of transformers; what was
interrupted goes on where it was. Nothing is downloaded and no code of the model's folder is run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from faithdiff_core.captions import trim_caption
from faithdiff_core.files.checks import first_line
from training.common.images import read_image
from training.common.strict_json import parse_json
from training.data import manifest
from training.data.manifest import Record, Skipped

QUESTION = "Describe this image and its style in a very detailed manner."
"""Official llava/llm_agent.py:34, 65-90; the released weights were trained on the answers."""
_ROW = ("key", "digest", "caption")


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """is_asked: the model answers a question (it has a chat template); others only go on with a text. `text` is what it is
    given.
    """

    folder: Path
    model: Any
    processor: Any
    is_asked: bool
    text: str
    max_tokens: int

    @classmethod
    def read(cls, folder: Path, device: str = "auto", *, prompt: str | None = None, max_tokens: int = 512) -> Captioner:
        """From a folder that transformers' `save_pretrained` (or a download) left. On a GPU the weights keep the file's type, on
        the CPU they become float32. `prompt` None = the official question, or nothing for a model that cannot be asked.

        Raises:
            ValueError: without transformers, and for a folder that is no such model.
        """
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise ValueError(f"expected transformers for `caption`, got {error}, pip install transformers") from error
        if not (folder / "config.json").is_file():
            raise ValueError(f"expected a model folder with config.json, got {folder}, name the folder of an image-to-text model")
        target = _device(device)
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor: Any = AutoProcessor.from_pretrained(folder, **safe)
            dtype = torch.float32 if target.type == "cpu" else "auto"
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **safe)
            model = model.to(target).eval()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            line = first_line(error)
            raise ValueError(
                f"expected an image-to-text model of transformers in {folder}, got: {line}; name another folder"
            ) from error
        if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
            raise ValueError(
                f"expected a processor for pictures and text in {folder}, got {type(processor).__name__}, name another folder"
            )
        processor.tokenizer.padding_side = "left"  # what is generated must follow the prompt at once
        is_asked = bool(getattr(processor, "chat_template", None))
        text = prompt if prompt is not None else QUESTION if is_asked else ""
        return cls(folder=folder, model=model, processor=processor, is_asked=is_asked, text=text, max_tokens=max_tokens)

    @torch.inference_mode()
    def describe(self, pictures: list[torch.Tensor]) -> list[str]:
        """Captions of uint8 (3, H, W) pictures, always the likeliest next token."""
        images = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy(), "RGB") for picture in pictures]
        inputs = self.processor(images=images, return_tensors="pt", **self._texts(len(images)))
        inputs = inputs.to(self.model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        given = inputs.get("input_ids")
        if (
            given is not None
            and tokens.shape[1] >= given.shape[1]
            and torch.equal(tokens[:, : given.shape[1]], given)
            and self.is_asked
        ):
            tokens = tokens[:, given.shape[1] :]  # decoders repeat the question; a text's beginning is part of the caption
        return [" ".join(text.split()) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]

    def _texts(self, count: int) -> dict[str, Any]:
        if self.is_asked:
            content = [{"type": "image"}, {"type": "text", "text": self.text}]
            turns = [{"role": "user", "content": content}]
            return {"text": [self.processor.apply_chat_template(turns, add_generation_prompt=True)] * count, "padding": True}
        return {"text": [self.text] * count, "padding": True} if self.text else {}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"expected --device auto, cpu or a GPU of this machine, got {name!r} ({first_line(error)})") from error


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
