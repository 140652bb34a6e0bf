"""The one class of all embedding models: text in, normalised vectors out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.ids import listed
from estudio_core.models.description import HeadLayer
from estudio_core.models.families import NEUTRAL, Pooling
from estudio_core.models.head import make_head
from estudio_core.models.pooling import pool
from estudio_core.models.source import open_source
from estudio_core.models.transformer_layers import find_layers, lower_part, pad, upper_part

LONGEST_INPUT = 512
"""Tokens; what the encoders served here were trained with at most."""


class EmbeddingModel(nn.Module):
    """A transformer encoder with pooling and L2 normalisation, one tower for queries and items.

    What the source says of its use holds: pooling, modules after it, prompts, longest input, lower case. What cannot be
    heeded is refused by name (`folder.read_folder`).

    Args:
        source: A SentenceTransformer, a folder or hub name, or (transformers model, tokenizer). The encoder, of the
            BERT kind, is taken over: its unused pooler is removed.
        tokenizer: A tokenizer in place of the model's own.
        max_length: Tokens of one input, prefix and special tokens counted; longer ones are cut.
            None: what source, tokenizer and positions allow, 512 at most.
        family: One of `families.FAMILIES`: prefixes and pooling, where the source leaves them open.
        query_prefix: Put before every query text; None: the source's, else the family's.
        item_prefix: Put before every item text; None: the source's, else the family's.
        pooling: How token vectors become one, or several ways one after another; None: as the source says.
        head: Modules after pooling; None: those of the source.

    Raises:
        ConfigurationError: `source` is of another kind, there is no such family, source and family contradict each
            other, or `max_length` is beyond what the model has positions for or its folder says.
        ModelError: the folder or name cannot be loaded, or the layers of the encoder are not found.
    """

    def __init__(
        self,
        source: Any,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        *,
        family: str = NEUTRAL,
        query_prefix: str | None = None,
        item_prefix: str | None = None,
        pooling: Pooling | Sequence[Pooling] | None = None,
        head: Sequence[HeadLayer] | None = None,
    ) -> None:
        super().__init__()
        opened = open_source(source)
        backbone, tokenizer = opened.backbone, tokenizer or opened.tokenizer
        use = opened.says.used_as(family, query_prefix, item_prefix)
        if getattr(backbone, "pooler", None) is not None:
            backbone.register_module("pooler", None)  # a parameter without gradient breaks DDP, and is never used here
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.family, self.query_prefix, self.item_prefix = use.family, use.query_prefix, use.item_prefix
        self.pooling = use.pooling if pooling is None else (pooling,) if isinstance(pooling, str) else tuple(pooling)
        self.head_layers = tuple(opened.says.head if head is None else head)
        self.head = make_head(self.head_layers)
        if head is None and self.head_layers:
            self.load_head(opened.head)
        self.max_length = _checked_length(max_length, backbone, tokenizer, opened.says.max_length)
        self._layers_path = find_layers(backbone)
        self._frozen_layers = 0
        self._parts: tuple[nn.Module, nn.Module] | None = None

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        pooled = int(self.backbone.config.hidden_size) * len(self.pooling)
        return self.head_layers[-1].outputs if self.head_layers else pooled

    @property
    def num_layers(self) -> int:
        """Number of transformer layers, the embeddings not counted."""
        return len(self._layers())

    @property
    def frozen_layers(self) -> int:
        """Number of lowest layers that are frozen; the embeddings are too where it is not 0."""
        return self._frozen_layers

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.backbone.parameters()).device

    def _layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.backbone.get_submodule(self._layers_path))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return L2-normalised vectors, float32 [n, dimensions], of token ids [n, length]."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self._pool(hidden, attention_mask)

    def forward_lower(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return hidden states [n, length, dim] after the frozen layers, computed without gradient.

        Raises:
            ConfigurationError: no layer is frozen.
        """
        lower, _ = self._split()
        with torch.no_grad():
            return cast(Tensor, lower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)

    def forward_upper(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return normalised vectors, float32 [n, dimensions], from what `forward_lower` returned."""
        _, upper = self._split()
        result = upper(inputs_embeds=hidden, attention_mask=attention_mask).last_hidden_state
        return self._pool(result, attention_mask)

    def _pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return nn.functional.normalize(self.head(pool(hidden.float(), attention_mask, self.pooling)), dim=-1)

    def load_head(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of the modules after pooling, `<place>.<name>`.

        Raises:
            ModelError: they do not belong to these modules.
        """
        try:
            self.head.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        except RuntimeError as error:
            raise ModelError(f"Weights and configuration of the modules after pooling do not agree: {error}") from error

    def _split(self) -> tuple[nn.Module, nn.Module]:
        if self._parts is None:
            raise ConfigurationError("No layer is frozen: call freeze_layers(n) with n >= 1 first.")
        return self._parts

    def freeze_layers(self, count: int) -> None:
        """Freeze embeddings and the `count` lowest layers for good; 0 freezes nothing.

        What they share with the layers above, such as MPNet's position bias, is frozen with them. Frozen parameters
        need no gradient, and frozen modules stay in evaluation mode (no dropout).
        A later call with a smaller number changes nothing.

        Raises:
            ConfigurationError: `count` is negative, or more than the model has.
        """
        if not 0 <= count <= self.num_layers:
            raise ConfigurationError(
                f"num_fixed_layers is {count}; this {type(self).__name__} has {self.num_layers} layers. "
                f"Use a number from 0 to {self.num_layers}."
            )
        if count <= self._frozen_layers:
            return
        self._frozen_layers = count
        lower = lower_part(self.backbone, self._layers_path, count)
        upper = upper_part(self.backbone, self._layers_path, count)
        # A tuple keeps the two views out of state_dict() and parameters(): the backbone owns the weights.
        self._parts = (lower, upper)
        lower.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> list[nn.Module]:
        if not self._frozen_layers:
            return []
        return [self.backbone.get_submodule("embeddings"), *list(self._layers())[: self._frozen_layers]]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that training changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> EmbeddingModel:
        """Set training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def tokenize_queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of query texts: prefix and special tokens added, cut to `max_length`, not padded."""
        return self._tokenize(texts, self.query_prefix)

    def tokenize_items(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of item part texts: prefix and special tokens added, cut to `max_length`, not padded."""
        return self._tokenize(texts, self.item_prefix)

    def _tokenize(self, texts: Sequence[str], prefix: str) -> list[list[int]]:
        if not listed(texts, "texts", "texts"):
            return []
        encoded = self.tokenizer(
            [prefix + text for text in texts],
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return cast(list[list[int]], encoded["input_ids"])

    @property
    def padding_id(self) -> int:
        """Token id that fills up shorter inputs."""
        return int(cast(int, self.tokenizer.pad_token_id or 0))

    def encode_queries(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Return vectors of query texts, float32 [n, dimensions] on the CPU, without gradient or dropout."""
        return self.encode_tokens(self.tokenize_queries(texts), batch_size)

    def encode_items(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Return vectors of item part texts, float32 [n, dimensions] on the CPU, without gradient or dropout."""
        return self.encode_tokens(self.tokenize_items(texts), batch_size)

    def encode_tokens(self, sequences: Sequence[list[int]], batch_size: int = 64) -> Tensor:
        """Return vectors of token id lists, in their order; short ones are encoded together."""
        vectors = torch.empty(len(sequences), self.dimensions)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        with evaluating(self), torch.no_grad():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                ids, mask = pad([sequences[i] for i in rows], self.padding_id, self.device)
                vectors[rows] = self(ids, mask).float().cpu()
        return vectors


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold `model` in evaluation mode inside the block, and put it back as it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _checked_length(wanted: int | None, backbone: PreTrainedModel, tokenizer: Any, said: int | None) -> int:
    positions = int(getattr(backbone.config, "max_position_embeddings", LONGEST_INPUT))
    if getattr(backbone.config, "model_type", "") in {"xlm-roberta", "roberta", "camembert", "mpnet"}:
        positions -= int(getattr(backbone.config, "pad_token_id", 1) or 0) + 1  # positions start behind the padding id
    if wanted is None:
        return min(positions, int(tokenizer.model_max_length), LONGEST_INPUT if said is None else said)
    if said is not None and said < wanted:
        raise ConfigurationError(
            f"max_length is {wanted}; the model's own folder says that it takes {said} tokens (max_seq_length). Give "
            f"max_tokens={said} at most, or correct the folder."
        )
    if not 1 < wanted <= positions:
        raise ConfigurationError(f"max_length is {wanted}; this model has positions for 2 to {positions} tokens.")
    return wanted


# The names of these in the tutorial, of which there is one class each.
EmbeddingsModelInterface = EmbeddingModel
TextToTextBertModel = partial(EmbeddingModel, family="bert")
TextToTextE5Model = partial(EmbeddingModel, family="e5")
