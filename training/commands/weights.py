"""`export`, `convert`, `reconstruct` and `reference`: weight files, written and checked."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from training.commands.shared import add_again, end


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the commands and their options."""
    _file_verbs(verbs)
    _check_verbs(verbs)


def _file_verbs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("export", help="write a run's weights (their average, where it has one) for the nodes")
    verb.add_argument("run_dir", type=Path, metavar="RUN")
    verb.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    verb.add_argument("--layout", choices=("full", "adapter"), default="full")
    verb.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16")
    verb.add_argument("--data", type=Path, help="manifest; needed for a VAE, whose latents are normalised on it")
    verb.add_argument("--license", default="", help="goes into the file's header")
    verb.add_argument("--base-model", default="", help="goes into the file's header")
    verb.set_defaults(run=export)

    verb = verbs.add_parser("convert", help="FaithDiff.bin to .safetensors and back, between layouts and types")
    verb.add_argument(
        "source", type=Path, metavar="FILE",
        help="FaithDiff.bin, a FaithDiff .safetensors, an index of shards or their folder; a LoRA is written for Load LoRA",
    )  # fmt: skip
    verb.add_argument("--out", type=Path, required=True, help="the .safetensors or .bin to write")
    verb.add_argument("--layout", choices=("full", "adapter", "released"), help="default: full, or released for a .bin")
    verb.add_argument("--dtype", choices=("keep", "fp16", "bf16", "fp32"), default="keep")
    verb.add_argument(
        "--sha256", help="the input's hash as its page gives it: a broken download is then seen before anything else"
    )
    verb.add_argument("--table", metavar="NAME", help="which weights to take of a .bin that holds several (model, ema, ...)")
    verb.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA to merge into the UNet")
    verb.set_defaults(run=convert)


def _check_verbs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("reconstruct", help="pictures through an exported VAE and back, to see what it alone costs")
    verb.add_argument("source", type=Path, metavar="IN", help="picture or folder")
    verb.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    verb.add_argument("--vae", type=Path, required=True, help="exported VAE")
    add_again(verb)
    verb.set_defaults(run=reconstruct)

    verb = verbs.add_parser(
        "reference", help="write inputs and the trainer's own predictions of an export, to compare others with"
    )
    verb.add_argument("model", type=Path, metavar="FILE", help="full export")
    verb.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    verb.add_argument("--height", type=int, default=256, metavar="PX")
    verb.add_argument("--width", type=int, default=224, metavar="PX")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=reference)


def export(arguments: argparse.Namespace) -> None:
    """`export`: write a run's EMA weights for the nodes."""
    from training.weights.export import export as write

    line = write(
        arguments.run_dir, arguments.out, layout=arguments.layout, dtype=arguments.dtype, data=arguments.data,
        licence=arguments.license,
        base_model=arguments.base_model,
    )  # fmt: skip
    print(line)


def convert(arguments: argparse.Namespace) -> None:
    """`convert`: one file layout to another."""
    from training.weights.convert import convert as run

    line = run(
        arguments.source, arguments.out, layout=arguments.layout, dtype=arguments.dtype, source_sha256=arguments.sha256,
        table=arguments.table,
        lora=arguments.lora,
    )  # fmt: skip
    print(line)


def reconstruct(arguments: argparse.Namespace) -> int:
    """`reconstruct`: pictures through the VAE and back."""
    from faithdiff_core.listing.walk import list_pictures
    from training.common.folders import over_pictures, require_pictures, shown
    from training.common.images import read_picture
    from training.common.results import ResultsFolder
    from training.model.restore import reconstruct as run
    from training.weights.vae import read_vae

    listed = list_pictures([arguments.source])
    require_pictures(listed, arguments.source)
    results = ResultsFolder(arguments.source, arguments.out, listed.pictures, again=arguments.again)
    vae = read_vae(arguments.vae)

    def work(key: str, path: Path) -> Iterable[str]:
        picture = read_picture(path)
        data, notes = picture.restored_png(run(vae, picture.image))
        print(shown(str(results.write(f"{key}.png", data))))
        return (*picture.warnings, *notes)

    return end(over_pictures(listed, work), arguments.out)


def reference(arguments: argparse.Namespace) -> None:
    """`reference`: the trainer's own numbers for made-up inputs."""
    from training.weights.load_export import write_reference

    write_reference(arguments.model, arguments.out, height_px=arguments.height, width_px=arguments.width, seed=arguments.seed)
    print(f"{arguments.out} written")
