"""FaithDiff Prompt and the prompts of tiles, with the host's own SDXL text encoders at small widths."""

from __future__ import annotations

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models_base
import pytest
import torch
from comfy_api.latest import io
from comfyui_faithdiff.faithdiff_core.captions import trim_caption
from comfyui_faithdiff.nodes.prompt import QUALITY_WORDS, FaithDiffPrompt, prompt_text
from comfyui_faithdiff.nodes.split_tiles import FaithDiffSplitTiles
from comfyui_faithdiff.nodes.tile_prompts import FaithDiffTilePrompts
from nodes import CLIPTextEncode
from support import tiny
from support.clips import small_clip
from support.compare import CHANGED, NETWORK, assert_close
from support.executor import run_prompt
from support.sampling import align, noise_like, predictions, sample
from support.tiles import counted, official_starts, official_weights, tiled

IMAGE = tiny.image(96, 128)
TILES = [(top, left) for top in official_starts(12, 8, 0.5) for left in official_starts(16, 8, 0.5)]
CAPTIONS = [f"A house number {i}." for i in range(len(TILES))]
LLAVA = "The image features a red car. It is parked, next to a tree. A dog sits in it. The style is plain."


@pytest.fixture(scope="module")
def clip():
    return small_clip()


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def tile_prompts(clip, captions, latent, **changes):
    settings = {"tile_size": 64, "tile_overlap": 0.5, "shared": "", "trim": True, "add_quality": False, **changes}
    return FaithDiffTilePrompts.execute([clip], captions, [latent], **{k: [v] for k, v in settings.items()}).args


def predict(model, latent, positive, negative):
    """(unconditional, conditional) noise estimates at one sigma."""
    return predictions(model, noise_like(latent), 3.0, positive, negative)


def assert_same_conditioning(a, b):
    assert len(a) == len(b) == 1
    assert torch.equal(a[0][0], b[0][0]) and torch.equal(a[0][1]["pooled_output"], b[0][1]["pooled_output"])
    assert a[0][1].keys() == b[0][1].keys()


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        (LLAVA, "A red car. It is parked, next to a tree."),
        ("\n  this Photo shows two men\n", "Two men."),
        ("Three men posing for a picture with their guitars.", "Three men posing for a picture with their guitars."),
        ("old photo of my aunt", "Old photo of my aunt."),
        ("The image features", "The image features."),
        ("The imagery of a poem", "The imagery of a poem."),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_text_of_a_caption(caption, text):
    assert prompt_text(caption, trim=True, add_quality=False) == text
    assert prompt_text(caption, trim=True, add_quality=True) == (f"{text} {QUALITY_WORDS}" if text else QUALITY_WORDS)
    assert prompt_text(caption, trim=False, add_quality=False) == caption.strip()


def test_llava_captions_are_trimmed_as_in_training():
    assert prompt_text(LLAVA, trim=True, add_quality=False) == trim_caption(LLAVA)


@pytest.mark.parametrize("caption", [LLAVA, "", "a (red:1.3) car", "word " * 100])
def test_conditioning_is_that_of_the_hosts_own_node(clip, caption):
    positive, negative, text = FaithDiffPrompt.execute(clip, caption, True, False).args
    assert_same_conditioning(positive, CLIPTextEncode().encode(clip, text)[0])
    assert_same_conditioning(negative, CLIPTextEncode().encode(clip, "")[0])
    assert positive[0][0].shape[-1] == tiny.CONTEXT_CHANNELS


def test_prompts_run(clip, aligned):
    positive, negative, _ = FaithDiffPrompt.execute(clip, LLAVA, True, True).args
    assert torch.isfinite(sample(*aligned, positive, negative)).all()


def test_wrong_clips_are_told_of(clip):
    with pytest.raises(ValueError, match="got none.*DualCLIPLoader"):
        FaithDiffPrompt.execute(None, "", True, False)
    sd1 = small_clip(comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer)
    with pytest.raises(ValueError, match=r"two text encoders \(g, l\), got one with l"):
        FaithDiffPrompt.execute(sd1, "", True, False)


@pytest.mark.parametrize("size", [(104, 160), (101, 155), (40, 160), (40, 30)])
def test_tiles_are_the_samplers(aligned, size):
    """Where the sampler has its tiles, in the same order; the last ones end with the image."""
    image = tiny.image(*size, batch=2, channels=4)
    tiles = FaithDiffSplitTiles.execute(image, 64, 0.5).args[0]
    height, width = (-(-side // 8) for side in size)
    starts = [(8 * y, 8 * x) for y in official_starts(height, 8, 0.5) for x in official_starts(width, 8, 0.5)]
    assert len(tiles) == len(starts)
    for tile, (top, left) in zip(tiles, starts, strict=True):
        assert torch.equal(tile, image[:, top : top + 64, left : left + 64])
    whole = FaithDiffSplitTiles.execute(image, 0, 0.5).args[0]
    assert len(whole) == 1 and torch.equal(whole[0], image)


def test_every_tile_sees_its_own_caption_only(clip, aligned):
    """Changing one caption changes the prediction by that tile's share, and all together by what they are for the whole."""
    model, latent = tiled(aligned[0]), aligned[1]
    one, negative, texts = tile_prompts(clip, ["A cat."] * len(TILES), latent)
    other = tile_prompts(clip, ["Two dogs!"] * len(TILES), latent)[0]
    assert texts == ["A cat."] * len(TILES)
    base, full = predict(model, latent, one, negative)[1], predict(model, latent, other, negative)[1]
    weights = torch.zeros(12, 16)
    for top, left in TILES:
        weights[top : top + 8, left : left + 8] += official_weights(8, 8).float()
    summed = torch.zeros_like(base)
    for i, (top, left) in enumerate(TILES):
        change = predict(model, latent, [*one[:i], other[i], *one[i + 1 :]], negative)[1] - base
        inside = torch.zeros(12, 16, dtype=torch.bool)
        inside[top : top + 8, left : left + 8] = True
        assert change[..., ~inside].abs().max() <= NETWORK * base.abs().max()
        assert change[..., inside].abs().max() > CHANGED * base.abs().max()
        summed += change
    assert_close(summed, full - base, NETWORK)
    for prompts, text in ((one, "A cat."), (other, "Two dogs!")):  # the same caption for all is the plain prompt
        plain = FaithDiffPrompt.execute(clip, text, True, False).args[0]
        expected = predict(model, latent, plain, negative)[1]
        assert_close(predict(model, latent, prompts, negative)[1], expected, NETWORK)


def test_a_tile_costs_one_call_for_each_prompt(clip, aligned):
    """The host's copies of the negative for every area are not run."""
    model, latent = aligned
    positive, negative, _ = tile_prompts(clip, CAPTIONS, latent)
    counting, shapes = counted(tiled(model, batch=1))
    unconditional, _ = predict(counting, latent, positive, negative)
    assert sum(shape[0] for shape in shapes) == 6 * 2
    plain = FaithDiffPrompt.execute(clip, "A cat.", True, False).args[0]
    assert_close(unconditional, predict(tiled(model), latent, plain, negative)[0], NETWORK)


def test_prompts_for_tiles_and_for_the_whole_mix(clip, aligned):
    model, latent = tiled(aligned[0]), aligned[1]
    positive, negative, _ = tile_prompts(clip, ["A cat."] * len(TILES), latent)
    whole = tiny.conditioning(1)
    mean = (predict(model, latent, positive, negative)[1] + predict(model, latent, whole, negative)[1]) / 2
    assert_close(predict(model, latent, positive + whole, negative)[1], mean, NETWORK)


@pytest.mark.parametrize("size_px", [0, 32 + 64])
def test_other_tiles_see_the_areas(clip, aligned, size_px):
    """Without tiles and in tiles of another size (as after running out of memory) the prompts stay in their place."""
    model, latent = aligned
    model = tiled(model, size_px=size_px) if size_px else model
    one, negative, _ = tile_prompts(clip, ["A cat."] * len(TILES), latent)
    other = tile_prompts(clip, ["Two dogs!"] * len(TILES), latent)[0]
    base = predict(model, latent, one, negative)[1]
    change = predict(model, latent, [*one[:-1], other[-1]], negative)[1] - base  # the last tile: from row 4 and column 8
    assert torch.isfinite(base).all()
    outside = max(part.abs().max() for part in (change[..., :4, :], change[..., :8]))
    assert outside <= NETWORK * base.abs().max() and change.abs().max() > CHANGED * base.abs().max()


def test_captions_for_another_grid_are_told_of(clip, aligned):
    model, latent = aligned
    asked = r"expected 6 captions.*3x2 tiles \(tile_size 64, tile_overlap 0.5\).*128x96 px, got 2; connect a captioning node"
    with pytest.raises(ValueError, match=asked):
        tile_prompts(clip, CAPTIONS[:2], latent)
    positive, negative, _ = tile_prompts(clip, CAPTIONS, latent)
    with pytest.raises(ValueError, match="prompts for other tiles; give FaithDiff Tile Prompts and FaithDiff Split Into Tiles"):
        sample(tiled(model, overlap=0.25), latent, positive, negative)


def test_texts_of_tiles(clip, aligned):
    captions = [LLAVA, "", *CAPTIONS[2:]]
    positive, _, texts = tile_prompts(clip, captions, aligned[1], shared=" An old photo. ", add_quality=True)
    assert texts[:2] == [
        f"An old photo. A red car. It is parked, next to a tree. {QUALITY_WORDS}",
        f"An old photo. {QUALITY_WORDS}",
    ]
    for entry, text in zip(positive, texts, strict=True):
        assert torch.equal(entry[0], clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0])
    assert [entry[1]["area"] for entry in positive] == [(8, 8, top, left) for top, left in TILES]


def test_one_tile_is_the_plain_prompt(clip, aligned):
    model, latent = aligned
    positive, negative, _ = tile_prompts(clip, ["A cat."], latent, tile_size=1024)
    plain = FaithDiffPrompt.execute(clip, "A cat.", True, False).args[0]
    model = tiled(model, size_px=1024)
    assert torch.equal(sample(model, latent, positive, negative), sample(model, latent, plain, negative))


class Captioner(io.ComfyNode):
    """Some other pack's node, which knows of one image only."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Captioner", inputs=[io.Image.Input("image")], outputs=[io.String.Output()])

    @classmethod
    def execute(cls, image):
        return io.NodeOutput(f"Brightness {image.mean():.6f}.")


def test_a_captioning_node_between_the_two(clip, aligned, monkeypatch):
    """In the host's execution: the list of tiles runs the captioner once for each, and its captions arrive together."""
    grid = {"tile_size": 64, "tile_overlap": 0.5}
    prompt = {
        "image": {"class_type": "GiveTestObject", "inputs": {"index": 0}},
        "clip": {"class_type": "GiveTestObject", "inputs": {"index": 1}},
        "latent": {"class_type": "GiveTestObject", "inputs": {"index": 2}},
        "tiles": {"class_type": "FaithDiffSplitTiles", "inputs": {"image": ["image", 0], **grid}},
        "captions": {"class_type": "Captioner", "inputs": {"image": ["tiles", 0]}},
        "prompts": {
            "class_type": "FaithDiffTilePrompts",
            "inputs": {"clip": ["clip", 0], "captions": ["captions", 0], "latent_image": ["latent", 0], **grid, "shared": "",
                       "trim": False, "add_quality": False},
        },
        "positive": {"class_type": "Keep", "inputs": {"value": ["prompts", 0]}},
        "texts": {"class_type": "Keep", "inputs": {"value": ["prompts", 2]}},
    }  # fmt: skip
    nodes = [Captioner, FaithDiffSplitTiles, FaithDiffTilePrompts]
    positive, got = sorted(run_prompt(monkeypatch, prompt, nodes, [IMAGE, clip, aligned[1]]), key=len)
    assert got == [f"Brightness {IMAGE[:, 8 * y : 8 * y + 64, 8 * x : 8 * x + 64].mean():.6f}." for y, x in TILES]
    assert len(positive) == 1 and len(positive[0]) == len(TILES)
