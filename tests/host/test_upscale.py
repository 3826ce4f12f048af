"""FaithDiff Upscale To Target: exact sizes, Lanczos as Pillow's, the host's own upscale models, batches, alpha, limits."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import comfy.model_management as mm
import comfy.utils
import folder_paths
import pytest
import spandrel.architectures.ESRGAN
import torch
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes import upscale
from comfyui_faithdiff.nodes.seam.lanczos import lanczos
from comfyui_faithdiff.nodes.upscale import FaithDiffUpscale, target_size
from safetensors.torch import save_file
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference
from support.executor import run_prompt

PARTS = {"scale factor": "factor", "megapixels": "megapixels", "longest side": "longest_side", "shortest side": "shortest_side"}


def to(way, number):
    return {"target": way, PARTS[way]: number}


@pytest.fixture(scope="module")
def upscale_model(tmp_path_factory):
    """An ESRGAN of random weights that doubles, loaded by the host's own node."""
    folder = tmp_path_factory.mktemp("upscale_models")
    net = spandrel.architectures.ESRGAN.ESRGAN(num_filters=4, num_blocks=1, scale=2)
    save_file(tiny.random_weights(net.state_dict(), 1), folder / "tiny.safetensors")
    folder_paths.add_model_folder_path("upscale_models", str(folder))
    model = UpscaleModelLoader.execute("tiny.safetensors").args[0]
    assert model.scale == 2
    return model


@pytest.mark.parametrize(
    ("size", "way", "number", "expected"),
    [
        ((480, 640), "scale factor", 2.0, (960, 1280)),
        ((333, 501), "scale factor", 1.5, (500, 752)),
        ((5, 3), "scale factor", 0.01, (1, 1)),
        ((480, 640), "scale factor", 1.0, (480, 640)),
        ((1024, 1024), "megapixels", 4.0, (2048, 2048)),
        ((480, 640), "megapixels", 1.0, (887, 1182)),
        ((480, 640), "longest side", 2048, (1536, 2048)),
        ((641, 481), "longest side", 2047, (2047, 1536)),
        ((480, 640), "shortest side", 1024, (1024, 1365)),
        ((2, 16000), "longest side", 16384, (2, 16384)),
        ((1, 4000), "longest side", 100, (1, 100)),
    ],
)
def test_sizes(size, way, number, expected):
    assert target_size(Size(*size), to(way, number)) == expected


def test_every_longest_and_shortest_side_is_exact():
    sides = [*range(1, 400, 7), 1023, 4095]
    for old in (Size(a, b) for a in sides for b in sides[::5]):
        for side in (1, 64, 999, 1024, 2048, 4001):
            assert max(target_size(old, to("longest side", side))) == side
            if max(old) * side <= 16384 * min(old):
                assert min(target_size(old, to("shortest side", side))) == side


@pytest.mark.parametrize("size", [(96, 80), (48, 40), (31, 17), (300, 7), (1, 1), (50, 40)])
def test_lanczos_is_pillows(size):
    """To what 8 bits can hold: the host goes through Pillow, which rounds between rows and columns."""
    image = (tiny.image(50, 40, seed=2) * 255).round() / 255
    got = lanczos(image[0], Size(*size))
    host = comfy.utils.lanczos(image.movedim(-1, 1), size[1], size[0])[0].movedim(0, -1)
    assert got.shape == (*size, 3)
    assert (got.clamp(0, 1) - host).abs().max() <= 2.01 / 255
    assert (got.clamp(0, 1) - host).mean().abs() < 0.3 / 255


def test_lanczos_keeps_flat_pictures_and_small_steps():
    flat = torch.full((9, 7, 1), 0.1234567)
    assert_close(lanczos(flat, Size(31, 5)), torch.full((31, 5, 1), 0.1234567), ONE_MODULE)
    ramp = torch.linspace(0.5, 0.5 + 0.5 / 255, 64).reshape(1, 64, 1)  # all one level of 8 bits
    assert lanczos(ramp, Size(1, 128)).unique().numel() > 100


def test_result_width_height_and_alpha():
    image = tiny.image(30, 20, channels=4)
    result, width, height = FaithDiffUpscale.execute(image, to("longest side", 77)).args
    assert (width, height) == (51, 77) and result.shape == (1, 77, 51, 4) and result.dtype == image.dtype
    assert_close(result[0, ..., 3:], lanczos(image[0, ..., 3:], Size(77, 51)).clamp(0, 1), ONE_MODULE)
    assert result.min() >= 0 and result.max() <= 1


def test_range_is_kept():
    edge = torch.zeros(1, 16, 16, 3)
    edge[:, :, 8:] = 1.0
    assert lanczos(edge[0], Size(64, 64)).max() > 1
    result = FaithDiffUpscale.execute(edge, to("scale factor", 4.0)).args[0]
    assert result.min() == 0 and result.max() == 1


def test_same_size_is_the_image():
    image = tiny.image(30, 20, channels=4)
    assert torch.equal(FaithDiffUpscale.execute(image, to("scale factor", 1.0)).args[0], image)


