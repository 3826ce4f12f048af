"""Files from the hub, against a local server that speaks its protocol: cut lines, wrong hashes, refusals, full disks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfyui_faithdiff.faithdiff_core.hub import download as download_module
from comfyui_faithdiff.faithdiff_core.hub import get as get_module
from comfyui_faithdiff.faithdiff_core.hub.catalogue import FILES, chosen
from comfyui_faithdiff.faithdiff_core.hub.download import download, part_of
from comfyui_faithdiff.faithdiff_core.hub.get import get, plan, require_room
from comfyui_faithdiff.faithdiff_core.hub.progress import CancelledError, Progress, in_time, in_units
from comfyui_faithdiff.faithdiff_core.hub.record import ask
from support.fake_hub import COMMIT, FakeHub
from support.hub_files import CHECKPOINT, hub_in_place, noise

FILE = FILES["checkpoint"]
DATA = noise(300_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub with one file of 300,000 bytes; small pieces and no pauses, so that faults come between pieces, and quickly."""
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 16_384)
    monkeypatch.setattr(download_module, "WAITS_S", (0.0, 0.0, 0.0))
    with hub_in_place({CHECKPOINT: {FILE.name: DATA}}, monkeypatch) as hub:
        yield hub


def silent(phase: str, done: int, total: int) -> None:
    assert phase and 0 <= done <= total


def cancel_at(place: int):
    def told(_phase: str, done: int, _total: int) -> None:
        if done >= place:
            raise CancelledError

    return told


@contextlib.contextmanager
def files_end_at(size_bytes: int) -> Iterator[None]:
    """No file can grow beyond that: a failed write, as on a full disk."""
    import resource

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_under_its_name_only(hub: FakeHub, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    record = ask(FILE)
    assert (record.size_bytes, record.sha256, record.commit) == (len(DATA), hub.sha256(DATA), COMMIT)
    path = download(FILE, record, tmp_path / "new", lambda *each: told.append(each))
    assert path.read_bytes() == DATA and names(tmp_path / "new") == [FILE.name]
    assert told[0][1:] == (0, len(DATA)) and told[-1][1:] == (len(DATA), len(DATA))
    assert all(COMMIT in path for method, path, _ in hub.asked if "/resolve/" in path)
    assert [headers.get("accept-encoding") for headers in hub.transfers()] == ["identity"]
    before = len(hub.asked)
    assert download(FILE, record, tmp_path / "new", silent) == path and len(hub.asked) == before


def test_a_line_that_is_cut_goes_on_where_it_was(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after_bytes = 131_072
    download(FILE, ask(FILE), tmp_path, silent)
    assert (tmp_path / FILE.name).read_bytes() == DATA
    starts = [headers.get("range") for headers in hub.transfers()]
    assert starts[0] is None and len(starts) >= 3 and all(each.startswith("bytes=") for each in starts[1:])


def test_a_line_that_gives_nothing_is_given_up_and_what_came_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    record = ask(FILE)
    with pytest.raises(CancelledError):
        download(FILE, record, tmp_path, cancel_at(100_000))
    hub.cut_after_bytes = 1
    with pytest.raises(ValueError, match="expected 127.0.0.1.* to answer.*what has come is kept"):
        download(FILE, record, tmp_path, silent)
    assert part_of(FILE, record, tmp_path).stat().st_size >= 100_000 and len(hub.transfers()) >= 5


def test_cancelled_and_begun_again(hub: FakeHub, tmp_path: Path) -> None:
    record = ask(FILE)
    with pytest.raises(CancelledError):
        download(FILE, record, tmp_path, cancel_at(150_000))
    part = part_of(FILE, record, tmp_path)
    have = part.stat().st_size
    assert names(tmp_path) == [part.name] and DATA.startswith(part.read_bytes()) and have >= 150_000
    assert plan([(FILE, tmp_path)])[0].fetched_bytes == len(DATA) - have
    download(FILE, record, tmp_path, silent)
    assert hub.transfers()[-1]["range"] == f"bytes={have}-" and names(tmp_path) == [FILE.name]


def test_a_mirror_that_knows_no_ranges(hub: FakeHub, tmp_path: Path) -> None:
    hub.knows_ranges = False
    hub.cut_after_bytes, hub.transfers_cut = 131_072, 1
    assert download(FILE, ask(FILE), tmp_path, silent).read_bytes() == DATA


def test_a_part_of_another_version_goes(hub: FakeHub, tmp_path: Path) -> None:
    record = ask(FILE)
    with pytest.raises(CancelledError):
        download(FILE, record, tmp_path, cancel_at(1))
    hub.files = {CHECKPOINT: {FILE.name: DATA[::-1]}}
    assert download(FILE, ask(FILE), tmp_path, silent).read_bytes() == DATA[::-1]
    assert names(tmp_path) == [FILE.name]


def test_what_is_not_the_records_is_refused_and_deleted(hub: FakeHub, tmp_path: Path) -> None:
    hub.hash_of = b"something else"
    with pytest.raises(ValueError, match=f"expected SHA-256 {hub.sha256(DATA)} of {FILE.name}, got .*was deleted"):
        download(FILE, ask(FILE), tmp_path, silent)
    assert names(tmp_path) == []


def test_another_file_of_that_name_is_left_alone(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(b"mine")
    with pytest.raises(ValueError, match="which is not it; rename it"):
        download(FILE, ask(FILE), tmp_path, silent)
    assert (tmp_path / FILE.name).read_bytes() == b"mine" and hub.transfers() == []


@pytest.mark.skipif(os.name == "nt", reason="no limit of a file's size there")
def test_a_full_disk_and_then_room_again(hub: FakeHub, tmp_path: Path) -> None:
    record = ask(FILE)
    with files_end_at(100_000), pytest.raises(OSError, match="File too large"):
        download(FILE, record, tmp_path, silent)
    assert 0 < part_of(FILE, record, tmp_path).stat().st_size <= 100_000
    assert download(FILE, record, tmp_path, silent).read_bytes() == DATA


def test_no_room_is_said_before(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = plan([(FILE, tmp_path / "new")])
    monkeypatch.setattr(get_module, "free_bytes", lambda folder: get_module.SPARE_BYTES + len(DATA) - 1)
    with pytest.raises(ValueError, match=r"expected 268\.7 MB of room for .*new, got 268\.7 MB"):
        require_room(steps, keep=False)
    monkeypatch.setattr(get_module, "free_bytes", lambda folder: get_module.SPARE_BYTES + len(DATA))
    require_room(steps, keep=False)
    assert hub.transfers() == [] and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", "got no such file or no right to see it"),
        (404, "EntryNotFound", "got no such file or no right to see it"),
        (404, "RevisionNotFound", "got no such file or no right to see it"),
        (401, "GatedRepo", f"got a repository that wants an agreement; open {FILE.page}, agree, then log in"),
        (403, "GatedRepo", "got a repository that wants an agreement"),
        (403, "", "got 403 .*log in there"),
        (418, "", "got 418 .*another mirror"),
    ],
)
def test_refusals_in_words(hub: FakeHub, tmp_path: Path, status: int, code: str, words: str) -> None:
    record = ask(FILE)
    hub.status = (status, code)
    for call in (lambda: ask(FILE), lambda: download(FILE, record, tmp_path, silent)):
        with pytest.raises(ValueError, match=words) as refused:
            call()
        assert "Signature" not in str(refused.value) and "hf_" not in str(refused.value)


def test_a_server_that_is_busy_is_asked_again(hub: FakeHub, tmp_path: Path) -> None:
    record = ask(FILE)
    hub.status, hub.refusals = (503, ""), 3
    assert download(FILE, record, tmp_path, silent).read_bytes() == DATA
    hub.refusals = 4
    with pytest.raises(ValueError, match="got 503 .*what has come is kept"):
        download(FILE, record, tmp_path / "more", silent)


def test_a_repository_without_the_file(hub: FakeHub) -> None:
    hub.files = {CHECKPOINT: {"another.safetensors": b"1"}}
    with pytest.raises(ValueError, match=f"expected {FILE.name} in {CHECKPOINT} at 127.0.0.1"):
        ask(FILE)


def test_a_token_is_sent_to_the_hub_and_told_to_nobody(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up_for_this_test")
    record = ask(FILE)
    download(FILE, record, tmp_path, silent)
    assert {headers.get("authorization") for _, _, headers in hub.asked} == {"Bearer hf_made_up_for_this_test"}
    hub.status = (403, "")
    with pytest.raises(ValueError) as refused:
        ask(FILE)
    assert "made_up" not in str(refused.value)


def test_no_hub_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with hub_in_place({}, monkeypatch):
        pass  # it has ended: nothing listens there
    with pytest.raises(ValueError, match=r"expected 127\.0\.0\.1:\d+ to answer the machine that downloads, got Conn"):
        ask(FILE)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="expected the package huggingface_hub, which comes with ComfyUI"):
        ask(FILE)


def test_another_program_has_it(hub: FakeHub, tmp_path: Path) -> None:
    record = ask(FILE)

    def second(_phase: str, done: int, _total: int) -> None:
        if done == 0:
            with pytest.raises(ValueError, match="another program that downloads it"):
                download(FILE, record, tmp_path, silent)

    download(FILE, record, tmp_path, second)
    assert names(tmp_path) == [FILE.name]


def test_only_what_the_table_has(tmp_path: Path) -> None:
    assert [file.id for file in chosen(["vae", "faithdiff"])] == ["faithdiff", "vae"]
    for wrong in ([], ["https://example.org/x"], ["faithdiff", "../x"]):
        with pytest.raises(ValueError, match="expected one or more of faithdiff, checkpoint, vae"):
            chosen(wrong)
    for file in FILES.values():
        assert "/" not in file.name and "/" not in file.kind and file.repository.count("/") == 1
        assert file.page == f"https://huggingface.co/{file.repository}" and file.licence


def test_what_is_there_is_not_asked_about(hub: FakeHub, tmp_path: Path) -> None:
    (path,) = get(plan([(FILE, tmp_path)]), silent, keep=False)
    asked = len(hub.asked)
    assert path == tmp_path / FILE.name
    assert plan([(FILE, tmp_path)]) == [] and len(hub.asked) == asked


def test_progress_in_numbers_and_words() -> None:
    now = [100.0]
    progress = Progress(clock=lambda: now[0])
    assert progress.bytes_per_s == 0 and progress.eta_s is None
    progress.tell("FaithDiff.bin: downloading", 4_000_000_000, 10_000_000_000)  # resumed: these 4 GB came at no speed
    assert progress.eta_s is None
    for _ in range(40):
        now[0] += 1.0
        progress.tell("FaithDiff.bin: downloading", progress.done_bytes + 20_000_000, 10_000_000_000)
    assert progress.bytes_per_s == pytest.approx(20e6) and progress.eta_s == pytest.approx(5.2e9 / 20e6)
    assert progress.line() == "FaithDiff.bin: downloading 4.8 GB of 10.0 GB, 20.0 MB/s, 4 min left"
    progress.tell("FaithDiff.bin: checking", 1, 10_000_000_000)
    assert progress.eta_s is None
    assert [in_units(5_000), in_time(59.6), in_time(7200)] == ["5 kB", "60 s", "2.0 h"]
