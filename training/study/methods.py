"""From methods to folders of their pictures: every row of the study at every level, made once and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training.common.files import write_json
from training.common.images import read_image, to_unit, unit_to_u8, write_png
from training.config.schema import Sources
from training.model.restore import reconstruct, restore
from training.study.ablate import Trained
from training.study.baselines import Make, NotInstalled, bicubic, classical, learned, through_vae
from training.study.sets import SCALE, StudySet
from training.weights.initial import initial_model, load_vae
from training.weights.load_export import load_exported, read_parts, spec_of
from training.weights.vae import read_vae, weights_digest

STAMP = "made-by.json"
FLOOR, FLOOR_WAVELET, CEILING, LQ = "floor", "floor-wavelet", "ceiling", "lq"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a row is sampled, as by FaithDiff Sampler, and its colours set, as by FaithDiff Color Fix."""

    steps: int
    colour: str


SAMPLINGS = {
    "restored": Sampling(steps=10, colour="wavelet"),
    "restored-few": Sampling(steps=4, colour="wavelet"),
    "restored-release": Sampling(steps=20, colour="adain"),
}
"""Rows of the shipped model: its own setting, chosen on its validation pictures (docs/nano.md); fewer steps, which keep letters
nearer to what came in; and the release's."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Something that makes a row's pictures. `identity` changes whenever its pictures may; `from_hq`: it is given the truth."""

    identity: Mapping[str, object]
    make: Make
    from_hq: bool = False


def write_row(folder: Path, sources: Mapping[str, Path], method: Method) -> dict[str, Path]:
    """Make the pictures that are missing and return all of them by key. A folder of another method, or made of other pictures, is
    made anew.
    """
    stamp, identity = folder / STAMP, {**method.identity, "sources": pictures_digest(sources)}
    if folder.is_dir() and (not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8")) != identity):
        shutil.rmtree(folder)
    write_json(stamp, identity)
    made = {key: folder / f"{key}.png" for key in sources}
    for key in tqdm([key for key, path in made.items() if not path.is_file()], desc=f"{folder.parent.name} {folder.name}"):
        write_png(made[key], unit_to_u8(method.make(to_unit(read_image(sources[key])))))
    return made


def pictures_digest(sources: Mapping[str, Path]) -> str:
    """sha256 over keys and files."""
    digest = hashlib.sha256()
    for key in sorted(sources):
        digest.update(key.encode() + b"\0" + sources[key].read_bytes())
    return digest.hexdigest()


def write_level(folder: Path, pictures: StudySet, level: str, methods: Mapping[str, Method]) -> dict[str, dict[str, Path]]:
    """Every method's pictures of one set at one level, by row and key."""
    return {
        row: write_row(folder / level / row, pictures.hq if method.from_hq else pictures.lq[level], method)
        for row, method in methods.items()
    }


def baseline_methods(vae_path: Path, model_path: Path) -> tuple[dict[str, Method], dict[str, str]]:
    """The rows that no training made, and why one of them is missing."""
    vae = read_vae(vae_path, spec_of(read_parts(model_path)))
    vae_identity = {"vae": weights_digest(vae)}
    methods = {LQ: Method(identity={"row": LQ, "scale": SCALE}, make=lambda lq_CHW: bicubic(lq_CHW, SCALE))}
    missing: dict[str, str] = {}
    others: dict[str, Callable[[], Make]] = {"classical": lambda: classical(SCALE), "learned": lambda: learned(SCALE)}
    for row, build in others.items():
        try:
            methods[row] = Method(identity={"row": row, "scale": SCALE}, make=build())
        except NotInstalled as error:
            missing[row] = f"not computed: needs the package {error}"
    methods[FLOOR] = Method(identity={"row": FLOOR, "scale": SCALE} | vae_identity, make=through_vae(vae, SCALE))
    methods[FLOOR_WAVELET] = Method(
        identity={"row": FLOOR_WAVELET, "scale": SCALE} | vae_identity, make=through_vae(vae, SCALE, colour="wavelet")
    )
    methods[CEILING] = Method(
        identity={"row": CEILING} | vae_identity, make=lambda hq_CHW: reconstruct(vae, hq_CHW), from_hq=True
    )
    return methods, missing


def shipped_methods(model_path: Path, vae_path: Path, *, samplings: Mapping[str, Sampling], seed: int) -> dict[str, Method]:
    """Rows of an exported model, one for each way of sampling."""
    parts = read_parts(model_path)
    model, vae = load_exported(model_path), read_vae(vae_path, spec_of(parts))
    identity = {"model": weights_digest(model), "vae": weights_digest(vae), "seed": seed}
    target_px = parts.metadata.target_size_px
    return {
        row: Method(
            identity=identity | {"row": row} | vars(sampling),
            make=lambda lq_CHW, sampling=sampling: restore(
                model, vae, lq_CHW, scale=SCALE, target_px=target_px, seed=seed, **vars(sampling)
            ),
        )
        for row, sampling in samplings.items()
    }


def trained_method(row: str, trained: Trained, sources: Sources, sampling: Sampling) -> Method:
    """The method of a run of the ablation: its averaged weights."""
    config = trained.config
    model, _ = initial_model(config, replace(sources, init=trained.run_dir))
    model.eval().requires_grad_(False)
    vae: AutoencoderKL = load_vae(config, sources)
    identity = {"row": row, "model": weights_digest(model), "vae": weights_digest(vae), "seed": config.seed} | vars(sampling)

    def make(lq_CHW: torch.Tensor) -> torch.Tensor:
        return restore(model, vae, lq_CHW, scale=SCALE, target_px=config.target_size_px, seed=0, **vars(sampling))

    return Method(identity=identity, make=make)
