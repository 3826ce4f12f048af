"""What each command does with its arguments. Networks are imported where they are used, so that --help stays quick."""

from __future__ import annotations

import argparse

from training import manifest
from training.bundled import bundled_stills
from training.config import override
from training.images import picture_paths, read_image, to_unit, unit_to_u8, write_png
from training.recipes import recipe
from training.text_images import write_series


def prepare(arguments: argparse.Namespace) -> None:
    """`prepare`: make a manifest and say what was left out."""
    if not 0 <= arguments.val_frac < 1:
        raise ValueError(f"expected --val-frac from 0 to below 1, got {arguments.val_frac}, choose for example 0.03")
    pictures = picture_paths(arguments.images)
    if arguments.bundled:
        pictures += bundled_stills()
    if arguments.text:
        pictures += write_series(arguments.out.parent / "text", seed=arguments.seed, count=arguments.text)
    if not pictures:
        raise ValueError("expected pictures, got none, name files or folders, or add --bundled or --text N")
    records, skipped = manifest.build(pictures, val_frac=arguments.val_frac, min_side_px=arguments.min_side)
    for item in skipped:
        print(f"skipped {item.key}: {item.reason}")
    if not records:
        raise ValueError(f"expected at least one usable picture, got {len(skipped)} that were skipped, see the list above")
    manifest.write(records, arguments.out)
    train_count = sum(record.split == "train" for record in records)
    print(f"{arguments.out}: {train_count} to train, {len(records) - train_count} to validate, {len(skipped)} skipped")


def degrade(arguments: argparse.Namespace) -> None:
    """`degrade`: write degraded pictures and their manifest."""
    from training.degradation.command import degrade_paths

    for line in degrade_paths(arguments.source, arguments.out, level=arguments.level, scale=arguments.scale, seed=arguments.seed):
        print(f"skipped: {line}")
    print(f"{arguments.out / 'manifest.json'} written")


def train(arguments: argparse.Namespace) -> None:
    """`train`: resolve the recipe and run the stage."""
    config = override(recipe(arguments.recipe), arguments.set)
    from training.stages import Sources, describe, run_stage

    sources = Sources(data=arguments.data, vae=arguments.vae, init=arguments.init)
    if arguments.dry_run:
        print(describe(config, sources))
        return
    figures = run_stage(config, sources, arguments.out, resume=arguments.resume)
    print(f"{arguments.out}: done, " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def export(arguments: argparse.Namespace) -> None:
    """`export`: write a run's EMA weights for the nodes."""
    from training.export import export as write

    line = write(
        arguments.run_dir, arguments.out, layout=arguments.layout, dtype=arguments.dtype, data=arguments.data,
        licence=arguments.license,
        base_model=arguments.base_model,
    )  # fmt: skip
    print(line)


def convert(arguments: argparse.Namespace) -> None:
    """`convert`: one file layout to another."""
    from training.convert import convert as run

    print(run(arguments.source, arguments.out, layout=arguments.layout, dtype=arguments.dtype))


def restore(arguments: argparse.Namespace) -> None:
    """`restore`: run an export through the trainer's own sampler."""
    from training.exported import load_exported, read_parts, spec_of
    from training.restore import restore as run
    from training.vae_files import read_vae

    pictures = picture_paths([arguments.source])
    if not pictures:
        raise ValueError(f"expected pictures in {arguments.source}, got none, check the folder")
    parts = read_parts(arguments.model)
    model, vae = load_exported(arguments.model), read_vae(arguments.vae, spec_of(parts))
    for key, path in pictures:
        picture = run(
            model, vae, to_unit(read_image(path)), scale=arguments.scale, target_px=parts.metadata.target_size_px,
            steps=arguments.steps,
            seed=arguments.seed, start=arguments.start_from, colour=arguments.colour,
        )  # fmt: skip
        write_png(arguments.out / f"{key}.png", unit_to_u8(picture))
        print(arguments.out / f"{key}.png")


def reconstruct(arguments: argparse.Namespace) -> None:
    """`reconstruct`: pictures through the VAE and back."""
    from training.restore import reconstruct as run
    from training.vae_files import read_vae

    vae = read_vae(arguments.vae)
    for key, path in picture_paths([arguments.source]):
        write_png(arguments.out / f"{key}.png", unit_to_u8(run(vae, to_unit(read_image(path)))))
        print(arguments.out / f"{key}.png")


def evaluate(arguments: argparse.Namespace) -> None:
    """`evaluate`: scores of a folder against its references."""
    from training.evaluate import evaluate as score

    report = score(arguments.restored, arguments.reference, arguments.lq, arguments.metrics.split(","), arguments.out)
    for kind, means in report["mean"].items():
        print(
            f"{kind}: "
            + ", ".join(f"{name} {value:.4f}" if value is not None else f"{name} infinite" for name, value in means.items())
        )
    print(f"{arguments.out}: {report['count']} pictures")


def reference(arguments: argparse.Namespace) -> None:
    """`reference`: the trainer's own numbers for made-up inputs."""
    from training.exported import write_reference

    write_reference(arguments.model, arguments.out, height_px=arguments.height, width_px=arguments.width, seed=arguments.seed)
    print(f"{arguments.out} written")


def nano(arguments: argparse.Namespace) -> None:
    """`nano`: make the nano model."""
    from training.nano import STAGES, make

    make(arguments.out, arguments.work, arguments.stages or list(STAGES), arguments.set)
