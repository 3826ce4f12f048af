"""A local image-to-text model of transformers: pictures in, captions out. Nothing is downloaded and no code of the model's
folder is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from faithdiff_core.files.checks import first_line

QUESTION = "Describe this image and its style in a very detailed manner."
"""Official llava/llm_agent.py:34, 65-90; the released weights were trained on the answers."""


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """is_asked: the model answers a question (it has a chat template); others only go on with a text. `text` is what it is
    given.
    """

    folder: Path
    model: Any
    processor: Any
    is_asked: bool
    text: str
    max_tokens: int

    @classmethod
    def read(cls, folder: Path, device: str = "auto", *, prompt: str | None = None, max_tokens: int = 512) -> Captioner:
        """From a folder that transformers' `save_pretrained` (or a download) left. On a GPU the weights keep the file's type, on
        the CPU they become float32. `prompt` None = the official question, or nothing for a model that cannot be asked.

        Raises:
            ValueError: without transformers, and for a folder that is no such model.
        """
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise ValueError(f"expected transformers for `caption`, got {error}, pip install transformers") from error
        if not (folder / "config.json").is_file():
            raise ValueError(f"expected a model folder with config.json, got {folder}, name the folder of an image-to-text model")
        target = _device(device)
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor: Any = AutoProcessor.from_pretrained(folder, **safe)
            dtype = torch.float32 if target.type == "cpu" else "auto"
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **safe)
            model = model.to(target).eval()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            line = first_line(error)
            raise ValueError(
                f"expected an image-to-text model of transformers in {folder}, got: {line}; name another folder"
            ) from error
        if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
            raise ValueError(
                f"expected a processor for pictures and text in {folder}, got {type(processor).__name__}, name another folder"
            )
        processor.tokenizer.padding_side = "left"  # what is generated must follow the prompt at once
        is_asked = bool(getattr(processor, "chat_template", None))
        text = prompt if prompt is not None else QUESTION if is_asked else ""
        return cls(folder=folder, model=model, processor=processor, is_asked=is_asked, text=text, max_tokens=max_tokens)

    @torch.inference_mode()
    def describe(self, pictures: list[torch.Tensor]) -> list[str]:
        """Captions of uint8 (3, H, W) pictures, always the likeliest next token."""
        images = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy(), "RGB") for picture in pictures]
        inputs = self.processor(images=images, return_tensors="pt", **self._texts(len(images)))
        inputs = inputs.to(self.model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        given = inputs.get("input_ids")
        if (
            given is not None
            and tokens.shape[1] >= given.shape[1]
            and torch.equal(tokens[:, : given.shape[1]], given)
            and self.is_asked
        ):
            tokens = tokens[:, given.shape[1] :]  # decoders repeat the question; a text's beginning is part of the caption
        return [" ".join(text.split()) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]

    def _texts(self, count: int) -> dict[str, Any]:
        if self.is_asked:
            content = [{"type": "image"}, {"type": "text", "text": self.text}]
            turns = [{"role": "user", "content": content}]
            return {"text": [self.processor.apply_chat_template(turns, add_generation_prompt=True)] * count, "padding": True}
        return {"text": [self.text] * count, "padding": True} if self.text else {}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"expected --device auto, cpu or a GPU of this machine, got {name!r} ({first_line(error)})") from error
