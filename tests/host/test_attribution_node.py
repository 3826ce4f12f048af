"""The FaithDiff Word Attribution node: what it shows, the words it finds, other packs beside it, and bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from comfyui_faithdiff.nodes.alignment.hook import detach
from comfyui_faithdiff.nodes.attribution import FaithDiffAttribution
from comfyui_faithdiff.nodes.attribution_maps.words import prompt_words
from comfyui_faithdiff.nodes.no_prompt import FaithDiffNoPrompt
from comfyui_faithdiff.nodes.seam.clip import encode
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from support import tiny
from support.attribution import PROMPT, SAMPLING, all_words, run, sampled
from support.clips import small_clip
from support.compare import NETWORK, assert_close
from support.sampling import align

IMAGE = tiny.image(96, 128)


@pytest.fixture(scope="module")
def clip():
    return small_clip()


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return load_nano_vae(*read_weights(str(tiny.write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors"))))


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def node(aligned, clip, vae, **changes):
    inputs = {
        "model": aligned[0], "clip": clip, "vae": vae, "positive": encode(clip, PROMPT), "prompt": PROMPT, "compare": True,
        "words": "dog, red car", "negative": encode(clip, ""), "latent_image": aligned[1], **SAMPLING, **changes,
    }  # fmt: skip
    return FaithDiffAttribution.execute(**inputs).args


def test_the_node_with_and_without(clip, vae, aligned):
    pictures, masks, figures, latent = node(aligned, clip, vae)
    prompts = encode(clip, PROMPT), encode(clip, "")
    assert torch.equal(latent["samples"], sampled(*aligned, *prompts))
    assert pictures.shape == (4, 96, 128, 3) and masks.shape == (4, 96, 128)
    assert pictures.min() >= 0 and pictures.max() <= 1 and masks.min() >= 0 and masks.max() <= 1
    lines = figures.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "1. dog, with FaithDiff", "2. dog, without FaithDiff", "3. red car, with FaithDiff", "4. red car, without FaithDiff",
    ]  # fmt: skip
    assert all(line.endswith(" of the picture") for line in lines)
    words = prompt_words(clip, PROMPT, "dog, red car")
    with_it, without = run(*aligned, *prompts, words)[0], run(detach(aligned[0]), aligned[1], *prompts, words)[0]
    for word in (0, 1):  # one scale for both runs
        maps = torch.cat([with_it[0, word : word + 1], without[0, word : word + 1]])
        scaled = (maps - maps.min()) / (maps.max() - maps.min())
        expected = F.interpolate(scaled.unsqueeze(1), (96, 128), mode="bicubic").squeeze(1).clamp(0, 1)
        assert_close(masks[2 * word : 2 * word + 2], expected, NETWORK)


def test_the_node_for_a_batch_without_comparing(clip, vae, loaded):
    pictures, masks, figures, latent = node(align(loaded, torch.cat([IMAGE, IMAGE])), clip, vae, compare=False, steps=1)
    assert pictures.shape == (4, 96, 128, 3) and masks.shape == (4, 96, 128) and latent["samples"].shape[0] == 2
    assert [line.split(":")[0] for line in figures.splitlines()] == [
        "1. dog (image 1)", "2. dog (image 2)", "3. red car (image 1)", "4. red car (image 2)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "word", "places"),
    [
        ("a red car, a dog", "car", [3]),
        ("a red car, a dog", "A", [1, 5]),
        ("a red car, a dog", "Red CAR", [2, 3]),
        ("a (red:1.4) [car] and a car", "red", [2]),
        ("a (red:1.4) car", "red car", [2, 3]),
        ("cartoon of a car", "car", [4]),
        ("!! a car", "car", [3]),
        ("word " * 80 + "car", "car", [77 + 6]),
        ("word " * 74 + "red car", "red car", [75, 78]),
    ],
)
def test_tokens_of_words(clip, prompt, word, places):
    words = prompt_words(clip, prompt, word)
    assert words.words_TW[:, 0].nonzero().flatten().tolist() == places
    assert words.words_TW.shape[0] == encode(clip, prompt)[0][0].shape[1]


def test_bad_inputs_are_told_of(clip, vae, aligned, loaded):
    cases = [
        ({"words": "cat"}, r"expected words of the prompt, got 'cat'; the prompt's words are: A red car, and a dog\."),
        ({"words": " , "}, "expected words of the prompt, separated by commas, got none"),
        ({"prompt": " \n"}, "got an empty one.*nano model, there are no words"),
        ({"prompt": "A dog."}, "expected positive to hold the prompt.*same FaithDiff Prompt"),
        ({"positive": FaithDiffNoPrompt.execute(loaded.model).args[0]}, "expected positive to hold.*FaithDiff No Prompt"),
        ({"model": loaded.model}, "from FaithDiff Align Latent to compare.*set compare to false"),
        ({"clip": None}, "expected SDXL's CLIP, got none"),
        ({"vae": None}, "expected a VAE, got none"),
    ]
    for changes, message in cases:
        inputs = {"words": "dog", **changes}
        with pytest.raises(ValueError, match=message):
            node(aligned, inputs.pop("clip", clip), inputs.pop("vae", vae), **inputs)


def other_packs(model):
    """A pack that puts tokens behind the prompt, and one that runs the attention itself, as IP-Adapters do; and their calls."""
    seen = []

    def longer(n, context, value, extra_options):
        seen.append("attn2_patch")
        more = torch.zeros_like(context[:, :4])
        return n, torch.cat([context, more], dim=1), torch.cat([value, more], dim=1)

    def replace(q, k, v, extra_options):
        seen.append("attn2_replace")
        return 0.5 * optimized_attention(q, k, v, extra_options["n_heads"])

    model = model.clone()
    model.set_model_attn2_patch(longer)
    model.set_model_attn2_replace(replace, "input", 3)
    return model, seen


def test_composes_with_other_packs_patches(clip, aligned):
    words, prompts = prompt_words(clip, PROMPT, "dog, red"), (encode(clip, PROMPT), encode(clip, ""))
    model, seen = other_packs(aligned[0])
    expected = sampled(model, aligned[1], *prompts)
    calls = len(seen)
    shares, latent = run(model, aligned[1], *prompts, words)
    assert torch.equal(latent, expected) and len(seen) == 2 * calls and set(seen) == {"attn2_patch", "attn2_replace"}
    whole, _ = run(model, aligned[1], *prompts, all_words(words))
    assert shares.min() > 0 and whole.max() < 1  # the four tokens behind the prompt have their share


def test_a_node_that_regroups_the_attention_is_told_of(clip, aligned):
    model = aligned[0].clone()
    model.set_model_attn2_patch(lambda n, context, value, _: (n.repeat(2, 1, 1), context.repeat(2, 1, 1), value.repeat(2, 1, 1)))
    with pytest.raises(ValueError, match="expected cross-attention of 2 rows of 48 positions, got 4 rows.*bypass it"):
        run(model, aligned[1], encode(clip, PROMPT), encode(clip, ""), prompt_words(clip, PROMPT, "dog"))


def test_a_node_that_cuts_the_latent_alone_is_told_of(clip, aligned):
    model = detach(aligned[0])
    model.add_wrapper_with_key(
        WrappersMP.CALC_COND_BATCH, "theirs", lambda executor, m, c, x, t, o: executor(m, c, x[..., :8], t, o)
    )
    with pytest.raises(ValueError, match="expected the latent of 2 x 8x12 cells to be cut.*got conditions for 2 x 16x12"):
        run(model, aligned[1], encode(clip, PROMPT), encode(clip, ""), prompt_words(clip, PROMPT, "dog"))
