"""`python -m training restore --workflow`: a folder through the queues of real servers, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostrun.client import Client
from hostrun.paths import ROOT
from hostrun.server import HostServer, ServerOptions, free_port
from PIL import Image
from support.patience import PATIENCE_S

DEMO = ROOT / "workflows" / "api" / "faithdiff_demo.json"


@pytest.fixture(scope="module")
def servers(server: HostServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[HostServer]]:
    """The session's server, and one that has no FaithDiff nodes."""
    empty = tmp_path_factory.mktemp("packs") / "empty"
    empty.mkdir()
    (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    options = ServerOptions(
        python=Path(sys.executable), host=Path(os.environ["COMFYUI_PATH"]), cpu=True,
        base=tmp_path_factory.mktemp("comfyui"), port=free_port(), pack=empty,
    )  # fmt: skip
    with HostServer(options) as without:
        yield [server, without]


@pytest.fixture
def pair(servers: list[HostServer]) -> list[HostServer]:
    """The two; the second is started again if a test has killed it."""
    for server in servers:
        if not server.is_running():
            server.start()
    return servers


def start(*arguments: object) -> subprocess.Popen[str]:
    """The command in a process of its own, which never sees the host."""
    command = [sys.executable, "-m", "training", "restore", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def restore(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command."""
    process = start(*arguments)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def at(*servers: HostServer) -> list[str]:
    return [part for server in servers for part in ("--server", server.url)]


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait for something that happens while the command runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def entries(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / "restore.json").read_text())["pictures"]


def workflow(folder: Path, *, scale_by: float) -> list[object]:
    """Options that enlarge and invert; the file has a second SaveImage that nobody asks for."""
    nodes = {
        "1": ("LoadImage", {"image": "none.png"}),
        "2": ("ImageScaleBy", {"image": ["1", 0], "upscale_method": "bilinear", "scale_by": scale_by}),
        "3": ("ImageInvert", {"image": ["2", 0]}),
        "4": ("SaveImage", {"images": ["3", 0], "filename_prefix": "wanted"}),
        "5": ("SaveImage", {"images": ["1", 0], "filename_prefix": "unasked"}),
    }
    path = folder / "w.json"
    path.write_text(json.dumps({key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}))
    return ["--workflow", path, "--output-node", 4]


def write_flat(path: Path, level: int, size_px: tuple[int, int] = (30, 20), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_px, (level, 2 * level, 40)).save(path, **options)


def assert_inverted(path: Path, level: int, size_px: tuple[int, int]) -> None:
    with Image.open(path) as result:
        assert result.size == size_px
        difference = np.asarray(result.convert("RGB"), int) - (255 - level, 255 - 2 * level, 215)
    assert np.abs(difference).max() <= 2  # a JPEG among the sources


LEVELS = {"a": 10, "b c": 20, "sub/a": 30, "\u00fcber/\u5199\u771f \u00e4": 40, "turned": 50, "x.y": 60}


@pytest.fixture(scope="module")
def first_run(servers: list[HostServer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Six good pictures and a broken one, at both servers."""
    folder = tmp_path_factory.mktemp("shared")
    source, out = folder / "in", folder / "out"
    for key, level in LEVELS.items():
        write_flat(source / f"{key}.png", level)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    (source / "turned.png").unlink()
    write_flat(source / "turned.jpg", LEVELS["turned"], exif=exif, quality=98)
    (source / "broken.png").write_bytes(b"not a picture")
    options = [source, out, *workflow(folder, scale_by=2.0), "--header", "Authorization: Bearer secret"]
    uploaded = [files_in(server.input_folder) for server in servers]
    code, said, err = restore(*options, *at(*servers))
    return {"source": source, "out": out, "options": options, "code": code, "said": said, "err": err, "before": uploaded}


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_two_servers_share_a_folder(first_run: dict[str, Any], servers: list[HostServer]) -> None:
    assert first_run["code"] == 1, first_run["err"]
    out, found = first_run["out"], entries(first_run["out"])
    for key, level in LEVELS.items():
        assert_inverted(out / f"{key}.png", level, (40, 60) if key == "turned" else (60, 40))
        entry = found[key]
        assert entry["status"] == "done" and [entry["width_px"], entry["height_px"]] == list(Image.open(out / f"{key}.png").size)
        assert entry["mode"] == "RGB" and entry["seconds"] > 0
    assert {entry["server"] for entry in found.values()} == {server.url for server in servers}
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == sorted(
        [*(f"{key}.png" for key in LEVELS), "restore.json"]
    )
    for server, before in zip(servers, first_run["before"], strict=True):
        output = server.options.base / "output"
        assert list(output.glob("wanted*")) and not list(output.glob("unasked*"))
        assert files_in(server.input_folder) == before
    assert "secret" not in (out / "restore.json").read_text() + first_run["said"] + first_run["err"]


def test_a_picture_at_fault_is_named_once_and_listed(first_run: dict[str, Any]) -> None:
    assert first_run["code"] == 1 and "6 done (" in first_run["said"] and ", 1 failed" in first_run["said"]
    reason = "broken: expected a readable picture, got broken.png (it is none of PNG, JPEG"
    lines = [line for line in first_run["err"].splitlines() if line.startswith("failed")]
    assert len(lines) == 2 and all(line.startswith(f"failed: {reason}") for line in lines), "when it happens, and at the end"
    assert entries(first_run["out"])["broken"]["status"] == "failed"
    assert "Traceback" not in first_run["err"] and " object at 0x" not in first_run["err"]


def test_a_second_run_does_what_is_missing_and_no_more(first_run: dict[str, Any], servers: list[HostServer]) -> None:
    source, out = first_run["source"], first_run["out"]
    write_flat(source / "broken.png", 70)
    write_flat(source / "a.png", 80)
    (out / "x.y.png").unlink()
    before = {key: (out / f"{key}.png").stat().st_mtime_ns for key in LEVELS if key not in ("a", "x.y")}
    code, said, err = restore(*first_run["options"], *at(servers[0]))
    assert (code, said) == (0, f"{out}: 3 done, 4 done before\n"), err
    assert_inverted(out / "broken.png", 70, (60, 40))
    assert_inverted(out / "a.png", 80, (60, 40))
    assert before == {key: (out / f"{key}.png").stat().st_mtime_ns for key in before}


@pytest.fixture
def slow(tmp_path: Path) -> list[object]:
    """Arguments for six pictures that take a good part of a second each."""
    for index in range(6):
        write_flat(tmp_path / "in" / f"{index}.png", 10 * index, (450, 300))
    return [tmp_path / "in", tmp_path / "out", *workflow(tmp_path, scale_by=8.0)]


def test_ctrl_c_leaves_others_prompts_alone_and_the_next_run_goes_on(
    pair: list[HostServer], slow: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(*slow, *at(pair[0]), "--ahead", 3)
    wait_until(lambda: (out / "0.png").exists(), process)
    with Client(pair[0].url) as other:
        saved = {"images": ["a", 0], "filename_prefix": "other"}
        prompt = {
            "a": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
            "b": {"class_type": "SaveImage", "inputs": saved},
        }
        others = other.queue(prompt)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130 and "the same command goes on from here" in err and "Traceback" not in err
        assert other.images(other.wait(others, PATIENCE_S))
        queue = other.get("/queue")
    assert not queue["queue_running"] and not queue["queue_pending"]
    done = [key for key, entry in entries(out).items() if entry["status"] == "done"]
    assert 1 <= len(done) < 6
    code, said, err = restore(*slow, *at(pair[0]))
    assert (code, said) == (0, f"{out}: {6 - len(done)} done, {len(done)} done before\n"), err


def test_a_workflow_that_every_server_refuses_stops_at_once(pair: list[HostServer], tmp_path: Path) -> None:
    write_flat(tmp_path / "in" / "a.png", 10)
    options = [*workflow(tmp_path, scale_by=2.0), "--set", "2.upscale_method=magic"]
    code, said, err = restore(tmp_path / "in", tmp_path / "out", *options, *at(*pair))
    assert (code, said) == (2, "")
    assert err.splitlines()[-1].startswith("error: expected servers to take the workflow, got a refusal (")
    assert err.splitlines()[-1].count("node 2 (ImageScaleBy): Value not in list: upscale_method: 'magic' not in") == 2
    assert entries(tmp_path / "out") == {}


def test_nano_workflow_goes_to_the_server_that_has_the_nodes(pair: list[HostServer], tmp_path: Path) -> None:
    Image.open(ROOT / "demo" / "photo_lq.png").resize((40, 36)).save(tmp_path / "a.png")
    Image.new("RGB", (33, 41), (200, 100, 50)).save(tmp_path / "b.png")
    settings = ["--set", "FaithDiff Sampler.steps=2", "--seed", 5]
    code, said, err = restore(tmp_path, tmp_path.with_name("nano"), "--workflow", DEMO, *settings, *at(*pair))
    assert code == 0, err
    assert "2 done ({} 2, {} 0)".format(*(server.url.partition("//")[2] for server in pair)) in said
    assert f"{pair[1].url} refuses the workflow: Node '" in err
    for name, size_px in {"a": (80, 72), "b": (66, 82)}.items():
        with Image.open(tmp_path.with_name("nano") / f"{name}.png") as result:
            assert result.size == size_px


@pytest.mark.long
def test_a_killed_server_and_a_cleared_queue_cost_no_picture(pair: list[HostServer], slow: list[object], tmp_path: Path) -> None:
    # Seconds in which a server that lives answers for certain, be it busy.
    process = start(*slow, *at(*pair), "--give-up-after", 10, "--ahead", 3)
    with Client(pair[0].url) as first, Client(pair[1].url) as second:
        wait_until(lambda: len(first.get("/queue")["queue_pending"]) > 1 and second.get("/queue")["queue_running"], process)
        first.post("/queue", {"clear": True})
        assert pair[1].process
        os.killpg(pair[1].process.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert f"6 done ({pair[0].url.partition('//')[2]} " in out
    assert f"{pair[0].url} has forgotten " in err, err
    assert f"{pair[1].url} given up (" in err, err
    assert [entry["status"] for entry in entries(tmp_path / "out").values()] == ["done"] * 6
    assert {Image.open(path).size for path in (tmp_path / "out").glob("*.png")} == {(3600, 2400)}
