"""`degrade`: a file or a folder in, a folder of PNGs and a manifest.json out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from faithdiff_core.listing.walk import list_pictures
from training.common.files import write_json
from training.common.folders import Tally, over_pictures
from training.common.images import png_bytes, read_picture, to_unit, unit_to_u8
from training.common.results import ResultsFolder, require_own
from training.common.seeds import generator_for
from training.common.strict_json import parse_json
from training.degradation.pipeline import degrade
from training.degradation.presets import preset

NAME = "manifest.json"


def degrade_paths(source: Path, out_dir: Path, *, level: str, scale: int, seed: int, again: bool = False) -> Tally:
    """Degrade every picture below `source`; each depends on (seed, level, its key) alone. A picture that fails is skipped.

    manifest.json: the settings, and for each key the files, sizes in px and sha256 of the source and the result. `again`: files
    that no earlier run has made are replaced, too.

    Raises:
        ValueError: a missing source, an unknown level, no readable picture, or results that would take another file's place.
    """
    chosen = preset(level)
    if scale < 1:
        raise ValueError(f"expected a scale of at least 1, got {scale}, choose for example --scale 4")
    listed = list_pictures([source])
    results = ResultsFolder(source, out_dir, listed.pictures, again=again)
    if not again:
        require_own(out_dir / NAME, "manifest of this command", _is_ours)
    entries: list[dict[str, Any]] = []

    def work(key: str, path: Path) -> Iterable[str]:
        picture = read_picture(path)
        result = degrade(to_unit(picture.image_u8), chosen, scale, generator_for(seed, "degrade", level, key))
        data = png_bytes(unit_to_u8(result))
        results.write(f"{key}.png", data)
        entries.append(
            {
                "key": key,
                "source": path.name,
                "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "source_HW_px": list(picture.image_u8.shape[1:]),
                "file": f"{key}.png",
                "sha256": hashlib.sha256(data).hexdigest(),
                "HW_px": list(result.shape[1:]),
            }
        )
        return picture.warnings

    tally = over_pictures(listed, work)
    if not entries:
        reason = next(iter(tally.failed.values()), "none")
        raise ValueError(f"expected at least one readable picture in {source}, got none ({reason}), check the folder")
    skipped = list(tally.failed.values())
    write_json(out_dir / NAME, {"level": level, "scale": scale, "seed": seed, "pictures": entries, "skipped": skipped})
    return tally


def _is_ours(path: Path) -> bool:
    value = parse_json(path.read_bytes(), odd_numbers=True)
    return isinstance(value, dict) and value.keys() >= {"level", "scale", "seed", "pictures"}
