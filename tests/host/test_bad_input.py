"""What bad input gets: one message that says what was expected, what came and what to do. Nothing runs, nothing is lost."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.files.checkpoint import UNET_PREFIX, assemble_full, assemble_released
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.load_nano_vae import FaithDiffLoadNanoVAE
from comfyui_faithdiff.nodes.seam import folders
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from support import tiny
from support.sampling import align, encode, sample

IMAGE = tiny.image(64, 96)


@pytest.fixture(scope="module")
def parts():
    return tiny.made_up_parts()


def message_of(path, **kwargs) -> str:
    """The one message that a user gets; it names the file, is one line and says what to do."""
    with pytest.raises(ValueError) as caught:
        load(str(path), **kwargs)
    message = str(caught.value)
    assert message.startswith(f"{path.name}: expected ") and ", got " in message and "\n" not in message, message
    assert caught.value.__context__ is None or caught.value.__suppress_context__, "the reader's own traceback would come with it"
    return message


def sd15():
    """An SD 1.5 UNet's shape in small: no size embedding."""
    config = {**tiny.UNET_CONFIG, "num_classes": None, "adm_in_channels": None}
    return tiny.unet_state(config), config


def test_missing_file():
    with pytest.raises(
        ValueError,
        match=r"'gone.safetensors' in models/faithdiff or models/diffusion_models, found none; press Get weights at .*https",
    ):
        folders.weights_path("gone.safetensors")


@pytest.mark.parametrize("name", ["a.bin", "a.safetensors", "a.ckpt"])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html>\n<html>not found</html>\n" * 40, b"\x00" * 64], ids=["empty", "html", "zeros"]
)
def test_renamed_text_and_empty_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert message_of(path).endswith("again")


@pytest.mark.parametrize("keep_frac", [0.001, 0.3, 0.999])
def test_truncated_safetensors(tmp_path, parts, keep_frac):
    path = tiny.write_full(tmp_path / "cut.safetensors", parts)
    os.truncate(path, int(path.stat().st_size * keep_frac))
    assert "cut short" in message_of(path)


def test_truncated_pickle(tmp_path, parts):
    path = tmp_path / "cut.bin"
    torch.save(assemble_released(parts), path)
    os.truncate(path, path.stat().st_size // 2)
    message = message_of(path)
    assert "got one that cannot be read" in message and message.endswith("again")  # not one that wants to run code


class RunsCode:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_that_would_run_code(tmp_path, legacy):
    path, marker = tmp_path / "evil.bin", tmp_path / "it_ran"
    evil = {"conv_in.weight": torch.zeros(1), "x": RunsCode(marker)}
    if legacy:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, path)
    assert "asks to run code; it was refused and nothing was run" in message_of(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3), {}])
def test_pickle_of_other_things(tmp_path, content):
    path = tmp_path / "other.bin"
    torch.save(content, path)
    message_of(path)


def test_sd15_unet_alone_and_with_our_modules(tmp_path, parts):
    unet, _ = sd15()
    write_safetensors(tmp_path / "sd15.safetensors", {UNET_PREFIX + k: t for k, t in unet.items()}, {})
    assert "SD 1.5" in message_of(tmp_path / "sd15.safetensors")
    path = tiny.write_full(tmp_path / "mixed.safetensors", replace(parts, unet=unet, metadata=replace(parts.metadata, config={})))
    assert "size embedding None; FaithDiff is SDXL only, choose FaithDiff.bin" in message_of(path)


def test_plain_sdxl_checkpoint(tmp_path, parts):
    path = tmp_path / "sd_xl_base_1.0.safetensors"
    write_safetensors(path, {UNET_PREFIX + k: t for k, t in parts.unet.items()} | {"first_stage_model.x": torch.zeros(1)}, {})
    message = message_of(path)
    for word in ("LQ encoder", "alignment module", "FaithDiff.bin", "base_model"):
        assert word in message


