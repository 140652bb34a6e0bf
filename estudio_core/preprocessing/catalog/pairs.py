"""One item, cut in two: what a query may be drawn from, and what is left to find it by.

Taking the asked piece out of the text is the inverse cloze task of Lee, Chang and Toutanova, "Latent Retrieval for
Weakly Supervised Open Domain Question Answering" (ACL 2019).
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estudio_core.preprocessing.preprocessor import ItemPreprocessor, dict_to_text
from estudio_core.preprocessing.splitters import DummySentenceSplitter

_WORD = re.compile(r"\w+(?:[-./]\w+)*")
_FEWEST_WORDS = 2
"""Of either side: one word asks for too many items, and describes none."""
_RUN = 12
"""Words that are taken out of a text of one sentence: about the length of a title."""
_KEPT = 0.5
"""Share of the words that a shorter text of one sentence keeps. All of it is asked: the half of a name that is missing
has little to do with the other half (taken out as a run, 400 known items of the attribute corpus had 0.01 nDCG@10)."""


@dataclass(frozen=True)
class CatalogPair:
    """An item without one piece of its text, and that piece."""

    object_id: str
    asked: str
    """A field, a sentence or a run of words, which does not stand in `rest`, though its words may."""
    rest: str


def words_of(text: str) -> list[str]:
    """Return the words of a text, lower case, part numbers whole.

    >>> words_of("HP C4872A, 175-ml (Cyan)")
    ['hp', 'c4872a', '175-ml', 'cyan']
    """
    return _WORD.findall(text.lower())


def cut(object_id: str, data: Any, preprocessor: ItemPreprocessor, *, title: bool = False) -> CatalogPair | None:
    """Return an item cut in two, always alike; None where its text is too short for that.

    The first field, mostly a title, is asked of half of the items (title -> body), another field of the other half
    (attributes -> title). A text without fields is cut by sentences likewise, one of a single sentence by words: a long
    one loses a run of them, a short one some here and there, and is asked as a whole.

    >>> cut("7", {"title": "Desk lamp", "about": "Folds flat, charges by USB."}, ItemPreprocessor(field_names=False))
    CatalogPair(object_id='7', asked='Desk lamp', rest='Folds flat, charges by USB.')

    Args:
        object_id: Decides, by hash, what is asked.
        data: What a loader gives for the item.
        preprocessor: The plugin's, which makes the text of it.
        title: Ask of the first field or sentence, whatever the id.
    """
    rng = random.Random(zlib.crc32(object_id.encode()))
    if isinstance(data, Mapping) and preprocessor.transform is None:
        names = [name for name in (preprocessor.fields or data) if name in data]
        texts = {name: dict_to_text({name: data[name]}, field_names=False) for name in names}
        asked = [name for name in names if len(words_of(texts[name])) >= _FEWEST_WORDS]
        if len(asked) > 1:
            name = asked[0] if title else _drawn(asked, rng)
            return CatalogPair(object_id, texts[name], preprocessor({k: v for k, v in data.items() if k != name}))
    text = preprocessor(data)
    sentences = DummySentenceSplitter()(text)
    if len(sentences) > 1 and all(len(words_of(sentence)) >= _FEWEST_WORDS for sentence in sentences):
        sentence = sentences[0] if title else _drawn(sentences, rng)
        return CatalogPair(object_id, sentence, " ".join(other for other in sentences if other != sentence))
    words = text.split()
    if len(words) < 2 * _RUN:
        kept = [word for word in words if rng.random() < _KEPT]
        return CatalogPair(object_id, text, " ".join(kept)) if len(words_of(" ".join(kept))) >= _FEWEST_WORDS else None
    start = rng.randrange(len(words) - _RUN + 1)
    return CatalogPair(
        object_id, " ".join(words[start : start + _RUN]), " ".join(words[:start] + words[start + _RUN :])
    )


def _drawn(pieces: list[str], rng: random.Random) -> str:
    return pieces[0] if rng.random() < 0.5 else rng.choice(pieces[1:])
