"""FaithDiff Encode LQ Features in tiles, with little memory, and in batches."""

from __future__ import annotations

import logging
from dataclasses import replace

import comfy.model_management as mm
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.attention import torch_attention
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.seam import encode as encode_tiled
from comfyui_faithdiff.nodes.seam import host
from comfyui_faithdiff.nodes.seam.encode import UNTILED, ImageEncoder, tile_sizes_to_try
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return load_nano_vae(*read_weights(str(tiny.write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors"))))


HALF = 3e-2
"""fp16 through a whole network, against fp32: one rounding of fp16 is 5e-4. Measured: 2.7e-3."""


def encode(loaded, image, tile_size=0, vae=None):
    """(features, latent) as tensors."""
    features, latent = FaithDiffEncodeLQ.execute(loaded.faithdiff, image, tile_size, vae).args
    return features.features_BCHW, latent["samples"]


def warnings_of(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "FaithDiff" in r.getMessage()]


@pytest.fixture
def no_room_for(monkeypatch, loaded):
    """Makes the encoder's first convolution run out of memory on inputs of more pixels than this."""

    def limit(pixels: int) -> list[int]:
        tried = []
        conv = loaded.faithdiff.encoder.model.conv_in
        forward = conv.forward

        def limited(x):
            tried.append(x.shape[-1] * x.shape[-2])
            if tried[-1] > pixels:
                raise torch.cuda.OutOfMemoryError("made up")
            return forward(x)

        monkeypatch.setattr(conv, "forward", limited)
        return tried

    return limit


@pytest.mark.parametrize("tile_size", [64, 70, 128, 16384])
def test_tile_size_does_not_matter(loaded, tile_size):
    for height, width in ((137, 203), (40, 30)):
        image = tiny.image(height, width, seed=width)
        assert_close(encode(loaded, image, tile_size)[0], encode(loaded, image)[0], NETWORK)


@pytest.mark.parametrize("tile_size", [0, 64])
def test_an_image_alone_is_as_in_a_batch(loaded, vae, tile_size):
    batch = tiny.image(75, 100, batch=3, channels=4)
    features, latent = encode(loaded, batch, tile_size, vae)
    for i in range(3):
        alone = encode(loaded, batch[i : i + 1], tile_size, vae)
        assert torch.equal(alone[0], features[i : i + 1]) and torch.equal(alone[1], latent[i : i + 1])


def test_out_of_memory_goes_on_in_tiles(loaded, no_room_for, caplog):
    batch = tiny.image(300, 340, batch=2)
    expected = encode(loaded, batch)[0]
    tried = no_room_for(100_000)
    assert_close(encode(loaded, batch)[0], expected, NETWORK)
    assert warnings_of(caplog) == [
        "FaithDiff: out of memory while encoding a 344x304 px image; going on with tiles of at most 256 px, which gives the same "
        "features and takes longer"
    ]
    assert [pixels for pixels in tried if pixels > 100_000] == [304 * 344]  # the second image was not tried whole again


def test_out_of_memory_in_tiles_goes_on_in_smaller_ones(loaded, no_room_for, caplog):
    image = tiny.image(130, 1100)
    expected = encode(loaded, image)[0]
    no_room_for(136 * 330)
    assert_close(encode(loaded, image, 1088)[0], expected, NETWORK)  # 1088, 1024, 512, 256
    assert len(warnings_of(caplog)) == 1


def test_out_of_memory_to_the_end_is_the_hosts_error(loaded, no_room_for, caplog):
    no_room_for(1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        encode(loaded, tiny.image(40, 40))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        encode(loaded, tiny.image(40, 300))
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "40x40 px image whole" in errors[0] and "304x40 px image in tiles of 256 px" in errors[1]
    assert all("use a smaller target size or start ComfyUI with --cpu-vae" in e for e in errors)


def test_other_errors_are_raised_on(loaded, monkeypatch):
    def broken(x):
        raise RuntimeError("something else")

    monkeypatch.setattr(loaded.faithdiff.encoder.model.conv_in, "forward", broken)
    with pytest.raises(RuntimeError, match="something else"):
        encode(loaded, tiny.image(300, 300))


def test_order_of_ways():
    assert tile_sizes_to_try(Size(2000, 3000), 0) == [UNTILED, 1024, 512, 256]
    assert tile_sizes_to_try(Size(600, 400), 0) == [UNTILED, 512, 256]
    assert tile_sizes_to_try(Size(64, 256), 0) == [UNTILED]
    assert tile_sizes_to_try(Size(2000, 3000), 700) == [704, 512, 256]
    assert tile_sizes_to_try(Size(2000, 3000), 1) == [64]
    assert tile_sizes_to_try(Size(600, 400), 600) == [UNTILED, 512, 256]


def test_what_cannot_fit_is_not_tried(loaded):
    encoder = loaded.faithdiff.encoder
    assert ImageEncoder(encoder, Size(2**20, 2**20), 0).tiles_px == [1024, 512, 256]
    assert ImageEncoder(encoder, Size(64, 64), 0).tiles_px[0] == UNTILED
    assert ImageEncoder(encoder, Size(2**20, 2**20), 2**18).tiles_px[0] == 2**18  # what was asked for is tried


@pytest.mark.parametrize("tile_size", [0, 64])
def test_overflow_in_half_precision_is_encoded_again(loaded, monkeypatch, caplog, tile_size):
    """Among images that do not overflow, too: the batch is then of fp32, each image as alone."""
    monkeypatch.setattr(mm, "vae_dtype", lambda device=None, allowed_dtypes=(): torch.float16)
    image = tiny.image(80, 104, batch=3)
    image[1] *= 1e6  # the first convolution overflows; the norm after it would bring it back
    features = encode(loaded, image, tile_size)[0]
    assert torch.isfinite(features).all() and features.dtype == torch.float32
    assert [m for m in warnings_of(caplog) if "overflow in torch.float16" in m] and len(warnings_of(caplog)) == 1
    for i, dtype in enumerate((torch.float16, torch.float32, torch.float16)):
        alone = encode(loaded, image[i : i + 1], tile_size)[0]
        assert alone.dtype == dtype and torch.equal(alone.float(), features[i : i + 1])
    monkeypatch.undo()
    for ours, expected in zip(features, encode(loaded, image)[0], strict=True):  # one by one: the second's range is larger
        assert_close(ours, expected, HALF)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_images_that_are_not_finite(loaded, bad):
    image = tiny.image(80, 104)
    image[0, 3, 3, 1] = bad
    with pytest.raises(ValueError, match="expected an image of finite values"):
        encode(loaded, image, 64)


@pytest.mark.parametrize("pytorch_enabled", [True, False])
def test_the_hosts_attention_takes_fewer_queries_than_keys(monkeypatch, pytorch_enabled):
    """The host's own does not, where it falls back to its split attention."""
    monkeypatch.setattr(mm, "pytorch_attention_enabled_vae", lambda: pytorch_enabled)
    ours, g = host.vae_attention(), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, 20, 8), generator=g) for _ in range(3))
    whole = torch_attention(q, k, v, 1)
    assert_close(ours(q, k, v, 1), whole, ONE_MODULE)
    assert_close(ours(q[:, :7], k, v, 1), whole[:, :7], ONE_MODULE)


def test_interrupt_within_an_image(loaded, monkeypatch):
    seen, encode_part = [], encode_tiled.encode_tiled

    def interrupted(encoder, rgb, tiling):
        def progress(done_frac: float) -> None:
            seen.append(done_frac)
            if done_frac > 0.3:
                mm.interrupt_current_processing(True)
            tiling.progress(done_frac)

        return encode_part(encoder, rgb, replace(tiling, progress=progress))

    monkeypatch.setattr(encode_tiled, "encode_tiled", interrupted)
    try:
        with pytest.raises(mm.InterruptProcessingException):
            encode(loaded, tiny.image(137, 203), 64)
    finally:
        mm.interrupt_current_processing(False)
    assert 0.3 < seen[-1] < 0.5


def test_start_latent_of_an_image_that_cannot_fit(loaded, vae, monkeypatch):
    """The host's own tiles, which change it a little; without them a CPU that runs out of memory ends the process."""
    image = tiny.image(96, 552)
    whole = encode(loaded, image, vae=vae)[1]
    assert torch.equal(whole, vae.encode(image))
    monkeypatch.setattr(vae, "memory_used_encode", lambda shape, dtype: 1e15)
    with torch.inference_mode():  # as nodes run in the host
        tiled = encode(loaded, image, vae=vae)[1]
        assert torch.equal(tiled, vae.encode_tiled(image)) and relative_difference(tiled, whole) > CHANGED
