"""A server with prompts_pack.py's nodes beside ours and tiny weights, and a session with it that says how each prompt ended."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.error
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostrun.client import ENDINGS, Client, describe_rejection
from hostrun.paths import PACK_NAME
from hostrun.server import HostServer, ServerOptions, free_port

from . import tiny
from .patience import PATIENCE_S
from .photos import all_cases

TRY_PACK = "faithdiff_try"
MODEL, VAE, DECODER = "tiny.safetensors", "tiny_vae.safetensors", "tiny_fidelity.safetensors"
PHOTO = "photo.png"
SUPPORT = Path(__file__).resolve().parent


def make_server(base: Path) -> HostServer:
    """Not started yet. It keeps no node's outputs: what a prompt gives comes from nodes that ran for it."""
    pack, models = base / "custom_nodes" / TRY_PACK, base / "models" / "faithdiff"
    for folder in (pack, models):
        folder.mkdir(parents=True, exist_ok=True)
    (pack / "__init__.py").write_text("from .prompts_pack import comfy_entrypoint\n", encoding="utf-8")
    for name in ("prompts_pack.py", "prompts_values.py", "prompts_faults.py"):
        shutil.copyfile(SUPPORT / name, pack / name)
    tiny.write_full(models / MODEL, tiny.made_up_parts())
    tiny.write_vae(models / VAE)
    tiny.write_decoder(models / DECODER)
    (base / "input").mkdir(exist_ok=True)
    (base / "input" / PHOTO).write_bytes(next(case.data for case in all_cases() if case.name == "rgba-p3-png"))
    options = ServerOptions(
        python=Path(sys.executable),
        host=Path(os.environ["COMFYUI_PATH"]),
        base=base,
        port=free_port(),
        cpu=True,
        extra_arguments=("--cache-none", "--whitelist-custom-nodes", PACK_NAME, TRY_PACK),
    )
    return HostServer(options)


@functools.cache
def shared_server() -> HostServer:
    """One for all tests of this process; runs until it ends."""
    base = Path(tempfile.mkdtemp(prefix="faithdiff-try-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    server = make_server(base)
    server.start()
    atexit.register(server.stop)
    return server


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a prompt ended: "picture", "rejected" (by validation), "error" (in a node), "stopped" (interrupted), "broken" (HTTP
    500).

    Attributes:
        reason: what the user is told.
        kind: the exception's type, where a node raised.
        node: id of the node that raised.
        outputs: what the output nodes told, by node, for a picture.
    """

    how: str
    reason: str = ""
    kind: str = ""
    node: str = ""
    trace: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """Node -> hash of what it was given, for TrySink nodes."""
        return {node: told["digest"][0] for node, told in self.outputs.items() if "digest" in told}

    @property
    def is_sound(self) -> bool:
        """A picture whose nodes were given something, and only finite numbers."""
        return self.how == "picture" and bool(self.digests) and self.finite

    @property
    def finite(self) -> bool:
        return all(all(told["finite"]) for told in self.outputs.values() if "finite" in told)


class Session(Client):
    """A Client that forgets what it heard of earlier prompts."""

    def post_prompt(self, prompt: dict[str, Any]) -> str | Ending:
        """The prompt's id, or how it was refused."""
        try:
            return self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", errors="replace")
            if error.code != 400:
                return Ending(how="broken", reason=f"HTTP {error.code}: {text[:300]}")
            return Ending(how="rejected", reason=describe_rejection(json.loads(text), prompt))

    def end_of(self, prompt: dict[str, Any], *, longest_s: float = PATIENCE_S, patience_s: float = 0.0) -> Ending:
        """Queues a prompt and waits for its end; after `patience_s`, where given, it is interrupted.

        Raises:
            TimeoutError: no end within `longest_s`.
        """
        with self._news:
            self.messages.clear()
        prompt_id = self.post_prompt(prompt)
        if isinstance(prompt_id, Ending):
            return prompt_id
        return self.ending(prompt_id, longest_s=longest_s, patience_s=patience_s)

    def ending(self, prompt_id: str, *, longest_s: float = PATIENCE_S, patience_s: float = 0.0) -> Ending:
        start_s, asked = time.monotonic(), False

        def last() -> list:
            nonlocal asked
            if patience_s and not asked and time.monotonic() - start_s > patience_s:
                asked = True
                self.interrupt()
            return [m for m in self.of(prompt_id) if m["type"] in ENDINGS]

        message = self.wait_for(last, longest_s, f"end of prompt {prompt_id}")[0]
        data = message["data"]
        if message["type"] == "execution_interrupted":
            return Ending(how="stopped", node=data["node_id"])
        if message["type"] == "execution_error":
            return Ending(
                how="error", reason=data["exception_message"].strip(), kind=data["exception_type"], node=data["node_id"],
                trace="".join(data["traceback"]),
            )  # fmt: skip
        entry = self.wait_for(lambda: self.get(f"/history/{prompt_id}").get(prompt_id), PATIENCE_S, f"history of {prompt_id}")
        return Ending(how="picture", outputs=entry["outputs"])

    def put_fault(self, **fields: Any) -> int:
        """A prompts_faults.Fault in the server, in place of the one that stands; without fields, none.

        Returns how often that one's place was called while it stood."""
        return self.post("/try/fault", fields)["calls"]

    def stopped_at(self, prompt: dict[str, Any], place: str, call: int = 1) -> Ending:
        """How a prompt ends that is interrupted, by POST /interrupt, in the middle of a place of prompts_faults.PLACES."""
        self.put_fault(place=place, what="wait", call=call)
        try:
            prompt_id = self.queue_until_struck(prompt)
            self.interrupt()
            return self.ending(prompt_id)
        finally:
            self.put_fault()

    def queue_until_struck(self, prompt: dict[str, Any]) -> str:
        """Queues a prompt and waits until it stands where a fault lets it wait; its id."""
        with self._news:
            self.messages.clear()
        prompt_id = self.post_prompt(prompt)
        assert isinstance(prompt_id, str), prompt_id
        self.wait_for(lambda: [m for m in self.messages if m["type"] == "try.struck"], PATIENCE_S, "fault")
        return prompt_id

    def is_idle(self) -> bool:
        return self.get("/prompt")["exec_info"]["queue_remaining"] == 0
