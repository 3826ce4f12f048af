"""`study`: the small-scale study, from the prior to the page: ablation runs, pictures, scores, tables. Goes on where it was."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from faithdiff_core.listing.walk import list_pictures
from training.common.files import write_json, write_text
from training.common.results import ResultsFolder, require_own
from training.config.ablations import Row
from training.config.overrides import override, to_json
from training.config.schema import Sources
from training.data.manifest import data_digest, split_of
from training.study.ablate import Trained, check_sources, chosen_rows, measure, train_rows
from training.study.charts import write_curves, write_strips
from training.study.methods import (  # fmt: skip
    CEILING,
    FLOOR,
    LQ,
    SAMPLINGS,
    Method,
    Sampling,
    baseline_methods,
    shipped_methods,
    trained_method,
    write_level,
)
from training.study.page import is_page, report, shown_keys
from training.study.scores import Levels, StudyResults, scores
from training.study.sets import LEVELS, StudySet, held_out_photos, photo_set, text_set

SHOWN_PX = 128
"""Side of a picture on a sheet."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What is measured. Sizes in px.

    The shipped model is measured at the size that it was trained at last; the ablation's rows, which train on 128 px crops, on
    photos of that size.
    """

    levels: tuple[str, ...] = LEVELS
    seed: int = 0
    photo_px: int = 256
    photo_crops: int = 1
    text_px: int = 384
    text_pictures: int = 24
    font_px: tuple[int, ...] = (44, 52, 60)
    """What the nano VAE can carry. Share of the words that tesseract reads in its reconstructions of the truth: 0.09 at 28 px,
    0.62 at 36, 0.84 at 44, 0.98 at 52 and 0.97 at 60 (measured)."""
    row_photo_px: int = 128
    row_photo_crops: int = 1
    row_text_pictures: int = 6
    row_text_levels: tuple[str, ...] = ("II",)
    row_sampling: Sampling = SAMPLINGS["restored"]
    engines: tuple[str, ...] = ("tesseract", "rapidocr")
    row_engines: tuple[str, ...] = ("tesseract",)


@dataclass(frozen=True, kw_only=True)
class StudyInputs:
    """`sources`: manifest, VAE and prior of the ablation; `model`, `vae`: the shipped files; `photos`: a folder, None =
    scikit-image's samples.
    """

    sources: Sources
    model: Path
    vae: Path
    photos: Path | None = None


def run_study(
    inputs: StudyInputs, out: Path, page: Path, *, rows: list[str], seeds: list[int], settings: list[str], plan: StudyPlan
) -> Path:
    """Make what is missing below `out`, then `page` (Markdown) and its pictures beside it; returns `page`.

    Raises:
        ValueError: an unknown row, sources without a prior, or pictures that are missing or too small.
    """
    chosen = chosen_rows(rows)
    check_sources(inputs.sources)
    require_own(page, "page of the study", is_page)
    override(next(iter(chosen.values())).runs[0], settings)  # a wrong --set fails before an hour of work
    photos = held_out_photos() if inputs.photos is None else list_pictures([inputs.photos]).pictures
    if inputs.photos is not None:
        ResultsFolder(inputs.photos, out / "sets", photos, again=True)  # one set for each photo, none in their folder
    methods, missing = baseline_methods(inputs.vae, inputs.model)
    study = _Study(inputs=inputs, out=out, page=page, plan=plan, photos=photos, methods=methods)
    shipped = _shipped_part(study)
    scored, validation = _ablation_part(study, chosen, seeds, settings)
    results: StudyResults = {
        "plan": json.loads(json.dumps(asdict(plan))), "seeds": seeds, "settings": settings, "software": software(),
        "missing": missing, "shipped": shipped, "rows": scored, "validation": validation,
    }  # fmt: skip
    write_json(out / "study.json", results)
    write_text(page, report(results))
    return page


@dataclass(frozen=True, kw_only=True)
class _Study:
    inputs: StudyInputs
    out: Path
    page: Path
    plan: StudyPlan
    photos: list[tuple[str, Path]]
    methods: Mapping[str, Method]


def _shipped_part(study: _Study) -> dict[str, Levels]:
    """Scores of the shipped model and what it is compared with, by set and level; and the sheets of pictures."""
    plan, inputs = study.plan, study.inputs
    methods = {**study.methods, **shipped_methods(inputs.model, inputs.vae, samplings=SAMPLINGS, seed=plan.seed)}
    results: dict[str, Levels] = {}
    for each in _shipped_sets(study.out / "sets", study.photos, plan):
        results[each.name], made = {}, {}
        for level in plan.levels:
            made[level] = write_level(study.out / "pictures" / each.name, each, level, methods)
            results[each.name][level] = scores(each, made[level], plan.engines)
        columns = [row for row in (LQ, "classical", "learned", FLOOR, *SAMPLINGS, CEILING) if row in methods]
        lines = [
            [made[level][row][key] for row in columns] + [each.hq[key]] for level in plan.levels for key in shown_keys(each.hq)
        ]
        sheet = study.page.parent / "pictures" / f"study-{each.name}.jpg"
        write_strips(sheet, [*columns, "truth"], lines, side_px=SHOWN_PX)
    return results


def _ablation_part(
    study: _Study, chosen: Mapping[str, Row], seeds: list[int], settings: list[str]
) -> tuple[dict[str, Levels], dict[str, list[dict[str, float]]]]:
    """Train all rows with all seeds, and score them on sets of their own: StudyResults' `rows` and `validation`."""
    sources, runs_dir = study.inputs.sources, study.out / "runs"
    trained: dict[str, list[Trained]] = {name: [] for name in chosen}
    for seed in seeds:
        for name, run in train_rows(sources, runs_dir / f"seed-{seed}", chosen, seed, settings):
            trained[name].append(run)
    methods = {row: study.methods[row] for row in (LQ, FLOOR, CEILING)}
    validation: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for name, runs in trained.items():
        for seed, run in zip(seeds, runs, strict=True):
            method = methods[f"{name}-{seed}"] = trained_method(name, run, sources, study.plan.row_sampling)
            validation[name].append(_measured(run, method, sources, runs_dir / f"seed-{seed}" / f"{name}.json"))
    results: dict[str, Levels] = {}
    for each in _row_sets(study.out / "sets", study.photos, study.plan):
        results[each.name] = {}
        for level in each.lq:
            made = write_level(study.out / "pictures" / each.name, each, level, methods)
            results[each.name][level] = scores(each, made, study.plan.row_engines)
        if each.annotations is None:
            columns = [LQ, FLOOR, *(f"{name}-{seeds[0]}" for name in chosen), CEILING]
            lines = [[made[row][key] for row in columns] + [each.hq[key]] for key in shown_keys(each.hq)]
            sheet = study.page.parent / "pictures" / "study-rows.jpg"
            write_strips(sheet, [*columns, "truth"], lines, side_px=SHOWN_PX)
    write_curves(study.page.parent / "pictures" / "study-curves.png", _run_folders(trained))
    return results, validation


