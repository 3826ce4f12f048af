"""`restore`: its options."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.images import picture_paths, read_image, to_unit, unit_to_u8, write_png


def add_restore_verb(verbs: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    verb = verbs.add_parser("restore", help="run a full export through the trainer's own sampler, to check it")
    verb.add_argument("source", type=Path, metavar="IN", help="LQ picture or folder")
    verb.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    verb.add_argument("--model", type=Path, required=True, help="full export")
    verb.add_argument("--vae", type=Path, required=True, help="exported VAE")
    verb.add_argument("--scale", type=int, default=2)
    verb.add_argument("--steps", type=int, default=20)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--start-from", choices=("lq", "noise"), default="lq")
    verb.add_argument("--colour", choices=("adain", "wavelet", "none"), default="adain")
    verb.set_defaults(run=restore)


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
