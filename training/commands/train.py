"""`recipes`, `train` and `nano`: one recipe on this machine's devices, or the chain of them that makes the nano model."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.config.schema import Sources

HELP = """\
Run one recipe on this machine's GPU (or its CPU). On several devices:

    accelerate launch --num_processes 4 -m training train stage2 --data manifest.jsonl --base sdxl/ --init runs/stage1 --out
    runs/stage2

The batch is that of the recipe, shared by the processes: no number of them changes the result's recipe, learning rate or draws.
"""


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the commands and their options."""
    verb = verbs.add_parser("recipes", help="list the recipes")
    verb.set_defaults(run=recipes)

    verb = verbs.add_parser(
        "train", help="run one recipe", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("recipe", help="a name that `recipes` lists, or a .json file of settings (a run's config.json is one)")
    add_sources(verb)
    verb.add_argument("--out", type=Path, required=True, help="run folder")
    verb.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of the recipe")
    verb.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint; start where there is none")
    verb.add_argument(
        "--dry-run", action="store_true", help="print the resolved run, what trains and the memory it takes, and stop"
    )
    verb.set_defaults(run=train)

    verb = verbs.add_parser("nano", help="make the nano model: all stages, each from its last checkpoint")
    verb.add_argument("--out", type=Path, required=True, help="folder for the three weight files")
    verb.add_argument("--work", type=Path, default=Path("runs/nano"), help="folder for manifest, checkpoints and logs")
    verb.add_argument(
        "--stages",
        nargs="+",
        metavar="STAGE",
        help="prepare, vae, decoder, prior, align, joint, levels, words, fidelity, export (default: all)",
    )
    verb.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of these stages' recipes"
    )
    verb.set_defaults(run=nano)


def recipes(_arguments: argparse.Namespace) -> None:
    """`recipes`: every recipe and what it is for."""
    from training.config.ablations import rows
    from training.config.recipes import RECIPES

    for name, make in RECIPES.items():
        print(f"{name:<24}{(make.__doc__ or '').splitlines()[0]}")
    for name, row in rows().items():
        parts = " then ".join(f"{name}/{number}" for number in range(1, len(row.runs) + 1))
        print(f"{parts:<24}Table {row.table}: {row.says}.")


def train(arguments: argparse.Namespace) -> None:
    """`train`: resolve the recipe and run the stage."""
    from training.config.overrides import override
    from training.config.recipes import recipe

    config = override(recipe(arguments.recipe), arguments.set)
    from training.stages.stage import describe, run_stage

    if arguments.dry_run:
        print(describe(config, sources_of(arguments)))
        return
    figures = run_stage(config, sources_of(arguments), arguments.out, resume=arguments.resume)
    if not figures:  # no step was left to do, and its row is in the log already
        print(f"{arguments.out}: the run is at its end, {config.steps} of {config.steps} steps; a larger steps=N goes on")
        return
    print(f"{arguments.out}: done, " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def nano(arguments: argparse.Namespace) -> None:
    """`nano`: make the nano model."""
    from training.stages.nano import STAGES, make

    make(arguments.out, arguments.work, arguments.stages or list(STAGES), arguments.set, print)


def add_sources(verb: argparse.ArgumentParser) -> None:
    """The files a run starts from."""
    verb.add_argument("--data", type=Path, required=True, help="manifest from prepare")
    verb.add_argument(
        "--base", type=Path, help="SDXL checkpoint, or a diffusers folder of one: UNet, VAE and text encoders to start from"
    )
    verb.add_argument("--init", type=Path, help="run folder to start from, or a FaithDiff file (FaithDiff.bin, .safetensors)")
    verb.add_argument("--vae", type=Path, help="VAE to use in place of the base's")
    verb.add_argument("--text", type=Path, help="diffusers folder with the two text encoders, where --base has none")
    verb.add_argument(
        "--perceptual",
        type=Path,
        metavar="DIR",
        help="weights for perceptual_weight: torchvision's AlexNet (LPIPS), or EfficientNet-Lite0",
    )


def sources_of(arguments: argparse.Namespace) -> Sources:
    """The files a run starts from, as named on the command line."""
    names = ("data", "vae", "init", "base", "text", "perceptual")
    return Sources(**{name: getattr(arguments, name) for name in names})