def _run_folders(trained: Mapping[str, list[Trained]]) -> dict[str, list[list[Path]]]:
    """Each row's run folders, in order, for each seed."""
    return {name: [sorted(run.run_dir.parent.glob(f"{name}-[0-9]")) for run in runs] for name, runs in trained.items()}


def _shipped_sets(folder: Path, photos: list[tuple[str, Path]], plan: StudyPlan) -> list[StudySet]:
    return [
        photo_set(
            "photos", folder / "photos", photos, side_px=plan.photo_px, crops=plan.photo_crops, levels=plan.levels, seed=plan.seed
        ),
        text_set(
            "text", folder / "text", count=plan.text_pictures, font_px=plan.font_px, side_px=plan.text_px, levels=plan.levels,
            seed=plan.seed,
        ),
    ]  # fmt: skip


def _row_sets(folder: Path, photos: list[tuple[str, Path]], plan: StudyPlan) -> list[StudySet]:
    return [
        photo_set(
            "row-photos", folder / "row-photos", photos, side_px=plan.row_photo_px, crops=plan.row_photo_crops,
            levels=plan.levels, seed=plan.seed,
        ),
        text_set(
            "row-text", folder / "row-text", count=plan.row_text_pictures, font_px=plan.font_px, side_px=plan.text_px,
            levels=plan.row_text_levels, seed=plan.seed,
        ),
    ]  # fmt: skip


def _measured(run: Trained, method: Method, sources: Sources, cache: Path) -> dict[str, float]:
    """Validation metrics of a finished run; kept beside it while the weights, settings and pictures they are of stay the same."""
    data = data_digest(split_of(sources.data, "val"))
    identity = {**method.identity, "config": json.loads(to_json(run.config)), "data": data}
    kept = json.loads(cache.read_text(encoding="utf-8")) if cache.is_file() else {}
    if kept.get("made_by") == identity:
        return kept["figures"]
    metrics = measure(run.config, replace(sources, init=run.run_dir), cache.with_suffix(".png"))
    write_json(cache, {"made_by": identity, "figures": metrics})
    return metrics


def software() -> dict[str, str]:
    """Versions of what the figures depend on, by package."""
    names = ("torch", "diffusers", "numpy", "pillow", "scikit-image")
    found: dict[str, str] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
