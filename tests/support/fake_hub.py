"""A server that speaks the Hugging Face hub's protocol on this machine, as far as files of repositories need it, with faults.

As the hub does it: what a repository holds under /api/models, a file under /resolve, which leads on to another address that
knows ranges. Recorded beside the answers: what was asked, with which headers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .fake_server import Answers, running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SLOW_BYTES = 64 * 1024


@dataclass
class FakeHub:
    """What the server holds and how it misbehaves. May be changed while it runs.

    Attributes:
        files: {"owner/name": {file name: bytes}}.
        cut_after_bytes: each transfer ends without a word after so many; 0 = none does.
        transfers_cut: how many of them are; others go through.
        hash_of: bytes that the record's SHA-256 is taken of, in place of the file's own.
        status: answers to everything instead, with an X-Error-Code where there is one.
        refusals: how many requests it answers to; others go through.
        knows_ranges: whether a transfer can begin in mid-file.
        slow_s: pause between two pieces of SLOW_BYTES.
        asked: (method, path, headers) of all that was asked.
    """

    files: Mapping[str, Mapping[str, bytes]]
    cut_after_bytes: int = 0
    transfers_cut: int = 10**9
    hash_of: bytes | None = None
    status: tuple[int, str] | None = None
    refusals: int = 10**9
    knows_ranges: bool = True
    slow_s: float = 0.0
    url: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def sha256(self, data: bytes) -> str:
        return hashlib.sha256(data if self.hash_of is None else self.hash_of).hexdigest()

    def transfers(self) -> list[dict[str, str]]:
        """Headers of the requests for bytes."""
        return [headers for method, path, headers in self.asked if method == "GET" and path.startswith("/cdn/")]


@contextmanager
def fake_hub(files: Mapping[str, Mapping[str, bytes]]) -> Iterator[FakeHub]:
    """Context in which the hub runs; `url` is its address, for HF_ENDPOINT."""
    hub = FakeHub(files)

    class Handler(Answers):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:  # noqa: N802 - the standard library's name
            self._serve(body=False)

        def do_GET(self) -> None:  # noqa: N802 - the standard library's name
            self._serve(body=True)

        def _serve(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
            info = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/[\w.-]+)?", path)
            found = re.fullmatch(r"/(cdn/)?([\w.-]+/[\w.-]+)/resolve/[\w.-]+/([\w.-]+)", path)
            if hub.status is not None and hub.refusals > 0:
                hub.refusals -= 1
                self._refuse(*hub.status)
            elif info and info[1] in hub.files:
                self._json(self._info(info[1]))
            elif found is None or found[3] not in hub.files.get(found[2], {}):
                self._refuse(404, "EntryNotFound" if found else "RepoNotFound")
            elif found[1]:
                self._bytes(hub.files[found[2]][found[3]], body=body)
            else:
                self._lead_on(found[2], found[3])

        def _info(self, repository: str) -> dict[str, Any]:
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": "b" * 40,
                 "lfs": {"sha256": hub.sha256(data), "size": len(data), "pointerSize": 130}}
                for name, data in hub.files[repository].items()
            ]  # fmt: skip
            return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(data))})
            self.wfile.write(data)

        def _lead_on(self, repository: str, name: str) -> None:
            data = hub.files[repository][name]
            self._head(302, {
                "Location": f"{hub.url}/cdn/{repository}/resolve/{COMMIT}/{name}?Signature=secret",
                "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{hub.sha256(data)}"',
                "Content-Length": "0",
            })  # fmt: skip

        def _bytes(self, data: bytes, *, body: bool) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked and hub.knows_ranges else 0
            headers = {"Content-Length": str(len(data) - start), "ETag": '"blob"', "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._head(206 if start else 200, headers)
            if not body:
                return
            end = len(data)
            if hub.cut_after_bytes and hub.transfers_cut > 0:
                hub.transfers_cut -= 1
                end = min(end, start + hub.cut_after_bytes)
            with contextlib.suppress(OSError):  # whoever asked has gone
                for place in range(start, end, SLOW_BYTES):
                    self.wfile.write(data[place : min(place + SLOW_BYTES, end)])
                    if hub.slow_s:
                        time.sleep(hub.slow_s)
            self.close_connection = end < len(data)

        def _refuse(self, status: int, code: str) -> None:
            self._head(status, {"X-Error-Code": code, "X-Error-Message": "refused", "Content-Length": "0"})

        def _head(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    with running(Handler) as url:
        hub.url = url
        yield hub
