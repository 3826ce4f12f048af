"""The pack's own photos where the page asks for them.

Before a run the page shows a photo by fetching it from ComfyUI's input folder, where these are not; ComfyUI's server would say
that there is none, and the page would show an error.
"""

from __future__ import annotations

from typing import Any

from ..seam.host import server_module
from .files import OWN_PHOTOS, is_own

ADDRESSES = ("/view", "/api/view")
"""Where the host's pages ask for pictures (H server.py, view_image)."""


def serve_own_photos() -> None:
    """Let the host's server, where one runs, give out these files for their names. It looks into no folder and takes no path."""
    server = server_module()
    if server is None:
        return

    @server.web.middleware
    async def own_photo(request: Any, handler: Any) -> Any:
        query = request.query
        asked = (
            request.method == "GET" and request.path in ADDRESSES and query.get("type") == "input" and not query.get("subfolder")
        )
        if asked and is_own(query.get("filename", "")):
            return server.web.FileResponse(OWN_PHOTOS[query["filename"]])
        return await handler(request)

    middlewares = server.PromptServer.instance.app.middlewares
    if not middlewares.frozen:  # as it is once a server answers; then only the picture before the run is missing
        middlewares.append(own_photo)
