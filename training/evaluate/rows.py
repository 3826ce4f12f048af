"""The pictures that are compared: folders joined by key, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from faithdiff_core.listing.kinds import LeftOut
from faithdiff_core.listing.walk import list_pictures
from faithdiff_core.photo.metadata import orientation_of
from faithdiff_core.photo.photo import UPRIGHT
from training.common.folders import Tally, require_pictures, without_scale
from training.common.images import open_picture, read_image, read_picture, to_unit, unit_to_u8
from training.reading.scores import REFERENCE_ROW

LQ_ROW = "lq"
NAMED = 5
"""So many keys are named in an error."""

Paths = Mapping[str, Path]
"""Key to picture."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Rows of pictures with the same keys, the references, and by folder the keys that only some of them have."""

    rows: dict[str, dict[str, Path]]
    reference: dict[str, Path]
    lq: dict[str, Path] | None
    unmatched: dict[str, list[str]]
    tally: Tally
    """What else the folders hold, and which pictures cannot be read: those keys are in no row."""


def named_folders(option: str, items: list[str], *, taken: Collection[str] = ()) -> dict[str, Path]:
    """`NAME=DIR` or a plain DIR, whose row is `restored`, or the folder's own name where there are several.

    Args:
        option: of the command line, for the message.
        taken: names that the report needs for itself.

    Raises:
        ValueError: two rows of one name; a name that is taken, empty, or would break a table.
    """
    rows: dict[str, Path] = {}
    for item in items:
        name, equals, folder = item.partition("=")
        if not equals or Path(item).is_dir() or "/" in name or "\\" in name:
            name, folder = (Path(item).resolve().name if len(items) > 1 else "restored"), item
        if name in rows or name in taken or not name.strip() or set(name) & set("|\n"):
            none_of = f" (and none of {', '.join(taken)})" if taken else ""
            raise ValueError(f"expected a name of its own for every {option}{none_of}, got {name!r}, write {option} NAME=DIR")
        rows[name] = Path(folder)
    return rows


def by_key(folder: Path, left_out: list[LeftOut] | None = None) -> dict[str, Path]:
    """The pictures below a folder by key; `left_out` gets what else is there.

    Raises:
        ValueError: no picture, or two of one key.
    """
    listed = list_pictures([folder])
    require_pictures(listed, folder)
    if left_out is not None:
        left_out += listed.left_out
    found = dict(listed.pictures)
    if len(found) < len(listed.pictures):
        keys = [key for key, _ in listed.pictures]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"expected one picture a key in {folder}, got several of {_some(twice)}, keep one of each")
    return found


def check_readable(rows: Mapping[str, Paths], tally: Tally, keys: Collection[str] | None = None) -> dict[str, dict[str, Path]]:
    """The rows without the keys of which any picture cannot be read; those go to `tally` as failed. Each picture is decoded once:
    a truncated one shows only then, and must not end the scores of all others. `keys`: look at these only (None = all).

    Raises:
        ValueError: nothing is left.
    """
    pictures = [(row, key, path) for row, paths in rows.items() for key, path in paths.items() if keys is None or key in keys]
    for row, key, path in tqdm(pictures, desc="look", mininterval=2.0, delay=2.0):
        if key not in tally.failed:
            try:
                tally.warn(f"{row}: {key}", read_picture(path).warnings)
            except ValueError as error:
                tally.failed[key] = str(error)
    kept = {row: {key: path for key, path in paths.items() if key not in tally.failed} for row, paths in rows.items()}
    if not all(kept.values()):
        reason = next(iter(tally.failed.values()))
        raise ValueError(f"expected pictures that can be read, got none in a row ({reason}), mend the folder")
    return kept


