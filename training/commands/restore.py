"""`restore`: a folder of pictures. With --workflow through ComfyUI's queue, with --model by the trainer's own sampler."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.commands.shared import at_least, end

HELP = """\
Restore a folder through the queue of one ComfyUI or several, which share the pictures:

    restore IN OUT --workflow FILE.json --server http://127.0.0.1:8188 --server http://other:8188

FILE.json is a prompt in API format: workflows/api/ has some, "Export (API)" in ComfyUI writes yours. The same command goes on
where it was stopped. Or check a full export with the trainer's own sampler, without ComfyUI:

    restore IN OUT --model FILE.safetensors --vae FILE.safetensors
"""
QUEUE_DEFAULTS = {
    "server": ["http://127.0.0.1:8188"], "input_node": None, "output_node": None, "set": [], "seed": None, "header": [],
    "ahead": 2, "give_up_after": 120.0,
}  # fmt: skip
LOCAL_DEFAULTS = {
    "vae": None, "decoder": None, "fidelity": None, "scale": 2, "steps": 20, "seed": 0, "start_from": "lq", "colour": "adain",
}  # fmt: skip
"""Options of one way only, with their defaults: argparse gives None, so that one given for the other way is seen."""


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    verb = verbs.add_parser(
        "restore", help="restore a folder through ComfyUI's queue, or check an export with the trainer's own sampler",
        description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verb.add_argument("source", type=Path, metavar="IN", help="LQ picture or folder")
    verb.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    way = verb.add_mutually_exclusive_group(required=True)
    way.add_argument("--workflow", type=Path, metavar="FILE", help="API-format prompt, for ComfyUI")
    way.add_argument("--model", type=Path, metavar="FILE", help="full export, for the trainer's own sampler")
    verb.add_argument(
        "--profile", choices=("source", "srgb"), default="source",
        help="colours of the results: in each source's own profile (default), or in sRGB",
    )  # fmt: skip
    verb.add_argument("--seed", type=int, help="with --workflow: for all its seeds (default: as in the file); else default 0")
    verb.add_argument(
        "--again", action="store_true",
        help="restore every picture, done or not, and replace files in OUT that no earlier run has made, too",
    )  # fmt: skip
    _add_queue_options(verb.add_argument_group("with --workflow"))
    _add_local_options(verb.add_argument_group("with --model"))
    verb.set_defaults(run=restore)


def _add_queue_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--server", action="append", metavar="URL", help="repeat for several (default: http://127.0.0.1:8188)")
    group.add_argument(
        "--set",
        action="append",
        metavar="NODE.INPUT=VALUE",
        help="replace an input; NODE is an id or a title; repeat for several",
    )
    group.add_argument("--input-node", metavar="NODE", help="where pictures go (the only FaithDiff Load Photo or LoadImage)")
    group.add_argument("--output-node", metavar="NODE", help="whose results (the only FaithDiff Save Photo or SaveImage)")
    group.add_argument("--ahead", type=int, metavar="N", help="prompts in a server's queue at most (default: 2)")
    group.add_argument("--give-up-after", type=float, metavar="S", help="seconds without an answer from a server (default: 120)")
    group.add_argument("--header", action="append", metavar="'NAME: VALUE'", help="for every request, a token for one")


def _add_local_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--vae", type=Path, metavar="FILE", help="exported VAE (required)")
    group.add_argument("--decoder", type=Path, metavar="FILE", help="exported fidelity decoder (default: none)")
    group.add_argument("--fidelity", type=float, metavar="F", help="its share, 0 to 1 (default: 1)")
    group.add_argument("--scale", type=int, help="default: 2")
    group.add_argument("--steps", type=int, help="default: 20")
    group.add_argument("--start-from", choices=("lq", "noise"), help="default: lq")
    colour = group.add_argument("--colour", help="default: adain")
    colour.choices = _ColourMethods()  # given later: add_argument would look at them at once


class _ColourMethods(Sequence[str]):
    """The colour fixes' names, looked up when they are used: with the core they bring torch, which --help must not wait for."""

    def __getitem__(self, index):  # noqa: ANN001, ANN204 - as of any sequence
        from faithdiff_core.color_fix import METHODS

        return tuple(METHODS)[index]

    def __len__(self) -> int:
        from faithdiff_core.color_fix import METHODS

        return len(METHODS)


def restore(arguments: argparse.Namespace) -> int:
    """`restore`, either way. The exit code: 0, 1 = some pictures failed, 2 = no server takes the workflow, 130 = Ctrl-C."""
    if arguments.workflow is None:
        _settle(arguments, LOCAL_DEFAULTS, QUEUE_DEFAULTS, "--model")
        return _restore_locally(arguments)
    _settle(arguments, QUEUE_DEFAULTS, LOCAL_DEFAULTS, "--workflow")
    try:
        return _restore_by_queue(arguments)
    except KeyboardInterrupt:
        print("stopped; what was restored is kept, the same command goes on from here", file=sys.stderr)
        return 130


