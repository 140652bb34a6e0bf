"""E5 models."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from estudio_core.models.embeddings_model import EmbeddingsModelInterface
from estudio_core.models.source import open_source


class TextToTextE5Model(EmbeddingsModelInterface):
    """E5: masked mean pooling, L2 norm, "query: " and "passage: " before the texts (arXiv:2212.03533, section 4).

    Args:
        e5_model: A SentenceTransformer, a folder or hub name, or (transformers model, tokenizer).
        e5_tokenizer: A tokenizer in place of the model's own.
        max_length: Tokens of one input, prefix and special tokens counted. None: the model's own limit.
        query_prefix: Put before every query text.
        item_prefix: Put before every item text.

    Raises:
        ModelError: the folder or name cannot be loaded.
        ConfigurationError: `e5_model` is of another kind, or `max_length` is too long for it.
    """

    kind: ClassVar[str] = "e5"

    def __init__(
        self,
        e5_model: Any,
        e5_tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        *,
        query_prefix: str = "query: ",
        item_prefix: str = "passage: ",
    ) -> None:
        backbone, tokenizer = open_source(e5_model)
        super().__init__(
            backbone,
            e5_tokenizer or tokenizer,
            query_prefix=query_prefix,
            item_prefix=item_prefix,
            max_length=max_length,
        )