def join(rows: Mapping[str, Path], reference: Path, lq: Path | None, *, allow_missing: bool) -> Joined:
    """Folders by key: 0001x4 is the picture of the reference 0001, where there is no reference of its own name.

    Raises:
        ValueError: keys that not every folder has, unless `allow_missing`; no common key.
    """
    tally = Tally()
    truths = by_key(reference, tally.left_out)
    named = {**rows, **({LQ_ROW: lq} if lq is not None else {})}
    folders = {name: without_scale(by_key(folder, tally.left_out), truths) for name, folder in named.items()}
    folders[REFERENCE_ROW] = truths
    common = set.intersection(*(set(pictures) for pictures in folders.values()))
    unmatched = {name: sorted(set(pictures) - common) for name, pictures in folders.items() if set(pictures) - common}
    if unmatched and not allow_missing:
        listed = "; ".join(f"{name} alone has {_some(keys)}" for name, keys in unmatched.items())
        raise ValueError(f"expected the same keys in all folders, got others ({listed}), complete them or add --allow-missing")
    if not common:
        raise ValueError(f"expected keys that all of {', '.join(folders)} have, got none, check the folders")
    kept = {name: {key: pictures[key] for key in sorted(common)} for name, pictures in folders.items()}
    kept = check_readable(kept, tally)
    truth, small = kept.pop(REFERENCE_ROW), kept.pop(LQ_ROW, None)
    return Joined(rows=kept, reference=truth, lq=small, unmatched=unmatched, tally=tally)


def check_sizes(rows: Mapping[str, Paths], reference: Paths, border_px: int = 0) -> dict[str, tuple[int, int]]:
    """(width, height) px of every reference, from the files' heads.

    Raises:
        ValueError: a row's picture has another size; nothing is left of a picture without its border.
    """
    sizes = {key: size_px(path) for key, path in reference.items()}
    smallest = min(sizes, key=lambda key: min(sizes[key]))
    if border_px < 0 or min(sizes[smallest]) <= 2 * border_px:
        got = f"{border_px} px and {smallest!r} of {sizes[smallest][0]} x {sizes[smallest][1]}"
        raise ValueError(f"expected --border from 0 to less than half of every picture, got {got}, choose for example 4")
    wrong = []
    for name, paths in rows.items():
        for key, path in paths.items():
            got = size_px(path)
            if got != sizes[key]:
                wrong.append(f"{name}: {key!r} {got[0]} x {got[1]} for {sizes[key][0]} x {sizes[key][1]}")
    if wrong:
        listed = "; ".join(wrong[:NAMED]) + (f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else "")
        raise ValueError(f"expected pictures of their reference's size, got {listed}, restore at the scale of the references")
    return sizes


def size_px(path: Path) -> tuple[int, int]:
    """(width, height) of a picture turned upright, without decoding it.

    Raises:
        ValueError: the file is no picture.
    """
    with open_picture(path, str(path)) as opened:
        width, height = opened.size
        turned = UPRIGHT.get(orientation_of(opened), (False,))[0]
    return (height, width) if turned else (width, height)


def enlarge(lq: Paths, sizes: Mapping[str, tuple[int, int]], folder: Path, *, progress: bool) -> dict[str, Path]:
    """LQ pictures at their reference's size, bicubic (torch's, a = -0.75), 8 bits, as files in `folder`; those that have it
    already stay where they are.
    """
    found: dict[str, Path] = {}
    for number, (key, path) in enumerate(tqdm(lq.items(), desc="enlarge", disable=not progress, mininterval=2.0, delay=2.0)):
        small = read_image(path)
        width, height = sizes[key]
        found[key] = path
        if tuple(small.shape[1:]) != (height, width):
            large = F.interpolate(to_unit(small)[None], size=(height, width), mode="bicubic")[0]
            found[key] = folder / f"{number}.png"
            picture = Image.fromarray(unit_to_u8(large).permute(1, 2, 0).contiguous().numpy(), "RGB")
            picture.save(found[key], compress_level=1)  # read again in a moment: time counts, not size
    return found


def read_cropped(path: Path, border_px: int) -> torch.Tensor:
    """float32 (3, H, W) in [0, 1] without `border_px` at each side."""
    image = to_unit(read_image(path))
    return image[:, border_px : image.shape[1] - border_px, border_px : image.shape[2] - border_px]


def _some(keys: list[str]) -> str:
    return ", ".join(map(repr, keys[:NAMED])) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")