def _settle(arguments: argparse.Namespace, own: dict[str, object], other: dict[str, object], way: str) -> None:
    """Fill in the defaults of one way.

    Raises:
        ValueError: options of the other.
    """
    wrong = [name for name in other if name not in own and getattr(arguments, name) is not None]
    if wrong:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        raise ValueError(
            f"expected only options that go with {way}, got {given}; a workflow's own inputs are set by --set NODE.INPUT=VALUE"
        )
    for name, value in own.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _restore_by_queue(arguments: argparse.Namespace) -> int:
    from training.folder.address import header, server_url
    from training.folder.folder import FolderJob, restore_folder
    from training.folder.prompt import make_form, read_prompt

    servers = tuple(map(server_url, arguments.server))
    if len(set(servers)) < len(servers):
        raise ValueError(f"expected each --server once, got {', '.join(servers)}; leave out the double one")
    if arguments.ahead < 1 or not arguments.give_up_after > 0:
        raise ValueError(
            f"expected --ahead of at least 1 and --give-up-after above 0, got {arguments.ahead} and {arguments.give_up_after:g}; "
            "leave them out for 2 and 120"
        )
    form = make_form(
        read_prompt(arguments.workflow), input_node=arguments.input_node, output_node=arguments.output_node, seed=arguments.seed,
        settings=arguments.set,
    )  # fmt: skip
    if form.saves_photos and arguments.profile == "srgb":
        raise ValueError(
            f"expected --profile srgb with SaveImage, got {form.shown(form.output_node)}, which has an input for it; "
            f"use --set '{form.output_node}.color_profile=sRGB'"
        )
    seed = () if arguments.seed is None else (f"--seed {arguments.seed}",)
    job = FolderJob(
        source=arguments.source,
        out=arguments.out,
        form=form,
        workflow_file=arguments.workflow.name,
        settings=(*seed, *arguments.set),
        in_srgb=arguments.profile == "srgb",
        servers=servers,
        headers=dict(map(header, arguments.header)),
        ahead=arguments.ahead,
        patience_s=arguments.give_up_after,
        again=arguments.again,
    )
    return restore_folder(job, print)


def _restore_locally(arguments: argparse.Namespace) -> int:
    """Run an export through the trainer's own sampler."""
    from faithdiff_core.listing.walk import list_pictures
    from faithdiff_core.photo.photo import MAX_PX
    from training.common.folders import over_pictures, require_pictures, shown
    from training.common.images import read_picture
    from training.common.results import ResultsFolder
    from training.model.noise import leading_timesteps
    from training.model.restore import restore as run
    from training.weights.fidelity_files import load_fitting_decoder
    from training.weights.load_export import load_exported, read_parts, spec_of
    from training.weights.vae import read_vae

    if arguments.vae is None:
        raise ValueError("expected --vae FILE with --model, got none; export one beside the model")
    at_least("scale", arguments.scale, 1, example=2)
    fidelity = _fidelity(arguments)
    leading_timesteps(arguments.steps)  # its error comes before the weights are read
    listed = list_pictures([arguments.source])
    require_pictures(listed, arguments.source)
    results = ResultsFolder(arguments.source, arguments.out, listed.pictures, again=arguments.again)
    parts = read_parts(arguments.model)
    spec = spec_of(parts)
    decoder = None if arguments.decoder is None else load_fitting_decoder(arguments.decoder, spec)
    model, vae = load_exported(arguments.model), read_vae(arguments.vae, spec)

    def work(key: str, path: Path) -> Iterable[str]:
        source = read_picture(path)
        image = source.image
        if image[0].numel() * arguments.scale**2 > MAX_PX:
            raise ValueError(
                f"expected a result of at most {MAX_PX} px, got more with --scale {arguments.scale}, choose a smaller"
            )
        picture = run(
            model, vae, image, scale=arguments.scale, target_px=parts.metadata.target_size_px,
            steps=arguments.steps, seed=arguments.seed, start=arguments.start_from, colour=arguments.colour,
            decoder=decoder, fidelity=fidelity,
        )  # fmt: skip
        data, notes = source.restored_png(picture, in_srgb=arguments.profile == "srgb")
        print(shown(str(results.write(f"{key}.png", data))))
        return (*source.warnings, *notes)

    return end(over_pictures(listed, work), arguments.out)


def _fidelity(arguments: argparse.Namespace) -> float:
    if arguments.fidelity is None:
        return 1.0
    if arguments.decoder is None:
        raise ValueError("expected --decoder FILE with --fidelity, got none; name one, or leave --fidelity out")
    if not 0 <= arguments.fidelity <= 1:
        raise ValueError(f"expected --fidelity from 0 to 1, got {arguments.fidelity:g}, choose for example 0.5")
    return arguments.fidelity