def test_adapter_without_base_model(tmp_path, parts):
    path = tiny.write_adapter(
        tmp_path / "adapter.safetensors", replace(parts, metadata=replace(parts.metadata, base_model="RealVisXL_V4.0"))
    )
    assert "carries no UNet, got none; connect the MODEL of an SDXL checkpoint (RealVisXL_V4.0) to base_model" in message_of(path)


def sd15_model():
    unet, config = sd15()
    model_config = comfy.supported_models.SD15({**config, "model_channels": tiny.WIDTH})
    model_config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(model_config)
    model.diffusion_model.load_state_dict(unet, strict=False)
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def test_base_model_that_is_not_sdxl(tmp_path, parts, loaded):
    path = tiny.write_adapter(tmp_path / "adapter.safetensors", parts)
    assert "expected an SDXL MODEL as base_model, got BaseModel; load an SDXL checkpoint" in message_of(
        path, base_model=sd15_model()
    )
    features, latent = encode(loaded, IMAGE)
    with pytest.raises(ValueError, match="expected an SDXL MODEL as model, got BaseModel"):
        FaithDiffAlignLatent.execute(sd15_model(), features, latent, 1.0, 0.0, 1.0, "lq")


def test_base_model_of_another_width(tmp_path, parts, loaded):
    wide = {**tiny.UNET_CONFIG, "model_channels": 96, "channel_mult": [1, 2, 2], "num_head_channels": 32}
    other = replace(
        parts, unet=tiny.unet_state(wide), metadata=replace(parts.metadata, config={"unet": {"num_head_channels": 32}})
    )
    path = tiny.write_full(tmp_path / "wide.safetensors", other)
    assert "expected a UNet of width 32, which the alignment module was made for, got 96" in message_of(path)


