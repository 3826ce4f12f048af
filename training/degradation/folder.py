"""`degrade`: a file or a folder in, a folder of PNGs and a manifest.json out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from training.common.files import write_json
from training.common.images import picture_paths, read_image, to_unit, unit_to_u8, write_png
from training.common.seeds import generator_for
from training.degradation.pipeline import degrade
from training.degradation.presets import preset


def degrade_paths(source: Path, out_dir: Path, *, level: str, scale: int, seed: int) -> list[str]:
    """Degrade every picture below `source`; each depends on (seed, level, its key) alone. Returns one line for each skipped
    picture.

    manifest.json: the settings, and for each key the files, sizes in px and sha256 of the source and the result.

    Raises:
        ValueError: a missing source, an unknown level, no readable picture, or two pictures of one key.
    """
    chosen = preset(level)
    if scale < 1:
        raise ValueError(f"expected a scale of at least 1, got {scale}, choose for example --scale 4")
    pictures = picture_paths([source])
    keys = [key for key, _ in pictures]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"expected one picture for each key, got several for {', '.join(twice[:3])}, rename them")
    entries, skipped = [], []
    for key, path in pictures:
        try:
            image_u8 = read_image(path)
        except ValueError as error:
            skipped.append(str(error))
            continue
        result = unit_to_u8(degrade(to_unit(image_u8), chosen, scale, generator_for(seed, "degrade", level, key)))
        target = out_dir / f"{key}.png"
        if target.resolve() == path.resolve():
            raise ValueError(f"expected an output folder other than the source's, got {out_dir}, choose another")
        write_png(target, result)
        entries.append(
            {
                "key": key,
                "source": path.name,
                "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "source_HW_px": list(image_u8.shape[1:]),
                "file": f"{key}.png",
                "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
                "HW_px": list(result.shape[1:]),
            }
        )
    if not entries:
        raise ValueError(f"expected at least one readable picture in {source}, got none, check the folder")
    write_json(out_dir / "manifest.json", {"level": level, "scale": scale, "seed": seed, "pictures": entries, "skipped": skipped})
    return skipped
