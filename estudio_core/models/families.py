"""Families of embedding models: what stands before their texts, and how token vectors become one.

A further family is a line of `FAMILIES`; a further pooling is a function of `embedding_model.POOLINGS` as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from estudio_core.errors import ConfigurationError, suggest

Pooling = Literal["masked_mean", "cls"]
"""masked_mean: the mean over real tokens. cls: the first token."""


@dataclass(frozen=True)
class Family:
    """What models of one kind have in common."""

    query_prefix: str = ""
    item_prefix: str = ""
    pooling: Pooling = "masked_mean"


FAMILIES: dict[str, Family] = {
    "bert": Family(),  # MiniLM, MPNet, DistilBERT and their kind, as sentence-transformers publishes them
    "bge": Family("Represent this sentence for searching relevant passages: ", pooling="cls"),  # BGE v1.5, English
    "e5": Family("query: ", "passage: "),  # arXiv:2212.03533, section 4
}


def family_named(name: str) -> Family:
    """Return the family called `name`.

    >>> family_named("e5").item_prefix
    'passage: '

    Raises:
        ConfigurationError: there is none.
    """
    if name not in FAMILIES:
        raise ConfigurationError(f"There is no model family {name!r}. {suggest(name, FAMILIES)}")
    return FAMILIES[name]
