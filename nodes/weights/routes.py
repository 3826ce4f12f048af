"""The page's addresses for downloads, under /faithdiff/weights on the host's own server.

They take ids of the catalogue, never an address or a path; what changes anything is a POST, which the host's origin check lets
through from its own page only. Where that check is switched off (--enable-cors-header), these are, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import comfy.cli_args

from ...faithdiff_core.hub.catalogue import FILES, HubFile, chosen
from ...faithdiff_core.hub.get import free_bytes, plan
from ..seam.host import server_module
from .job import DOWNLOADS, BusyError, disk_words
from .places import folder_of, found

ADDRESS = "/faithdiff/weights"


def serve_weights() -> None:
    """Adds the addresses to the host's server, where one runs."""
    server = server_module()
    if server is None:
        return
    web, routes = server.web, server.PromptServer.instance.routes

    def route(path: str, act: Callable[[dict[str, Any]], Any]) -> None:
        async def handle(request: Any) -> Any:
            if comfy.cli_args.args.enable_cors_header:
                words = "expected ComfyUI's origin check, got --enable-cors-header, which switches it off"
                return web.json_response({"error": f"{words}; use the node FaithDiff Get Weights or the command"}, status=403)
            try:
                asked = await request.json() if request.can_read_body else {}
                if not isinstance(asked, dict):
                    raise ValueError("expected a JSON object, got something else; send one")
                return web.json_response(await asyncio.get_running_loop().run_in_executor(None, act, asked))
            except BusyError as error:
                return web.json_response({"error": str(error)}, status=409)
            except ValueError as error:  # JSON's own errors, too
                return web.json_response({"error": str(error)}, status=400)
            except OSError as error:
                return web.json_response({"error": disk_words(error)}, status=500)

        routes.post(path)(handle)

    async def state(_request: Any) -> Any:
        return web.json_response(seen())

    routes.get(ADDRESS)(state)
    route(f"{ADDRESS}/look", look)
    route(f"{ADDRESS}/start", start)
    route(f"{ADDRESS}/cancel", cancel)


def seen() -> dict[str, Any]:
    """What the page shows without asking anybody: the files, and how the last download stands."""
    return {"files": [_described(file) for file in FILES.values()], "job": DOWNLOADS.job.seen() if DOWNLOADS.job else None}


def look(_asked: dict[str, Any]) -> dict[str, Any]:
    """Asks the hub how large the absent files are, and the disk for its room; of a file that cannot be had, why."""
    sizes: dict[str, dict[str, Any]] = {}
    for file in FILES.values():
        if found(file) == file.loaded:
            continue
        try:
            (step,) = plan([(file, folder_of(file))])
        except ValueError as error:
            sizes[file.id] = {"error": str(error)}
        else:
            sizes[file.id] = {
                "size_bytes": step.record.size_bytes, "needs_bytes": step.needs_bytes, "free_bytes": free_bytes(step.folder),
            }  # fmt: skip
    return seen() | {"sizes": sizes}


def start(asked: dict[str, Any]) -> dict[str, Any]:
    """{"ids": [...], "keep_bin": bool}. Raises as `Downloads.start`; ValueError for another id."""
    ids, keep = asked.get("ids"), asked.get("keep_bin", False)
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids) or not isinstance(keep, bool):
        raise ValueError('expected {"ids": [names of files], "keep_bin": true or false}, got something else; send that')
    DOWNLOADS.start(chosen(ids), keep=keep)
    return seen()


def cancel(_asked: dict[str, Any]) -> dict[str, Any]:
    """Ends the page's download; what has come stays."""
    DOWNLOADS.cancel()
    return seen()


def _described(file: HubFile) -> dict[str, Any]:
    name = found(file)
    return {
        "id": file.id, "what": file.what, "name": file.name, "loaded": file.loaded, "kind": file.kind, "page": file.page,
        "licence": file.licence, "folder": str(folder_of(file)), "found": name, "halved": bool(file.half),
    }  # fmt: skip
