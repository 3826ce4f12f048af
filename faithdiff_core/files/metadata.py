"""What a FaithDiff file says about itself, in its safetensors header (all strings).

A file without these entries is the official release: pointwise attention, tile offsets in latent cells, 1024 px.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from .checks import shown

FORMAT = "1"
ALIGN_ATTENTION = ("pointwise", "spatial")
CROP_UNITS = ("latent", "pixel")
RELEASED_TARGET_SIZE_PX = 1024
"""Official test.py:36 (latent_tiled_size), :130."""


@dataclass(frozen=True, kw_only=True)
class FaithDiffMetadata:
    """Defaults are those of the released weights.

    Attributes:
        align_attention: "pointwise" or "spatial" (see `alignment`).
        crop_units: unit of the tile offsets in SDXL's size conditioning: the release passes latent cells (official
            pipeline_FaithDiff_tlc.py:1337-1343), its training used pixels.
        target_size_px: SDXL's target size where there are no tiles.
        config: see `architecture`.
        training: recipe, steps and data digest, or {}.
    """

    align_attention: str = "pointwise"
    crop_units: str = "latent"
    target_size_px: int = RELEASED_TARGET_SIZE_PX
    base_model: str = ""
    license: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_header(self) -> dict[str, str]:
        """The safetensors header entries."""
        return {
            "faithdiff.format": FORMAT,
            "faithdiff.align_attention": self.align_attention,
            "faithdiff.crop_units": self.crop_units,
            "faithdiff.target_size_px": str(self.target_size_px),
            "faithdiff.base_model": self.base_model,
            "faithdiff.license": self.license,
            "faithdiff.config": json.dumps(self.config),
            "faithdiff.training": json.dumps(self.training),
        }


def parse_metadata(header: Mapping[str, str] | None) -> FaithDiffMetadata:
    """Reads a safetensors header (None for a pickle).

    Raises:
        ValueError: a format newer than this code, or an entry that is not one of its values.
    """
    header = header or {}
    version = header.get("faithdiff.format", FORMAT)
    if version != FORMAT:
        raise ValueError(
            f"expected faithdiff.format {FORMAT}, got {version!r:.40}; this file needs a newer ComfyUI-FaithDiff, update the pack"
        )
    size = header.get("faithdiff.target_size_px", str(RELEASED_TARGET_SIZE_PX))
    if not size.isascii() or not size.isdigit() or len(size) > 6 or int(size) < 1:
        raise ValueError(
            f"expected faithdiff.target_size_px to be a positive whole number, got {size[:20]!r}; the file is damaged, "
            "get it again"
        )
    return FaithDiffMetadata(
        align_attention=_one_of(header, "faithdiff.align_attention", ALIGN_ATTENTION),
        crop_units=_one_of(header, "faithdiff.crop_units", CROP_UNITS),
        target_size_px=int(size),
        base_model=header.get("faithdiff.base_model", ""),
        license=header.get("faithdiff.license", ""),
        config=_json_object(header, "faithdiff.config"),
        training=_json_object(header, "faithdiff.training"),
    )


def _one_of(header: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = header.get(name, allowed[0])
    if value not in allowed:
        raise ValueError(
            f"expected {name} to be one of {', '.join(allowed)}, got {value!r:.40}; update the pack or get the file again"
        )
    return value


def _json_object(header: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(header.get(name, "{}"))
    except (ValueError, RecursionError):  # ValueError: also a number of more than 4300 digits
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"expected {name} to be a JSON object, got {header.get(name, '')!r:.80}; the file is damaged, get it again"
        )
    found = cast("dict[str, Any]", value)  # a JSON object's keys are strings
    for section, fields in found.items():
        if name == "faithdiff.config" and not isinstance(fields, dict):
            raise ValueError(
                f"expected {name} {section!r:.40} to be a JSON object, got {shown(fields)}; the file is damaged, get it again"
            )
    return found
