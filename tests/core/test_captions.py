"""The caption rule: the official one where that is defined, total everywhere else."""

from __future__ import annotations

import random

import pytest
from comfyui_faithdiff.faithdiff_core.captions import trim_caption


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The image features a dog. It runs. It jumps.", "A dog. It runs."),
        ("The image features a dog", "A dog."),
        ("The image features a NASA logo on the wall. It is red.", "A NASA logo on the wall. It is red."),
        ("", ""),
        ("  \n\t ", ""),
        ("A cat", "A cat"),
        ("The image features", "The image features"),
        ("The image features dogs", "Dogs."),
        ("The image features a cat..", "A cat."),
        ("The image features a cat...", "A cat..."),
        ("The image features ...", "..."),
        ("The image features a cat! Is it? No. Yes.", "A cat! Is it?"),
        ("The image features a 3.5 m wall. It is 2.1 m away. Third.", "A 3.5 m wall. It is 2.1 m away."),
        (
            "The image features Dr. Smith of the U.S. Army, e.g. J. Doe. Second. Third.",
            "Dr. Smith of the U.S. Army, e.g. J. Doe. Second.",
        ),
        ("The image features fruit, pears etc. on a table. Second. Third.", "Fruit, pears etc. on a table. Second."),
        (
            "The image features a sign saying \u201cstop.\u201d A man waits. Third.",
            "A sign saying \u201cstop.\u201d A man waits.",
        ),
        ("The image features \u00e9clairs and,", "\u00c9clairs and."),
        ("The\u00a0image  features\nan  old\thouse.", "An old house."),
        ("La foto muestra ni\u00f1os. Juegan. Corren.", "Ni\u00f1os. Juegan."),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert trim_caption(text) == expected


def test_number_of_sentences_and_words() -> None:
    text = "The image features a dog. It runs. It jumps. It sleeps."
    assert trim_caption(text, sentences=1) == "A dog."
    assert trim_caption(text, sentences=3, skip_words=0) == "The image features a dog. It runs. It jumps."
    for wrong in ({"sentences": 0}, {"skip_words": -1}):
        with pytest.raises(ValueError, match="expected at least 1 sentence and 0 words to skip"):
            trim_caption(text, **wrong)


def test_any_text_gives_a_line_that_ends_as_a_sentence_or_nothing() -> None:
    draw = random.Random(0)
    alphabet = "ab A.!?,;'\")\n\t\u00a0\u2026\u3002\u00df\ud800\U0001f600 .. e.g. 3.5"
    for _ in range(3000):
        text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(40)))
        got = trim_caption(text)
        assert got == " ".join(got.split()), "white space is joined"
        if len(text.split()) > 3 and got:
            assert got.rstrip("'\")")[-1:] in tuple(".!?\u2026\u3002"), (text, got)
            ended = got.rstrip("'\")")
            assert not ended.endswith("..") or ended.endswith("..."), (text, got)
