"""A tiny model and a tiny catalogue whose clicks can be learned in a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.models.embedding_model import EmbeddingModel

COLOURS = ["red", "blue", "green", "white", "black", "grey"]
QUERY_WORDS = dict(zip(COLOURS, ["scarlet", "navy", "olive", "ivory", "ebony", "silver"], strict=True))
"""Who searches names a colour by another word than the catalogue: an untrained model cannot match it."""
THINGS = ["lamp", "chair", "table", "shelf", "rug", "vase"]

QUICK = {
    "num_epochs": 6,
    "batch_size": 12,
    "sessions_per_query": 1,
    "learning_rate": 5e-3,
    "num_fixed_layers": 1,
    "precision": "32",
    "interpolation": (1.0,),
    "drift_penalty": 0.0,
}
"""A training of seconds on the tiny model."""


def session(
    session_id: str, query: str, results: list[str], clicks: list[int], variants: tuple[str, ...] = ()
) -> FineTuningInput:
    return FineTuningInput(
        session_id=session_id,
        query=query,
        results=tuple(results),
        positions=tuple(range(len(results))),
        ranks=(None,) * len(results),
        click_weights=tuple(float(c) for c in clicks),
        query_variants=variants,
    )


@pytest.fixture
def new_model() -> Callable[[], EmbeddingModel]:
    """Makes the same small BERT each time it is called."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *QUERY_WORDS.values(), *THINGS, "good", "old"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )

    def make() -> EmbeddingModel:
        torch.manual_seed(11)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=24,
        )
        return EmbeddingModel((BertModel(config), fast))

    return make


@pytest.fixture
def catalogue() -> ItemsSet:
    """36 things in colours, some of two parts."""
    return ItemsSet(
        {
            f"{c}-{t}": [f"good {c} {t}"] if i % 3 else [f"{c} {t}", f"old {t}"]
            for c in COLOURS
            for i, t in enumerate(THINGS)
        }
    )


@pytest.fixture
def ranking_data(catalogue: ItemsSet) -> RankingData:
    """Who asks for a colour and a thing clicks that thing, and nothing else that is shown."""
    rng = np.random.default_rng(5)
    splits: dict[str, list[FineTuningInput]] = {"train": [], "dev": [], "holdout": []}
    for number, wanted in enumerate(catalogue):
        others = [str(o) for o in rng.choice([i for i in catalogue if i != wanted], size=5, replace=False)]
        for repeat in range(3):
            shown = [*others[:repeat], wanted, *others[repeat:]]
            split = "dev" if number % 6 == 0 else "train"
            splits[split].append(
                session(
                    f"{wanted}/{repeat}",
                    QUERY_WORDS[wanted.split("-")[0]] + " " + wanted.split("-")[1],
                    shown,
                    [int(o == wanted) for o in shown],
                )
            )
    return RankingData({"train": splits["train"], "dev": splits["dev"], "holdout": []}, catalogue)
