"""One ComfyUI server through its HTTP API, with the standard library alone.

Not requests: it trusts certifi's authorities instead of the system's, so that a server behind a company's own certificate would
be refused; it takes passwords from ~/.netrc over --header; and it unpacks an answer before anybody can count its bytes. To turn
each of these off takes more lines than the multipart body and the redirect handler here.

Two kinds of trouble, apart because one passes and the other does not: `NoAnswer` (nothing came, or nothing of ComfyUI's)
and `Refused` (ComfyUI said no).
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from training.common.images import without_addresses
from training.common.strict_json import parse_json
from training.folder.address import is_this_machine
from training.folder.prompt import Prompt, shown

REQUEST_TIMEOUT_S = 60.0
"""Longest silence within one request. A server that loads a large model may not answer for a while."""
QUICK_TIMEOUT_S = 20.0
"""The same where somebody waits for us to begin or to end."""
NOT_COMFYUI_CODES = frozenset({301, 302, 303, 307, 308, 401, 403, 407, 502, 503, 504})
"""Statuses that a login page, a proxy or a redirect gives, and ComfyUI's API does not."""
MAX_ANSWER_BYTES = 4 * 2**30
"""An answer is held in memory. The largest picture that is taken (images.MAX_PX) has 2 GiB with alpha in 16 bits, and 4 GiB as
EXR in 32 bits, before it is packed."""
CHUNK_BYTES = 2**22
MAX_LETTERS = 300
"""A server's message is cut to this length."""
MAX_ERROR_BYTES = 2**24
"""Read of a refusal. ComfyUI's lists the errors of every node."""


class NoAnswer(Exception):
    """The server did not answer, or something else did in its place."""


