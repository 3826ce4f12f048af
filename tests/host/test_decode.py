"""FaithDiff Decode: plain it is VAE Decode, and what a fidelity decoder puts back does not depend on batches, tiles or memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import comfy.model_management as mm
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes.decode import FaithDiffDecode
from comfyui_faithdiff.nodes.decoding import correct, plain, weights
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.load_model import FaithDiffLoadModel, load
from comfyui_faithdiff.nodes.seam import folders
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference
from support.sampling import Loaded

DEMO = Path(__file__).resolve().parents[2] / "demo"
NANO = replace(tiny.DECODER, feature_channels=128)
"""For the bundled nano model's features."""
HALF = 3e-2
"""fp16 through a whole network, against fp32: one rounding of fp16 is 5e-4. Measured: 5e-3."""
NANO_FILE, OTHER_FILE = "b_fidelity.safetensors", "c_fidelity.safetensors"


@pytest.fixture(scope="module")
def nano():
    return Loaded(*load(str(DEMO / "nano_faithdiff.safetensors")))


@pytest.fixture(scope="module")
def vae():
    return load_nano_vae(*read_weights(str(DEMO / "nano_vae.safetensors")))


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Fidelity decoders where the host finds them, a broken one first; the bundled one would change what auto takes."""
    import folder_paths

    path = tmp_path_factory.mktemp("decoders")
    (path / "a_broken_fidelity.safetensors").write_text("<!DOCTYPE html>")
    tiny.write_decoder(path / NANO_FILE, NANO)
    tiny.write_decoder(path / OTHER_FILE, replace(tiny.DECODER, feature_channels=32))
    folders.register()
    before = folder_paths.folder_names_and_paths[folders.FOLDER]
    folder_paths.folder_names_and_paths[folders.FOLDER] = ([str(path)], before[1])
    yield path
    folder_paths.folder_names_and_paths[folders.FOLDER] = before


def encoded(nano, vae, image):
    """Features of an image, and a latent that is not quite the image's own."""
    features, latent = FaithDiffEncodeLQ.execute(nano.faithdiff, image, 0, vae).args
    noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(3))
    return features, {"samples": latent["samples"] + 0.3 * noise}


def decode(latent, vae, features, fidelity=1.0, decoder="auto", mask=None) -> torch.Tensor:
    return FaithDiffDecode.execute(latent, vae, features, fidelity, decoder, mask).args[0]


def said(caplog, level=logging.WARNING) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level and r.getMessage().startswith("FaithDiff")]


@pytest.fixture(scope="module")
def one(nano, vae):
    """(image, features, latent) of 75x50 px: 80x56 px when padded."""
    image = tiny.image(50, 75, seed=4)
    return image, *encoded(nano, vae, image)


@pytest.mark.parametrize("how", [{"fidelity": 0.0}, {"decoder": "none"}, {"mask": torch.zeros(1, 9, 9)}])
def test_plain_is_vae_decode_bit_for_bit(vae, one, how):
    _, features, latent = one
    expected = vae.decode(latent["samples"])[:, :50, :75]
    assert torch.equal(decode(latent, vae, features, **how), expected)
    assert relative_difference(decode(latent, vae, features), expected) > CHANGED


def test_without_a_decoder_for_the_features_it_is_plain(vae, one, folder, caplog):
    _, features, latent = one
    caplog.set_level(logging.INFO)
    (folder / NANO_FILE).rename(folder / "away.bin")
    try:
        assert torch.equal(decode(latent, vae, features), decode(latent, vae, features, 0.0))
    finally:
        (folder / "away.bin").rename(folder / NANO_FILE)
    assert said(caplog, logging.INFO) == ["FaithDiff: fidelity decoder for features of 128 channels: none"]
    assert "a_broken_fidelity.safetensors is left out: expected weights, got a web page" in said(caplog)[0]


@pytest.mark.parametrize(("height", "width"), [(9, 200), (16, 8), (64, 64), (65, 63), (50, 75)])
def test_any_size_comes_out_exactly(nano, vae, height, width):
    features, latent = encoded(nano, vae, tiny.image(height, width, channels=4, seed=height))
    result = decode(latent, vae, features)
    assert result.shape == (1, height, width, 3)
    assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_the_picture_is_the_networks(vae, one, folder):
    """By its own forward, on the LQ image padded by hand."""
    image, features, latent = one
    net = weights.load_decoder(str(folder / NANO_FILE)).model
    lq = torch.nn.functional.pad(image.movedim(-1, 1), (0, 5, 0, 6), mode="replicate")
    decoded = vae.decode(latent["samples"]).movedim(-1, 1)
    full = net(decoded * 2 - 1, lq * 2 - 1, features.features_BCHW, 1.0) / 2 + 0.5
    assert_close(decode(latent, vae, features), full.clamp(0, 1)[..., :50, :75].movedim(1, -1), NETWORK)


