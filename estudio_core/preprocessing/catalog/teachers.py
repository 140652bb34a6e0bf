"""What a plugin may name as a teacher, and teachers made of models of the user's own hub or folder.

With both a writer and a scorer, training is GPL: Wang, Thakur, Reimers, Gurevych, "GPL: Generative Pseudo Labeling for
Unsupervised Domain Adaptation of Dense Retrieval" (NAACL 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from estudio_core.errors import ConfigurationError, DataError
from estudio_core.preprocessing.catalog.query_writers import QueryWriter


@runtime_checkable
class PairScorer(Protocol):
    """Scores queries with texts: a cross-encoder, or whatever knows better than the model that is trained."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        """Return a number for each (query, text), larger where the text answers the query better."""
        ...


class CrossEncoderScorer:
    """sentence-transformers' CrossEncoder as a `PairScorer`, loaded when it is first asked.

    Args:
        model: Folder, or name on the hub.
        batch_size: Pairs at once.
        arguments: Of `CrossEncoder`, such as `max_length` or `device`.
    """

    def __init__(self, model: str, *, batch_size: int = 32, **arguments: Any) -> None:
        self.model, self.batch_size, self.arguments = model, batch_size, arguments

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the model's logit for each pair: margins of probabilities near 0 and 1 would say nothing."""
        from torch import nn

        scores = self._loaded.predict(
            list(pairs), batch_size=self.batch_size, show_progress_bar=False, activation_fn=nn.Identity()
        )
        return [float(score) for score in scores]

    @cached_property
    def _loaded(self) -> Any:
        from sentence_transformers import CrossEncoder

        return CrossEncoder(self.model, **self.arguments)


class Seq2SeqWriter:
    """A transformers sequence-to-sequence model, such as docT5query, as a `QueryWriter`, loaded when it is first asked.

    Args:
        model: Folder, or name on the hub.
        prefix: Before each text.
        max_tokens: Of a text; longer ones are cut.
        max_new_tokens: Of a query.
        batch_size: Texts at once.
        seed: Of the sampling: nucleus of 0.95 among the 25 likeliest tokens, as GPL has it.
    """

    def __init__(
        self,
        model: str,
        *,
        prefix: str = "",
        max_tokens: int = 350,
        max_new_tokens: int = 64,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        self.model, self.prefix, self.batch_size, self.seed = model, prefix, batch_size, seed
        self.max_tokens, self.max_new_tokens = max_tokens, max_new_tokens

    def write(self, texts: Sequence[str], count: int) -> list[list[str]]:
        """Return up to `count` distinct queries for each text."""
        import torch

        tokenizer, model = self._loaded
        found: list[list[str]] = []
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            for start in range(0, len(texts), self.batch_size):
                some = [self.prefix + text for text in texts[start : start + self.batch_size]]
                given = tokenizer(
                    some, truncation=True, max_length=self.max_tokens, padding=True, return_token_type_ids=False,
                    return_tensors="pt",
                ).to(model.device)  # fmt: skip
                made = model.generate(
                    **given, do_sample=True, top_k=25, top_p=0.95, num_return_sequences=count,
                    max_new_tokens=self.max_new_tokens,
                )  # fmt: skip
                queries = [text.strip() for text in tokenizer.batch_decode(made, skip_special_tokens=True)]
                for row in range(len(some)):
                    found.append([q for q in dict.fromkeys(queries[row * count : (row + 1) * count]) if q])
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model), AutoModelForSeq2SeqLM.from_pretrained(self.model).eval()


def writer_of(given: Any) -> QueryWriter:
    """Return the writer that a plugin gives, or that the class or function which it gives returns.

    Raises:
        ConfigurationError: it gives neither.
    """
    writer: QueryWriter = _teacher(given, QueryWriter, "query_writer", "write(texts, count)")
    return writer


def scorer_of(given: Any) -> PairScorer:
    """Return the scorer that a plugin gives, or that the class or function which it gives returns. Raises: likewise."""
    scorer: PairScorer = _teacher(given, PairScorer, "pair_scorer", "score(pairs)")
    return scorer


def _teacher(given: Any, protocol: Any, name: str, method: str) -> Any:
    is_function = callable(given) and not isinstance(given, protocol)
    made = given() if isinstance(given, type) or is_function else given  # a class has the method, too
    if not isinstance(made, protocol):
        raise ConfigurationError(
            f"CatalogPretraining({name}=...) gives {type(made).__name__}: give an object with a method {method}, or a "
            "class or function without arguments that returns one."
        )
    return made


def scored(scorer: PairScorer, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return a finite number for each pair.

    Raises:
        DataError: the teacher gives another number of scores, or one that is not finite.
    """
    scores = [float(score) for score in scorer.score(pairs)]
    if len(scores) != len(pairs) or not all(map(math.isfinite, scores)):
        broken = sum(not math.isfinite(score) for score in scores)
        raise DataError(
            f"{type(scorer).__name__}.score gives {len(scores)} numbers, {broken} of them not finite, for {len(pairs)} "
            "pairs: one finite number for each is needed, in their order."
        )
    return scores