def test_batch_is_its_images_one_by_one(upscale_model):
    batch = tiny.image(20, 24, batch=3)
    for model in (None, upscale_model):
        together = FaithDiffUpscale.execute(batch, to("scale factor", 1.7), model).args[0]
        for i in range(3):
            assert torch.equal(
                together[i : i + 1], FaithDiffUpscale.execute(batch[i : i + 1], to("scale factor", 1.7), model).args[0]
            )


def test_upscale_model_is_the_hosts(upscale_model):
    """At the model's own factor its very output; at any other, Lanczos of it. Alpha never goes through it."""
    image = tiny.image(20, 24, channels=4)
    enlarged = ImageUpscaleWithModel.execute(upscale_model, image[..., :3]).args[0]
    same = FaithDiffUpscale.execute(image, to("scale factor", 2.0), upscale_model).args[0]
    assert_close(same[..., :3], enlarged, NETWORK)
    for number in (1.0, 1.3, 3.0):
        result, width, height = FaithDiffUpscale.execute(image, to("scale factor", number), upscale_model).args
        assert result.shape == (1, height, width, 4)
        assert_close(result[0, ..., :3], lanczos(enlarged[0], Size(height, width)).clamp(0, 1), NETWORK)
        without = FaithDiffUpscale.execute(image, to("scale factor", number)).args[0]
        assert torch.equal(result[..., 3], without[..., 3])
        assert relative_difference(result[..., :3], without[..., :3]) > CHANGED


def test_upscale_model_is_left_out_where_the_image_gets_smaller(upscale_model):
    image = tiny.image(20, 24)
    smaller = to("scale factor", 0.5)
    assert torch.equal(
        FaithDiffUpscale.execute(image, smaller, upscale_model).args[0], FaithDiffUpscale.execute(image, smaller).args[0]
    )


def test_limits(upscale_model, monkeypatch):
    with pytest.raises(ValueError, match="at most 16384 px a side, got 20000x100 from 2000x10; choose a smaller target"):
        FaithDiffUpscale.execute(torch.zeros(1, 10, 2000, 3), to("scale factor", 10.0))
    with pytest.raises(ValueError, match="expected an IMAGE"):
        FaithDiffUpscale.execute(torch.zeros(0, 10, 20, 3), to("scale factor", 2.0))
    with pytest.raises(ValueError, match="got 'diagonal'"):
        target_size(Size(1, 1), {"target": "diagonal"})
    monkeypatch.setattr(upscale, "MAX_SIDE_PX", 32)
    with pytest.raises(ValueError, match="at most 32 px a side, got 40x20 from the upscale model"):
        FaithDiffUpscale.execute(torch.zeros(1, 10, 20, 3), to("scale factor", 1.5), upscale_model)


@pytest.mark.parametrize(("number", "warned"), [(2.0, False), (1.0, False), (0.5, True)])
def test_a_target_that_shrinks_is_warned_of_on_the_node(number, warned, monkeypatch):
    sent = []
    server = SimpleNamespace(client_id=None, send_progress_text=lambda text, node_id, page: sent.append((text, node_id)))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    monkeypatch.setattr(FaithDiffUpscale, "hidden", SimpleNamespace(unique_id="7"))
    (text,) = FaithDiffUpscale.execute(tiny.image(20, 40), to("scale factor", number)).ui.as_dict()["text"]
    assert sent == [(text, "7")]
    assert text.splitlines()[0] == f"40x20 px to {40 * number:.0f}x{20 * number:.0f} px"
    assert ("Warning: this target shrinks the picture to 0.5x" in text) == warned


def test_interrupt_between_images():
    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        FaithDiffUpscale.execute(tiny.image(8, 8, batch=2), to("scale factor", 2.0))
    mm.interrupt_current_processing(False)


@pytest.mark.parametrize(
    ("way", "number"), [("scale factor", 3), ("megapixels", 0.01), ("longest side", 64), ("shortest side", 64)]
)
def test_in_the_hosts_execution(monkeypatch, way, number):
    """The dependent input arrives under its option, and is held to its limits."""
    inputs = {"image": ["image", 0], "target": way, f"target.{PARTS[way]}": number}
    prompt = {
        "image": {"class_type": "GiveTestObject", "inputs": {"index": 0}},
        "upscale": {"class_type": "FaithDiffUpscale", "inputs": inputs},
        "result": {"class_type": "Keep", "inputs": {"value": ["upscale", 0]}},
    }
    image = tiny.image(40, 20)
    (result,) = run_prompt(monkeypatch, prompt, [FaithDiffUpscale], [image])
    assert torch.equal(result[0], FaithDiffUpscale.execute(image, to(way, number)).args[0])
    inputs[f"target.{PARTS[way]}"] = 0
    with pytest.raises(ValueError, match="value_smaller_than_min"):
        run_prompt(monkeypatch, prompt, [FaithDiffUpscale], [image])
