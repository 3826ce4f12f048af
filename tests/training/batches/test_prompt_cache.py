"""SDXL's two text encoders: against diffusers' own pipeline, and the cache on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.trainer import KEPT_AS_FP16
from support.trainer_text import write_text_encoders

from training.batches.prompt_cache import TextCache, TextEncoders, drop_prompt
from training.common.seeds import generator_for

CPU = torch.device("cpu")
LONG = "dog " * 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_encoders(tmp_path_factory.mktemp("sdxl"))


def test_embeddings_are_those_of_diffusers(folder: Path) -> None:
    encoders = TextEncoders.read(folder)
    prompts = ["", "a dog on the roof", LONG]
    context, pooled = encoders.encode(prompts)
    assert context.shape == (3, 77, 16 + 24) and pooled.shape == (3, 20)
    pipeline = StableDiffusionXLPipeline(
        vae=None, unet=None, scheduler=None, text_encoder=encoders.encoders[0], text_encoder_2=encoders.encoders[1],
        tokenizer=encoders.tokenizers[0], tokenizer_2=encoders.tokenizers[1],
    )  # type: ignore[arg-type]  # fmt: skip
    for index, prompt in enumerate(prompts):
        wanted, _, wanted_pooled, _ = pipeline.encode_prompt(prompt, device=CPU, do_classifier_free_guidance=False)
        assert_close(context[index], wanted[0], NETWORK)
        assert_close(pooled[index], wanted_pooled[0], NETWORK)
    assert relative_difference(context[0], context[1]) > CHANGED
    assert not any(value.requires_grad for encoder in encoders.encoders for value in encoder.parameters())


def test_the_identity_is_that_of_weights_and_vocabularies(folder: Path, tmp_path: Path) -> None:
    wanted = TextEncoders.read(folder).encoder_id
    assert TextEncoders.read(write_text_encoders(tmp_path / "same")).encoder_id == wanted
    assert TextEncoders.read(write_text_encoders(tmp_path / "other", seed=1)).encoder_id != wanted
    merges = tmp_path / "same" / "tokenizer_2" / "merges.txt"
    merges.write_text(merges.read_text().replace("d o\n", "") if merges.is_file() else "#version: 0.2\n")
    assert TextEncoders.read(tmp_path / "same").encoder_id != wanted


def test_the_cache_holds_what_was_asked_for_once(folder: Path, tmp_path: Path) -> None:
    encoders = TextEncoders.read(folder)
    cache = TextCache(tmp_path, encoders.encoder_id)
    captions = ["a dog", "stra\u00dfe \U0001f600 \ud800", LONG]
    assert cache.fill(captions * 2, encoders, CPU, batch_size=2) == 4, "the empty prompt is always there"
    assert cache.fill([*captions, "another"], encoders, CPU) == 1
    files = sorted(tmp_path.rglob("*"))
    assert sum(path.is_file() for path in files) == 5
    assert all(path.suffix == ".safetensors" and path.parent.name == path.name[:2] for path in files if path.is_file())
    for caption in ("", "a dog", "another"):
        context, pooled = cache.get(caption)
        wanted, wanted_pooled = encoders.encode([caption])
        assert (context.dtype, context.shape, pooled.shape) == (torch.float16, (77, 40), (20,))
        assert_close(context, wanted[0], KEPT_AS_FP16)
        assert_close(pooled, wanted_pooled[0], KEPT_AS_FP16)


def test_what_is_not_there_or_damaged_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    encoders = TextEncoders.read(folder)
    cache = TextCache(tmp_path / "cache", encoders.encoder_id)
    with pytest.raises(ValueError, match="expected embeddings of 'a dog' in .* fill the cache"):
        cache.get("a dog")
    cache.fill(["a dog"], encoders, CPU)
    cache.path("a dog").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="expected embeddings of 'a dog'"):
        cache.get("a dog")
    with pytest.raises(ValueError, match="expected embeddings"):
        TextCache(tmp_path / "cache", "another").get("")
    with pytest.raises(ValueError, match="opened for, got others"):
        TextCache(tmp_path / "cache", "another").fill([], encoders, CPU)
    with torch.no_grad():
        encoders.encoders[1].text_projection.weight.mul_(1e9)
    with pytest.raises(ValueError, match="within half precision"):
        cache.fill(["too large"], encoders, CPU)
    assert not cache.path("too large").exists()


def test_a_folder_without_the_encoders_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no tokenizer, tokenizer_2, text_encoder, text_encoder_2"):
        TextEncoders.read(tmp_path)
    broken = write_text_encoders(tmp_path / "broken")
    (broken / "text_encoder" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="expected SDXL's text encoders in"):
        TextEncoders.read(broken)


def test_prompts_are_dropped_at_their_rate_and_later_draws_do_not_move() -> None:
    dropped = sum(drop_prompt("x", 0.2, generator_for(0, index)) == "" for index in range(2000))
    assert 340 <= dropped <= 460
    after = []
    for prob in (0.0, 0.2, 1.0):
        generator = generator_for(3)
        assert prob == 0.2 or drop_prompt("x", prob, generator) == ("x" if prob == 0 else "")
        if prob == 0.2:
            drop_prompt("x", prob, generator)
        after.append(torch.rand((), generator=generator).item())
    assert len(set(after)) == 1
