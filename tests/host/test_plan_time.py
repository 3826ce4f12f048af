"""What is remembered of the time that sampling took, and what is estimated from it."""

from __future__ import annotations

import types

import comfy.model_management as mm
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Box, Size
from comfyui_faithdiff.nodes.plan import FaithDiffPlan
from comfyui_faithdiff.nodes.planning.text import plan_lines
from comfyui_faithdiff.nodes.planning.time import estimate
from comfyui_faithdiff.nodes.tiles import clock as call_clock
from comfyui_faithdiff.nodes.tiles.clock import CallShape, network_key
from support.plans import IMAGE, STEPS, node_text, planned
from support.sampling import align, sample
from support.tiles import around_calls, counted, tiled


@pytest.fixture(autouse=True)
def no_times_known(monkeypatch):
    monkeypatch.setattr(call_clock, "_row_seconds", {})


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


class MadeUpTime:
    """A clock that the UNet's calls move."""

    def __init__(self, monkeypatch):
        self.now_s = 0.0
        monkeypatch.setattr(call_clock, "time", types.SimpleNamespace(perf_counter=lambda: self.now_s))

    def on(self, model, first_s, row_s):
        """A clone whose first call takes `first_s` and every further one `row_s` a row."""
        calls = []

        def take_time(call, x):
            self.now_s += row_s * x.shape[0] if calls else first_s
            calls.append(x)
            return call(x)

        return around_calls(model, take_time)


def test_a_run_is_remembered_without_its_first_call(aligned, monkeypatch):
    model, latent = aligned
    sample(MadeUpTime(monkeypatch).on(tiled(model, batch=3), 1000.0, 2.0), latent, steps=STEPS)
    assert call_clock._row_seconds == {network_key(model): {CallShape(Size(8, 8), 6): pytest.approx(2.0)}}
    found = planned(model, latent, batch=3, steps=10)
    assert found.time.seconds == pytest.approx(12 * 2 * 10 * 2.0)
    assert plan_lines(found)[3] == "time: about 8 min (from the last run)"


def test_an_interrupted_run_is_remembered_too(aligned, monkeypatch):
    model, latent = aligned
    calls = []

    def interrupt_third(call, x):
        calls.append(x)
        if len(calls) == 3:
            raise mm.InterruptProcessingException
        return call(x)

    clock = MadeUpTime(monkeypatch)
    with pytest.raises(mm.InterruptProcessingException):
        sample(around_calls(clock.on(tiled(model, batch=1), 9.0, 4.0), interrupt_third), latent)
    assert call_clock._row_seconds[network_key(model)] == {CallShape(Size(8, 8), 2): pytest.approx(4.0)}


def test_a_single_call_counts_until_something_better_is_known(aligned, monkeypatch):
    model, latent = aligned
    clock, shape = MadeUpTime(monkeypatch), CallShape(Size(13, 20), 2)
    for steps, seconds in ((1, 5.0), (2, 3.0), (1, 3.0)):
        sample(clock.on(tiled(model, 0), 10.0, 3.0), latent, steps=steps)
        assert call_clock._row_seconds[network_key(model)] == {shape: pytest.approx(seconds)}


def test_after_running_out_of_memory_only_the_smaller_tiles_count(aligned, monkeypatch):
    model, latent = aligned
    clock = call_clock.CallClock()
    moments_s = iter([100.0, 107.0, 110.0])
    monkeypatch.setattr(call_clock, "time", types.SimpleNamespace(perf_counter=lambda: next(moments_s)))
    clock.call_ended(1, Box(0, 0, 16, 16), 1)
    clock.call_ended(1, Box(0, 0, 8, 8), 1)
    clock.call_ended(2, Box(0, 0, 8, 8), 1)
    clock.keep(model)
    assert call_clock._row_seconds[network_key(model)] == {CallShape(Size(8, 8), 2): 1.5}


def test_estimates_scale_from_the_nearest_tile(loaded):
    model = loaded.model
    known = {CallShape(Size(8, 8), 2): 1.0, CallShape(Size(128, 128), 2): 100.0, CallShape(Size(128, 128), 8): 80.0}
    call_clock._row_seconds[network_key(model)] = known
    exact = estimate(model, Size(128, 128), rows_in_call=6, rows=10)
    assert exact.seconds == pytest.approx(800.0) and exact.measured_px == Size(1024, 1024)
    assert estimate(model, Size(128, 128), rows_in_call=1, rows=10).seconds == pytest.approx(1000.0)
    half = estimate(model, Size(128, 64), rows_in_call=2, rows=10).seconds
    assert 400.0 < half < 500.0  # attention takes less than half
    quarter = estimate(model, Size(256, 256), rows_in_call=2, rows=10)
    # Multiply-adds of SDXL's UNet at 256 x 256 over those at 128 x 128 cells: 35.91 / 6.76.
    assert quarter.seconds / 1000.0 == pytest.approx(35.91 / 6.76, rel=0.02)
    other = types.SimpleNamespace(model=model.model, load_device=torch.device("meta"))
    assert estimate(other, Size(128, 128), rows_in_call=1, rows=1) is None


def test_measuring_times_the_plans_largest_call(aligned):
    model, latent = aligned
    counting, shapes = counted(model)
    before = FaithDiffPlan.fingerprint_inputs()
    text, tiles = node_text(counting, latent, measure=True).args
    assert tiles == 12 and text.splitlines()[3].endswith("(from the last run)")
    assert shapes == [(6 * 2, 4, 8, 8)] * 2  # two steps; the first is for warming up
    assert list(call_clock._row_seconds[network_key(model)]) == [CallShape(Size(8, 8), 12)]
    assert FaithDiffPlan.fingerprint_inputs() != before
    node_text(counting, latent, measure=True)
    assert len(shapes) == 2  # known by now
