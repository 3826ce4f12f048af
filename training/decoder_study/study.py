"""`study-fidelity`: what a fidelity decoder changes, from its files to the page. Goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from faithdiff_core.files.metadata import parse_metadata
from faithdiff_core.listing.walk import list_pictures
from training.common.files import write_json, write_text
from training.common.results import ResultsFolder, require_own
from training.common.tensor_files import read_tensors
from training.decoder_study.page import is_page, report
from training.decoder_study.results import PHOTOS, WORDS, DecoderResults, Instruments, SetResults, instruments, kept_scores
from training.decoder_study.rows import SAYS, SWEEP, Restorer, methods
from training.decoder_study.sheets import chosen_lines, write_sheets
from training.study.methods import SAMPLINGS, Method, Sampling, write_level
from training.study.scores import Levels
from training.study.sets import LEVELS, SCALE, StudySet, held_out_photos, photo_set, text_set
from training.study.study import software

SWEEP_METRIC = "psnr_rgb"


@dataclass(frozen=True, kw_only=True)
class DecoderPlan:
    """What is measured. Sizes in px."""

    seed: int = 0
    sampling: Sampling = SAMPLINGS["restored"]
    photo_px: int = 256
    photo_scales: tuple[int, ...] = (2, 4)
    photo_levels: tuple[str, ...] = (*LEVELS, "heavy")
    text_px: int = 384
    text_pictures: int = 24
    """0 = no words."""
    font_px: tuple[int, ...] = (44, 52, 60)
    """As StudyPlan's: what the nano VAE can carry."""
    text_scales: tuple[int, ...] = (SCALE,)
    text_levels: tuple[str, ...] = LEVELS
    engines: tuple[str, ...] = ("tesseract", "rapidocr")


@dataclass(frozen=True, kw_only=True)
class DecoderInputs:
    """`model`, `vae`, `decoder`: exported files; `photos`: a folder, None = scikit-image's samples; `weights`: a folder with
    weights of metrics; `pyiqa`: the Python of an environment with it.
    """

    model: Path
    vae: Path
    decoder: Path
    photos: Path | None = None
    weights: Path | None = None
    pyiqa: Path | None = None


def run_decoder_study(inputs: DecoderInputs, out: Path, page: Path, plan: DecoderPlan) -> Path:
    """Make what is missing below `out`, then `page` (Markdown) and its pictures beside it; returns `page`.

    Raises:
        ValueError: files that do not fit together, or photos that are missing or too small.
    """
    require_own(page, "page of this study", is_page)
    tools = instruments(plan.engines, inputs.weights, inputs.pyiqa)
    restorer = Restorer(inputs.model, inputs.vae, inputs.decoder, sampling=plan.sampling, seed=plan.seed)
    photos = held_out_photos() if inputs.photos is None else list_pictures([inputs.photos]).pictures
    if inputs.photos is not None:
        ResultsFolder(inputs.photos, out / "sets", photos, again=True)  # none of ours in their folder
    sets = _sets(out / "sets", photos, plan)
    study = _Study(out=out, tools=tools, sets={pictures.name: pictures for _, pictures in sets}, made={})
    found: dict[str, SetResults] = {}
    missing = dict(tools.missing)
    for kind, pictures in sets:
        rows, lacking = methods(restorer, pictures.scale)
        missing |= lacking
        levels, sweep = study.measured(pictures, rows)
        found[pictures.name] = {"kind": kind, "scale": pictures.scale, "levels": levels, "sweep": sweep}
    sheets = chosen_lines(sets, plan.seed)
    write_sheets(page.parent, sheets, study.made, study.sets)
    results: DecoderResults = {
        "plan": asdict(plan), "decoder": _told_by(inputs.decoder), "software": software(), "missing": missing, "sets": found,
        "sheets": sheets,
    }  # fmt: skip
    results = json.loads(json.dumps(results))  # as the file has it: no tuples
    write_json(out / "fidelity.json", results)
    write_text(page, report(results))
    return page


@dataclass(frozen=True, kw_only=True)
class _Study:
    out: Path
    tools: Instruments
    sets: Mapping[str, StudySet]
    made: dict[str, dict[str, dict[str, dict[str, Path]]]]
    """Set -> level -> row -> key -> picture."""

    def measured(self, pictures: StudySet, rows: Mapping[str, Method]) -> tuple[Levels, Levels]:
        """Scores of the page's rows at every level, and of every fidelity. Sets with words have no sweep."""
        scored, swept = Levels(), Levels()
        wanted = [row for row in SAYS if row in rows] + ([] if pictures.annotations is not None else list(SWEEP))
        for level in pictures.lq:
            chosen = {row: rows[row] for row in wanted}
            made = write_level(self.out / "pictures" / pictures.name, pictures, level, chosen)
            self.made.setdefault(pictures.name, {})[level] = made
            file = self.out / "scores" / f"{pictures.name}-{level}.json"
            shown = {row: made[row] for row in SAYS if row in made}
            scored[level] = kept_scores(file, pictures, shown, self.tools, metrics=self.tools.metrics)
            if pictures.annotations is None:
                file = file.with_name(f"{pictures.name}-{level}-sweep.json")
                swept[level] = kept_scores(file, pictures, {row: made[row] for row in SWEEP}, self.tools, metrics=(SWEEP_METRIC,))
        return scored, swept


def _sets(folder: Path, photos: list[tuple[str, Path]], plan: DecoderPlan) -> list[tuple[str, StudySet]]:
    """(kind, set), named by both and the scale."""
    made: list[tuple[str, StudySet]] = []
    for scale in plan.photo_scales:
        name = f"{PHOTOS}-x{scale}"
        pictures = photo_set(
            name, folder / name, photos, side_px=plan.photo_px, crops=1, levels=plan.photo_levels, seed=plan.seed, scale=scale
        )
        made.append((PHOTOS, pictures))
    for scale in plan.text_scales if plan.text_pictures else ():
        name = f"{WORDS}-x{scale}"
        pictures = text_set(
            name, folder / name, count=plan.text_pictures, font_px=plan.font_px, side_px=plan.text_px, levels=plan.text_levels,
            seed=plan.seed, scale=scale,
        )  # fmt: skip
        made.append((WORDS, pictures))
    return made


def _told_by(decoder: Path) -> dict[str, object]:
    """What a decoder's file says of its training; {} where it says nothing."""
    _, header = read_tensors(decoder)
    return dict(parse_metadata(header).training)
