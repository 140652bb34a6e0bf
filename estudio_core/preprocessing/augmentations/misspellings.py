"""Text with typing errors."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence

from estudio_core.errors import ConfigurationError
from estudio_core.preprocessing.augmentations.random_selection import AugmentationWithRandomSelection

_WORD = re.compile(r"\w+")
_KEYBOARDS = (
    ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
)
_NEAREST_CODE_POINTS = 5
"""In scripts without a keyboard here, letters this near in Unicode's order stand for a neighbouring key."""
_SHORTEST_WORD = 3
"""Shorter words are left alone: a change makes another word of them."""


def _neighbours() -> dict[str, str]:
    """Return the keys around each key; rows are shifted by half a key."""
    keys: dict[str, str] = {}
    for rows in _KEYBOARDS:
        for y, row in enumerate(rows):
            for x, letter in enumerate(row):
                around = [(y, x - 1), (y, x + 1), (y - 1, x), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x)]
                inside = [(j, i) for j, i in around if 0 <= j < len(rows) and 0 <= i < len(rows[j])]
                keys[letter] = "".join(rows[j][i] for j, i in inside)
    return keys


_NEIGHBOURS = _neighbours()


class Misspellings(AugmentationWithRandomSelection):
    """One copy of the text per error rate, in which that share of the words is misspelt, at least one.

    A word gets one of six errors: a neighbouring key, a letter missing, two swapped, one too many, a space
    inside, or the space after it missing. Letters come from the word's own script. Words with digits (model
    numbers, sizes) and words of one or two letters are never touched.

    Args:
        selection_size: How many of the copies are kept, see the base class.
        error_rates: Probability that a word is misspelt, one copy for each.
        seed: See the base class.

    Raises:
        ConfigurationError: a rate is not in (0, 1].
    """

    def __init__(self, selection_size: float = 1.0, error_rates: Sequence[float] = (0.1, 0.2), seed: int = 42) -> None:
        super().__init__(selection_size, seed)
        wrong = [rate for rate in error_rates if not 0 < rate <= 1]
        if wrong:
            raise ConfigurationError(f"Error rates are probabilities above 0 and at most 1; got {wrong}.")
        self.error_rates = tuple(error_rates)

    def _raw_transform(self, object: str) -> list[str]:
        return [_misspell(object, rate) for rate in self.error_rates]


def _misspell(text: str, rate: float) -> str:
    words = [m for m in _WORD.finditer(text) if m.end() - m.start() >= _SHORTEST_WORD and m.group().isalpha()]
    if not words:
        return text
    hit = [word for word in words if random.random() < rate] or [random.choice(words)]
    for word in reversed(hit):
        following = text[word.end() :]
        text = text[: word.start()] + _error_in(word.group(), following)
    return text


def _error_in(word: str, following: str) -> str:
    """Return `word` with one error, and the text that follows it."""
    kinds = ["neighbour", "delete", "swap", "insert", "split"]
    if following[:1] == " " and following[1:2].isalnum():
        kinds.append("join")
    kind = random.choice(kinds)
    place = random.randrange(len(word))
    if kind == "join":
        return word + following[1:]
    if kind == "delete":
        return word[:place] + word[place + 1 :] + following
    if kind == "split":
        place = max(1, place)
        return f"{word[:place]} {word[place:]}{following}"
    if kind == "swap":
        different = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
        if different:
            i = random.choice(different)
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :] + following
        kind = "insert"
    letter = _letter_near(word[place])
    keep = place + 1 if kind == "insert" else place
    return word[:keep] + letter + word[place + 1 :] + following


def _letter_near(letter: str) -> str:
    """Return another letter of the same script and case: a neighbouring key, or one near in Unicode's order."""
    near = _NEIGHBOURS.get(letter.lower(), "")
    if letter.isupper():
        near = near.upper()
    return random.choice(near or _letters_like(letter))


def _letters_like(letter: str) -> str:
    script = unicodedata.name(letter, "").split(" ")[0]
    steps = range(-_NEAREST_CODE_POINTS, _NEAREST_CODE_POINTS + 1)
    others = (chr(ord(letter) + step) for step in steps if step and 0 < ord(letter) + step <= 0x10FFFF)
    like = [
        other
        for other in others
        if other.isalpha()
        and unicodedata.name(other, "").split(" ")[0] == script
        and other.isupper() == letter.isupper()
    ]
    return "".join(like) or letter
