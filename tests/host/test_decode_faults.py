"""FaithDiff Decode with little memory, in half precision, cancelled, and given what it cannot take."""

from __future__ import annotations

import logging
from dataclasses import replace

import comfy.model_management as mm
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes.decode import FaithDiffDecode
from comfyui_faithdiff.nodes.decoding import correct, plain, weights
from comfyui_faithdiff.nodes.load_model import FaithDiffLoadModel
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.decoding import BROKEN_FILE, NANO, NANO_FILE, OTHER_FILE, decode, encoded, said

pytestmark = pytest.mark.usefixtures("decoders")
HALF = 3e-2
"""fp16 through a whole network, against fp32: one rounding of fp16 is 5e-4. Measured: 5e-3."""


@pytest.mark.parametrize("tile_px", [16, 32])
def test_tiles_do_not_matter(nano_vae, one, monkeypatch, tile_px):
    _, features, latent = one
    whole = decode(latent, nano_vae, features)
    monkeypatch.setattr(correct, "TILES_PX", (tile_px,))
    assert_close(decode(latent, nano_vae, features), whole, NETWORK)


@pytest.fixture
def no_room_for(monkeypatch):
    """Makes the fidelity decoder run out of memory on tiles, margins included, of more pixels than this."""

    def limit(pixels: int) -> list[int]:
        tried, corrections = [], weights.FidelityDecoder.corrections

        def limited(self, decoded, lq, features):
            tried.append(decoded.shape[-1] * decoded.shape[-2])
            if tried[-1] > pixels:
                raise torch.cuda.OutOfMemoryError("made up")
            return corrections(self, decoded, lq, features)

        monkeypatch.setattr(weights.FidelityDecoder, "corrections", limited)
        monkeypatch.setattr(correct, "TILES_PX", (64, 32, 16))
        return tried

    return limit


def test_out_of_memory_goes_on_in_smaller_tiles(nano, nano_vae, no_room_for, caplog):
    features, latent = encoded(nano, nano_vae, tiny.image(40, 200, batch=2))
    expected = decode(latent, nano_vae, features)
    tried = no_room_for(40 * 100)  # a tile of 16 px with margins is 96 px wide, one of 32 px is 112 px
    caplog.clear()
    assert_close(decode(latent, nano_vae, features, decoder=NANO_FILE), expected, NETWORK)
    assert said(caplog) == [
        "FaithDiff: out of memory in the fidelity decoder; going on with tiles of at most 32 px, which gives the same picture "
        "and takes longer"
    ]
    assert sum(pixels > 4000 for pixels in tried) == 2  # of 64 px, then of 32 px; the second image began at 16 px


