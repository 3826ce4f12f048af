"""The files that may be downloaded. Nothing else can be: callers name an id from this table, never an address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PAGES = "https://huggingface.co"
"""Where people read about a repository. Where files come from is the hub's own variable (HF_ENDPOINT)."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file of the hub.

    Attributes:
        id: what commands and the page call it.
        what: what it is, in words.
        repository: owner and name at the hub.
        name: of the file, there and here.
        kind: folder below ComfyUI's models folder.
        licence: what its authors say, in words.
        half: name of the fp16 .safetensors that is made of it and takes its place; "" where it stays as it is.
    """

    id: str
    what: str
    repository: str
    name: str
    kind: str
    licence: str
    half: str = ""

    @property
    def page(self) -> str:
        """Where its licence and all else is said about it."""
        return f"{PAGES}/{self.repository}"

    @property
    def loaded(self) -> str:
        """Name of the file that a loader is to take."""
        return self.half or self.name


FILES = {
    file.id: file
    for file in (
        HubFile(
            id="faithdiff",
            what="FaithDiff weights",
            repository="jychen9811/FaithDiff",
            name="FaithDiff.bin",
            kind="faithdiff",
            licence="none that we could confirm: read the page",
            half="FaithDiff_fp16.safetensors",
        ),
        HubFile(
            id="checkpoint",
            what="SDXL text encoders and VAE (RealVisXL V4.0)",
            repository="SG161222/RealVisXL_V4.0",
            name="RealVisXL_V4.0.safetensors",
            kind="checkpoints",
            licence="OpenRAIL++-M",
        ),
        HubFile(
            id="vae",
            what="SDXL VAE for half precision",
            repository="madebyollin/sdxl-vae-fp16-fix",
            name="sdxl_vae.safetensors",
            kind="vae",
            licence="MIT",
        ),
    )
}
"""By id, in the order in which they are offered and fetched."""


def chosen(ids: Iterable[str]) -> list[HubFile]:
    """The files of these ids, in the table's order.

    Raises:
        ValueError: none, or an id that the table has not.
    """
    wanted = list(ids)
    unknown = [each for each in wanted if each not in FILES]
    if unknown or not wanted:
        got = repr(unknown[0])[:40] if unknown else "none"
        raise ValueError(f"expected one or more of {', '.join(FILES)}, got {got}; choose from these")
    return [file for file in FILES.values() if file.id in wanted]
