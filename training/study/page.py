"""The study's page, from its scores alone. Every sentence about a result is made from the numbers beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from training.config.ablations import rows as ablation_rows
from training.evaluate.paper import ABLATION_LPIPS
from training.reports.bootstrap import mean_interval, paired_interval
from training.reports.tables import markdown_table
from training.study.ablate import JOINT_ROW, over_seeds
from training.study.methods import CEILING, FLOOR, LQ, SAMPLINGS
from training.study.scores import StudyResults
from training.study.tables import (  # fmt: skip
    Table,
    claim,
    difference_text,
    interval_text,
    metric_table,
    recall_table,
    shipped_table,
)

TITLE = "# The small-scale study"
SHOWN = 4
COMMAND = """\
    python -m training nano --out demo --work runs/nano
    python -m training study --data runs/nano/manifest-levels.jsonl --init runs/nano/prior \\
        --model demo/nano_faithdiff.safetensors --vae demo/nano_vae.safetensors --out runs/study --page docs/engineering/study.md
"""


def shown_keys(keys: Iterable[str]) -> list[str]:
    """The pictures that sheets show: evenly spread over the sorted keys."""
    ordered = sorted(keys)
    count = min(SHOWN, len(ordered))
    return [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]


def is_page(path: Path) -> bool:
    """Whether the file is such a page.

    Raises:
        ValueError, OSError: it is no text; it cannot be read.
    """
    return path.read_text(encoding="utf-8").startswith(TITLE)


def report(results: StudyResults) -> str:
    """The whole page."""
    parts = [_head(results), _main(results), _levels(results), _ablation(results), LIMITS]
    return "\n\n".join(parts) + "\n"


def _head(results: StudyResults) -> str:
    plan = results["plan"]
    software = ", ".join(f"{name} {version}" for name, version in results["software"].items())
    fonts = ", ".join(map(str, plan["font_px"]))
    missing = "".join(f"\n\nRow `{row}`: {why}." for row, why in results["missing"].items())
    return f"""\
{TITLE}

For engineers. A command writes this page, figures and sentences; what it says holds for the nano model and these pictures:

{COMMAND}
Pictures that no training saw: one {plan["photo_px"]} px crop of each of scikit-image's photos, and {plan["text_pictures"]}
pictures of English words at {fonts} px ({plan["text_px"]} px wide), degraded by `degrade --scale 4 --seed {plan["seed"]}` at
Levels I, II and III: **this project's own levels, not the paper's, whose generator is not public**. They go back to the
original's size by bicubic enlargement. *Floor*: the enlarged LQ picture through the VAE and back, what a restorer that changes
nothing gives; once more with the LQ picture's colours put back, as restored pictures have them. *Ceiling*: the truth through the
same VAE, the most that the model can give.

Figures in brackets are 95 % bootstrap intervals over photos (10,000 resamples); "less floor" is the mean difference picture by
picture, bold where its interval is clear of 0. Metrics:
[evaluation](../evaluation.md); reading: [text fidelity](../text_fidelity.md).
There is no LPIPS, DISTS, MUSIQ or CLIPIQA+: their weights could not be had where this was run. {software}.{missing}"""


def _main(results: StudyResults) -> str:
    photos, text = (results["shipped"][name]["II"] for name in ("photos", "text"))
    lines = ["## Does the nano model restore? Level II, against the floor", ""]
    for row in SAMPLINGS:
        lines.append(f"* `{row}`, photos. " + claim(metric_table(photos, "ssim_rgb"), row, "SSIM", 4))
        lines.append(f"* `{row}`, rendered words. " + claim(metric_table(text, "ssim_rgb"), row, "SSIM", 4))
        for engine in text.get("text", {}):
            lines.append(f"* `{row}`, rendered words. " + claim(recall_table(text, engine), row, f"recall of {engine}", 3))
    return "\n".join(lines)


def _levels(results: StudyResults) -> str:
    parts = ["## All levels"]
    for name, metrics, what in (
        ("photos", ("psnr_rgb", "ssim_rgb"), "Photos"),
        ("text", ("ssim_rgb",), "Rendered words"),
    ):
        for level, found in results["shipped"][name].items():
            parts.append(f"**{what}, Level {level}**\n\n" + shipped_table(found, metrics, tuple(found.get("text", {}))))
        parts.append(f"![{what}: some pictures at each level](pictures/study-{name}.jpg)")
    return "\n\n".join(parts)


def _ablation(results: StudyResults) -> str:
    names, seeds, plan = list(results["validation"]), results["seeds"], results["plan"]
    says = ablation_rows()
    run, sampling = says["joint"].runs[0], plan["row_sampling"]
    parts = [
        f"""\