class Refused(Exception):
    """The server answered that it will not do this. The message says why, in one line."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send a token header to whoever it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


class QueueClient:
    """One server. Its methods raise NoAnswer and Refused; each is one request, so several threads may use it."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """`url` as `server_url` gives it. `headers` go with every request."""
        self.url = url
        self.label = url.partition("://")[2]
        self._headers = dict(headers)
        # Variables of the environment name proxies for the world outside, not for this machine.
        direct = [urllib.request.ProxyHandler({})] if is_this_machine(url) else []
        self._opener = urllib.request.build_opener(_NoRedirects(), *direct)

    def check(self) -> None:
        """Look whether a ComfyUI answers here.

        Raises:
            NoAnswer: none does.
        """
        try:
            stats = self._json(self._open("/system_stats", timeout_s=QUICK_TIMEOUT_S))
        except Refused as error:
            raise NoAnswer(f"no ComfyUI there ({error})") from error
        if not isinstance(stats, dict) or "system" not in stats:
            raise NoAnswer("no ComfyUI there")

    def upload(self, data: bytes, *, folder: str, name: str) -> str:
        """Store a file in the server's temporary folder, which ComfyUI empties when it starts; its name for a LoadImage node."""
        boundary = uuid.uuid4().hex
        fields = {"type": "temp", "subfolder": folder, "overwrite": "true"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n' for key, text in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = b"".join(["".join(parts).encode(), data, f"\r\n--{boundary}--\r\n".encode()])
        try:
            stored = self._json(self._open("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        except Refused as error:
            raise Refused(f"upload of {len(data) / 2**20:.1f} MiB refused ({error}); see ComfyUI's --max-upload-size") from error
        with _of_comfyui():
            return f"{stored['subfolder']}/{stored['name']} [{stored['type']}]"

    def post(self, prompt: Prompt, *, prompt_id: str, output_node: str) -> None:
        """Queue a prompt under an id of ours (a UUID), so that it is known even if the answer is lost. Only what `output_node`
        needs is computed.
        """
        body = {
            "prompt": prompt,
            "prompt_id": prompt_id,
            "client_id": uuid.uuid4().hex,
            "partial_execution_targets": [output_node],
        }
        try:
            self._post("/prompt", body)
        except _HttpRefused as error:
            raise Refused(describe_refusal(error.answer, prompt) or str(error)) from error

    def queued(self) -> set[str]:
        """Ids of all prompts that wait or run."""
        queue = self._json(self._open("/queue"))
        with _of_comfyui():
            return {entry[1] for kind in ("queue_running", "queue_pending") for entry in queue[kind]}

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What the server remembers of a prompt that ended; None = nothing."""
        entries = self._json(self._open(f"/history/{prompt_id}"))
        with _of_comfyui():
            return entries.get(prompt_id)

    def view(self, image: Mapping[str, str]) -> bytes:
        """The file of one entry of a node's images, as it was saved."""
        names = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
        return self._open("/view?" + urllib.parse.urlencode(names))

    def cancel(self, prompt_ids: Iterable[str]) -> None:
        """Take prompts out of the queue, and stop the one that runs; others' prompts stay as they are."""
        wanted = list(prompt_ids)
        self._post("/queue", {"delete": wanted}, timeout_s=QUICK_TIMEOUT_S)
        for prompt_id in self.queued().intersection(wanted):
            self._post("/interrupt", {"prompt_id": prompt_id}, timeout_s=QUICK_TIMEOUT_S)

    def _post(self, path: str, value: Any, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._open(path, json.dumps(value).encode(), "application/json", timeout_s=timeout_s)

    def _open(
        self, path: str, body: bytes | None = None, content_type: str = "", *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> bytes:
        headers = self._headers | ({"Content-Type": content_type} if body is not None else {})
        try:
            request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310 - server_url lets only http and https pass
            with self._opener.open(request, timeout=timeout_s) as answer:
                return _body(answer)
        except urllib.error.HTTPError as error:
            text = _text_of(error)
            if error.code in NOT_COMFYUI_CODES:
                raise NoAnswer(f"HTTP {error.code} {error.reason}; a token goes into --header") from error
            raise _HttpRefused(error.code, text) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(getattr(error, "reason", "") or error) or type(error).__name__) from error

    def _json(self, data: bytes) -> Any:
        with _of_comfyui():
            return parse_json(data, odd_numbers=True)  # it repeats prompts and inputs of nodes, whatever they hold


def _body(answer: http.client.HTTPResponse) -> bytes:
    """An answer's bytes, in chunks: room is made for what comes, not for what its header says."""
    chunks, count = [], 0
    while chunk := answer.read(CHUNK_BYTES):
        chunks.append(chunk)
        count += len(chunk)
        if count > MAX_ANSWER_BYTES:
            raise Refused(f"an answer of more than {MAX_ANSWER_BYTES // 2**20} MiB")  # asked again, it would come again
    if answer.length:  # what a broken connection has left out
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(chunks)


@contextmanager
def _of_comfyui() -> Iterator[None]:
    """What does not read as ComfyUI's answer is something else's: a proxy's page, a program that took the port."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise NoAnswer("an answer that is not ComfyUI's") from error


class _HttpRefused(Refused):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(one_line(f"HTTP {code} {text}"))
        try:
            self.answer = parse_json(text, odd_numbers=True)
        except ValueError:
            self.answer = None


def _text_of(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(MAX_ERROR_BYTES).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def one_line(text: str) -> str:
    """Without line breaks and addresses of objects, cut to MAX_LETTERS."""
    flat = " ".join(without_addresses(text).split())
    return flat if len(flat) <= MAX_LETTERS else flat[: MAX_LETTERS - 3] + "..."


def describe_refusal(answer: Any, prompt: Prompt) -> str:
    """ComfyUI's answer to a prompt that it does not take, in one line; empty if it is none."""
    if not isinstance(answer, dict):
        return ""
    try:
        complaints = [
            f"{shown(prompt, node_id)}: {error.get('message', '')}: {error.get('details', '')}".rstrip(": ")
            for node_id, found in (answer.get("node_errors") or {}).items()
            for error in found.get("errors", [])
        ]
        summary = answer.get("error") or ""
        if isinstance(summary, dict):
            summary = " ".join(filter(None, (summary.get("message"), summary.get("details"))))
    except (AttributeError, TypeError):  # not ComfyUI's
        return ""
    return one_line("; ".join(complaints) or str(summary))