def test_out_of_memory_to_the_end_is_the_hosts_error(nano_vae, one, no_room_for, caplog):
    _, features, latent = one
    no_room_for(1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        decode(latent, nano_vae, features, decoder=NANO_FILE)
    assert said(caplog, logging.ERROR) == [
        "FaithDiff: out of memory in the fidelity decoder in tiles of 16 px; set fidelity to 0 or start ComfyUI with --cpu-vae"
    ]


def test_other_errors_are_raised_on(nano_vae, one, monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(weights.FidelityDecoder, "corrections", broken)
    with pytest.raises(RuntimeError, match="something else"):
        decode(one[2], nano_vae, one[1])


def test_a_latent_that_cannot_fit_is_decoded_in_the_hosts_tiles(nano, nano_vae, monkeypatch):
    features, latent = encoded(nano, nano_vae, tiny.image(24, 280))
    monkeypatch.setattr(nano_vae, "memory_used_decode", lambda shape, dtype: 1e15 if shape[-1] > 32 else 1.0)
    with torch.inference_mode():  # as nodes run in the host
        tiled = decode(latent, nano_vae, features, 0.0)
        assert torch.equal(tiled, nano_vae.decode_tiled(latent["samples"], tile_x=32, tile_y=32, overlap=8))
        assert relative_difference(tiled, nano_vae.decode(latent["samples"])) > CHANGED


def test_a_vae_without_memory_goes_on_with_its_smallest_tiles(nano_vae, one, monkeypatch, caplog):
    _, features, latent = one

    def spent(samples, vae_options=None):
        raise torch.cuda.OutOfMemoryError("made up")

    monkeypatch.setattr(nano_vae, "decode", spent)
    with torch.inference_mode():
        assert torch.equal(
            decode(latent, nano_vae, features, 0.0),
            nano_vae.decode_tiled(latent["samples"], tile_x=32, tile_y=32, overlap=8)[:, :50, :75],
        )
        assert said(caplog) == ["FaithDiff: out of memory while decoding; going on with tiles of 256 px"]
        monkeypatch.setattr(nano_vae, "decode_tiled", lambda *_, **__: spent(None))
        with pytest.raises(torch.cuda.OutOfMemoryError):
            decode(latent, nano_vae, features, 0.0)


def test_overflow_in_half_precision_is_computed_again(nano_vae, one, monkeypatch, caplog):
    _, features, latent = one
    expected = decode(latent, nano_vae, features, decoder=NANO_FILE)
    monkeypatch.setattr(mm, "vae_dtype", lambda device=None, allowed_dtypes=(): torch.float16)
    half = decode(latent, nano_vae, features, decoder=NANO_FILE)
    assert 0 < relative_difference(half, expected) < HALF and said(caplog) == []
    corrections, dtypes = weights.FidelityDecoder.corrections, []

    def overflows(self, decoded, lq, features):
        dtypes.append(decoded.dtype)
        keep, correction = corrections(self, decoded, lq, features)
        return keep, correction if decoded.dtype == torch.float32 else correction + float("inf")

    monkeypatch.setattr(weights.FidelityDecoder, "corrections", overflows)
    assert torch.equal(decode(latent, nano_vae, features, decoder=NANO_FILE), expected)
    assert dtypes == [torch.float16, torch.float32]
    assert said(caplog) == ["FaithDiff: overflow in torch.float16 in the fidelity decoder, computing the picture again in fp32"]


def test_values_that_are_not_finite_are_told_of(nano_vae, one, monkeypatch):
    _, features, latent = one
    bad = replace(features, lq_BHWC=features.lq_BHWC * float("nan"))
    with pytest.raises(
        ValueError, match="^expected finite values from the fidelity decoder, got NaN or infinity; check the image"
    ):
        decode(latent, nano_vae, bad)
    with pytest.raises(ValueError, match="^expected a latent of finite numbers, got NaN or infinity; if it comes"):
        decode({"samples": latent["samples"] * float("inf")}, nano_vae, features)
    monkeypatch.setattr(nano_vae, "decode", lambda samples: torch.full((1, 56, 80, 3), float("nan")))
    with pytest.raises(ValueError, match="^expected a picture of finite numbers from the VAE, got NaN or infinity; if it comes"):
        decode(latent, nano_vae, features, 0.0)


def test_a_wrong_decoder_is_refused(nano_vae, one, decoders):
    _, features, latent = one
    with pytest.raises(
        ValueError, match=f"^{OTHER_FILE}: expected a fidelity decoder for features of 128 channels, .*, got one for 32; choose"
    ):
        decode(latent, nano_vae, features, decoder=OTHER_FILE)
    with pytest.raises(ValueError, match=f"^{BROKEN_FILE}: expected weights, got a web page"):
        decode(latent, nano_vae, features, decoder=BROKEN_FILE)
    for name in ("gone_fidelity.safetensors", "../b_fidelity.safetensors", "nano_vae.safetensors", ""):
        with pytest.raises(
            ValueError, match="^expected a fidelity decoder in models/faithdiff of the name .*, got no such file;"
        ):
            decode(latent, nano_vae, features, decoder=name)
    path = tiny.write_vae(decoders / "d_fidelity.safetensors")
    try:
        with pytest.raises(ValueError, match="^d_fidelity.safetensors: expected a file of a fidelity decoder, got one without"):
            decode(latent, nano_vae, features, decoder=path.name)
    finally:
        path.unlink()


def test_wrong_inputs_are_told_of(nano, nano_vae, one, monkeypatch):
    _, features, latent = one
    small = {"samples": latent["samples"][..., :-1]}
    with pytest.raises(ValueError, match="^expected a latent of 10x7 cells for features of a 75x50 px image, got 9x7; use"):
        decode(small, nano_vae, features)
    two, _ = encoded(nano, nano_vae, tiny.image(50, 75, batch=2))
    with pytest.raises(ValueError, match="^expected features of 1 image for a batch of 1 latents, got 2; encode"):
        decode(latent, nano_vae, two)
    with pytest.raises(ValueError, match="^expected 1 mask or one for each of the 1 images, got 2; give as many"):
        decode(latent, nano_vae, features, mask=torch.ones(2, 50, 75))
    with pytest.raises(ValueError, match="^expected a fidelity from 0 to 1, got 1.5; set it"):
        decode(latent, nano_vae, features, 1.5)
    with pytest.raises(ValueError, match="^expected a VAE, got none"):
        decode(latent, None, features)
    monkeypatch.setattr(nano_vae, "latent_channels", 16)  # SD 3 and FLUX
    with pytest.raises(ValueError, match=r"^expected an SDXL VAE \(4 channels at 1/8\), got one of 16 channels at 1/8; take"):
        decode(latent, nano_vae, features)


def test_a_run_can_be_cancelled_within_a_picture(nano_vae, one, monkeypatch):
    _, features, latent = one
    corrections, seen = weights.FidelityDecoder.corrections, []

    def interrupted(self, *picture):
        seen.append(picture[0].shape)
        if len(seen) == 3:
            mm.interrupt_current_processing(True)
        return corrections(self, *picture)

    monkeypatch.setattr(weights.FidelityDecoder, "corrections", interrupted)
    monkeypatch.setattr(correct, "TILES_PX", (16,))
    try:
        with pytest.raises(mm.InterruptProcessingException):
            decode(latent, nano_vae, features)
    finally:
        mm.interrupt_current_processing(False)
    assert len(seen) == 3


def test_the_file_is_read_once_until_it_changes(nano_vae, one, decoders, monkeypatch):
    _, features, latent = one
    read, read_file = [], weights.read_weights
    monkeypatch.setattr(weights, "read_weights", lambda path: read.append(path) or read_file(path))
    weights._kept.cache_clear()
    first = decode(latent, nano_vae, features)
    assert torch.equal(decode(latent, nano_vae, features), first) and len(read) == 1
    before = FaithDiffDecode.fingerprint_inputs("auto"), FaithDiffDecode.fingerprint_inputs(NANO_FILE)
    try:
        tiny.write_decoder(decoders / NANO_FILE, replace(NANO, blocks=(1, 1, 1)), seed=7)
        assert relative_difference(decode(latent, nano_vae, features), first) > CHANGED and len(read) == 2
        after = FaithDiffDecode.fingerprint_inputs("auto"), FaithDiffDecode.fingerprint_inputs(NANO_FILE)
        assert before[0] != after[0] and before[1] != after[1]
    finally:
        tiny.write_decoder(decoders / NANO_FILE, NANO)
    assert FaithDiffDecode.fingerprint_inputs("none") == ()


def test_lists_of_files(decoders):
    ours = sorted(path.name for path in decoders.iterdir())
    (decoder,) = (part for part in FaithDiffDecode.define_schema().inputs if part.id == "decoder")
    assert decoder.options == ["auto", "none", *ours] and decoder.default == "auto"
    (names,) = (part.options for part in FaithDiffLoadModel.define_schema().inputs if part.id == "model_name")
    assert not set(names) & set(ours)


def test_order_of_tiles():
    assert correct.tile_sizes_to_try(Size(2000, 3000)) == [2048, 1024, 512, 256]
    assert correct.tile_sizes_to_try(Size(600, 400)) == [1024, 512, 256]
    assert correct.tile_sizes_to_try(Size(8, 256)) == [256]


def test_what_cannot_fit_is_not_tried(decoders):
    patcher = weights.load_decoder(str(decoders / NANO_FILE))
    patcher.model.sizes = replace(patcher.model.sizes, widths=(2**24, 8, 8))
    assert correct.PictureCorrector(patcher, Size(4096, 4096)).tiles_px == [256]


def test_tiles_of_the_vae_by_its_memory(nano_vae, monkeypatch):
    """At 200 x 300 cells; the host tries tiles of 64 cells by itself."""
    samples = torch.zeros(1, 4, 200, 300)
    for most_lat, expected in ((300, [plain.UNTILED, 32]), (128, [128, 64, 32]), (64, [64, 32]), (8, [32])):
        bounded = lambda shape, dtype, most_lat=most_lat: 1e15 if max(shape[-2:]) > most_lat else 1.0  # noqa: E731
        monkeypatch.setattr(nano_vae, "memory_used_decode", bounded)
        monkeypatch.setattr(mm, "get_free_memory", lambda *_, **__: 1e14)  # beside the attention's scores, on a CPU
        assert plain._tiles_to_try(nano_vae, samples) == expected
