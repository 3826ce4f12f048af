"""Weights that are spread over several files: an index, or a folder, to the files themselves.

The index (`NAME.index.json`) maps each tensor to the shard that holds it; shards are called `NAME-00001-of-00003` and so on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch

from .checkpoint import FaithDiffParts, split_state_dict
from .checks import named, shown
from .weight_file import AGAIN, MAX_INDEX_BYTES, SAFETENSORS_ENDINGS, index_alone, parse_index

ENDINGS = (*SAFETENSORS_ENDINGS, ".bin", ".pt", ".pth", ".ckpt")
"""Of weight files."""
INDEX_PATTERN = "*.index*.json"
"""Also `NAME.safetensors.index.fp16.json`, as diffusers calls the index of a variant."""
MAX_SHARDS = 1000
"""Of one network. Published ones of hundreds of GB have some 200."""
_SHARD = re.compile(r"-(\d{1,5})-of-(\d{1,5})(?=\.[^.]+$)")


@dataclass(frozen=True)
class Shards:
    """Files that together hold one table of tensors; `weight_map` is the index's, or empty where there is none."""

    paths: list[Path]
    weight_map: Mapping[str, str] = field(default_factory=dict[str, str])

    def require_all(self, held: Mapping[str, Iterable[str]]) -> None:
        """Compares what the files hold, {file name: tensors' names}, with what the index says.

        Raises:
            ValueError: a tensor that two files hold, or one that is not where the index has it.
        """
        seen: dict[str, str] = {}
        for shard, names in held.items():
            for name in names:
                if name in seen:
                    raise ValueError(f"expected each tensor once, got {shown(name)} in {seen[name]} and {shard}; {AGAIN}")
                seen[name] = shard
        lost = [name for name, shard in self.weight_map.items() if seen.get(name) != shard]
        if lost:
            shard = self.weight_map[lost[0]]
            raise ValueError(
                f"expected the tensors that the index names, got {shown(shard)} without {len(lost)} of them ({named(lost)}); "
                f"{AGAIN}"
            )


def find_shards(path: Path) -> Shards:
    """The files that an index or a folder stands for; a folder may also hold one whole file.

    Raises:
        ValueError: no index, names that lead out of its folder, shards that are missing, or several to choose from.
        OSError: it cannot be read.
    """
    if not path.is_dir():
        return _of_index(path)
    indexes = sorted(path.glob(INDEX_PATTERN))
    if len(indexes) == 1:
        return _of_index(indexes[0])
    if indexes:
        raise ValueError(
            f"expected one index in the folder, got {len(indexes)} ({named([each.name for each in indexes])}); name one of them "
            "in place of the folder"
        )
    files = sorted(each for each in path.iterdir() if each.name.endswith(ENDINGS) and each.is_file())
    if len({_SHARD.sub(r"-of-\2", each.name) for each in files}) > 1:
        raise ValueError(
            f"expected the weights of one network in the folder, got {len(files)} files "
            f"({named([each.name for each in files])}); name one of them in place of the folder"
        )
    if not files:
        raise ValueError("expected a folder with an index or a weight file, got none in it; check the path")
    require_whole_set([each.name for each in files])
    return Shards(files)


def require_whole_set(names: list[str]) -> None:
    """Raises ValueError naming the shards that are missing among files of these names, where they are a set's."""
    numbers = [found for name in names if (found := _SHARD.search(name))]
    if not numbers:
        return
    first, last = numbers[0], int(numbers[0][2])
    if last > MAX_SHARDS:
        raise ValueError(f"expected at most {MAX_SHARDS} shards, got {shown(names[0])}; {AGAIN}")
    stem, ending = first.string[: first.start()], first.string[first.end() :]
    wanted = [f"{stem}-{number:0{len(first[1])}}-of-{first[2]}{ending}" for number in range(1, last + 1)]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(_missing(missing, of=last))


def shard_alone(name: str) -> str | None:
    """The message about a file of this name without its others; None where the name is no shard's."""
    found = _SHARD.search(name)
    if found is None or int(found[2]) < 2:
        return None
    return (
        f"expected a whole file, got shard {int(found[1])} of {int(found[2])} of one; put all of them and their index into one "
        "folder and run `python -m training convert FOLDER --out FaithDiff.safetensors`"
    )


def whole_parts(name: str, state: Mapping[str, torch.Tensor], header: Mapping[str, str] | None = None) -> FaithDiffParts:
    """`split_state_dict` of one file, which may turn out to be a shard.

    Raises:
        ValueError: as `split_state_dict`; or a file that is called a shard, and lacks parts.
    """
    alone = shard_alone(name)
    try:
        parts = split_state_dict(state, header)
    except ValueError:
        if alone is not None:
            raise ValueError(alone) from None
        raise
    if alone is not None and not _spans_unet(parts):
        raise ValueError(alone)
    return parts


def _spans_unet(parts: FaithDiffParts) -> bool:
    """Whether it has a UNet's first, last and (in the order of the alphabet) outermost layers: a shard has a run of them."""
    unet = parts.unet or {}
    ends = {"input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight"}
    return ends <= unet.keys() and any(name.startswith("output_blocks.") for name in unet)


def _of_index(path: Path) -> Shards:
    size_bytes = os.path.getsize(path)
    weight_map = parse_index(path.read_bytes()) if size_bytes <= MAX_INDEX_BYTES else None
    if weight_map is None:
        raise ValueError(f"expected an index of shards (JSON with a weight_map), got something else; {AGAIN}")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not _is_beside(name):
            raise ValueError(f"expected names of weight files beside the index, got {shown(name)}; {AGAIN}")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if len(missing) == len(names):
        raise ValueError(index_alone(names))
    if missing:
        raise ValueError(_missing(missing, of=len(names)))
    return Shards([path.parent / name for name in names], weight_map)


def _missing(names: list[str], *, of: int) -> str:
    return f"expected all {of} shards in one folder, got {of - len(names)}: {named(names)} missing; get it into the folder"


def _is_beside(name: str) -> bool:
    """Whether it is the name of a weight file in the same folder, on any system."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name and name.isprintable()
    return plain and len(name) <= 255 and not name.startswith(".") and name.endswith(ENDINGS)  # 255: what file systems take
