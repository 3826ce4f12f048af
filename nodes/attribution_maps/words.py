"""The words of a prompt: their tokens in SDXL's two text encoders, and which conditions hold the prompt.

SDXL joins its encoders' contexts along the channels, so that a token has the same index in both; a long prompt is cut into
pieces of 77 tokens, one after another.
"""

from __future__ import annotations

from dataclasses import dataclass

import comfy.sd
import torch

from ...faithdiff_core.attribution import find_tokens, words_of_tokens
from ..seam.clip import encode

CONTEXT_TOLERANCE = 1e-2
"""Two encodings of the same text differ by rounding only (in half precision by a few 1e-3); those of two texts by about 1."""
MAX_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class PromptWords:
    """Words to look for in the cross-attention to one prompt.

    Attributes:
        words: as asked for.
        words_TW: (tokens, words), 1 where a token belongs to a word.
        contexts_1TC: the prompt as this CLIP encodes it; several where a hook schedules the CLIP.
    """

    words: tuple[str, ...]
    words_TW: torch.Tensor
    contexts_1TC: tuple[torch.Tensor, ...]

    def is_prompt(self, context_BTC: torch.Tensor) -> bool:
        """Whether a condition's context is this prompt."""
        context_BTC = context_BTC.cpu().float()
        return any(
            c.shape == context_BTC.shape and torch.allclose(c, context_BTC, rtol=CONTEXT_TOLERANCE, atol=CONTEXT_TOLERANCE)
            for c in self.contexts_1TC
        )

    def for_tokens(self, tokens: int) -> torch.Tensor:
        """`words_TW` for a call with contexts of so many tokens.

        The host repeats a context to the length of a longer one beside it (H comfy/conds.py, CONDCrossAttn.concat), and a word is
        then all its copies.
        """
        return self.words_TW.repeat(max(1, tokens // self.words_TW.shape[0]), 1)


def prompt_words(clip: comfy.sd.CLIP | None, prompt: str, words: str) -> PromptWords:
    """Words, separated by commas, in a prompt.

    Raises:
        ValueError: no CLIP or not SDXL's; no prompt, no words, or a word that the prompt does not have.
    """
    if not prompt.strip():
        raise ValueError(
            "expected the prompt whose words are looked for, got an empty one; connect FaithDiff Prompt's text, or type a "
            "caption. Without a prompt, as in the nano model, there are no words"
        )
    wanted = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if not wanted:
        raise ValueError(f"expected words of the prompt, separated by commas, got none; {_has(prompt)}")
    contexts = tuple(entry[0].cpu().float() for entry in encode(clip, prompt))
    assert clip is not None, "encode has refused it"
    indices = [_token_indices(clip, prompt, word) for word in wanted]
    return PromptWords(words=wanted, words_TW=words_of_tokens(indices, contexts[0].shape[1]), contexts_1TC=contexts)


def require_prompt(positive: list, words: PromptWords) -> None:
    """Raises ValueError where no entry of a CONDITIONING is the prompt."""
    if not any(words.is_prompt(entry[0]) for entry in positive):
        raise ValueError(
            "expected positive to hold the prompt, encoded by this CLIP, got other conditioning; connect positive and text of "
            "the same FaithDiff Prompt, and the CLIP that it has. FaithDiff No Prompt, as for the nano model, has no words"
        )


def _token_indices(clip: comfy.sd.CLIP, prompt: str, word: str) -> list[int]:
    """Indices of a word's tokens in the prompt's context, the same for both encoders.

    Raises:
        ValueError: the word is not in the prompt, or the encoders disagree.
    """
    found = []
    for encoder in ("l", "g"):
        at, tokens = _tokens(clip, prompt, encoder)
        found.append([at[i] for i in find_tokens(tokens, _tokens(clip, word, encoder)[1])])
    if found[0] != found[1]:
        raise ValueError(
            f"expected both text encoders to have {word!r} at the same tokens, got {found[0]} and {found[1]}; take the embedding "
            "that one of them lacks out of the prompt"
        )
    if not found[0]:
        raise ValueError(f"expected words of the prompt, got {word!r}; {_has(prompt)}")
    return found[0]


def _tokens(clip: comfy.sd.CLIP, text: str, encoder: str) -> tuple[list[int], list[object]]:
    """Indices in the context and ids of a text's tokens, without start, end and padding, which belong to word 0.

    An embedding's tokens are vectors; each becomes an object that equals no other.
    """
    pieces = clip.tokenize(text, return_word_ids=True)[encoder]
    in_a_row = [(token, word_id) for piece in pieces for token, _weight, word_id in piece]
    of_words = [(i, token if isinstance(token, int) else object()) for i, (token, word_id) in enumerate(in_a_row) if word_id]
    return [i for i, _ in of_words], [token for _, token in of_words]


def _has(prompt: str) -> str:
    text = " ".join(prompt.split())
    shown = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
    return f"the prompt's words are: {shown}"
