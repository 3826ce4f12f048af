"""Requests to a server on this machine: never through a proxy, whatever the caller's variables say."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def open_local(request: str | urllib.request.Request, *, timeout_s: float) -> HTTPResponse:
    """The open answer. Raises urllib.error.HTTPError, URLError."""
    return _DIRECT.open(request, timeout=timeout_s)
