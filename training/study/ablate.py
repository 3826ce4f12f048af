"""`ablate`: the rows of config/ablations.py from one prior, several seeds, compared on the validation split.

Every row is measured with the same pictures, noise and timesteps, so differences between rows are paired.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from training.common.devices import device_of
from training.common.files import write_json, write_text
from training.common.results import require_own
from training.common.strict_json import parse_json
from training.config.ablations import Row, align, rows
from training.config.overrides import override
from training.config.schema import Sources, TrainConfig
from training.data import manifest
from training.reports.tables import markdown_table
from training.stages.stage import run_stage
from training.tasks.validation import Validation
from training.weights.initial import initial_model, load_vae

JOINT_ROW = "joint"
VALIDATION_METRICS = ("loss", "psnr_db", "ssim")


def run_ablation(sources: Sources, out: Path, *, rows: list[str], seeds: list[int], settings: list[str]) -> str:
    """Train and measure every row with every seed; goes on where it was. Writes out/report.json and out/report.md and returns the
    table.

    Raises:
        ValueError: an unknown row; sources without a prior (`--init`) or a validation split.
    """
    chosen = chosen_rows(rows)
    check_sources(sources)
    require_own(out / "report.json", "report of an ablation", _is_report)
    require_own(out / "report.md", "report of an ablation", lambda page: _is_report(page.with_suffix(".json")))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in seeds:
        for name, trained in train_rows(sources, out / f"seed-{seed}", chosen, seed, settings):
            metrics = measure(trained.config, replace(sources, init=trained.run_dir), trained.run_dir.parent / f"{name}.png")
            results[name].append(metrics)
            write_json(out / "report.json", {"seeds": seeds, "settings": settings, "rows": results})
    table = as_markdown(results)
    write_text(out / "report.md", table + "\n")
    return table


def _is_report(path: Path) -> bool:
    value = parse_json(path.read_bytes(), odd_numbers=True)
    return isinstance(value, dict) and value.keys() == {"seeds", "settings", "rows"}


def check_sources(sources: Sources) -> None:
    """Refuse what no row can be trained from.

    Raises:
        ValueError: sources without a prior (`--init`) or a validation split.
    """
    if sources.init is None:
        raise ValueError("expected --init with the run of a prior for all rows to start from, got none, train nano-prior first")
    if not any(record.split == "val" for record in manifest.read(sources.data)):
        raise ValueError(f"expected validation pictures in {sources.data}, got none, prepare with a larger --val-frac")


def chosen_rows(names: list[str]) -> dict[str, Row]:
    """The rows of these names.

    Raises:
        ValueError: an unknown row.
    """
    known = rows()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"expected rows among {', '.join(known)}, got {', '.join(unknown)}, correct --rows")
    return {name: known[name] for name in names}


def _configured(config: TrainConfig, seed: int, settings: list[str]) -> TrainConfig:
    return override(replace(config, seed=seed), settings)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A row's last run."""

    config: TrainConfig
    run_dir: Path


def train_rows(
    sources: Sources, folder: Path, chosen: Mapping[str, Row], seed: int, settings: list[str]
) -> Iterator[tuple[str, Trained]]:
    """Train the common stage 1 and every row with one seed, each from its last checkpoint; yields a row when it is done."""
    stage1 = folder / "stage1"
    if any(row.from_stage1 for row in chosen.values()):
        run_stage(_configured(align(), seed, settings), sources, stage1, resume=True)
    for name, row in chosen.items():
        before = stage1 if row.from_stage1 else sources.init
        for number, planned in enumerate(row.runs, start=1):
            config = _configured(replace(planned, recipe=f"{name}/{number}"), seed, settings)
            run_dir = folder / f"{name}-{number}"
            run_stage(config, replace(sources, init=before), run_dir, resume=True)
            before = run_dir
        yield name, Trained(config=config, run_dir=run_dir)


@torch.no_grad()
def measure(config: TrainConfig, sources: Sources, picture: Path) -> dict[str, float]:
    """Validation metrics of the run `sources.init` (its averaged weights) on the whole validation split, the seed of the draws
    fixed.
    """
    device = device_of(config.device)
    records = [record for record in manifest.read(sources.data) if record.split == "val"]
    fixed = replace(config, seed=0, validation_pictures=len(records))
    validation = Validation(fixed, records, load_vae(config, sources, device), None, device)
    model, _ = initial_model(config, sources)
    return validation.run(model.to(device), config.steps, picture.with_suffix(""))


def as_markdown(results: dict[str, list[dict[str, float]]]) -> str:
    """A table: mean and standard deviation over the seeds, and the mean paired difference of the loss to the joint row's."""
    known = rows()
    reference = results.get(JOINT_ROW)
    lines: list[list[str]] = []
    for name, runs in results.items():
        cells = [over_seeds([run[metric] for run in runs]) for metric in VALIDATION_METRICS]
        difference = ""
        if reference and name != JOINT_ROW and len(reference) == len(runs):
            difference = over_seeds([run["loss"] - other["loss"] for run, other in zip(runs, reference, strict=True)], sign=True)
        lines.append([name, known[name].says, *cells, difference])
    return markdown_table(["row", "what", *VALIDATION_METRICS, "loss less joint's"], lines)


def over_seeds(values: list[float], *, sign: bool = False) -> str:
    """Mean and standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{'+' if sign else ''}.4f} ± {spread:.4f}"