def test_fidelity_is_linear(vae, one, monkeypatch):
    _, features, latent = one
    monkeypatch.setattr(torch.Tensor, "clamp", lambda self, *_, **__: self)  # which is not
    none, half, full = (decode(latent, vae, features, fidelity) for fidelity in (0.0, 0.5, 1.0))
    assert_close(half, (none + full) / 2, ONE_MODULE)


def test_a_mask_is_fidelity_over_the_picture(vae, one):
    """Drawn at the picture's size, at another, or of one pixel."""
    _, features, latent = one
    none, full = (decode(latent, vae, features, fidelity) for fidelity in (0.0, 1.0))
    mask = torch.zeros(1, 50, 75)
    mask[..., :40] = 1.0
    result = decode(latent, vae, features, mask=mask)
    assert torch.equal(result[:, :, 40:], none[:, :, 40:])
    assert_close(result[:, :, :40], full[:, :, :40], ONE_MODULE)
    small = decode(latent, vae, features, mask=torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert torch.equal(small[:, :, 40:], none[:, :, 40:]) and relative_difference(small[:, :, :12], none[:, :, :12]) > CHANGED
    assert torch.equal(decode(latent, vae, features, mask=torch.full((1, 1, 1), 0.5)), decode(latent, vae, features, 0.5))
    assert torch.equal(decode(latent, vae, features, mask=torch.zeros(1, 64, 64)), full)  # Load Image's, nothing painted


def test_a_picture_alone_is_as_in_a_batch(nano, vae):
    image = tiny.image(43, 50, batch=3, channels=4)
    features, latent = encoded(nano, vae, image)
    masks = torch.rand(3, 43, 50, generator=torch.Generator().manual_seed(1))
    together, masked = decode(latent, vae, features), decode(latent, vae, features, mask=masks)
    for i in range(3):
        alone = replace(features, features_BCHW=features.features_BCHW[i : i + 1], lq_BHWC=image[i : i + 1])
        one = {"samples": latent["samples"][i : i + 1]}
        assert torch.equal(decode(one, vae, alone), together[i : i + 1])
        assert torch.equal(decode(one, vae, alone, mask=masks[i]), masked[i : i + 1])


def test_one_images_features_serve_a_batch_of_latents(vae, one):
    _, features, latent = one
    batch = torch.cat([latent["samples"], latent["samples"].flip(-1)])
    together = decode({"samples": batch}, vae, features)
    for i in range(2):
        assert torch.equal(decode({"samples": batch[i : i + 1]}, vae, features), together[i : i + 1])
    assert relative_difference(together[1], together[0]) > CHANGED


def test_what_alpha_hides_has_no_say(nano, vae):
    rgba = tiny.image(43, 50, channels=4, seed=2)
    rgba[..., 10:30, 20:40, 3] = 0.0
    other = rgba.clone()
    other[..., 10:30, 20:40, :3] = 1.0 - other[..., 10:30, 20:40, :3]
    features, latent = encoded(nano, vae, rgba)
    assert torch.equal(decode(latent, vae, features), decode(latent, vae, replace(features, lq_BHWC=other)))


def test_features_hold_the_image_itself(nano):
    image = tiny.image(16, 24, channels=4)
    assert FaithDiffEncodeLQ.execute(nano.faithdiff, image, 0).args[0].lq_BHWC is image


@pytest.mark.parametrize("tile_px", [16, 32])
def test_tiles_do_not_matter(vae, one, monkeypatch, tile_px):
    _, features, latent = one
    whole = decode(latent, vae, features)
    monkeypatch.setattr(correct, "TILES_PX", (tile_px,))
    assert_close(decode(latent, vae, features), whole, NETWORK)


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


def test_out_of_memory_goes_on_in_smaller_tiles(nano, vae, no_room_for, caplog):
    features, latent = encoded(nano, vae, tiny.image(40, 200, batch=2))
    expected = decode(latent, vae, features)
    tried = no_room_for(40 * 100)  # a tile of 16 px with margins is 96 px wide, one of 32 px is 112 px
    caplog.clear()
    assert_close(decode(latent, vae, features, decoder=NANO_FILE), expected, NETWORK)
    assert said(caplog) == [
        "FaithDiff: out of memory in the fidelity decoder; going on with tiles of at most 32 px, which gives the same picture "
        "and takes longer"
    ]
    assert sum(pixels > 4000 for pixels in tried) == 2  # of 64 px, then of 32 px; the second image began at 16 px


def test_out_of_memory_to_the_end_is_the_hosts_error(vae, one, no_room_for, caplog):
    _, features, latent = one
    no_room_for(1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        decode(latent, vae, features, decoder=NANO_FILE)
    assert said(caplog, logging.ERROR) == [
        "FaithDiff: out of memory in the fidelity decoder with tiles of 16 px; set fidelity to 0 or start ComfyUI with --cpu-vae"
    ]


def test_other_errors_are_raised_on(vae, one, monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(weights.FidelityDecoder, "corrections", broken)
    with pytest.raises(RuntimeError, match="something else"):
        decode(one[2], vae, one[1])


def test_a_latent_that_cannot_fit_is_decoded_in_the_hosts_tiles(nano, vae, monkeypatch):
    features, latent = encoded(nano, vae, tiny.image(24, 280))
    monkeypatch.setattr(vae, "memory_used_decode", lambda shape, dtype: 1e15 if shape[-1] > 32 else 1.0)
    with torch.inference_mode():  # as nodes run in the host
        tiled = decode(latent, vae, features, 0.0)
        assert torch.equal(tiled, vae.decode_tiled(latent["samples"], tile_x=32, tile_y=32, overlap=8))
        assert relative_difference(tiled, vae.decode(latent["samples"])) > CHANGED


def test_a_vae_without_memory_goes_on_with_its_smallest_tiles(vae, one, monkeypatch, caplog):
    _, features, latent = one

    def spent(samples, vae_options=None):
        raise torch.cuda.OutOfMemoryError("made up")

    monkeypatch.setattr(vae, "decode", spent)
    with torch.inference_mode():
        assert torch.equal(
            decode(latent, vae, features, 0.0),
            vae.decode_tiled(latent["samples"], tile_x=32, tile_y=32, overlap=8)[:, :50, :75],
        )
        assert said(caplog) == ["FaithDiff: out of memory while decoding; going on with tiles of 256 px"]
        monkeypatch.setattr(vae, "decode_tiled", lambda *_, **__: spent(None))
        with pytest.raises(torch.cuda.OutOfMemoryError):
            decode(latent, vae, features, 0.0)


def test_overflow_in_half_precision_is_computed_again(vae, one, monkeypatch, caplog):
    _, features, latent = one
    expected = decode(latent, vae, features, decoder=NANO_FILE)
    monkeypatch.setattr(mm, "vae_dtype", lambda device=None, allowed_dtypes=(): torch.float16)
    half = decode(latent, vae, features, decoder=NANO_FILE)
    assert 0 < relative_difference(half, expected) < HALF and said(caplog) == []
    corrections, dtypes = weights.FidelityDecoder.corrections, []

    def overflows(self, decoded, lq, features):
        dtypes.append(decoded.dtype)
        keep, correction = corrections(self, decoded, lq, features)
        return keep, correction if decoded.dtype == torch.float32 else correction + float("inf")

    monkeypatch.setattr(weights.FidelityDecoder, "corrections", overflows)
    assert torch.equal(decode(latent, vae, features, decoder=NANO_FILE), expected)
    assert dtypes == [torch.float16, torch.float32]
    assert said(caplog) == ["FaithDiff: the fidelity decoder overflows in torch.float16, computing the picture again in fp32"]


def test_values_that_are_not_finite_are_told_of(vae, one, monkeypatch):
    _, features, latent = one
    bad = replace(features, lq_BHWC=features.lq_BHWC * float("nan"))
    with pytest.raises(
        ValueError, match="^expected finite values from the fidelity decoder, got NaN or infinity; check the image"
    ):
        decode(latent, vae, bad)
    with pytest.raises(ValueError, match="^expected a latent of finite numbers, got NaN or infinity; if it comes"):
        decode({"samples": latent["samples"] * float("inf")}, vae, features)
    monkeypatch.setattr(vae, "decode", lambda samples: torch.full((1, 56, 80, 3), float("nan")))
    with pytest.raises(ValueError, match="^expected a picture of finite numbers from the VAE, got NaN or infinity; if it comes"):
        decode(latent, vae, features, 0.0)


def test_a_wrong_decoder_is_refused(vae, one, folder):
    _, features, latent = one
    with pytest.raises(
        ValueError, match=f"^{OTHER_FILE}: expected a fidelity decoder for features of 128 channels, .*, got one for 32; choose"
    ):
        decode(latent, vae, features, decoder=OTHER_FILE)
    with pytest.raises(ValueError, match="^a_broken_fidelity.safetensors: expected weights, got a web page"):
        decode(latent, vae, features, decoder="a_broken_fidelity.safetensors")
    for name in ("gone_fidelity.safetensors", "../b_fidelity.safetensors", "nano_vae.safetensors", ""):
        with pytest.raises(
            ValueError, match="^expected a fidelity decoder in models/faithdiff of the name .*, got no such file;"
        ):
            decode(latent, vae, features, decoder=name)
    path = tiny.write_vae(folder / "d_fidelity.safetensors")
    try:
        with pytest.raises(ValueError, match="^d_fidelity.safetensors: expected a file of a fidelity decoder, got one without"):
            decode(latent, vae, features, decoder=path.name)
    finally:
        path.unlink()


def test_wrong_inputs_are_told_of(nano, vae, one, monkeypatch):
    _, features, latent = one
    small = {"samples": latent["samples"][..., :-1]}
    with pytest.raises(ValueError, match="^expected a latent of 10x7 cells for features of a 75x50 px image, got 9x7; use"):
        decode(small, vae, features)
    two, _ = encoded(nano, vae, tiny.image(50, 75, batch=2))
    with pytest.raises(ValueError, match="^expected features of 1 image for a batch of 1 latents, got 2; encode"):
        decode(latent, vae, two)
    with pytest.raises(ValueError, match="^expected 1 mask or one for each of the 1 images, got 2; give as many"):
        decode(latent, vae, features, mask=torch.ones(2, 50, 75))
    with pytest.raises(ValueError, match="^expected a fidelity from 0 to 1, got 1.5; set it"):
        decode(latent, vae, features, 1.5)
    with pytest.raises(ValueError, match="^expected a VAE, got none"):
        decode(latent, None, features)
    monkeypatch.setattr(vae, "latent_channels", 16)  # SD 3 and FLUX
    with pytest.raises(ValueError, match=r"^expected an SDXL VAE \(4 channels at 1/8\), got one of 16 channels at 1/8; take"):
        decode(latent, vae, features)


def test_a_run_can_be_cancelled_within_a_picture(vae, one, monkeypatch):
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
            decode(latent, vae, features)
    finally:
        mm.interrupt_current_processing(False)
    assert len(seen) == 3


def test_the_file_is_read_once_until_it_changes(vae, one, folder, monkeypatch):
    _, features, latent = one
    read, read_file = [], weights.read_weights
    monkeypatch.setattr(weights, "read_weights", lambda path: read.append(path) or read_file(path))
    weights._kept.cache_clear()
    first = decode(latent, vae, features)
    assert torch.equal(decode(latent, vae, features), first) and len(read) == 1
    before = FaithDiffDecode.fingerprint_inputs("auto"), FaithDiffDecode.fingerprint_inputs(NANO_FILE)
    try:
        tiny.write_decoder(folder / NANO_FILE, replace(NANO, blocks=(1, 1, 1)), seed=7)
        assert relative_difference(decode(latent, vae, features), first) > CHANGED and len(read) == 2
        after = FaithDiffDecode.fingerprint_inputs("auto"), FaithDiffDecode.fingerprint_inputs(NANO_FILE)
        assert before[0] != after[0] and before[1] != after[1]
    finally:
        tiny.write_decoder(folder / NANO_FILE, NANO)
    assert FaithDiffDecode.fingerprint_inputs("none") == ()


def test_lists_of_files(folder):
    ours = sorted(path.name for path in folder.iterdir())
    (decoder,) = (part for part in FaithDiffDecode.define_schema().inputs if part.id == "decoder")
    assert decoder.options == ["auto", "none", *ours] and decoder.default == "auto"
    (names,) = (part.options for part in FaithDiffLoadModel.define_schema().inputs if part.id == "model_name")
    assert not set(names) & set(ours)


def test_order_of_tiles():
    assert correct.tile_sizes_to_try(Size(2000, 3000)) == [2048, 1024, 512, 256]
    assert correct.tile_sizes_to_try(Size(600, 400)) == [1024, 512, 256]
    assert correct.tile_sizes_to_try(Size(8, 256)) == [256]


def test_what_cannot_fit_is_not_tried(folder):
    patcher = weights.load_decoder(str(folder / NANO_FILE))
    patcher.model.sizes = replace(patcher.model.sizes, widths=(2**24, 8, 8))
    assert correct.PictureCorrector(patcher, Size(4096, 4096)).tiles_px == [256]


def test_tiles_of_the_vae_by_its_memory(vae, monkeypatch):
    """At 200 x 300 cells; the host tries tiles of 64 cells by itself."""
    samples = torch.zeros(1, 4, 200, 300)
    for most_lat, expected in ((300, [plain.UNTILED, 32]), (128, [128, 64, 32]), (64, [64, 32]), (8, [32])):
        bounded = lambda shape, dtype, most_lat=most_lat: 1e15 if max(shape[-2:]) > most_lat else 1.0  # noqa: E731
        monkeypatch.setattr(vae, "memory_used_decode", bounded)
        monkeypatch.setattr(mm, "get_free_memory", lambda *_, **__: 1e14)  # beside the attention's scores, on a CPU
        assert plain._tiles_to_try(vae, samples) == expected
