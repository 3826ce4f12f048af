"""`nano`: the whole nano model by one command: pictures, VAE, prior, alignment, joint training, export."""

from __future__ import annotations

import shutil
from pathlib import Path

from training import manifest, runstate
from training.bundled import bundled_stills
from training.export import export
from training.files import write_atomically
from training.prepare import build
from training.recipes import recipe
from training.settings_text import override
from training.stages import Sources, run_stage
from training.text_images import write_series

STAGES = ("prepare", "vae", "prior", "align", "joint", "export")
TEXT_PICTURES = 64
MIN_SIDE_PX = 256
LICENCE = "MIT"
BASE_MODEL = "nano (trained from scratch by this project)"
VAE_FILE, MODEL_FILE = "nano_vae.safetensors", "nano_faithdiff.safetensors"


def prepare(data: Path) -> None:
    """Make the manifest of the packaged stills and the rendered text, unless it is there."""
    if data.is_file():
        return
    pictures = bundled_stills() + write_series(data.parent / "text", seed=0, count=TEXT_PICTURES)
    records, skipped = build(pictures, val_frac=0.03, min_side_px=MIN_SIDE_PX)
    manifest.write(records, data)
    print(f"{data}: {len(records)} pictures, {len(skipped)} skipped")


def make(out: Path, work: Path, stages: list[str], settings: list[str]) -> None:
    """Run the stages asked for, in order; each goes on from its checkpoint, and a finished one costs nothing.

    `settings` ("key=value") apply to every recipe of the stages asked for. Raises ValueError for an unknown stage."""
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"expected stages among {', '.join(STAGES)}, got {', '.join(unknown)}, correct --stages")
    data, vae = work / "manifest.jsonl", work / VAE_FILE
    if "prepare" in stages:
        prepare(data)
    for stage, before in (("vae", None), ("prior", None), ("align", "prior"), ("joint", "align")):
        if stage not in stages:
            continue
        sources = Sources(data=data, vae=None if stage == "vae" else vae, init=work / before if before else None)
        run_stage(override(recipe(f"nano-{stage}"), settings), sources, work / stage, resume=True)
        if stage == "vae":
            print(export(work / stage, vae, layout="full", dtype="fp16", data=data, licence=LICENCE, base_model=""))
    if "export" in stages:
        last = "joint" if runstate.exists(work / "joint") else "align"
        model = work / MODEL_FILE
        print(export(work / last, model, layout="full", dtype="fp16", data=None, licence=LICENCE, base_model=BASE_MODEL))
        # Both at the end: a model beside another training's VAE would give wrong colours.
        for file in (vae, model):
            write_atomically(out / file.name, lambda temporary, file=file: (shutil.copyfile(file, temporary), None)[1])
            print(out / file.name)
