"""LoRA files of other tools: read with the strength that peft keeps beside them, written for the host's Load LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from faithdiff_core.files.checks import check_finite
from faithdiff_core.files.storage import write_safetensors
from faithdiff_core.lora import FittedLora, LoraSettings, fit_lora
from faithdiff_core.unet_layers import KNOWN_UNETS, layer_weights
from training.common.results import require_own
from training.common.strict_json import parse_json
from training.common.tensor_files import State, read_tensors, weight_files
from training.weights.check import is_own, require_written

PEFT_CONFIG = "adapter_config.json"
"""Beside the weights in a folder that peft's save_pretrained wrote."""
HEADER_ENTRY = "lora_adapter_metadata"
"""Of the same in the header of files that diffusers' save_lora_weights wrote; its keys begin with the model's name."""
_MORE_THAN_ONE = ("alpha_pattern", "use_dora")


def read_lora(path: Path) -> tuple[State, LoraSettings]:
    """The tensors of a LoRA file, or of peft's folder of one, and its strength.

    Raises:
        ValueError: no readable file, or settings that one number for all layers cannot hold.
    """
    state, header = read_tensors(path)
    return state, settings_of(path, header)


def settings_of(path: Path, header: dict[str, str]) -> LoraSettings:
    """What a file, or what lies beside it, says of a LoRA's strength.

    Raises:
        ValueError: no JSON, no number, or more than one number for all layers.
    """
    beside = weight_files(path)[0].with_name(PEFT_CONFIG)
    try:
        held: Any = parse_json(header.get(HEADER_ENTRY, "{}"))
        if isinstance(held, dict) and not held and beside.is_file():
            held = parse_json(beside.read_bytes())
        entries = {name.removeprefix("unet."): value for name, value in held.items()}
        odd = [name for name in _MORE_THAN_ONE if entries.get(name)]
        if odd:
            raise ValueError(odd[0])
        alpha = entries.get("lora_alpha")
        return LoraSettings(alpha=None if alpha is None else float(alpha), root=entries.get("use_rslora") is True)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"expected one lora_alpha for all layers of the LoRA {path}, got {error}, save it plain") from None


def write_host_lora(source: Path, out: Path, lora: State, settings: LoraSettings, *, dtype: torch.dtype | None) -> str:
    """Writes a LoRA in the names of the host's Load LoRA, and returns one line that says how many layers fit which network.

    Raises:
        ValueError: none fits any network that is known here, values that are not finite, another ending, or a file that is there
            and not of this project.
        OSError: what was written does not read back the same.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"expected --out to end in .safetensors for a LoRA, got {out}, rename it")
    require_own(out, "FaithDiff .safetensors", is_own, [source])
    network, fitted = _best_fit(source, lora, settings)
    state = {name: value.to(dtype or value.dtype) for name, value in fitted.host_state().items()}
    check_finite(state, "LoRA")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(out, state, {"faithdiff.lora": network})
    require_written(out, state)
    return f"{out}: LoRA for Load LoRA: {fitted} ({network})"


def _best_fit(source: Path, lora: State, settings: LoraSettings) -> tuple[str, FittedLora]:
    found: list[tuple[str, FittedLora]] = []
    reason = ""
    for network, sizes in KNOWN_UNETS.items():
        try:
            found.append((network, fit_lora(lora, layer_weights(sizes), settings)))
        except ValueError as error:
            reason = reason or str(error)  # the first: SDXL's, which people's LoRAs are for
    if not found:
        raise ValueError(f"{reason} ({source})")
    return max(found, key=lambda each: len(each[1].layers))
