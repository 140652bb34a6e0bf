"""What every contender gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.corpora import Corpus
from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.models.embedding_model import EmbeddingModel

Vectors = NDArray[np.float32]
FROZEN_LAYERS = 3
"""Of six: embeddings and lower half stand still, for every contender."""


@dataclass(frozen=True)
class Task:
    """Clicks to learn from.

    Attributes:
        corpus: Texts of the items. It holds grades of training queries for the oracle, and no others.
        model_path: Folder of the base model.
        data: Sessions, split into train and dev.
        seed: Of the training.
        budget_tokens: Real tokens that training steps may encode; None: as many as the contender's own defaults take.
        times: Without a budget: how much longer than by default to train.
    """

    corpus: Corpus
    model_path: str
    data: RankingData
    seed: int
    budget_tokens: int | None
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    """A trained model and what it cost.

    Attributes:
        model: The model.
        tokens: Encoded in training steps.
        sessions: Seen by them, every time.
        seconds: Wall-clock time of training, loading not counted.
        weight: Of words beside its vectors, where training chose one; None: the default.
        stated: What else is to be kept beside the figures.
        keeps_items: Whether the model encodes queries alone, and items keep the vectors of the base model.
    """

    model: EmbeddingModel
    tokens: int
    sessions: int
    seconds: float
    weight: float | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    keeps_items: bool = False


class Contender(Protocol):
    """Trains on a task."""

    def __call__(self, task: Task) -> Outcome:
        """Return the trained model."""
        ...


def base_model(task: Task) -> EmbeddingModel:
    """Return the model as it comes, with the lower half frozen."""
    model = EmbeddingModel(task.model_path, max_length=task.corpus.max_tokens)
    model.freeze_layers(FROZEN_LAYERS)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def lengths(model: EmbeddingModel, texts: Sequence[str]) -> dict[str, int]:
    """Return the number of tokens of each distinct text."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, map(len, model.tokenize_items(distinct)), strict=True))
