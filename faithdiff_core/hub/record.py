"""What the hub says of a file now (size, SHA-256, commit), and what its refusals mean in words.

huggingface_hub is imported when something is asked for, never before: it is no dependency of the pack, but comes into every
ComfyUI through transformers. Its tokens, proxies, mirrors (HF_ENDPOINT) and offline switch (HF_HUB_OFFLINE) hold here, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .catalogue import HubFile

ASK_TIMEOUT_S = 15.0
"""For an answer about a repository; the hub's own default for such requests is 10 s, and mirrors are slower."""
REVISION = "main"
_SHA256 = re.compile("[0-9a-f]{64}")
_COMMIT = re.compile("[0-9a-f]{40}")
_INSTALL = "python -m pip install huggingface_hub"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A file as the hub has it. `commit`: that it was seen in, so that what is fetched is what was asked about."""

    size_bytes: int
    sha256: str
    commit: str


def ask(file: HubFile) -> Record:
    """The hub's record of a file: one request, nothing is downloaded.

    Raises:
        ValueError: no huggingface_hub, no connection, no such file, no right to have it; in words.
    """
    hub = hub_package()
    try:
        info = hub.HfApi().model_info(file.repository, revision=REVISION, files_metadata=True, timeout=ASK_TIMEOUT_S)
    except Exception as error:  # a request's errors have other classes in each of the package's major versions
        raise ValueError(in_words(error, file)) from None
    found = next((each for each in info.siblings or [] if each.rfilename == file.name), None)
    if found is None:
        raise ValueError(_absent(file))
    lfs: Any = found.lfs or {}
    told = lfs if isinstance(lfs, dict) else vars(lfs)
    size_bytes, sha256, commit = told.get("size"), told.get("sha256"), info.sha
    if (
        not isinstance(size_bytes, int)
        or size_bytes <= 0
        or not _SHA256.fullmatch(str(sha256))
        or not _COMMIT.fullmatch(str(commit))
    ):
        raise ValueError(
            f"expected size and SHA-256 of {file.name} from {address()}, got none; without them a download cannot be checked: "
            "try again later, or another mirror (HF_ENDPOINT)"
        )
    return Record(size_bytes=size_bytes, sha256=str(sha256), commit=str(commit))


def hub_package() -> Any:
    """huggingface_hub.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            "expected the package huggingface_hub, which comes with ComfyUI (through transformers), got none; install it with "
            f"ComfyUI's own Python ({_INSTALL}) or get the files by hand"
        ) from None
    return huggingface_hub


def address() -> str:
    """Host of the hub or mirror that is asked; no user, password or path of it."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return parts.netloc.rpartition("@")[2] or "the hub"


def in_words(error: Exception, file: HubFile) -> str:
    """What went wrong, without addresses: those of a download are signed."""
    from huggingface_hub import errors

    status = status_of(error)
    got = f"got {status} ({type(error).__name__})" if status else f"got {type(error).__name__}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"expected a connection to {address()}, got HF_HUB_OFFLINE, which forbids any; take it out of the environment"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"expected {file.name} to be free, got a repository that wants an agreement; open {file.page}, agree, then log in on "
            "the machine that runs ComfyUI (`hf auth login`) and try again"
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)):
        return _absent(file)
    if status in (401, 403):
        return f"expected {file.name} from {address()}, {got}; log in there (`hf auth login`), or take out an old HF_TOKEN"
    if status:
        return f"expected {file.name} from {address()}, {got}; try again later, or another mirror (HF_ENDPOINT)"
    return (
        f"expected {address()} to answer the machine that downloads, {got}; check its network and try again, or set HF_ENDPOINT "
        "to a mirror before the start"
    )


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error of the package carries."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _absent(file: HubFile) -> str:
    return (
        f"expected {file.name} in {file.repository} at {address()}, got no such file or no right to see it; look at {file.page}, "
        "update the pack, or try another mirror (HF_ENDPOINT)"
    )
