"""What each command does with its arguments. Networks are imported where they are used, so that --help stays quick."""

from __future__ import annotations

import argparse

from training.common.images import picture_paths, read_image, to_unit, unit_to_u8, write_png
from training.config.overrides import override
from training.config.recipes import recipe
from training.config.sources import Sources


def recipes(_arguments: argparse.Namespace) -> None:
    """`recipes`: every recipe and what it is for."""
    from training.config.ablations import rows
    from training.config.recipes import RECIPES

    for name, make in RECIPES.items():
        print(f"{name:<24}{(make.__doc__ or '').splitlines()[0]}")
    for name, row in rows().items():
        parts = " then ".join(f"{name}/{number}" for number in range(1, len(row.runs) + 1))
        print(f"{parts:<24}Table {row.table}: {row.says}.")


def sources_of(arguments: argparse.Namespace) -> Sources:
    """The files a run starts from, as named on the command line."""
    return Sources(data=arguments.data, vae=arguments.vae, init=arguments.init, base=arguments.base, text=arguments.text)


def train(arguments: argparse.Namespace) -> None:
    """`train`: resolve the recipe and run the stage."""
    config = override(recipe(arguments.recipe), arguments.set)
    from training.stages.stage import describe, run_stage

    if arguments.dry_run:
        print(describe(config, sources_of(arguments)))
        return
    figures = run_stage(config, sources_of(arguments), arguments.out, resume=arguments.resume)
    print(f"{arguments.out}: done, " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def ablate(arguments: argparse.Namespace) -> None:
    """`ablate`: the paper's Tables 5 and 6 at small scale."""
    from training.config.ablations import rows
    from training.study.ablate import run_study

    chosen = arguments.rows or list(rows())
    print(run_study(sources_of(arguments), arguments.out, rows=chosen, seeds=arguments.seeds, settings=arguments.set))


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

    told = run(arguments.source, arguments.out, layout=arguments.layout, dtype=arguments.dtype, source_sha256=arguments.sha256)
    print(told)


def reconstruct(arguments: argparse.Namespace) -> None:
    """`reconstruct`: pictures through the VAE and back."""
    from training.model.restore import reconstruct as run
    from training.weights.vae import read_vae

    vae = read_vae(arguments.vae)
    for key, path in picture_paths([arguments.source]):
        write_png(arguments.out / f"{key}.png", unit_to_u8(run(vae, to_unit(read_image(path)))))
        print(arguments.out / f"{key}.png")


def reference(arguments: argparse.Namespace) -> None:
    """`reference`: the trainer's own numbers for made-up inputs."""
    from training.weights.load_export import write_reference

    write_reference(arguments.model, arguments.out, height_px=arguments.height, width_px=arguments.width, seed=arguments.seed)
    print(f"{arguments.out} written")


def nano(arguments: argparse.Namespace) -> None:
    """`nano`: make the nano model."""
    from training.stages.nano import STAGES, make

    make(arguments.out, arguments.work, arguments.stages or list(STAGES), arguments.set, print)
