"""`get-weights`: the released weights from the Hugging Face hub into ComfyUI's models folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it brings torch, for which nobody who asks for --help should wait
    from faithdiff_core.hub.get import Step

ALSO = ("checkpoint", "vae")
EVERY_S = 0.5
"""Between two looks of a terminal's line."""


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    verb = verbs.add_parser("get-weights", help="download the released weights, check them, convert them to fp16 .safetensors")
    verb.add_argument("--into", type=Path, metavar="MODELS", help="ComfyUI's models folder; default: of the ComfyUI this lies in")
    verb.add_argument(
        "--also", nargs="+", choices=ALSO, default=[], help="the SDXL checkpoint for text encoders and VAE; the fp16 VAE"
    )
    verb.add_argument("--keep-bin", action="store_true", help="keep FaithDiff.bin beside the .safetensors made of it")
    verb.add_argument("--yes", action="store_true", help="do not ask")
    verb.set_defaults(run=get_weights)


def get_weights(arguments: argparse.Namespace) -> int:
    """`get-weights`: say what it takes, ask, fetch, check, convert."""
    from faithdiff_core.hub.catalogue import chosen
    from faithdiff_core.hub.get import get, plan, require_room

    models = _models_folder(arguments.into)
    files = chosen(["faithdiff", *arguments.also])
    steps = plan([(file, models / file.kind) for file in files])
    for file in files:
        if all(step.file != file for step in steps):
            print(f"{models / file.kind / file.loaded}: is there")
    if not steps:
        return 0
    _say(steps)
    require_room(steps, keep=arguments.keep_bin)
    if not arguments.yes and not _agreed():
        raise ValueError("expected a yes to the download, got none, nothing was downloaded; --yes downloads without asking")
    shown = _Shown()
    try:
        made = get(steps, shown.tell, keep=arguments.keep_bin)
    except KeyboardInterrupt:
        shown.end()
        print("interrupted; what has come is kept, the same command goes on with it", file=sys.stderr)
        return 130
    finally:
        shown.end()
    for path in made:
        print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")
    return 0


def _models_folder(into: Path | None) -> Path:
    """The folder to use.

    Raises:
        ValueError: none is named and the pack lies in no ComfyUI, or the one that is named is none.
    """
    packs = Path(__file__).resolve().parents[3]
    found = packs.parent / "models" if into is None and packs.name == "custom_nodes" else into
    if found is None or not found.is_dir():
        got = "none: the pack lies in no ComfyUI" if found is None else f"{found}, which is no folder"
        raise ValueError(f"expected ComfyUI's models folder, got {got}; name it: --into ComfyUI/models")
    return found


def _say(steps: Sequence[Step]) -> None:
    from faithdiff_core.hub.get import free_bytes
    from faithdiff_core.hub.progress import in_units
    from faithdiff_core.hub.record import address

    for step in steps:
        file, left = step.file, step.record.size_bytes - step.fetched_bytes
        print(f"{file.name} ({file.what}), {in_units(step.record.size_bytes)} from {address()}")
        print(f"  licence: {file.licence}, {file.page}")
        if left:
            print(f"  {in_units(left)} of it are there already")
        if step.halved_bytes:
            print(f"  becomes {file.half}, {in_units(step.halved_bytes)}")
        print(f"  needs {in_units(step.needs_bytes)} of room in {step.folder}, which has {in_units(free_bytes(step.folder))}")


def _agreed() -> bool:
    try:
        return input("Download? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


class _Shown:
    """Progress on stderr: one line that changes on a terminal, a line for each phase elsewhere."""

    def __init__(self) -> None:
        from faithdiff_core.hub.progress import Progress

        self._progress, self._terminal = Progress(), sys.stderr.isatty()
        self._last_s, self._phase = 0.0, ""

    def tell(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        self._progress.tell(phase, done_bytes, total_bytes)
        now = time.monotonic()
        if self._terminal and (now - self._last_s > EVERY_S or done_bytes == total_bytes):
            print(f"\r\x1b[K{self._progress.line()}", end="", file=sys.stderr, flush=True)
            self._last_s = now
        elif not self._terminal and phase != self._phase:
            print(self._progress.line(), file=sys.stderr, flush=True)
        self._phase = phase

    def end(self) -> None:
        if self._terminal and self._phase:
            print(file=sys.stderr)
        self._phase = ""
