"""One file from the hub to a folder: goes on where it was cut, and has its final name only once its SHA-256 is the hub's.

By huggingface_hub's session, addresses, tokens and errors, but not by its `hf_hub_download`: since 1.x that writes to a new
temporary file each time and deletes it when anything goes wrong, so that 10 GB begin anew after every interruption (2.4.0,
file_download.py, `_download_to_tmp_and_move`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .catalogue import HubFile
from .progress import Told
from .record import Record, address, hub_package, in_words, status_of

CHUNK_BYTES = 2**20
"""Read at once. Cancelling waits for one, and a cut line loses one: the package's own 10 MiB are 20 s on a slow line."""
HASHED_BYTES = 8 * 2**20
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before another try, where nothing has come since the last one: half a minute, in which a router starts anew."""
PART = ".part"
PASSING = (408, 429)
"""HTTP: too slow, too often. These and all from 500 on may be better at the next try (RFC 9110, 15.5.9; RFC 6585, 4)."""


class _LineCut(Exception):
    """The transfer has ended early, for a reason that may pass."""

    def __init__(self, why: Exception) -> None:
        super().__init__(type(why).__name__)
        self.why = why


def download(file: HubFile, record: Record, folder: Path, told: Told) -> Path:
    """Fetches the file, or what is missing of it, and checks it. One that is there already is only checked.

    Raises:
        ValueError: what cannot be helped by trying again at once, in words; what has come stays, but for a wrong hash.
        OSError: the disk; what has come stays.
        Whatever `told` raises; what has come stays.
    """
    final, part = folder / file.name, part_of(file, record, folder)
    if final.exists():
        if sha256_of(final, f"{file.name}: checking", told) != record.sha256:
            raise ValueError(
                f"expected no other file in the place of the hub's {file.name}, got {final}, which is not it; rename it, or "
                "delete it if it is a broken download"
            )
        return final
    folder.mkdir(parents=True, exist_ok=True)
    with _claimed(part, file):
        for old in folder.glob(f"{file.name}.*{PART}"):
            if old != part:  # of a version that the hub has no more
                old.unlink()
        _fill(part, file, record, told)
        got = sha256_of(part, f"{file.name}: checking", told)
        if got != record.sha256:
            part.unlink()
            raise ValueError(
                f"expected SHA-256 {record.sha256} of {file.name}, got {got}; the download is not what the hub's record says and "
                "was deleted: try again, or another mirror (HF_ENDPOINT)"
            )
        os.replace(part, final)
    return final


def part_of(file: HubFile, record: Record, folder: Path) -> Path:
    """Where an unfinished download lies. No loader lists it, and another version of the file has another one."""
    return folder / f"{file.name}.{record.sha256[:12]}{PART}"


def sha256_of(path: Path, phase: str, told: Told) -> str:
    """Of what lies on the disk, as 64 hexadecimal digits."""
    digest, total = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(HASHED_BYTES):
            digest.update(chunk)
            told(phase, file.tell(), total)
    return digest.hexdigest()


@contextlib.contextmanager
def _claimed(part: Path, file: HubFile) -> Iterator[None]:
    """No other process writes to `part` meanwhile, where the disk has locks."""
    from filelock import FileLock, Timeout  # huggingface_hub needs it, so it is there

    lock = Path(f"{part}.lock")
    try:
        held = FileLock(lock, timeout=0)
        held.acquire()
    except NotImplementedError:  # no locks on this disk
        held = None
    except Timeout:
        raise ValueError(f"expected to be alone with {file.name}, got another program that downloads it; wait for that") from None
    try:
        yield
    finally:
        if held is not None:
            if os.name != "nt":  # there it cannot be deleted while it is open, and another program may have it a moment later
                lock.unlink(missing_ok=True)
            held.release()


def _fill(part: Path, file: HubFile, record: Record, told: Told) -> None:
    """Brings `part` to its full length, over as many transfers as it takes."""
    phase, total = f"{file.name}: downloading", record.size_bytes
    with part.open("ab") as out:
        out.seek(0, os.SEEK_END)
        if out.tell() > total:  # not by us
            out.truncate(0)

        def look() -> None:
            told(phase, out.tell(), total)

        vain = 0
        look()
        while (before := out.tell()) < total:
            try:
                _append(out, file, record, look)
            except _LineCut as cut:
                vain = 0 if out.tell() > before else vain + 1
                if vain > len(WAITS_S):
                    raise ValueError(f"{in_words(cut.why, file)}; what has come is kept") from None
                _wait(WAITS_S[max(vain - 1, 0)], look)


def _append(out: BinaryIO, file: HubFile, record: Record, look: Callable[[], None]) -> None:
    """One transfer, from where `out` ends. `look` is called after each piece. Raises as `_transfer`, and where more comes."""
    total = record.size_bytes
    with contextlib.closing(_transfer(file, record, out.tell())) as transfer:
        for start, chunk in transfer:
            if start < out.tell():  # a mirror that knows no ranges begins at the first byte
                out.truncate(start)
                out.seek(start)
            if out.tell() + len(chunk) > total:
                raise ValueError(
                    f"expected {total} bytes of {file.name}, got more from {address()}; try another mirror (HF_ENDPOINT)"
                )
            out.write(chunk)
            look()
    if out.tell() < total:  # ended as if it were whole
        raise _LineCut(ConnectionError())


def _wait(span_s: float, look: Callable[[], None]) -> None:
    """Sleeps, and looks every quarter of a second whether that is still wanted."""
    end = time.monotonic() + span_s
    while time.monotonic() < end:
        look()
        time.sleep(0.25)


def _transfer(file: HubFile, record: Record, start: int) -> Generator[tuple[int, bytes], None, None]:
    """(place, bytes) from `start` on, or from 0 where the server cannot begin elsewhere.

    Raises:
        _LineCut: it may go on later.
        ValueError: it will not.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(file.repository, file.name, revision=record.commit)  # each time: where it leads to is signed, and expires
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with _opened(url, headers) as (status, chunks):
            place = start if status == 206 else 0
            for chunk in chunks:
                yield place, chunk
                place += len(chunk)
    except Exception as error:  # only the package's: what the reader of this raises does not come here
        status = status_of(error)
        passing = status is not None and (status in PASSING or status >= 500)
        if not passing and (status is not None or not _is_network(error)):
            raise ValueError(in_words(error, file)) from None
        raise _LineCut(error) from None


@contextlib.contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Status and body of a GET by the package's session: httpx's since 1.0, requests' before."""
    hub = hub_package()
    from huggingface_hub.utils import hf_raise_for_status

    session: Any = hub.get_session()
    timeout_s = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", url, headers=headers, timeout=timeout_s) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_bytes(CHUNK_BYTES)
    else:
        with session.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_content(CHUNK_BYTES)


def _is_network(error: Exception) -> bool:
    """Whether a line or a server has failed, by the kinds of requests (OSError) and httpx (its own), but for offline mode."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    of_httpx = any(base.__module__.startswith("httpx") for base in type(error).__mro__)
    return (isinstance(error, OSError) or of_httpx) and not isinstance(error, OfflineModeIsEnabled)
