"""The page, from its scores alone. Every sentence about a result is made from the numbers beside it."""

from __future__ import annotations

from pathlib import Path

from training.decoder_study.results import NATURAL, NEAR, PHOTOS, WORDS, DecoderResults, SetResults
from training.decoder_study.rows import FULL, SAYS
from training.decoder_study.sheets import COLUMNS, TRUTH, sheet_file
from training.decoder_study.tables import (  # fmt: skip
    claims,
    difference_table,
    measures,
    rows_table,
    sweep_claim,
    sweep_means,
    sweep_table,
)

TITLE = "# What the fidelity decoder changes"
COMMAND = """\
    python -m training study-fidelity --model demo/nano_faithdiff.safetensors --vae demo/nano_vae.safetensors \\
        --decoder demo/nano_fidelity.safetensors --out runs/fidelity --page docs/engineering/fidelity.md{options}
"""
KINDS = {PHOTOS: "Photos", WORDS: "Rendered words"}


def is_page(path: Path) -> bool:
    """Whether the file is such a page.

    Raises:
        ValueError, OSError: it is no text; it cannot be read.
    """
    return path.read_text(encoding="utf-8").startswith(TITLE)


def report(results: DecoderResults) -> str:
    """The whole page."""
    kinds = {kind: [each for each in results["sets"].values() if each["kind"] == kind] for kind in KINDS}
    kinds = {kind: sets for kind, sets in kinds.items() if sets}
    parts = [_head(results, kinds), _main(kinds), _differences(kinds), _sweep(kinds[PHOTOS]), _pictures(results), _levels(kinds)]
    return "\n\n".join([*parts, _limits(results)]) + "\n"


def _head(results: DecoderResults, kinds: dict[str, list[SetResults]]) -> str:
    plan, trained = results["plan"], results["decoder"]
    software = ", ".join(f"{name} {version}" for name, version in results["software"].items())
    words = (
        f"; {plan['text_pictures']} pictures of English words at {_listed(plan['font_px'])} px ({plan['text_px']} px wide) at "
        f"scale {_listed(plan['text_scales'])} and Levels {_listed(plan['text_levels'])}"
    )
    kind = "photos, or pictures of words" if plan["text_pictures"] else "photos"
    reading = "; reading: [text fidelity](../text_fidelity.md)" if plan["text_pictures"] else ""
    command = COMMAND.format(options="" if plan["text_pictures"] else " --text-pictures 0")
    sampling = plan["sampling"]
    photos = max(len(each["levels"][level]["values"][FULL]["psnr_rgb"]) for each in kinds[PHOTOS] for level in each["levels"])
    missing = "".join(f" `{name}`: {why}." for name, why in results["missing"].items())
    recipe = f"recipe {trained['recipe']}, {trained['steps']} steps" if "recipe" in trained else "a file without its training"
    return f"""\
{TITLE}

For engineers. A command writes this page, figures and sentences; what it says holds for these files and these pictures:

{command}
Decoder: {recipe}. Pictures that no training saw: one {plan["photo_px"]} px crop of each of {photos} photos at scales
{_listed(plan["photo_scales"])} and Levels {_listed(plan["photo_levels"])}{words if plan["text_pictures"] else ""};
`degrade --seed {plan["seed"]}`, **this project's own levels, not the paper's**. Restored with {sampling["steps"]} steps,
colours by {sampling["colour"]} after the decoder. *Fidelity 0* is the plain VAE decoder, *fidelity 1* all that the fidelity
decoder knows. *Floor*: the enlarged LQ picture through the VAE and back. *The decoder without the model*: the floor through the
fidelity decoder, colours as those of restored pictures. *Ceiling*: the truth through the VAE. Real-ESRGAN x4plus enlarges by 4;
at another scale its pictures are brought to size by antialiased bicubic interpolation.

Figures in brackets are 95 % bootstrap intervals over {kind} (10,000 resamples); differences are taken
picture by picture, bold where their interval is clear of 0. Metrics: [evaluation](../evaluation.md){reading}.
{software}.{" Not computed here." if missing else ""}{missing}"""


def _listed(values: list[object]) -> str:
    return ", ".join(map(str, values))


def _main(kinds: dict[str, list[SetResults]]) -> str:
    parts = ['## Is fidelity 1 better?\n\n"Better" and "worse": the interval of the difference is clear of 0.']
    for kind, sets in kinds.items():
        parts.append("\n".join([f"**{KINDS[kind]}**", "", *claims(measures(sets))]))
    return "\n\n".join(parts)


def _differences(kinds: dict[str, list[SetResults]]) -> str:
    parts = ["## Fidelity 1 less the others"]
    for kind, sets in kinds.items():
        parts.append(f"**{KINDS[kind]}**")
        parts += [difference_table(measure) for measure in measures(sets)]
    return "\n\n".join(parts)


def _sweep(photos: list[SetResults]) -> str:
    means = sweep_means(photos)
    return f"## From fidelity 0 to 1\n\nMean PSNR of the photos, dB. {sweep_claim(means)}\n\n{sweep_table(means)}"


def _pictures(results: DecoderResults) -> str:
    columns = ", ".join([*COLUMNS.values(), TRUTH])
    parts = [f"## Pictures\n\nEvery pixel as it is. From left to right: {columns}."]
    for name, lines in results["sheets"].items():
        kind, _, way = name.partition("-")
        how = "picked by hand" if way == "picked" else f"picked by the seed {results['plan']['seed']}"
        keys = "; ".join(f"`{key}`, scale {results['sets'][s]['scale']}, Level {level}" for s, level, key in lines)
        parts.append(f"![{KINDS[kind]}, {how}]({sheet_file(name)})\n\n{KINDS[kind]}, {how}. From above: {keys}.")
    return "\n\n".join(parts)


def _levels(kinds: dict[str, list[SetResults]]) -> str:
    parts = ["## All rows"]
    for kind, sets in kinds.items():
        found = measures(sets)
        for each in sets:
            for level in each["levels"]:
                title = f"**{KINDS[kind]}, scale {each['scale']}, Level {level}**"
                parts.append(f"{title}\n\n{rows_table(found, (each['scale'], level))}")
    return "\n\n".join(parts)


def _limits(results: DecoderResults) -> str:
    lines = [
        "A decoder for a network of 9 million parameters says nothing of one for the published weights.",
        "Few photos: an interval that contains 0 is no proof of equality. It speaks of other pictures, not of other trainings.",
        "PSNR and SSIM ask for the same pixels. Of two equally sharp pictures they take the smoother for the better.",
    ]
    said = {name for each in results["sets"].values() for found in each["levels"].values() for name in _metrics(found["values"])}
    if NEAR in said:
        weight = results["decoder"].get("config", {}).get("perceptual_weight")
        how = f" The decoder was trained on it, with a weight of {weight:g}." if weight else ""
        lines.append(f"The EfficientNet-Lite0 distance is fitted to nobody's judgements.{how}")
    if NATURAL in said:
        lines.append("NIQE knows no truth: it takes clean noise for detail.")
    return "## What this does not show\n\n" + "\n".join(f"* {line}" for line in lines)


def _metrics(values: dict[str, dict[str, dict[str, float | None]]]) -> set[str]:
    return {name for row in SAYS if row in values for name in values[row]}
