"""One file layout to another: the official `FaithDiff.bin` to a safe, memory-mapped .safetensors, and back.

Needs torch and safetensors only. The input is mapped, so memory stays at about one tensor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from faithdiff_core.files.checkpoint import FaithDiffParts, assemble_adapter, assemble_full, assemble_released, is_lora
from faithdiff_core.files.checks import check_finite
from faithdiff_core.files.metadata import FaithDiffMetadata
from faithdiff_core.files.storage import write_safetensors
from faithdiff_core.lora import LoraSettings, fit_lora, merged
from training.common.results import require_own
from training.common.tensor_files import is_spread, read_tensors, take_apart, weight_files, write_archive
from training.weights.check import is_own, require_sha256, require_written
from training.weights.lora_files import read_lora, settings_of, write_host_lora

LAYOUTS = {"full": assemble_full, "adapter": assemble_adapter, "released": assemble_released}
DTYPES = {"keep": None, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def convert(
    source: Path,
    out: Path,
    *,
    layout: str | None,
    dtype: str,
    source_sha256: str | None = None,
    table: str | None = None,
    lora: Path | None = None,
) -> str:
    """Writes `source` as `out` (atomically), reads it back, and returns one line that says what was written.

    A LoRA as `source` is written in the names of the host's Load LoRA.

    Args:
        source: a file, an index of shards, or a folder with one.
        layout: "full", "adapter" or "released"; None takes "released" for a .bin and "full" (or "adapter", where there is no
            UNet) for a .safetensors.
        dtype: "keep", "fp16", "bf16" or "fp32".
        source_sha256: what the source's hash must be; None does not ask.
        table: which one to take of a pickle that holds several.
        lora: a LoRA (or peft's folder of one) to merge into the UNet.

    Raises:
        ValueError: not a FaithDiff file, weights that are not finite (also after narrowing), an output that would lose the
            file's metadata, an output name of another kind, a source of another hash, or a LoRA of which no layer fits.
        OSError: what was written does not read back the same.
    """
    if out.suffix not in (".safetensors", ".bin"):
        raise ValueError(f"expected --out to end in .safetensors or .bin, got {out}, rename it")
    if out.resolve() in [each.resolve() for each in (weight_files(source) if source.exists() else [source])]:
        raise ValueError(f"expected --out to be another file than the input, got {out} for both, choose another name")
    require_own(out, "FaithDiff .safetensors", is_own, [source, lora])
    if source_sha256 is not None and source.exists():  # what is missing is told below
        if is_spread(source):
            raise ValueError(f"expected --sha256 with one file, got several in {source}, leave it out")
        require_sha256(source, source_sha256)
    state, header = read_tensors(source, table)
    if is_lora(state):
        return write_host_lora(source, out, state, settings_of(source, header), dtype=DTYPES[dtype])
    parts = take_apart(source, state, header)
    if lora is not None:
        parts = _with_lora(parts, lora)
    if out.suffix == ".bin":
        _require_released_metadata(parts.metadata)
        if layout not in (None, "released"):
            raise ValueError(f"expected the released layout for a .bin, got {layout}, leave --layout out or write a .safetensors")
    chosen = layout or ("released" if out.suffix == ".bin" else "adapter" if parts.unet is None else "full")
    wanted = DTYPES[dtype]
    if wanted is not None:
        parts = _cast(parts, wanted)
    for part, what in ((parts.unet or {}, "UNet"), (parts.lq_encoder, "LQ encoder"), (parts.alignment, "alignment module")):
        check_finite(part, what)
    beside = ""
    if parts.lora:  # of an adapter: what it is for has no UNet here to merge it into
        beside = write_host_lora(source, out.with_suffix(".lora.safetensors"), parts.lora, LoraSettings(), dtype=wanted)
    state = LAYOUTS[chosen](parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".bin":
        write_archive(out, state)
    else:
        write_safetensors(out, state, parts.metadata.to_header())
    require_written(out, state)
    line = f"{out}: {chosen} layout, {len(state)} tensors, {out.stat().st_size / 1e6:.1f} MB, {parts.metadata.align_attention}"
    return "; ".join(each for each in (line, parts.note, beside) if each)


def _with_lora(parts: FaithDiffParts, path: Path) -> FaithDiffParts:
    if parts.unet is None:
        raise ValueError("expected a file with a UNet for --lora, got an adapter, use Load LoRA behind its base_model instead")
    state, settings = read_lora(path)
    try:
        fitted = fit_lora(state, parts.unet, settings)
        note = f"LoRA {path.name}: {fitted}"
        return replace(parts, unet=merged(parts.unet, fitted), note="; ".join(each for each in (parts.note, note) if each))
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from None


def _cast(parts: FaithDiffParts, dtype: torch.dtype) -> FaithDiffParts:
    def cast(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(dtype) for name, value in state.items()}

    unet = None if parts.unet is None else cast(parts.unet)
    return replace(parts, unet=unet, lq_encoder=cast(parts.lq_encoder), alignment=cast(parts.alignment))


def _require_released_metadata(metadata: FaithDiffMetadata) -> None:
    """A pickle has no header, and without one a file is read as the release."""
    plain = FaithDiffMetadata()
    for name in ("align_attention", "crop_units", "target_size_px"):
        told, read_as = getattr(metadata, name), getattr(plain, name)
        if told != read_as:
            raise ValueError(f"expected {name} = {read_as} for a .bin, which cannot say otherwise, got {told}, use .safetensors")
