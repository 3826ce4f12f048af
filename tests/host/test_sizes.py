"""Any image comes out exactly as large as it went in, from 9 px up, alpha and batches included."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.load_nano_vae import FaithDiffLoadNanoVAE
from comfyui_faithdiff.nodes.no_prompt import FaithDiffNoPrompt
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from support import tiny
from support.compare import NETWORK, assert_close
from support.sampling import encode

# 40 sizes (height, width): every remainder of 8, both orders, long strips, and both sides of the halvings inside the UNet.
SIZES = [(9 + 7 * i % 61, 9 + 11 * i % 97) for i in range(34)] + [(9, 200), (200, 9), (64, 64), (65, 63), (127, 129), (16, 8)]


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    import folder_paths
    from comfyui_faithdiff.nodes.seam import folders

    folder = tmp_path_factory.mktemp("vae")
    tiny.write_vae(folder / "tiny_vae.safetensors")
    folders.register()
    folder_paths.add_model_folder_path(folders.FOLDER, str(folder))
    return FaithDiffLoadNanoVAE.execute("tiny_vae.safetensors").args[0]


def restore(loaded, vae, image, steps=1, method="adain"):
    features, latent = FaithDiffEncodeLQ.execute(loaded.faithdiff, image, 0, vae).args
    model, latent = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq").args
    prompt = FaithDiffNoPrompt.execute(model).args[0]
    (latent,) = FaithDiffSampler.execute(model, 0, steps, 5.0, "euler", "normal", prompt, prompt, latent, 1.0, 1024, 0.5, 0).args
    (result,) = FaithDiffColorFix.execute(vae.decode(latent["samples"]), image, method).args
    return result


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_output_is_as_large_as_the_input(loaded, vae, height, width):
    image = tiny.image(height, width, seed=height)
    result = restore(loaded, vae, image)
    assert result.shape == image.shape
    assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_forty_sizes():
    assert (
        len(SIZES) == 40 and min(map(min, SIZES)) <= 9 and {h % 8 for h, _ in SIZES} == {w % 8 for _, w in SIZES} == set(range(8))
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_alpha_is_put_back_and_never_seen(loaded, vae, batch):
    rgba = tiny.image(43, 50, batch=batch, channels=4, seed=2)
    result = restore(loaded, vae, rgba)
    assert result.shape == rgba.shape and torch.equal(result[..., 3], rgba[..., 3])
    opaque = rgba.clone()
    opaque[..., 3] = 0.0
    assert torch.equal(restore(loaded, vae, opaque)[..., :3], result[..., :3])


@pytest.mark.parametrize("method", ["wavelet", "none"])
def test_other_colour_fixes_keep_the_size(loaded, vae, method):
    assert restore(loaded, vae, tiny.image(30, 41), method=method).shape == (1, 30, 41, 3)


def test_padding_repeats_the_edge(loaded):
    """The features of an image are those of the image padded by hand."""
    image = tiny.image(43, 50)
    by_hand = torch.nn.functional.pad(image.movedim(-1, 1), (0, 6, 0, 5), mode="replicate").movedim(1, -1)
    ours, hands = (encode(loaded, i)[0] for i in (image, by_hand))
    assert_close(ours.features_BCHW, hands.features_BCHW, NETWORK)  # the two may lie otherwise in memory
    assert tuple(ours.size_px) == (43, 50) and tuple(hands.size_px) == (48, 56)


def test_latent_is_the_vaes_own(loaded, vae):
    image = tiny.image(48, 56)
    assert torch.equal(encode(loaded, image, vae)[1]["samples"], vae.encode(image))
    empty = encode(loaded, image)[1]["samples"]
    assert empty.shape == (1, 4, 6, 7) and not empty.any()


def test_features_of_a_batch_are_those_of_its_images(loaded):
    batch = tiny.image(40, 48, batch=3)
    together = encode(loaded, batch)[0].features_BCHW
    for i in range(3):
        assert torch.equal(encode(loaded, batch[i : i + 1])[0].features_BCHW, together[i : i + 1])


def test_inputs_are_not_changed(loaded, vae):
    image = tiny.image(40, 44)
    before = image.clone()
    restore(loaded, vae, image)
    assert torch.equal(image, before)
