"""What happens when memory runs out, when half precision overflows, when the user stops; and the progress bar."""

from __future__ import annotations

import logging

import comfy.model_management as mm
import comfy.sample
import comfy.utils
import latent_preview
import pytest
import torch
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from support import tiny
from support.compare import NETWORK, assert_close
from support.sampling import CFG, SEED, STEPS, Loaded, align, sample
from support.tiles import around_calls, counted, tiled

IMAGE = tiny.image(104, 160)


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if "FaithDiff" in r.getMessage() and r.levelno >= logging.WARNING]


def running_out(model, most_rows=10**9, most_cells=10**9):
    """A clone on a device that is too small for calls of more rows or larger tiles than these."""
    failed = []

    def call_or_fail(call, x):
        if x.shape[0] > most_rows or x.shape[-2] * x.shape[-1] > most_cells:
            failed.append(tuple(x.shape))
            raise torch.cuda.OutOfMemoryError("made up")
        return call(x)

    return around_calls(model, call_or_fail), failed


def test_out_of_memory_halves_the_tile_batch(aligned, warnings):
    model, latent = aligned
    small, failed = running_out(tiled(model, batch=8), most_rows=4)
    result = sample(small, latent)
    assert_close(result, sample(tiled(model, batch=1), latent), NETWORK)
    assert [shape[0] // 2 for shape in failed] == [6, 4]  # 12 tiles in calls of 6, then of 4, then of 2
    assert len(warnings()) == 1 and "went on with at most 2 tiles in a call. Set" in warnings()[0]


def test_out_of_memory_halves_the_tile_when_one_is_too_many(loaded, warnings):
    model, latent = align(loaded, tiny.image(64, 1040))
    small, failed = running_out(tiled(model, 1024, batch=2), most_cells=8 * 64)
    result = sample(small, latent, steps=2)
    assert torch.equal(result, sample(tiled(model, 512, batch=1), latent, steps=2))
    assert [(shape[0] // 2, shape[-1]) for shape in failed] == [(2, 128), (1, 128)]
    assert len(warnings()) == 1
    assert "with at most 1 tiles in a call and tiles of 512 px instead of 1024 px, which changes the picture" in warnings()[0]


def test_a_whole_image_that_does_not_fit_is_tiled(loaded, warnings):
    model, latent = align(loaded, tiny.image(64, 1200))
    small, _ = running_out(tiled(model, 0, batch=1), most_cells=8 * 80)
    assert torch.equal(sample(small, latent, steps=1), sample(tiled(model, 600, batch=1), latent, steps=1))
    assert len(warnings()) == 1 and "went on with tiles of 600 px instead of the whole image, which" in warnings()[0]


def test_a_batch_of_frames_that_does_not_fit_runs_in_parts(loaded, warnings):
    model, latent = align(loaded, torch.cat([tiny.image(64, 64, seed=i) for i in range(4)]))
    small, _ = running_out(tiled(model, 1024, batch=4), most_rows=4)
    assert_close(sample(small, latent), sample(model, latent), NETWORK)
    assert len(warnings()) == 1


def test_below_the_least_tile_the_hosts_own_error_comes_out(aligned, warnings):
    model, latent = aligned
    small, failed = running_out(tiled(model, 64, batch=2), most_rows=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        sample(small, latent)
    assert len(failed) == 2  # no tile is made smaller than 512 px, nor smaller than asked for


def test_other_errors_are_not_taken_for_it(aligned):
    def fail(call, x):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        sample(around_calls(tiled(aligned[0]), fail), aligned[1])


@pytest.fixture(scope="module", params=["weights' own type", pytest.param("manual cast", marks=pytest.mark.long)])
def half(request, tiny_file):
    """The tiny net computing in fp16, by both of the host's ways."""
    import comfy.ops
    import comfy.supported_models
    from comfyui_faithdiff.faithdiff_core.files.checkpoint import split_state_dict
    from comfyui_faithdiff.nodes.seam.bundle import build_model
    from comfyui_faithdiff.nodes.seam.weights_file import read_weights

    config = comfy.supported_models.SDXL(dict(tiny.UNET_CONFIG))
    manual = request.param == "manual cast"
    config.set_inference_dtype(torch.float32 if manual else torch.float16, torch.float16 if manual else None)
    base = config.get_model(tiny.unet_state(), "")
    base.load_model_weights(tiny.unet_state(), "")
    import comfy.model_patcher

    patcher = comfy.model_patcher.ModelPatcher(base, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    assert base.get_dtype_inference() == torch.float16
    return Loaded(patcher, build_model(split_state_dict(*read_weights(str(tiny_file))), str(tiny_file)))


def overflowing(model, in_fp32=False):
    """A clone whose network overflows in half precision in the first tile."""
    seen = []

    def look(call, x):
        dtype = model.model.get_dtype_inference()
        out = call(x)
        if dtype == torch.float32:
            seen.append(tuple(x.shape))
        if dtype == torch.float16 or in_fp32:
            out[0, 0, 0, 0] = float("nan")
        return out

    return around_calls(model, look), seen


def test_overflow_is_computed_again_in_fp32(half, loaded, warnings):
    model, latent = align(half, IMAGE)
    broken, seen = overflowing(tiled(model, batch=12))
    result = sample(broken, latent, steps=2)
    assert seen == [(2, 4, 8, 8)] * 2  # one tile of the 12, in each step
    assert torch.isfinite(result).all() and len(warnings()) == 1 and "2 predictions of tiles overflowed" in warnings()[0]
    in_fp32 = align(loaded, IMAGE)
    expected = sample(tiled(in_fp32[0], batch=12), in_fp32[1], steps=2)
    error = (result - expected).abs() / expected.abs().max()
    assert error.max() < 0.01
    if model.model.manual_cast_dtype is not None:  # weights in fp32: where only the first tile is seen, little is from half
        assert 10 * error[..., :4, :4].max() < error[..., 4:, 4:].max()
    layers = {type(m): m.comfy_cast_weights for m in model.model.diffusion_model.modules() if hasattr(m, "comfy_cast_weights")}
    assert model.model.get_dtype_inference() == torch.float16  # nothing stays behind
    assert set(layers.values()) == {model.model.manual_cast_dtype is not None}


def test_overflow_of_the_only_tile(half, warnings):
    model, latent = align(half, IMAGE)
    broken, seen = overflowing(tiled(model, 0))
    assert torch.isfinite(sample(broken, latent, steps=1)).all() and seen == [(2, 4, 13, 20)]
    assert len(warnings()) == 1


def test_no_overflow_no_second_computation(half, warnings):
    model, latent = align(half, IMAGE)
    counting, shapes = counted(tiled(model, batch=1))
    sample(counting, latent, steps=1)
    assert len(shapes) == 12 and warnings() == []


def test_not_finite_in_fp32_either_is_an_error(half):
    model, latent = align(half, IMAGE)
    with pytest.raises(ValueError, match="expected a finite latent from the sampler, got NaN or infinity"):
        sample(overflowing(tiled(model), in_fp32=True)[0], latent)


def test_interrupt_between_two_tiles(aligned):
    model, latent = aligned
    calls = []

    def stop_at_the_third(call, x):
        calls.append(1)
        if len(calls) == 3:
            mm.interrupt_current_processing()
        return call(x)

    with pytest.raises(mm.InterruptProcessingException):
        sample(around_calls(tiled(model, batch=1), stop_at_the_third), latent)
    assert len(calls) == 3


@pytest.fixture
def bar(monkeypatch):
    """What the host's progress bar is told: (value, total, preview?)."""
    told = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: told.append((value, total, preview)))
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_PERCENT", 0.0, raising=False)
    return told


def run_node(model, latent, batch, tile_size=64, sampler="euler"):
    FaithDiffSampler.execute(
        model, SEED, STEPS, CFG, sampler, "normal", tiny.conditioning(1), tiny.conditioning(2), latent, 1.0, tile_size, 0.5, batch
    )


@pytest.mark.parametrize(("batch", "sampler"), [(1, "euler"), (5, "euler"), (4, "heun")])
def test_one_bar_over_all_tiles_and_steps(aligned, bar, monkeypatch, batch, sampler):
    previews = []

    class Previewer(latent_preview.LatentPreviewer):
        def decode_latent_to_preview_image(self, preview_format, x0):
            previews.append(tuple(x0.shape))
            return ("JPEG", None, 64)

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Previewer())
    run_node(*aligned, batch, sampler=sampler)
    values = [value for value, _, _ in bar]
    assert {total for _, total, _ in bar} == {12 * STEPS}
    assert values == sorted(values) and values[-1] == 12 * STEPS
    assert [value for value, _, preview in bar if preview] == [12, 24, 36]  # one of the whole picture after each step
    assert previews == [(1, 4, 13, 20)] * STEPS
    if batch == 1:
        assert set(values) == set(range(1, 12 * STEPS + 1))


def test_the_bar_without_tiles_is_the_hosts(aligned, bar):
    run_node(*aligned, 0, tile_size=0)
    assert [(value, total) for value, total, _ in bar] == [(1, 3), (2, 3), (3, 3)]


def test_other_callbacks_count_steps(aligned):
    model, latent = aligned
    told = []
    sample(tiled(model), latent, callback=lambda step, x0, x, total: told.append((step, tuple(x0.shape), total)))
    assert told == [(step, (1, 4, 13, 20), STEPS) for step in range(STEPS)]


@pytest.mark.long
def test_the_host_is_asked_to_make_room_for_the_tiles(loaded, monkeypatch):
    model, latent = align(loaded, tiny.image(256, 256, batch=2))
    asked = []
    estimate = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers, "estimate_memory", lambda m, shape, conds: asked.append(list(shape)) or estimate(m, shape, conds)
    )
    for batch, size_px in ((0, 64), (6, 64), (0, 1024), (1, 1024)):
        sample(tiled(model, size_px, batch=batch), latent, steps=1)
    assert asked == [[1, 4, 8, 8], [6, 4, 8, 8], [1, 4, 32, 32], [1, 4, 32, 32]]


def test_as_many_tiles_as_the_hosts_estimate_allows(aligned, monkeypatch):
    """On a device with memory for three tiles, by the host's own figures."""
    from comfyui_faithdiff.nodes.tiles import run

    model, latent = aligned
    one_tile_bytes = model.model.memory_required([2, 4, 8, 8]) * 1.5
    monkeypatch.setattr(run.mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(type(model), "get_free_memory", lambda self, device: 3.5 * one_tile_bytes)
    counting, shapes = counted(tiled(model, batch=0))
    sample(counting, latent, steps=1)
    assert {shape[0] // 2 for shape in shapes} == {3}
