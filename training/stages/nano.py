"""`nano`: the whole nano model by one command: pictures, VAE, prior, alignment, joint training, export."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.common.files import write_atomically
from training.common.results import require_own
from training.config.overrides import override
from training.config.recipes import recipe
from training.config.schema import VAE_STAGES
from training.data import manifest
from training.data.prepare import build, bundled_stills
from training.data.rendered_words import write_series
from training.loop import checkpoints
from training.stages.stage import Sources, run_stage
from training.weights.check import is_own
from training.weights.export import export

STAGES = ("prepare", "vae", "decoder", "prior", "align", "joint", "levels", "words", "fidelity", "export")
MIN_SIDE_PX = 256
FIRST_MANIFEST, LEVELS_MANIFEST, WORDS_MANIFEST = "manifest.jsonl", "manifest-levels.jsonl", "manifest-words.jsonl"
MANIFESTS = {"decoder": LEVELS_MANIFEST, "levels": LEVELS_MANIFEST, "words": WORDS_MANIFEST, "fidelity": WORDS_MANIFEST}
"""Of the stages that do not use the first one."""


@dataclass(frozen=True, kw_only=True)
class TextSeries:
    """Rendered pictures of words (data/rendered_words.py)."""

    seed: int
    count: int
    smallest_px: int


FIRST_TEXT = TextSeries(seed=0, count=64, smallest_px=12)
LARGER_TEXT = TextSeries(seed=1, count=128, smallest_px=28)
"""Letters that the VAE can carry, barely."""
LARGEST_TEXT = TextSeries(seed=2, count=256, smallest_px=40)
"""Letters that it carries well."""
TEXT_OF_MANIFEST = {
    FIRST_MANIFEST: (FIRST_TEXT,),
    LEVELS_MANIFEST: (FIRST_TEXT, LARGER_TEXT),
    WORDS_MANIFEST: (FIRST_TEXT, LARGER_TEXT, LARGEST_TEXT),
}
"""What is added to the packaged stills."""
LICENCE = "MIT"
BASE_MODEL = "nano (trained from scratch by this project)"
FIRST_VAE_FILE, VAE_FILE, MODEL_FILE = "nano_vae_first.safetensors", "nano_vae.safetensors", "nano_faithdiff.safetensors"
FIDELITY_FILE = "nano_fidelity.safetensors"


def prepare(work: Path, tell: Callable[[str], None]) -> None:
    """Make the manifests that are missing: the packaged stills, and more text in each. `tell` hears what was made."""
    missing = [name for name in TEXT_OF_MANIFEST if not (work / name).is_file()]
    stills = bundled_stills() if missing else []
    for name in missing:
        pictures = list(stills)
        for series in TEXT_OF_MANIFEST[name]:
            pictures += write_series(work / "text", seed=series.seed, count=series.count, smallest_px=series.smallest_px)
        records, skipped = build(pictures, val_frac=0.03, min_side_px=MIN_SIDE_PX)
        manifest.write(records, work / name)
        tell(f"{work / name}: {len(records)} pictures, {len(skipped)} skipped")


def make(out: Path, work: Path, stages: list[str], settings: list[str], tell: Callable[[str], None]) -> None:
    """Run the stages asked for, in order; each goes on from its checkpoint, and a finished one costs nothing.

    `settings` ("key=value") apply to every recipe of the stages asked for; `tell` hears what was made.

    Raises:
        ValueError: an unknown stage.
    """
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"expected stages among {', '.join(STAGES)}, got {', '.join(unknown)}, correct --stages")
    if "export" in stages:
        for name in (VAE_FILE, MODEL_FILE, FIDELITY_FILE):
            require_own(out / name, "FaithDiff .safetensors", is_own)
    first_vae, vae = work / FIRST_VAE_FILE, work / VAE_FILE
    if "prepare" in stages:
        prepare(work, tell)
    for stage in STAGES[1:-1]:
        if stage not in stages:
            continue
        data = work / MANIFESTS.get(stage, FIRST_MANIFEST)
        before = {"align": "prior", "joint": "align", "levels": "joint", "words": "levels", "fidelity": "words"}.get(stage)
        sources = Sources(
            data=data, vae={"vae": None, "decoder": first_vae}.get(stage, vae), init=work / before if before else None
        )
        if stage == "fidelity" and not checkpoints.exists(work / "words"):  # for the model that is there already
            sources = Sources(data=data, vae=out / VAE_FILE, init=out / MODEL_FILE)
        run_stage(override(recipe(f"nano-{stage}"), settings), sources, work / stage, resume=True)
        if stage in VAE_STAGES:
            file = first_vae if stage == "vae" else vae
            tell(export(work / stage, file, layout="full", dtype="fp16", data=data, licence=LICENCE, base_model=""))
    if "export" in stages:
        _export(out, work, tell)


def _export(out: Path, work: Path, tell: Callable[[str], None]) -> None:
    """The model of the last stage that was run, its VAE, and the fidelity decoder; that alone where there is nothing else."""
    files: list[Path] = []
    model_stages = ("words", "levels", "joint", "align")
    fidelity = checkpoints.exists(work / "fidelity")
    last = next((stage for stage in model_stages if checkpoints.exists(work / stage)), None if fidelity else model_stages[-1])
    for stage, name, base_model in ((last, MODEL_FILE, BASE_MODEL), ("fidelity" if fidelity else None, FIDELITY_FILE, "")):
        if stage is not None:
            files.append(work / name)
            tell(export(work / stage, files[-1], layout="full", dtype="fp16", data=None, licence=LICENCE, base_model=base_model))
    if last is not None:
        files.insert(0, work / VAE_FILE)
    # All at the end: a model beside another training's VAE would give wrong colours.
    for file in files:
        write_atomically(out / file.name, lambda temporary, file=file: shutil.copyfile(file, temporary))
        tell(str(out / file.name))
