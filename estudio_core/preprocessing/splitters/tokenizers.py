"""Fast tokenizers, opened when first needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError
from estudio_core.models.folder import open_tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TokenizerSource = Any
"""A tokenizer, a folder or model name to load one from, or a function without arguments that returns either."""

UNLIMITED_TOKENS = 1_000_000
"""A `model_max_length` above this means that the tokenizer does not know: the libraries write 1e30 then."""

DEFAULT_MAX_TOKENS = 512
"""Positions of BERT-family models, taken where the tokenizer names no limit."""


class LazyTokenizer:
    """A fast tokenizer that is opened on first use.

    Args:
        source: See `TokenizerSource`. A name that is no folder is looked for where the Hugging Face client looks.
    """

    def __init__(self, source: TokenizerSource) -> None:
        is_tokenizer = hasattr(source, "convert_ids_to_tokens")
        if not is_tokenizer and not isinstance(source, str | Path) and not callable(source):
            raise ConfigurationError(
                f"tokenizer={source!r} is neither a tokenizer, nor a folder or model name, nor a function that "
                "returns a tokenizer."
            )
        self.source = source
        self._tokenizer: Any = _checked(source) if is_tokenizer else None

    def get(self) -> Any:
        """Return the tokenizer.

        Raises:
            ModelError: it cannot be loaded.
            ConfigurationError: it is not a fast tokenizer, so it cannot say where in the text a token is.
        """
        if self._tokenizer is None:
            self._tokenizer = _checked(self._open())
        return self._tokenizer

    def limit(self, max_tokens: int | None) -> int:
        """Return `max_tokens`, or without one what the model takes, never more than the model takes."""
        own = self.get().model_max_length
        own = None if own is None or own > UNLIMITED_TOKENS else int(own)
        if max_tokens is None:
            return own or DEFAULT_MAX_TOKENS
        return min(max_tokens, own) if own else max_tokens

    def fingerprint(self) -> str:
        """Return a hash of what the tokenizer does, wherever it was loaded from."""
        described = json.loads(self.get().backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # left behind by whoever used it last, and never used here
            described.pop(state, None)
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]

    def _open(self) -> Any:
        given = self.source if isinstance(self.source, str | Path) else self.source()
        return open_tokenizer(given) if isinstance(given, str | Path) else given

    def __getstate__(self) -> dict[str, Any]:
        """Leave a loaded tokenizer out where it can be loaded again: its source travels in its place."""
        can_reload = isinstance(self.source, str | Path)
        return {"source": self.source, "_tokenizer": None if can_reload else self._tokenizer}


def encode(tokenizer: Any, texts: Sequence[str]) -> list[Encoding]:
    """Return the encodings of `texts` with special tokens, neither cut nor padded.

    Goes to the Rust tokenizer below the Python one, which would warn of every text longer than the model's limit, and
    sets truncation and padding anew at each of its calls, so that it loses nothing by this.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    encodings: list[Encoding] = backend.encode_batch(list(texts), add_special_tokens=True)
    return encodings


def _checked(tokenizer: Any) -> Any:
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigurationError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, which is needed to know where tokens are in the "
            "text. Load it with AutoTokenizer and use_fast=True, or choose a model that ships tokenizer.json."
        )
    return tokenizer
