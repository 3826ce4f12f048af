"""Odd inputs of every node by POST /prompt, and random valid graphs: a refusal, a clear error or a picture; the server lives.

Every N-th case but the slow ones here; tests/soak/queue_bounds.py takes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.patience import PATIENCE_S
from support.prompts_cases import cases_of, unclear
from support.prompts_graphs import ALL, good_prompt
from support.prompts_random import random_prompt
from support.prompts_server import Session, shared_server

OURS = [key for key, (kind, _) in ALL.items() if kind.startswith("FaithDiff")]
EVERY = 50
"""Of which `make test` takes one half, and `make test-long` the other."""
SLOW = ("steps is", "longest side is", "shortest side is", "megapixels is", "sampler_name is")  # seconds each: in the soak only


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    server = shared_server()
    with Session(server.url, check_server=server.check_running) as session:
        yield session


def test_all_our_nodes_are_tried(session):
    ours = {name for name in session.object_info() if name.startswith("FaithDiff")}
    ours -= {"FaithDiffGetWeights"}  # it would ask the hub: tests/server/test_weights.py has one of its own
    assert ours == {kind for kind, _ in ALL.values() if kind.startswith("FaithDiff")} and len(ours) == 22


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("key", OURS)
def test_odd_inputs(session, key, half):
    info = session.object_info()
    cases = list(cases_of(key, info))
    assert len(cases) > 50
    found, ways = {}, set()
    missing = next(case for case in cases if case.name.endswith("left out"))
    for case in (missing, *cases[OURS.index(key) % EVERY :: EVERY][half::2]):
        if not any(word in case.name for word in SLOW):
            ending = session.end_of(case.prompt, patience_s=10)  # then it is interrupted, which is a good end, too
            ways.add(ending.how)
            if wrong := unclear(ending, case.prompt):
                found[case.name] = wrong
    assert not found and "rejected" in ways


def test_random_graphs_and_the_next_good_prompt(session):
    info = session.object_info()
    endings = []
    for seed in range(1000, 1010):
        prompt = random_prompt(info, seed)
        endings.append(session.end_of(prompt, patience_s=PATIENCE_S / 2))  # as long as none of these takes
        assert endings[-1].how != "rejected" and not unclear(endings[-1], prompt), (seed, endings[-1])
    assert sum(ending.how == "picture" for ending in endings) >= 3
    ending = session.end_of(good_prompt())
    assert ending.is_sound and session.is_idle()
