"""`nano`: the whole nano model by one command: pictures, VAE, prior, alignment, joint training, export."""

from __future__ import annotations

import shutil
from pathlib import Path

from training import manifest, runstate
from training.bundled import bundled_stills
from training.config import VAE_STAGES
from training.export import export
from training.files import write_atomically
from training.prepare import build
from training.recipes import recipe
from training.settings_text import override
from training.stages import Sources, run_stage
from training.text_images import write_series

STAGES = ("prepare", "vae", "decoder", "prior", "align", "joint", "levels", "export")
TEXT_PICTURES = 64
LARGE_TEXT_PICTURES, LARGE_TEXT_PX = 128, 28
"""Stage `levels` sees these as well: letters that the VAE can carry."""
MIN_SIDE_PX = 256
MANIFEST, LEVELS_MANIFEST = "manifest.jsonl", "manifest-levels.jsonl"
LICENCE = "MIT"
BASE_MODEL = "nano (trained from scratch by this project)"
FIRST_VAE_FILE, VAE_FILE, MODEL_FILE = "nano_vae_first.safetensors", "nano_vae.safetensors", "nano_faithdiff.safetensors"


def prepare(work: Path) -> None:
    """Make the manifests that are missing: of packaged stills and rendered text, and of the same and larger text."""
    missing = [work / name for name in (MANIFEST, LEVELS_MANIFEST) if not (work / name).is_file()]
    if not missing:
        return
    text = work / "text"
    pictures = bundled_stills() + write_series(text, seed=0, count=TEXT_PICTURES)
    for data in missing:
        larger = data.name == LEVELS_MANIFEST
        more = write_series(text, seed=1, count=LARGE_TEXT_PICTURES, smallest_px=LARGE_TEXT_PX) if larger else []
        records, skipped = build(pictures + more, val_frac=0.03, min_side_px=MIN_SIDE_PX)
        manifest.write(records, data)
        print(f"{data}: {len(records)} pictures, {len(skipped)} skipped")


def make(out: Path, work: Path, stages: list[str], settings: list[str]) -> None:
    """Run the stages asked for, in order; each goes on from its checkpoint, and a finished one costs nothing.

    `settings` ("key=value") apply to every recipe of the stages asked for. Raises ValueError for an unknown stage."""
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"expected stages among {', '.join(STAGES)}, got {', '.join(unknown)}, correct --stages")
    first_vae, vae = work / FIRST_VAE_FILE, work / VAE_FILE
    if "prepare" in stages:
        prepare(work)
    for stage in STAGES[1:-1]:
        if stage not in stages:
            continue
        data = work / (LEVELS_MANIFEST if stage in ("decoder", "levels") else MANIFEST)
        before = {"align": "prior", "joint": "align", "levels": "joint"}.get(stage)
        sources = Sources(
            data=data, vae={"vae": None, "decoder": first_vae}.get(stage, vae), init=work / before if before else None
        )
        run_stage(override(recipe(f"nano-{stage}"), settings), sources, work / stage, resume=True)
        if stage in VAE_STAGES:
            file = first_vae if stage == "vae" else vae
            print(export(work / stage, file, layout="full", dtype="fp16", data=data, licence=LICENCE, base_model=""))
    if "export" in stages:
        last = next(stage for stage in ("levels", "joint", "align") if stage == "align" or runstate.exists(work / stage))
        model = work / MODEL_FILE
        print(export(work / last, model, layout="full", dtype="fp16", data=None, licence=LICENCE, base_model=BASE_MODEL))
        # Both at the end: a model beside another training's VAE would give wrong colours.
        for file in (vae, model):
            write_atomically(out / file.name, lambda temporary, file=file: (shutil.copyfile(file, temporary), None)[1])
            print(out / file.name)
