"""Tiny models of every supported architecture, with a tokenizer of their own; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = [
    "query",
    "passage",
    ":",
    "red",
    "blue",
    "green",
    "lamp",
    "chair",
    "table",
    "big",
    "small",
    "for",
    "the",
    "garden",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=24,
    )


def tiny_backbone(architecture: str) -> Any:
    torch.manual_seed(7)
    size = {"vocab_size": 30, "pad_token_id": 0, "max_position_embeddings": 32}
    encoder = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    builders: dict[str, Callable[[], Any]] = {
        "bert": lambda: BertModel(BertConfig(**size, **encoder)),
        "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**size, **encoder)),
        "mpnet": lambda: MPNetModel(MPNetConfig(**size, **encoder)),
        "distilbert": lambda: DistilBertModel(DistilBertConfig(**size, dim=16, hidden_dim=32, n_layers=4, n_heads=2)),
    }
    return builders[architecture]()


@pytest.fixture(params=["bert", "xlm-roberta", "mpnet", "distilbert"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)
