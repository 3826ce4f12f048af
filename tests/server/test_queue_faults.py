"""Faults while a real server works: interrupts, files that vanish, a full disk, two clients, its end. Then the right picture."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from support import tiny
from support.patience import PATIENCE_S
from support.prompts_graphs import short_prompt
from support.prompts_server import MODEL, Session, shared_server

OTHER = "other.safetensors"


@pytest.fixture
def session() -> Iterator[Session]:
    server = shared_server()
    with Session(server.url, check_server=server.check_running) as session:
        yield session


@pytest.fixture
def other_file():
    """A second model in the server's folder, of other weights than the first."""
    path = shared_server().options.base / "models" / "faithdiff" / OTHER
    tiny.write_full(path, tiny.made_up_parts(seed=7))
    yield path
    path.unlink(missing_ok=True)


def prompt_of(model: str = MODEL, seed: int = 5):
    prompt = short_prompt()
    prompt["load"]["inputs"]["model_name"] = model
    prompt["sampler"]["inputs"]["seed"] = seed
    return prompt


def picture(session, **changes) -> str:
    """The hash of the finished picture."""
    ending = session.end_of(prompt_of(**changes))
    assert ending.is_sound, ending
    return ending.digests["sink colours 0"]


@pytest.mark.parametrize(("place", "call"), [("LQ encoder", 1), ("UNet", 1), ("UNet", 2), ("colour fix", 1), ("consistency", 1)])
def test_interrupt_at_a_stage(session, place, call):
    expected = picture(session)
    prompt = prompt_of(seed=100 + call)
    prompt["photo"]["inputs"]["width"] = 48
    assert session.stopped_at(prompt, place, call).how == "stopped"
    session.wait_for(session.is_idle, PATIENCE_S, "idle server")
    assert picture(session) == expected


def test_interrupt_stops_within_two_steps(session):
    """Counted in calls of the network, of which a step takes one or more: how long a step takes does not matter."""
    prompt = prompt_of(seed=110)
    prompt["sampler"]["inputs"]["steps"] = 20
    session.put_fault(place="UNet", what="wait", call=3)
    prompt_id = session.queue_until_struck(prompt)
    session.interrupt()
    assert session.ending(prompt_id).how == "stopped"
    assert session.put_fault() <= 3 + 2


def queued_behind(session, change) -> tuple[Session, object]:
    """How a prompt with the other model ends whose file is changed while it is in the queue."""
    session.put_fault(place="UNet", what="wait")
    first = session.queue_until_struck(prompt_of(seed=61))
    second = session.post_prompt(prompt_of(model=OTHER))
    assert isinstance(second, str)
    change()
    session.interrupt()
    assert session.ending(first).how == "stopped"
    session.put_fault()
    return session.ending(second)


def test_model_file_deleted_between_queue_and_run(session, other_file):
    ending = queued_behind(session, other_file.unlink)
    assert ending.how == "error" and ending.reason.startswith(f"expected the file '{OTHER}' in models/faithdiff"), ending
    assert picture(session)


def test_model_file_replaced_between_queue_and_run(session, other_file):
    old = picture(session, model=OTHER)
    new_file = other_file.with_name("new")
    tiny.write_full(new_file, tiny.made_up_parts(seed=8))
    ending = queued_behind(session, lambda: os.replace(new_file, other_file))
    assert ending.is_sound and ending.digests["sink colours 0"] != old
    assert picture(session, model=OTHER) == ending.digests["sink colours 0"]
    new_file.write_bytes(b"no model")
    ending = queued_behind(session, lambda: os.replace(new_file, other_file))
    assert ending.how == "error" and ending.reason.startswith(f"{OTHER}: expected ") and "\n" not in ending.reason, ending


def test_disk_full_while_saving(session):
    folder = shared_server().options.base / "output" / "small"
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=4k", "none", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a file system of 4 KiB")
    try:
        saving = prompt_of()
        saving["save"] = {"class_type": "SaveImage", "inputs": {"images": ["colours", 0], "filename_prefix": "small/picture"}}
        ending = session.end_of(saving)
        assert ending.how == "error" and ending.node == "save" and "No space left on device" in ending.reason, ending
    finally:
        subprocess.run(["umount", folder], check=True)
    ending = session.end_of(saving)
    assert ending.how == "picture" and len(ending.outputs["save"]["images"]) == 1


def test_two_clients_at_once(session):
    expected = {seed: picture(session, seed=seed) for seed in range(4)}
    with Session(session.url, check_server=shared_server().check_running) as other:
        ids = {seed: (session, other)[seed % 2].post_prompt(prompt_of(seed=seed)) for seed in expected}
        for seed, prompt_id in ids.items():
            ending = (session, other)[seed % 2].ending(prompt_id)
            assert ending.digests["sink colours 0"] == expected[seed]
        heard = {m["data"]["prompt_id"] for m in other.messages if m["type"] == "execution_success"}
        assert heard == {ids[1], ids[3]}, "each hears of its own prompts"


@pytest.mark.long
def test_server_killed_in_mid_queue_and_started_again(session):
    server = shared_server()
    expected = {seed: picture(session, seed=seed) for seed in (5, 6)}
    session.put_fault(place="UNet", what="wait", call=2)
    session.queue_until_struck(prompt_of(seed=77))
    waiting = [session.post_prompt(prompt_of(seed=seed)) for seed in expected]
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(PATIENCE_S)
    server.stop()
    server.start()
    with Session(server.url, check_server=server.check_running) as again:
        assert again.is_idle() and not any(again.get(f"/history/{prompt_id}") for prompt_id in waiting)
        assert {seed: picture(again, seed=seed) for seed in expected} == expected
