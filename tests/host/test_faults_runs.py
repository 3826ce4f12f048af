"""A whole prompt, from the photo to picture and report, with a fault at a stage: a right picture or a clear error.

The next prompt gives the same picture bit for bit. Some faults of each kind; tests/soak/queue_faults.py makes all of them.
"""

from __future__ import annotations

import pytest
from support import prompts_local
from support.prompts_cases import CLEAR, OUT_OF_MEMORY
from support.prompts_faults import Fault, fault
from support.prompts_graphs import short_prompt


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """How the prompt ends without a fault."""
    with prompts_local.registered(tmp_path_factory.mktemp("weights")):
        ending = prompts_local.run(short_prompt())
        assert ending.how == "picture" and ending.finite, ending
        yield ending


def with_fault(**fields):
    with fault(Fault(**fields)) as struck:
        ending = prompts_local.run(short_prompt())
    assert struck.times, "the place was gone through"
    return ending


@pytest.mark.parametrize("place", ["read weights", "LQ encoder", "UNet", "fidelity decoder", "colour fix"])
def test_out_of_memory_for_good(plain, place):
    assert with_fault(place=place, what="memory", lasting=True).kind == OUT_OF_MEMORY


@pytest.mark.parametrize("place", ["alignment", "UNet"])
def test_out_of_memory_once(plain, place):
    """Fewer tiles in a call, and then once more the same picture. (test_out_of_memory.py: encoders and decoder.)"""
    ending = with_fault(place=place, what="memory")
    assert ending.how == "picture" and ending.finite
    assert prompts_local.run(short_prompt()).digests == plain.digests


NAN_PLACES = ["enlarge", "VAE encoder", "text encoder", "LQ encoder", "embed features", "UNet", "VAE decoder", "fidelity decoder"]


@pytest.mark.parametrize("place", NAN_PLACES)
def test_not_a_number(plain, place):
    """An error that says so; never a black picture without a word."""
    ending = with_fault(place=place, what="nan", lasting=True)
    assert ending.how == "error" and ending.kind == "ValueError" and CLEAR.match(ending.reason), ending


def test_interrupted_on_the_way(plain):
    with prompts_local.interrupted_at(0) as asked:
        assert prompts_local.run(short_prompt()).how == "picture"
    for check in (1, len(asked) // 3, len(asked) * 2 // 3, len(asked)):
        with prompts_local.interrupted_at(check) as until:
            assert prompts_local.run(short_prompt()).how == "stopped"
        assert len(until) == check
    assert prompts_local.run(short_prompt()).digests == plain.digests