@pytest.mark.parametrize("part", ["unet", "lq_encoder", "alignment"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_weights(tmp_path, parts, part, bad):
    state = dict(getattr(parts, part))
    name = next(k for k in state if k.endswith("weight"))
    state[name] = state[name].clone()
    state[name].view(-1)[-1] = bad
    path = tiny.write_full(tmp_path / "nan.safetensors", replace(parts, **{part: state}))
    assert "NaN or infinity in 1 tensors" in message_of(path)


def test_any_one_missing_unet_tensor(parts):
    """The host's detection counts by some of them and would raise what it likes."""
    from comfyui_faithdiff.nodes.seam.unet_loader import WEIGHT_DTYPES, load_unet

    for name in list(parts.unet)[::7]:
        for unet in ({k: t for k, t in parts.unet.items() if k != name}, {**parts.unet, name: torch.zeros(())}):
            with pytest.raises(ValueError, match="again|FaithDiff is SDXL only"):
                load_unet(unet, {}, WEIGHT_DTYPES["default"])


@pytest.mark.parametrize("gone", ["mid_block.", "down_blocks.1.attentions.", "information_transformer_layes.1."])
def test_missing_blocks_of_a_released_file(tmp_path, parts, gone):
    path = tmp_path / "holes.bin"
    torch.save({k: t for k, t in assemble_released(parts).items() if not k.startswith(gone)}, path)
    assert message_of(path).endswith("get it again")


def test_parts_of_different_models(tmp_path, parts):
    from comfyui_faithdiff.faithdiff_core.architecture import LQEncoderSizes
    from comfyui_faithdiff.faithdiff_core.lq_encoder import LQEncoder

    for widths, words in (((32, 32, 64), "3 to 64 at 1/4"), ((32, 32, 64, 96), "3 to 96 at 1/8")):
        net = LQEncoder(LQEncoderSizes(block_out_channels=widths, layers_per_block=1), operations=torch.nn, device="meta")
        other = replace(parts, lq_encoder=tiny.random_weights(net.state_dict(), 0), metadata=replace(parts.metadata, config={}))
        assert f"got {words}" in message_of(tiny.write_full(tmp_path / "mixed.safetensors", other))


def test_safetensors_named_bin(tmp_path, parts):
    path = tiny.write_full(tmp_path / "ours.safetensors", parts).rename(tmp_path / "ours.bin")
    assert message_of(path).endswith("rename it to end in .safetensors")


def test_images_and_latents_of_other_shapes(loaded):
    for shape in ((1, 16, 16, 1), (0, 16, 16, 3), (1, 0, 16, 3), (16, 16, 3)):
        with pytest.raises(ValueError, match="expected an IMAGE"):
            encode(loaded, torch.zeros(shape))
    features, latent = encode(loaded, IMAGE)
    for shape in ((1, 16, 8, 12), (1, 4, 1, 8, 12)):
        with pytest.raises(ValueError, match="expected an SDXL image latent"):
            FaithDiffAlignLatent.execute(loaded.model, features, {"samples": torch.zeros(shape)}, 1.0, 0.0, 1.0, "lq")
    masked = {**latent, "noise_mask": torch.ones(1, 1, 64, 96)}
    with pytest.raises(ValueError, match="start_from lq for a latent with a noise mask"):
        FaithDiffAlignLatent.execute(loaded.model, features, masked, 1.0, 0.0, 1.0, "noise")


@pytest.mark.parametrize("part", ["unet", "lq_encoder", "alignment"])
def test_missing_and_misshapen_weights(tmp_path, parts, part):
    state = dict(getattr(parts, part))
    name = next(reversed(state))
    del state[name]
    path = tiny.write_full(tmp_path / "missing.safetensors", replace(parts, **{part: state}))
    assert message_of(path).endswith("get it again")
    wrong = {**getattr(parts, part), name: torch.zeros(3, 5)}
    path = tiny.write_full(tmp_path / "shape.safetensors", replace(parts, **{part: wrong}))
    assert message_of(path).endswith("again")


def test_latent_of_another_size(loaded):
    features, _ = encode(loaded, IMAGE)
    with pytest.raises(ValueError, match="expected a latent of 12x8 cells for features of a 96x64 px image, got 16x16"):
        FaithDiffAlignLatent.execute(loaded.model, features, {"samples": torch.zeros(1, 4, 16, 16)}, 1.0, 0.0, 1.0, "lq")


def test_another_latent_at_the_sampler(loaded):
    model, _ = align(loaded, IMAGE)
    with pytest.raises(ValueError, match="expected a latent of 12x8 cells"):
        sample(model, {"samples": torch.zeros(1, 4, 16, 16)})
    features, latent = encode(loaded, torch.cat([IMAGE, IMAGE]))
    model, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq").args
    with pytest.raises(ValueError, match="features of 1 or 3 images for a batch of 3 latents, got 2; encode the same batch"):
        sample(model, {"samples": torch.zeros(3, 4, 8, 12)})
    with pytest.raises(ValueError, match="features of 1 image for a batch of 1 latents, got 2"):
        sample(model, {"samples": torch.zeros(1, 4, 8, 12)})


def test_features_of_another_batch(loaded):
    features, latent = encode(loaded, torch.cat([IMAGE] * 3))
    with pytest.raises(ValueError, match="features of 1 or 2 images for a batch of 2 latents, got 3"):
        FaithDiffAlignLatent.execute(loaded.model, features, {"samples": latent["samples"][:2]}, 1.0, 0.0, 1.0, "lq")
    with pytest.raises(ValueError, match="1 mask or one for each of the 3 images, got 2"):
        FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq", torch.ones(2, 8, 8))


def test_features_of_another_model(loaded, tmp_path, parts):
    features, latent = encode(loaded, IMAGE)
    wide = {**tiny.UNET_CONFIG, "model_channels": 96, "num_head_channels": 32}
    from comfyui_faithdiff.nodes.seam.unet_loader import WEIGHT_DTYPES, load_unet

    other = load_unet(tiny.unet_state(wide), {"unet": {"num_head_channels": 32}}, WEIGHT_DTYPES["default"])
    with pytest.raises(ValueError, match="expected a MODEL of width 32.*got 96; take MODEL and faithdiff from the same"):
        FaithDiffAlignLatent.execute(other, features, latent, 1.0, 0.0, 1.0, "lq")


def test_percent_the_wrong_way_round(loaded):
    features, latent = encode(loaded, IMAGE)
    with pytest.raises(ValueError, match="start_percent <= end_percent, got 0.8 and 0.2"):
        FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.8, 0.2, "lq")


def test_images_that_are_none(loaded):
    with pytest.raises(ValueError, match="finite values"):
        encode(loaded, torch.full((1, 16, 16, 3), float("nan")))


def test_color_fix_of_other_pictures():
    for other in (tiny.image(64, 64), tiny.image(128, 192)):  # too small, and enlarged behind our back: never cropped to a corner
        with pytest.raises(
            ValueError, match="expected an image of 96x64 px as VAE Decode gives it for a reference of 96x64, got"
        ):
            FaithDiffColorFix.execute(other, IMAGE, "adain")
    with pytest.raises(ValueError, match="1 reference or one for each of the 3 images, got 2"):
        FaithDiffColorFix.execute(torch.cat([IMAGE] * 3), torch.cat([IMAGE] * 2), "adain")


def test_a_model_in_the_nano_vae_list(tmp_path, parts):
    import folder_paths

    path = tiny.write_full(tmp_path / "not_a_vae.safetensors", parts)
    folders.register()
    folder_paths.add_model_folder_path(folders.FOLDER, str(path.parent))
    with pytest.raises(ValueError, match="not_a_vae.safetensors: expected a nano VAE with faithdiff.vae_config in its header"):
        FaithDiffLoadNanoVAE.execute(path.name)


@pytest.mark.parametrize(
    "change", [{"norm_groups": 7}, {"block_out_channels": [0, 0]}, {"layers_per_block": "one"}, {"layers_per_block": 2}]
)
def test_nano_vae_whose_header_is_wrong(tmp_path, change):
    import json

    from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = tiny.write_vae(tmp_path / "vae.safetensors")
    with safe_open(path, "pt") as f:
        config = json.loads(f.metadata()["faithdiff.vae_config"])
    state = load_file(path)
    with pytest.raises(ValueError, match="nano VAE"):
        load_nano_vae(state, {"faithdiff.vae_config": json.dumps({**config, **change})})
    for broken in (dict(list(state.items())[:-1]), {k: t * float("nan") for k, t in state.items()}):
        with pytest.raises(ValueError, match="nano VAE, got"):
            load_nano_vae(broken, {"faithdiff.vae_config": json.dumps(config)})


def test_a_node_that_tiles_behind_our_back(loaded):
    """A foreign tiler that cuts the latent but not the conditions gets an error, one that cuts both a right picture."""
    model, latent = align(loaded, IMAGE)

    def cut(apply, args, cut_conds):
        x, c = args["input"], dict(args["c"])
        if cut_conds:
            c = {k: v[..., :4, :6] if isinstance(v, torch.Tensor) and v.ndim == 4 else v for k, v in c.items()}
        return torch.nn.functional.pad(apply(x[..., :4, :6], args["timestep"], **c), (0, 6, 0, 4))

    for cut_conds in (False, True):
        tiled = model.clone()
        tiled.set_model_unet_function_wrapper(lambda apply, args, both=cut_conds: cut(apply, args, both))
        if cut_conds:
            assert torch.isfinite(sample(tiled, latent)).all()
        else:
            with pytest.raises(ValueError, match="another node tiles or scales the latent"):
                sample(tiled, latent)


def test_sizes_read_well():
    assert str(Size(height=3, width=4)) == "4x3"


def test_every_full_file_has_these_prefixes(parts):
    assert {k.split(".")[0] for k in assemble_full(parts)} == {"model", "faithdiff"}


def test_a_vae_of_another_family_is_refused_before_it_encodes(loaded, tmp_path, monkeypatch):
    vae = load_nano_vae(*read_weights(str(tiny.write_vae(tmp_path / "vae.safetensors"))))
    monkeypatch.setattr(vae, "latent_channels", 16)  # SD 3 and FLUX
    with pytest.raises(ValueError, match=r"^expected an SDXL VAE \(4 channels at 1/8\), got one of 16 channels at 1/8; take"):
        encode(loaded, IMAGE, vae)
