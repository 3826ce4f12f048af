"""A real ComfyUI server process with this pack in it: started in a private base folder, stopped with all its children."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from .errors import SetupError
from .local_http import open_local
from .paths import PACK_NAME, ROOT

START_TIMEOUT_S = 300.0
STOP_GRACE_S = 5.0
BASE_FOLDERS = ("input", "output", "temp", "user", "models", "custom_nodes")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COPY_IGNORES = shutil.ignore_patterns(".git", "build", "__pycache__", "node_modules", "runs", ".venv", "venv")


class ServerDied(Exception):
    """The server process ended by itself. The message has the last lines of its log and the log's path."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """`base`: holds everything the server writes. `model_folders`: model kind -> folder, beside those in `base`/models."""

    python: Path
    host: Path
    base: Path
    port: int
    cpu: bool
    model_folders: dict[str, Path] = dataclasses.field(default_factory=dict)
    pack: Path = ROOT
    extra_arguments: Sequence[str] = ()


class HostServer:
    """One server process. A context manager: started on entry, stopped on exit."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.url = f"http://127.0.0.1:{options.port}"
        self.input_folder = options.base / "input"
        self.log_path = options.base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HostServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the process and wait until it answers. Raises ServerDied or SetupError (too slow); the process is gone then."""
        self._prepare_base()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.options.host,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C in the terminal reaches us only; we stop the server, and its whole group
                preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
            )
        try:
            self._wait_until_ready(timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process and all it started: politely, then for good. Harmless when it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        try:
            _signal_group(process, "SIGTERM")
            process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when a second Ctrl-C cuts the wait short
            _signal_group(process, "SIGKILL")  # and children that outlived it
            process.wait()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def check_running(self) -> None:
        """Raises ServerDied if the process has ended."""
        if not self.is_running():
            code = self.process.poll() if self.process else None
            raise ServerDied(
                f"ComfyUI ended by itself (exit code {code}). The end of its log {self.log_path}:\n{self.log_tail()}"
            )

    def log(self) -> str:
        """All the server has written so far, without colours."""
        if not self.log_path.exists():
            return ""
        return _COLOUR.sub("", self.log_path.read_text(encoding="utf-8", errors="replace"))

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(f"    {line}" for line in self.log().splitlines()[-lines:])

    def command(self) -> list[str]:
        """The command line: only this pack, no API nodes, no browser, a database in memory."""
        options = self.options
        command = [str(options.python), str(options.host / "main.py"), "--listen", "127.0.0.1", "--port", str(options.port)]
        command += ["--base-directory", str(options.base), "--extra-model-paths-config", str(options.base / "model_paths.yaml")]
        command += ["--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME]
        return [*command, *(["--cpu"] if options.cpu else []), *options.extra_arguments]

    def _prepare_base(self) -> None:
        base = self.options.base
        for name in BASE_FOLDERS:
            (base / name).mkdir(parents=True, exist_ok=True)
        packs = base / "pack"
        shutil.rmtree(packs, ignore_errors=True)
        packs.mkdir()
        if os.name == "nt":  # a symlink needs a privilege there
            shutil.copytree(self.options.pack, packs / PACK_NAME, ignore=COPY_IGNORES)
        else:
            (packs / PACK_NAME).symlink_to(self.options.pack, target_is_directory=True)
        entries = {"custom_nodes": packs, **self.options.model_folders}
        # JSON strings are YAML strings, whatever is in the path.
        lines = [f"  {kind}: {json.dumps(str(folder))}" for kind, folder in entries.items()]
        (base / "model_paths.yaml").write_text("\n".join(["faithdiff_tools:", *lines]) + "\n", encoding="utf-8")

    def _wait_until_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check_running()
            try:
                with open_local(f"{self.url}/system_stats", timeout_s=5) as answer:
                    if answer.status == 200:
                        self.check_running()  # not another server that has the port
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        raise SetupError(f"expected ComfyUI to answer on {self.url} within {timeout_s:.0f} s, got nothing; see {self.log_path}")


def choose_port(wanted: int, *, or_next: bool) -> int:
    """`wanted` if it is free; otherwise one of the 50 after it where `or_next`, else SetupError."""
    for port in range(wanted, wanted + 51 if or_next else wanted + 1):
        if _is_free(port):
            return port
    if or_next:
        raise SetupError(f"expected a free port between {wanted} and {wanted + 50}, got none; choose one: PORT=...")
    raise SetupError(f"expected port {wanted} to be free, got a program that listens on it; choose another: PORT={wanted + 1}")


def free_port() -> int:
    """A port that the system says is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself: a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _environment() -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return variables | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def _signal_group(process: subprocess.Popen[bytes], name: str) -> None:
    try:
        if os.name == "nt":
            process.terminate() if name == "SIGTERM" else process.kill()
        else:
            os.killpg(process.pid, getattr(signal, name))
    except (ProcessLookupError, PermissionError):
        pass  # nothing of the group is left


def _die_with_parent() -> Callable[[], None]:
    """For the child, between fork and exec: the kernel ends it when we are killed without a chance to clean up."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG, linux/prctl.h
    libc = ctypes.CDLL(None)  # loaded here: little is safe to do in the child

    def in_child() -> None:
        libc.prctl(set_parent_death_signal, signal.SIGTERM)

    return in_child
