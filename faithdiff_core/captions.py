"""The caption rule that the released weights were trained with, made total: any text in, a prompt out."""

from __future__ import annotations

import re

_NO_END = {"mr", "mrs", "ms", "dr", "st", "mt", "prof", "no", "nr", "vs", "fig", "cf", "ca", "approx", "e.g", "i.e", "jr", "sr"}
"""Abbreviations that stand before a name, a number or an example, so that a capital after them begins no sentence."""
_CLOSING = "\"')]}\u2019\u201d\u00bb"
_ENDS = ".!?\u2026\u3002\uff01\uff1f"


def trim_caption(text: str, sentences: int = 2, skip_words: int = 3) -> str:
    """Drop the lead-in, capitalise what follows, keep the first sentences, end with a full stop.

    As the official trainer (Realesrgan_offline_dataset.py:157-164) does with LLaVA's "The image features ...", but defined for
    every text: one of at most `skip_words` words comes back as it is (white space joined), a full stop inside a number or after
    an abbreviation ends no sentence, and no second full stop is added. Not idempotent: each call drops words again. Raises
    ValueError for sentences below 1 or skip_words below 0.
    """
    if sentences < 1 or skip_words < 0:
        raise ValueError(
            f"expected at least 1 sentence and 0 words to skip, got {sentences} and {skip_words}, choose for example 2 and 3"
        )
    words = text.split()
    if len(words) <= skip_words:
        return " ".join(words)
    words = words[skip_words:]
    words[0] = words[0][:1].upper() + words[0][1:]
    ends = [index for index in range(len(words)) if _ends_sentence(words, index)]
    kept = words[: ends[sentences - 1] + 1] if len(ends) >= sentences else words
    return _finished(" ".join(kept))


def _ends_sentence(words: list[str], index: int) -> bool:
    """Whether a sentence ends with this word: it ends in . ! or ? and what follows does not go on in small letters."""
    bare = words[index].rstrip(_CLOSING)
    if not bare or bare[-1] not in _ENDS:
        return False
    if index + 1 == len(words):
        return True
    if words[index + 1].lstrip("\"'([{\u2018\u201c\u00ab")[:1].islower():
        return False
    if bare[-1] != ".":
        return True
    stem = bare[:-1].lstrip("\"'([{").lower()
    initials = re.fullmatch(r"(\w\.)*[^\W\d]", stem) is not None  # "J." and "U.S.": more often a name than an end
    return stem not in _NO_END and not initials


def _finished(text: str) -> str:
    """`text` with one full stop at its end, unless it ends in some other end of a sentence."""
    text = text.rstrip(" ,;:")
    bare = text.rstrip(_CLOSING)
    if bare and bare[-1] in _ENDS:
        return (bare[:-1] if re.search(r"(?<!\.)\.\.$", bare) else bare) + text[len(bare) :]
    return text + "." if text else ""
