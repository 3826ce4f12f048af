"""The commands that make data: prepare, degrade, caption."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.commands.shared import add_again, at_least, end

if TYPE_CHECKING:  # they bring torch
    from training.common.folders import Tally
    from training.data.manifest import Skipped


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the commands and their options."""
    _prepare_verb(verbs)
    verb = verbs.add_parser("degrade", help="make degraded pictures of a file or folder")
    verb.add_argument("source", type=Path, metavar="IN", help="picture or folder")
    verb.add_argument("out", type=Path, metavar="OUT", help="folder for the results and manifest.json")
    verb.add_argument("--level", default="mild", help="I, II, III, mild or heavy")
    verb.add_argument("--scale", type=int, default=4, help="how many times smaller the result is")
    verb.add_argument("--seed", type=int, default=0)
    add_again(verb)
    verb.set_defaults(run=degrade)
    _caption_verb(verbs)


def _prepare_verb(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("prepare", help="make a keyed manifest of pictures")
    verb.add_argument(
        "images", nargs="*", type=Path, help="pictures, folders, .tar shards (KEY.png, KEY.lq.png, KEY.txt or KEY.json)"
    )
    verb.add_argument(
        "--lq",
        type=Path,
        metavar="DIR",
        help="folder or shard of LQ pictures, joined by key; without one a picture is left out",
    )
    verb.add_argument(
        "--captions", type=Path, metavar="DIR", help="folder of KEY.txt or KEY.json; else those beside the pictures"
    )
    verb.add_argument(
        "--trim", action="store_true", help="drop a caption's first three words and keep two sentences, as the official trainer"
    )
    verb.add_argument(
        "--bundled", action="store_true", help="add the stills of the installed comfyui-workflow-templates-media-* packages"
    )
    verb.add_argument(
        "--text", type=int, default=0, metavar="N", help="add N rendered pictures of text, written beside the manifest"
    )
    verb.add_argument("--seed", type=int, default=0, help="seed of the text pictures")
    verb.add_argument("--val-frac", type=float, default=0.03, help="share of the pictures kept for validation")
    verb.add_argument("--min-side", type=int, default=256, metavar="PX", help="leave out pictures with a shorter side below this")
    verb.add_argument("--out", type=Path, required=True, help="the manifest to write (.jsonl)")
    verb.set_defaults(run=prepare)


def _caption_verb(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("caption", help="describe the pictures of a manifest with a local image-to-text model")
    verb.add_argument("--data", type=Path, required=True, help="manifest from prepare")
    verb.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder of an image-to-text model of transformers")
    verb.add_argument("--out", type=Path, help="the manifest to write (default: DATA itself)")
    verb.add_argument("--prompt", help="what to ask, or how the text begins for a model that cannot be asked")
    verb.add_argument("--batch-size", type=int, default=4)
    verb.add_argument(
        "--max-tokens", type=int, default=512, help="length of a caption at most (official llava/llm_agent.py: 512)"
    )
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    verb.add_argument("--overwrite", action="store_true", help="describe pictures that have a caption, too")
    verb.add_argument(
        "--trim", action=argparse.BooleanOptionalAction, default=None,
        help="drop the first three words and keep two sentences (default: for models that can be asked)",
    )  # fmt: skip
    verb.set_defaults(run=caption)


def prepare(arguments: argparse.Namespace) -> int:
    """`prepare`: make a manifest and say what was left out."""
    from training.common.folders import shown
    from training.common.results import require_own
    from training.data import manifest
    from training.data.caption_files import in_folder
    from training.data.prepare import build, find, join, lq_by_key

    if not 0 <= arguments.val_frac < 1:
        raise ValueError(f"expected --val-frac from 0 to below 1, got {arguments.val_frac}, choose for example 0.03")
    at_least("text", arguments.text, 0, example=32)
    at_least("min-side", arguments.min_side, 1, example=256)
    require_own(arguments.out, "manifest", manifest.is_manifest, arguments.images)
    require_own(manifest.skipped_path(arguments.out), "list of left-out pictures", manifest.is_manifest)
    found = find(arguments.images)
    pictures, lq, captions, skipped = found.pictures, found.lq, found.captions, found.skipped
    if arguments.captions:
        captions = in_folder(arguments.captions)
    if arguments.lq:
        listed = find([arguments.lq])
        lq = lq | lq_by_key(listed.pictures, [key for key, _ in pictures])
        skipped = skipped + listed.skipped
    pictures, unpaired = join(pictures, lq, required=arguments.lq is not None)
    skipped = skipped + unpaired
    if arguments.bundled:
        from training.data.prepare import bundled_stills

        pictures = pictures + bundled_stills()
    if arguments.text:
        from training.data.rendered_words import write_series

        pictures = pictures + write_series(arguments.out.parent / "text", seed=arguments.seed, count=arguments.text)
    if not pictures and not skipped:
        raise ValueError("expected pictures, got none, name files or folders, or add --bundled or --text N")
    records, unusable = build(
        pictures, val_frac=arguments.val_frac, min_side_px=arguments.min_side, lq=lq, captions=captions, trim=arguments.trim
    )
    skipped = skipped + unusable
    tally = tally_of(skipped, done=len(records))
    for item in skipped:
        if item.reason:
            print(shown(f"skipped {item.key}: {item.reason}"))
    if not records:
        raise ValueError(f"expected at least one usable picture, got {len(skipped)} that were skipped, see the list above")
    manifest.write(records, arguments.out)
    listed_in = manifest.write_skipped(skipped, arguments.out)
    train_count = sum(record.split == "train" for record in records)
    lq_count, captions_count = sum(bool(record.lq_path) for record in records), sum(bool(record.caption) for record in records)
    counts = f"{train_count} to train, {len(records) - train_count} to validate"
    more = f"; {counts}; {lq_count} LQ pictures, {captions_count} captions"
    print(f"{arguments.out}: {tally.summary()}{f' ({listed_in})' if listed_in else ''}{more}")
    return tally.exit_code


def tally_of(skipped: list[Skipped], *, done: int) -> Tally:
    """What was left out and what has failed, counted."""
    from faithdiff_core.listing.kinds import LeftOut
    from training.common.folders import Tally

    tally = Tally(done=done)
    for item in skipped:
        if item.kind:
            tally.left_out.append(LeftOut(path=item.path, kind=item.kind, reason=item.reason))
        else:
            tally.failed[item.key] = item.reason
    return tally


def degrade(arguments: argparse.Namespace) -> int:
    """`degrade`: write degraded pictures and their manifest."""
    from training.degradation.folder import degrade_paths

    tally = degrade_paths(
        arguments.source, arguments.out, level=arguments.level, scale=arguments.scale, seed=arguments.seed, again=arguments.again
    )
    return end(tally, arguments.out)


def caption(arguments: argparse.Namespace) -> int:
    """`caption`: a manifest with the model's captions."""
    from training.common.folders import shown
    from training.common.results import require_own
    from training.data import manifest
    from training.data.captions import Captioner, caption_manifest

    for name in ("batch_size", "max_tokens"):
        if getattr(arguments, name) < 1:
            raise ValueError(
                f"expected --{name.replace('_', '-')} of at least 1, got {getattr(arguments, name)}, choose a larger one"
            )
    out = arguments.out or arguments.data
    if out != arguments.data:
        require_own(out, "manifest", manifest.is_manifest)
    records = manifest.read(arguments.data)
    captioner = Captioner.read(arguments.model, arguments.device, prompt=arguments.prompt, max_tokens=arguments.max_tokens)
    made, skipped = caption_manifest(
        records, out, captioner, batch_size=arguments.batch_size, overwrite=arguments.overwrite,
        trim=captioner.is_asked if arguments.trim is None else arguments.trim,
    )  # fmt: skip
    for item in skipped:
        print(shown(f"skipped {item.key}: {item.reason}"))
    tally = tally_of(skipped, done=made)
    print(f"{out}: {tally.summary([f'{len(records) - made - len(skipped)} left as they were'])}")
    return tally.exit_code
