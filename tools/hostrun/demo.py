"""`make demo`: restore the bundled photo through a real ComfyUI server and its queue. Runs in the environment's Python."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from .client import ENDINGS, Client, PromptFailed, PromptRejected
from .errors import SetupError, run_command
from .gpu import has_gpu
from .measure import beside_truth
from .paths import BUILD, PACK_NAME, ROOT, require_free_space
from .picture import before_after
from .progress import ProgressView
from .server import HostServer, ServerDied, ServerOptions, choose_port
from .status import say, working

DEFAULT_PORT = 8199
"""Next to ComfyUI's own 8188, so that both can run."""
OUTPUT_DISK_BYTES = 50 * 1024**2
RUN_TIMEOUT_S = 1800.0
WORKFLOW = ROOT / "workflows" / "api" / "faithdiff_demo.json"
PHOTOS = ROOT / "demo"
PHOTO_CLASSES = ("FaithDiffLoadPhoto", "LoadImage")
"""Nodes that load a photo by its name in `image`."""


def demo_command(arguments: Sequence[str]) -> int:
    """Exit code of the command line."""
    options = _parser().parse_args(arguments)
    try:
        return run_command(lambda: _run(options))
    except (ServerDied, PromptRejected, PromptFailed, TimeoutError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo.py", description="Restore the bundled photo with the nano model through a real ComfyUI server."
    )
    parser.add_argument(
        "--port", type=int, default=None, help=f"the server's port (default: {DEFAULT_PORT} or the next free one)"
    )
    parser.add_argument("--out", type=Path, default=BUILD / "demo", help="where the pictures go (default: build/demo)")
    parser.add_argument(
        "--workflow", type=Path, default=WORKFLOW, help="API-format prompt (default: workflows/api/faithdiff_demo.json)"
    )
    parser.add_argument(
        "--photos", type=Path, default=PHOTOS, help="folder with the photos that the workflow loads (default: demo)"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    started_s = time.monotonic()
    out: Path = options.out.absolute()
    prompt = _read_prompt(options.workflow)
    require_free_space(out, OUTPUT_DISK_BYTES, "the pictures", "choose another folder: tools/demo.py --out FOLDER")
    port = choose_port(options.port or DEFAULT_PORT, or_next=options.port is None)
    python, host = Path(sys.executable), Path(os.environ["COMFYUI_PATH"])
    base = out / f"comfyui-{port}"  # by port: two demos at once do not share it
    shutil.rmtree(base, ignore_errors=True)
    photo = _place_photos(prompt, options.photos, base / "input")
    with ExitStack() as stack:
        server = HostServer(ServerOptions(python=python, host=host, base=base, port=port, cpu=not has_gpu(python)))
        stack.callback(server.stop)
        with working(f"starting ComfyUI on {server.url}{' (CPU)' if server.options.cpu else ''}"):
            server.start()
        ready_s = time.monotonic()
        client = stack.enter_context(Client(server.url, check_server=server.check_running))
        _check_nodes(client.object_info(), prompt, server)
        say(f"  running {_shown(options.workflow)} on {photo.name} through the queue")
        restored_png = _run_prompt(client, prompt)
        done_s = time.monotonic()
    with Image.open(photo) as before, Image.open(io.BytesIO(restored_png)) as restored:
        paths = _write_pictures(before, restored, restored_png, out)
        print(f"\nRestored {photo.name}, {_size(before)} px, to {_size(restored)} px.")
        figures = beside_truth(photo, restored)
    if figures:
        print(f"Beside the original that the photo was made from: {'; '.join(figures)}.")
    print("The weights are the bundled nano model: it shows the whole pipeline at work, not what the released weights can do.")
    print(f"  result        {paths[0]}\n  before/after  {paths[1]}")
    total_s = time.monotonic() - started_s
    print(f"  time          {total_s:.0f} s: ComfyUI's start {ready_s - started_s:.0f} s, the prompt {done_s - ready_s:.0f} s")
    return 0


def _read_prompt(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SetupError(f"expected the workflow {path}, found none; run from a complete clone") from None
    except ValueError as error:
        raise SetupError(f"expected an API-format prompt in {path}, got broken JSON: {error}") from None


def _place_photos(prompt: dict[str, Any], photos: Path, input_folder: Path) -> Path:
    """Copy what the prompt's nodes that load a photo name into the server's input folder; the first one."""
    names = [str(node["inputs"]["image"]) for node in prompt.values() if node["class_type"] in PHOTO_CLASSES]
    if not names:
        raise SetupError("expected FaithDiff Load Photo or LoadImage in the workflow, got neither")
    input_folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (photos / name).is_file():
            raise SetupError(f"expected the photo {photos / name}, found none; run from a complete clone")
        shutil.copyfile(photos / name, input_folder / name)
    return photos / names[0]


def _check_nodes(known: dict[str, Any], prompt: dict[str, Any], server: HostServer) -> None:
    """Raises SetupError, with the reason from the server's log, if the server lacks a node of the prompt."""
    absent = sorted({node["class_type"] for node in prompt.values()} - known.keys())
    if absent:
        clues = ("Cannot import", "Error while calling comfy_entrypoint", "IMPORT FAILED", "Skip ")
        reasons = [
            line.strip() for line in server.log().splitlines() if PACK_NAME in line and any(clue in line for clue in clues)
        ]
        reason = f" ComfyUI says: {reasons[0]}" if reasons else ""
        raise SetupError(f"expected the pack's nodes in ComfyUI, {', '.join(absent)} missing.{reason} (log: {server.log_path})")


def _run_prompt(client: Client, prompt: dict[str, Any]) -> bytes:
    """Queue the prompt, show its progress; the last image it saved."""
    view, seen = ProgressView(prompt), 0
    prompt_id = client.queue(prompt)

    def show_and_check() -> bool:
        nonlocal seen
        messages = client.of(prompt_id)
        for message in messages[seen:]:
            view.feed(message)
        seen = len(messages)
        return any(message["type"] in ENDINGS for message in messages)

    client.wait_for(show_and_check, RUN_TIMEOUT_S, "end of the prompt")
    images = client.images(client.wait(prompt_id, 30))
    if not images:
        raise SetupError("expected the workflow to save a picture (FaithDiff Save Photo or SaveImage), got none")
    return images[-1]


def _write_pictures(before: Image.Image, restored: Image.Image, restored_png: bytes, out: Path) -> tuple[Path, Path]:
    """restored.png as the server sent it and before_after.png, each complete or not there at all."""
    sheet = io.BytesIO()
    before_after(before, restored, ("before (enlarged)", "restored by FaithDiff nano")).save(sheet, "PNG")
    paths = (out / "restored.png", out / "before_after.png")
    for path, contents in zip(paths, (restored_png, sheet.getvalue()), strict=True):
        temporary = path.with_suffix(".part")
        try:
            temporary.write_bytes(contents)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return paths


def _size(picture: Image.Image) -> str:
    return f"{picture.width}x{picture.height}"


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(demo_command(sys.argv[1:]))
