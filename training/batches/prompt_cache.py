"""Prompts as SDXL sees them: both CLIP text encoders, run once per caption and kept on disk.

Two half-precision tensors a caption (at SDXL's widths 318 kB) instead of 0.8 billion parameters in memory and a pass at every
step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tqdm import tqdm

from faithdiff_core.files.checks import first_line
from training.common.files import write_bytes
from training.common.seeds import uniform

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def drop_prompt(caption: str, prob: float, generator: torch.Generator) -> str:
    """`caption`, or "" with probability `prob`. Draws once whatever `prob` is, so that later draws do not depend on it."""
    return "" if uniform(generator, 0.0, 1.0) < prob else caption


@dataclass(frozen=True, kw_only=True)
class TextEncoders:
    """SDXL's two tokenizers and text encoders, frozen; encoder_id names their weights and vocabularies."""

    tokenizers: tuple[Any, Any]
    encoders: tuple[Any, Any]
    encoder_id: str

    @classmethod
    def read(cls, folder: Path) -> TextEncoders:
        """From tokenizer, tokenizer_2, text_encoder and text_encoder_2 of a diffusers folder, in float32 on the CPU.

        Raises:
            ValueError: one of them is missing or cannot be read.
        """
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        missing = [
            name for name in ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2") if not (folder / name).is_dir()
        ]
        if missing:
            raise ValueError(
                f"expected SDXL's text encoders in {folder}, got no {', '.join(missing)}, name a diffusers folder of SDXL"
            )
        try:
            tokenizers = tuple(
                CLIPTokenizer.from_pretrained(folder / f"tokenizer{end}", local_files_only=True) for end in ("", "_2")
            )
            classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
            encoders = tuple(
                kind.from_pretrained(folder / name, local_files_only=True, dtype=torch.float32).eval().requires_grad_(False)
                for name, kind in classes.items()
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            line = first_line(error)
            raise ValueError(f"expected SDXL's text encoders in {folder}, got {line}, fetch the folder again") from error
        return cls(tokenizers=tokenizers, encoders=encoders, encoder_id=_identity(folder, encoders))

    def to(self, device: torch.device) -> TextEncoders:
        """The encoders on another device (moved, not copied)."""
        for encoder in self.encoders:
            encoder.to(device)
        return self

    @torch.no_grad()
    def encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (B, 77, C1 + C2): the layer before the last of both; pooled (B, C2): the second's projection. float32, on the
        encoders' device (official train_SDXL_stage_2.py:913-919). Longer captions are cut at 77 tokens.
        """
        captions = [
            caption.encode("utf-8", "replace").decode() for caption in captions
        ]  # the tokenizers refuse halves of surrogate pairs
        hidden, pooled = [], torch.empty(0)
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            tokens = tokenizer(
                captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
            )
            output = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled = output[0]
        return torch.cat(hidden, dim=-1), pooled


def _identity(folder: Path, encoders: tuple[Any, ...]) -> str:
    """sha256 over names, shapes and values of all weights, and over the tokenizers' files."""
    digest = hashlib.sha256()
    for encoder in encoders:
        for name, value in sorted(encoder.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    for name in ("tokenizer", "tokenizer_2"):
        for path in (folder / name / file for file in TOKENIZER_FILES):
            if path.is_file():
                digest.update(f"{name}/{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class TextCache:
    """One file a caption: folder/ab/abcd....safetensors, named by the encoders and the caption. Processes may fill one cache
    together.
    """

    def __init__(self, folder: Path, encoder_id: str) -> None:
        self._folder = folder
        self.encoder_id = encoder_id

    def path(self, caption: str) -> Path:
        """Where the caption's embeddings lie, or will."""
        name = hashlib.sha256(f"{self.encoder_id}\n{caption}".encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def get(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (77, C1 + C2) and pooled (C2,), float16.

        Raises:
            ValueError: they are not there or damaged.
        """
        path = self.path(caption)
        try:
            held = load_file(path)
            return held["context"], held["pooled"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ValueError(
                f"expected embeddings of {caption[:40]!r} in {path}, got none to be read, delete it and fill the cache again"
            ) from error

    def fill(self, captions: Iterable[str], encoders: TextEncoders, device: torch.device, batch_size: int = 16) -> int:
        """Compute what is missing, the empty prompt included, and return how many that were. The encoders end on the CPU.

        Raises:
            ValueError: the encoders are not this cache's, or a number is too large for half precision.
        """
        if encoders.encoder_id != self.encoder_id:
            raise ValueError(
                "expected the text encoders that this cache was opened for, got others, open it with their encoder_id"
            )
        missing = [caption for caption in sorted({"", *captions}) if not self.path(caption).is_file()]
        if not missing:
            return 0
        encoders.to(device)
        with tqdm(total=len(missing), desc="captions", mininterval=2.0, delay=2.0) as bar:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                for caption, context, pooled in zip(batch, *encoders.encode(batch), strict=True):
                    self._write(caption, context, pooled)
                bar.update(len(batch))
        encoders.to(torch.device("cpu"))
        return len(missing)

    def _write(self, caption: str, context: torch.Tensor, pooled: torch.Tensor) -> None:
        tensors = {"context": context.half().cpu().contiguous(), "pooled": pooled.half().cpu().contiguous()}
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise ValueError(
                f"expected embeddings within half precision, got larger ones for {caption[:40]!r}, check the encoders"
            )
        write_bytes(self.path(caption), save(tensors))
