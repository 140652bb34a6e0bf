"""How a release makes texts of items and parts of texts, as data in its row: writing an item then needs no plugin.

Only Estudio's own preprocessor and splitters can be told as data, and only with the tokenizer that the model's entry
has. A plugin with a part of its own is asked itself (`embed_writes`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from estudio_core.preprocessing.preprocessor import ItemPreprocessor
from estudio_core.preprocessing.splitters import DummySentenceSplitter, ItemSplitter, NoSplitter, TokenGroupTextSplitter
from estudio_core.strict_model import StrictModel

if TYPE_CHECKING:
    from estudio_core.preprocessing.items_manager import ItemSetManager


class TokenGroups(StrictModel):
    """Arguments of `TokenGroupTextSplitter`."""

    max_tokens: int
    prefix: str
    overlap_tokens: int
    split_sentences: bool
    blocks: Literal["sentences", "whole"]


class ItemTexts(StrictModel):
    """Arguments of `ItemPreprocessor`, and of the splitter; None: items are not divided."""

    fields: tuple[str, ...] | None
    separator: str
    field_names: bool
    token_groups: TokenGroups | None

    @classmethod
    def of(cls, texts: ItemSetManager, entry: Path) -> ItemTexts | None:
        """Return what `texts` does, told as data; None where a part of it is the plugin's own.

        Args:
            texts: The plugin's part.
            entry: Folder of the items' model in the model repository.
        """
        preprocessor, splitter = texts.preprocessor, texts.item_splitter
        if type(preprocessor) is not ItemPreprocessor or preprocessor.transform is not None:
            return None
        groups = None
        if type(splitter) is TokenGroupTextSplitter:
            blocks = type(splitter.blocks_splitter)
            if blocks not in (DummySentenceSplitter, NoSplitter):
                return None
            if splitter.tokenizer.fingerprint() != _fingerprint(entry):
                return None
            groups = TokenGroups(
                max_tokens=splitter.limit,
                prefix=splitter.prefix,
                overlap_tokens=splitter.overlap_tokens,
                split_sentences=splitter.split_sentences,
                blocks="sentences" if blocks is DummySentenceSplitter else "whole",
            )
        elif type(splitter) is not NoSplitter:
            return None
        return cls(
            fields=None if preprocessor.fields is None else tuple(preprocessor.fields),
            separator=preprocessor.separator,
            field_names=preprocessor.field_names,
            token_groups=groups,
        )

    @property
    def preprocessor(self) -> ItemPreprocessor:
        """What makes a text of an item."""
        return ItemPreprocessor(fields=self.fields, separator=self.separator, field_names=self.field_names)

    def splitter(self, entry: Path) -> ItemSplitter:
        """Return what divides a text, with the tokenizer of the folder `entry`."""
        groups = self.token_groups
        if groups is None:
            return NoSplitter()
        return TokenGroupTextSplitter(
            tokenizer=_EntryTokenizer(entry),
            blocks_splitter=DummySentenceSplitter() if groups.blocks == "sentences" else NoSplitter(),
            max_tokens=groups.max_tokens,
            prefix=groups.prefix,
            overlap_tokens=groups.overlap_tokens,
            split_sentences=groups.split_sentences,
        )


class _EntryTokenizer:
    """The tokenizer of an entry as `TokenGroupTextSplitter` takes one: transformers is not needed for it."""

    is_fast = True
    model_max_length = None

    def __init__(self, entry: Path) -> None:
        from tokenizers import Tokenizer

        self.backend_tokenizer = Tokenizer.from_file(str(_tokenizer_file(entry)))

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """Return the tokens of ids."""
        return [str(self.backend_tokenizer.id_to_token(each)) for each in ids]


def _tokenizer_file(entry: Path) -> Path:
    from estudio_core.inference.manifest import TOKENIZER_FILE

    return entry / TOKENIZER_FILE


def _fingerprint(entry: Path) -> str | None:
    """Return what `LazyTokenizer.fingerprint` gives for the tokenizer of an entry; None where it has none."""
    from tokenizers import Tokenizer

    file = _tokenizer_file(entry)
    if not file.is_file():
        return None
    described: dict[str, Any] = json.loads(Tokenizer.from_file(str(file)).to_str())
    for state in ("truncation", "padding"):
        described.pop(state, None)
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
