"""Restored crops on disk: made once, a chunk at a time, and mapped from then on.

FOLDER/restored-<digest>/<split>-<first crop>-<crops>.pt. The digest is of all that decides a crop, and not of how many there are:
a run that wants more makes the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from training.batches.restored_crops import LATENTS, RESTORED_AT_ONCE, RestoredCrops
from training.common.devices import warn
from training.common.tensor_files import read_archive, write_archive
from training.config.schema import TrainConfig
from training.model.networks import network_spec

FORMAT = 1
CHUNK_CROPS = 8 * RESTORED_AT_ONCE
"""What a killed run makes again, at most: some minutes at full size."""
PICTURES = ("hq", "lq", "decoded")
Chunk = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Digests of what the crops come from. `texts`: of the text encoders, "" = no prompts."""

    model: str
    vae: str
    data: str
    texts: str


class RestoredCache:
    """Crops S px wide, held as `RestoredCrops.batch` gives them."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks = chunks

    def __len__(self) -> int:
        return sum(len(chunk["hq"]) for chunk in self._chunks)

    def crop(self, index: int, top_px: int, left_px: int, side_px: int) -> dict[str, torch.Tensor]:
        """A part of crop `index`: hq, lq, decoded float32 (3, side, side) in [-1, 1]; features, if kept, (C, side/8, side/8).

        Args:
            top_px, left_px, side_px: multiples of 8.
        """
        assert top_px % 8 == left_px % 8 == side_px % 8 == 0, (top_px, left_px, side_px)
        chunk, place = self._chunks[index // CHUNK_CROPS], index % CHUNK_CROPS
        held = {name: _window(chunk[name][place], top_px, left_px, side_px).float() / 127.5 - 1.0 for name in PICTURES}
        if "features" in chunk:
            held["features"] = _window(chunk["features"][place], top_px // 8, left_px // 8, side_px // 8).float()
        return held


def _window(x_CHW: torch.Tensor, top: int, left: int, side: int) -> torch.Tensor:
    return x_CHW[:, top : top + side, left : left + side]


def cache_folder(config: TrainConfig, origin: Origin, folder: Path) -> Path:
    """Where the crops of these settings and weights lie below `folder`."""
    wanted = (
        FORMAT, origin, config.seed, config.restored_side_px, config.max_zoom_out, config.store_short_side_px, config.degradation,
        config.degradation_scale, config.degradation_scale_max, config.target_size_px, config.prompts, config.prompt_dropout,
        config.precision, config.unet_dtype, config.restored_features, LATENTS,
    )  # fmt: skip
    return folder / f"restored-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"


def crop_bytes(config: TrainConfig) -> int:
    """What one crop takes on disk, but for some hundred bytes."""
    side_px, channels = config.restored_side_px, network_spec(config.network).fidelity_decoder.feature_channels
    return len(PICTURES) * 3 * side_px**2 + config.restored_features * 2 * channels * (side_px // 8) ** 2


def make_restored_cache(folder: Path, crops: RestoredCrops, split: str, count: int) -> None:
    """Write the chunks that are missing or damaged, each atomically; what is there already stays.

    Raises:
        ValueError: as `RestoredCrops.batch` does.
        OSError: a full disk, for example.
    """
    missing = [part for part in _parts(count) if not _is_whole(_path(folder, split, part), part)]
    with tqdm(total=sum(map(len, missing)), desc=f"restored crops ({split})", unit="crop", mininterval=2.0) as bar:
        for part in missing:
            batches = []
            for start in range(part.start, part.stop, RESTORED_AT_ONCE):
                batches.append(crops.batch(range(start, min(start + RESTORED_AT_ONCE, part.stop))))
                bar.update(len(batches[-1]["hq"]))
            chunk = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
            write_archive(_path(folder, split, part), chunk)


def open_restored_cache(folder: Path, split: str, count: int) -> RestoredCache:
    """The crops that `make_restored_cache` wrote, mapped: several processes of one machine share the memory.

    Raises:
        OSError, ValueError: a chunk that is missing or damaged.
    """
    return RestoredCache([read_archive(_path(folder, split, part)) for part in _parts(count)])


def _parts(count: int) -> Iterator[range]:
    for start in range(0, count, CHUNK_CROPS):
        yield range(start, min(start + CHUNK_CROPS, count))


def _path(folder: Path, split: str, part: range) -> Path:
    return folder / f"{split}-{part.start:08d}-{len(part)}.pt"


def _is_whole(path: Path, part: range) -> bool:
    try:
        return len(read_archive(path)["hq"]) == len(part)
    except FileNotFoundError:
        return False
    except (KeyError, TypeError, ValueError) as error:
        warn(f"{path} is damaged ({error}), it is made again")
        return False
