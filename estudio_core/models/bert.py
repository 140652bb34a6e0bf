"""BERT-family sentence models: MiniLM, MPNet, DistilBERT and their kind."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from estudio_core.models.embeddings_model import EmbeddingsModelInterface
from estudio_core.models.source import open_source


class TextToTextBertModel(EmbeddingsModelInterface):
    """A sentence model of the BERT family: masked mean pooling, L2 norm, no prefixes unless given.

    Args:
        bert_model: A SentenceTransformer, a folder or hub name, or (transformers model, tokenizer).
        bert_tokenizer: A tokenizer in place of the model's own.
        max_length: Tokens of one input, special tokens counted. None: the model's own limit.
        query_prefix: Put before every query text.
        item_prefix: Put before every item text.

    Raises:
        ModelError: the folder or name cannot be loaded.
        ConfigurationError: `bert_model` is of another kind, or `max_length` is too long for it.
    """

    kind: ClassVar[str] = "bert"

    def __init__(
        self,
        bert_model: Any,
        bert_tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        *,
        query_prefix: str = "",
        item_prefix: str = "",
    ) -> None:
        backbone, tokenizer = open_source(bert_model)
        super().__init__(
            backbone,
            bert_tokenizer or tokenizer,
            query_prefix=query_prefix,
            item_prefix=item_prefix,
            max_length=max_length,
        )
