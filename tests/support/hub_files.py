"""What the tests of downloads share: a local hub in place of the real one, and the catalogue's files on it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping

import pytest

from .fake_hub import FakeHub, fake_hub

FAITHDIFF, CHECKPOINT = "jychen9811/FaithDiff", "SG161222/RealVisXL_V4.0"


def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that no two places share."""
    return random.Random(seed).randbytes(size_bytes)


@contextlib.contextmanager
def hub_in_place(files: Mapping[str, Mapping[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Context in which this process takes a local hub for the hub: what HF_ENDPOINT sets when huggingface_hub is imported."""
    from huggingface_hub import constants, file_download

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with fake_hub(files) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        for module in (constants, file_download):  # the second has a copy before 1.0
            template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub
