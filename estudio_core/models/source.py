"""From what a plugin gives (a SentenceTransformer, a folder, a model name, a pair) to encoder and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from estudio_core.errors import ConfigurationError, ModelError


def open_source(source: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the encoder and the tokenizer of a SentenceTransformer, a folder or hub name, or a pair of the two.

    Raises:
        ConfigurationError: `source` is none of the legal kinds.
        ModelError: a folder or name cannot be loaded.
    """
    if isinstance(source, str | PathLike):
        return _from_folder(str(source))
    if isinstance(source, tuple) and len(source) == 2:
        return cast(tuple[PreTrainedModel, PreTrainedTokenizerBase], source)
    first = source[0] if hasattr(source, "tokenizer") and hasattr(source, "encode") else None
    backbone = getattr(first, "auto_model", None)
    if backbone is None:
        raise ConfigurationError(
            f"A model cannot be made from {type(source).__name__}. Give a SentenceTransformer with a text transformer, "
            "a folder or model name, or a pair (transformers model, tokenizer)."
        )
    return backbone, source.tokenizer


def _from_folder(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        with quiet_transformers():
            backbone, tokenizer = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        # A sentence-transformers folder says here for how many tokens the model was made.
        settings = Path(name) / "sentence_bert_config.json"
        if settings.is_file():
            longest = json.loads(settings.read_text(encoding="utf-8")).get("max_seq_length")
            tokenizer.model_max_length = min(longest or tokenizer.model_max_length, tokenizer.model_max_length)
    except (OSError, ValueError) as error:
        raise ModelError(f"No model can be loaded from {name!r}: {error}") from error
    return backbone, tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' loading bars and notes about unused poolers out of task logs."""
    logging: Any = transformers.utils.logging  # its functions carry no types
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
