"""Tiny models of transformers with made-up weights, written to a folder the way real ones are."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

WORDS = ["a", "the", "image", "features", "dog", "cat", "red", "blue", "house", "tree", "on", "under", "near", "and"]
WORDS += ["describe", "this", "its", "style", "in", "very", "detailed", "manner", "."]
CHAT_TEMPLATE = (
    "{% for turn in messages %}{% for part in turn['content'] %}{% if part['type'] == 'image' %}<image> {% else %}"
    "{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


def write_text_encoders(folder: Path, seed: int = 0, *, widths: tuple[int, int] = (16, 24), projection: int = 20) -> Path:
    """A diffusers folder's tokenizer, tokenizer_2, and text encoders of these widths, the second projected."""
    letters = [chr(number) for number in range(33, 127)]
    vocabulary = [*letters, *[letter + "</w>" for letter in letters], "do", "dog</w>", "<|startoftext|>", "<|endoftext|>"]
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
        (folder / name / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
        pad = "<|endoftext|>" if name == "tokenizer" else "!"  # as in SDXL
        settings = {"model_max_length": 77, "pad_token": pad, "unk_token": "<|endoftext|>"}
        tokenizer = CLIPTokenizer.from_pretrained(folder / name, **settings)
        tokenizer.save_pretrained(folder / name)
    common = {"vocab_size": len(vocabulary), "num_attention_heads": 2, "max_position_embeddings": 77}
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": len(vocabulary) - 1}
    torch.manual_seed(seed)
    first = CLIPTextConfig(hidden_size=widths[0], intermediate_size=32, num_hidden_layers=2, **common, **ends)
    CLIPTextModel(first).save_pretrained(folder / "text_encoder")
    second = CLIPTextConfig(
        hidden_size=widths[1],
        intermediate_size=32,
        num_hidden_layers=3,
        projection_dim=projection,
        hidden_act="gelu",
        **common,
        **ends,
    )
    CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    return folder


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<image>"]
    table = {word: index for index, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(table, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", bos_token="[CLS]",
        eos_token="[SEP]", additional_special_tokens=["<image>"],
    )  # fmt: skip


def write_blip(folder: Path) -> Path:
    """A captioner that cannot be asked. Its texts stand between [CLS] and [SEP], as BERT's do."""
    from tokenizers import processors

    tokenizer = word_tokenizer()
    ends = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
        "sep_token_id": 3, "projection_dim": 16,
    }  # fmt: skip
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    generator = torch.Generator().manual_seed(4)
    for value in model.parameters():
        value.data = torch.randn(value.shape, generator=generator)  # large enough for captions that depend on the picture
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def write_llava(folder: Path) -> Path:
    """A model that answers: LLaVA's classes with a chat template."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=2, eos_token_id=3, pad_token_id=0, max_position_embeddings=128,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(8)
    model.save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder
