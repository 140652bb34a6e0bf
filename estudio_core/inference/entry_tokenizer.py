"""Texts to token ids, with the tokenizer of one repository entry; neither torch nor transformers is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from estudio_core.errors import RepositoryError
from estudio_core.inference.manifest import TOKENIZER_FILE, EntryManifest


class EntryTokenizer:
    """The fast tokenizer of an entry, with its prefixes and its longest input.

    Args:
        entry: Folder of the entry.
        manifest: Its manifest.

    Raises:
        RepositoryError: the tokenizer file is missing or unreadable.
    """

    def __init__(self, entry: Path, manifest: EntryManifest) -> None:
        from tokenizers import Tokenizer

        path = entry / TOKENIZER_FILE
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise RepositoryError(f"The tokenizer {path} cannot be read: {error}. Run the release again.") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest.max_length)
        self._query_prefix, self._item_prefix = manifest.query_prefix, manifest.item_prefix

    def queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of query texts: prefix and special tokens added, cut to the longest input."""
        return self._encode(texts, self._query_prefix)

    def items(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of item part texts, prepared in the same way."""
        return self._encode(texts, self._item_prefix)

    def _encode(self, texts: Sequence[str], prefix: str) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast([prefix + text for text in texts])
        return [encoding.ids for encoding in encodings]
