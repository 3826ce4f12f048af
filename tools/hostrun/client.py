"""Talks to a ComfyUI server: posts prompts, listens to its websocket, fetches results."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp

from .local_http import open_local

Message = dict[str, Any]  # {"type": ..., "data": {...}}, as the server sends it; "at_s" (monotonic) is added here
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


class PromptRejected(Exception):
    """The server refused a prompt. The message names each node and what is wrong with it; `answer` is the server's own."""

    def __init__(self, answer: dict[str, Any], prompt: dict[str, Any]) -> None:
        self.answer = answer
        super().__init__(describe_rejection(answer, prompt))


class PromptFailed(Exception):
    """A node raised while the prompt ran, or the prompt was interrupted. `message` is the websocket message that said so."""

    def __init__(self, message: Message) -> None:
        self.message = message
        data = message["data"]
        if message["type"] == "execution_interrupted":
            text = f"interrupted in node {data.get('node_id')} ({data.get('node_type')})"
        else:
            text = (
                f"node {data.get('node_id')} ({data.get('node_type')}) failed: {str(data.get('exception_message', '')).strip()}"
            )
        super().__init__(text)


class Client:
    """One websocket session. A context manager; `messages` grows in the background from entry on."""

    def __init__(self, url: str, *, check_server: Callable[[], None] = lambda: None) -> None:
        """`check_server` is called while waiting and raises if the server is gone."""
        self.url = url
        self.client_id = uuid.uuid4().hex
        self.messages: list[Message] = []
        self._check_server = check_server
        self._news = threading.Condition()
        self._connected = threading.Event()
        self._closing = threading.Event()
        self._listener = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self) -> Client:
        self._listener.start()
        deadline = time.monotonic() + 30
        while not self._connected.wait(0.5):
            self._check_server()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no websocket connection to {self.url} within 30 s")
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.join(10)

    async def _listen(self) -> None:
        address = f"{self.url}/ws?clientId={self.client_id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            self._connected.set()
            while not self._closing.is_set():
                try:
                    received = await socket.receive(timeout=0.2)
                except asyncio.TimeoutError:
                    continue
                if received.type == aiohttp.WSMsgType.TEXT:
                    with self._news:
                        self.messages.append(json.loads(received.data) | {"at_s": time.monotonic()})
                        self._news.notify_all()
                elif received.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
                    return  # closed

    def get(self, path: str) -> Any:
        """Parsed JSON of GET `path`."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        with open_local(self.url + path, timeout_s=60) as answer:
            return answer.read()

    def post(self, path: str, body: Any) -> Any:
        """Parsed JSON of the answer, None if it is empty. HTTP errors are urllib's."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)  # noqa: S310 - our own server's URL
        with open_local(request, timeout_s=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def object_info(self) -> dict[str, Any]:
        return self.get("/object_info")

    def queue(self, prompt: dict[str, Any]) -> str:
        """Post an API-format prompt; its id. Raises PromptRejected."""
        try:
            return self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", errors="replace")
            try:
                answer = json.loads(text)
            except ValueError:
                answer = {"error": {"message": f"HTTP {error.code}: {text[:300]}"}}
            raise PromptRejected(answer, prompt) from None

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def of(self, prompt_id: str, kind: str | None = None) -> list[Message]:
        """The messages so far about one prompt, of one kind where given."""
        with self._news:
            found = [m for m in self.messages if m.get("data", {}).get("prompt_id") == prompt_id]
        return [m for m in found if kind is None or m["type"] == kind]

    def wait_for(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """The first true value of `condition()`, asked again after every message.

        Raises TimeoutError, or what `check_server` raises."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            self._check_server()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} from {self.url} within {timeout_s:.0f} s")
            with self._news:
                self._news.wait(0.2)
        return value

    def wait(self, prompt_id: str, timeout_s: float) -> dict[str, Any]:
        """The history entry of a prompt once it has ended well. Raises PromptFailed, TimeoutError."""
        ending = self.wait_for(
            lambda: [m for m in self.of(prompt_id) if m["type"] in ENDINGS], timeout_s, f"end of prompt {prompt_id}"
        )[0]
        if ending["type"] != "execution_success":
            raise PromptFailed(ending)
        return self.wait_for(lambda: self.get(f"/history/{prompt_id}").get(prompt_id), 30, f"history of prompt {prompt_id}")

    def run(self, prompt: dict[str, Any], timeout_s: float = 120) -> dict[str, Any]:
        """Queue a prompt and wait for it; its history entry."""
        return self.wait(self.queue(prompt), timeout_s)

    def images(self, history: dict[str, Any]) -> list[bytes]:
        """The files of every image the prompt saved, in the order of the outputs, fetched by /view."""
        entries = [image for output in history["outputs"].values() for image in output.get("images", [])]
        return [
            self.get_bytes("/view?" + urllib.parse.urlencode({k: e[k] for k in ("filename", "subfolder", "type")}))
            for e in entries
        ]


def describe_rejection(answer: dict[str, Any], prompt: dict[str, Any]) -> str:
    """The server's answer to a bad prompt in plain lines: one for the whole, one for each complaint about a node."""
    error = answer.get("error") or {}
    whole = error if isinstance(error, str) else " ".join(filter(None, (error.get("message"), error.get("details"))))
    lines = [f"the prompt was rejected: {' '.join(str(whole).split())}"]
    for node_id, found in (answer.get("node_errors") or {}).items():
        name = prompt.get(node_id, {}).get("class_type", found.get("class_type", "?"))
        lines += [
            f"  node {node_id} ({name}): {e.get('message', '')}: {e.get('details', '')}".rstrip(": ")
            for e in found.get("errors", [])
        ]
    return "\n".join(lines)