## The rows of the paper's Tables 5 and 6

Every row from the same prior, {len(seeds)} seeds, {run.steps} steps after the common stage 1 ({run.batch_size} crops of
{run.crop_px} px, {run.noise_draws} noise draws each, Levels I to III at scale {run.degradation_scale};
`training/config/ablations.py`).
Measured on {plan["row_photo_px"]} px crops of the same photos ({plan["row_photo_crops"]} of each) and on the words at Level II,
with {sampling["steps"]} steps and colours by {sampling["colour"]}. Mean ± standard deviation over seeds."""
    ]
    headings = ["row", "what", "validation loss", *(f"SSIM, {level}" for level in plan["levels"])]
    text = {level: found for level, found in results["rows"]["row-text"].items() if "text" in found}
    engines = [(level, engine) for level, found in text.items() for engine in found["text"]]
    headings += [f"recall, {level}, {engine}" for level, engine in engines]
    tables = {level: metric_table(found, "ssim_rgb") for level, found in results["rows"]["row-photos"].items()}
    read = {key: recall_table(text[key[0]], key[1]) for key in engines}
    lines = []
    for name in names:
        cells = [name, says[name].says, over_seeds([each["loss"] for each in results["validation"][name]])]
        for table in [*tables.values(), *read.values()]:
            cells.append(over_seeds([statistics.mean(table[f"{name}-{seed}"].values()) for seed in seeds]))
        lines.append(cells)
    for name in (LQ, FLOOR, CEILING):
        plain = [interval_text(mean_interval(list(table[name].values()))) for table in [*tables.values(), *read.values()]]
        lines.append([name, "", "", *plain])
    parts.append(markdown_table(headings, lines, align="lr"))
    parts.append(_against_paper(results, names, seeds, tables[plan["levels"][-1]]))
    parts.append("![Some photos at Level III, seed 0, every row](pictures/study-rows.jpg)")
    parts.append("![Training loss of every row](pictures/study-curves.png)")
    return "\n\n".join(parts)


def _against_paper(results: StudyResults, names: list[str], seeds: list[int], table: Table) -> str:
    """Each row less joint: the paper's LPIPS and ours; and in words what agrees."""
    if JOINT_ROW not in names:
        return ""
    losses = {name: [each["loss"] for each in results["validation"][name]] for name in names}
    units = list(table[f"{JOINT_ROW}-{seeds[0]}"])
    means = {name: [statistics.mean(table[f"{name}-{seed}"][unit] for seed in seeds) for unit in units] for name in names}
    lines, agree, differ, open_ = [], [], [], []
    for name in names:
        if name == JOINT_ROW:
            continue
        paired = [loss - other for loss, other in zip(losses[name], losses[JOINT_ROW], strict=True)]
        ssim = paired_interval(means[name], means[JOINT_ROW])
        worse = all(value > 0 for value in paired)
        better = all(value < 0 for value in paired)
        (agree if worse else differ if better else open_).append(name)
        lines.append([
            name, f"{ABLATION_LPIPS[name] - ABLATION_LPIPS[JOINT_ROW]:+.4f}", over_seeds(paired, sign=True),
            difference_text(ssim, 4),
            "as in the paper" if worse else "not as in the paper" if better else "seeds disagree",
        ])  # fmt: skip
    headings = [
        "row less joint", "paper: LPIPS (lower is better)", "ours: validation loss", "ours: SSIM, Level III", "loss, all seeds",
    ]  # fmt: skip
    said = [
        f"Worse than joint training with every seed, as the paper says: {_list(agree)}.",
        f"Better than joint training with every seed, against the paper: {_list(differ)}.",
        f"Seeds disagree: {_list(open_)}.",
        "The paper's order of the rows is "
        + ", ".join(sorted(names, key=lambda name: ABLATION_LPIPS[name]))
        + "; ours, by loss, is "
        + ", ".join(sorted(names, key=lambda name: statistics.mean(losses[name])))
        + ".",
    ]
    return markdown_table(headings, lines, align="lr") + "\n\n" + " ".join(said)


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


LIMITS = """\
## What this does not show

* A network of 9 million parameters, trained for some hours on a CPU, says nothing about the quality of the published weights.
* Few photos: an interval that contains 0 is no proof of equality.
* The runs of the ablation are short. Where the paper trains 40,000 steps, these train hundreds: a row that learns slowly looks
  worse here than it is.
* The intervals speak of other pictures, the standard deviations of other seeds; neither speaks of other training data."""
