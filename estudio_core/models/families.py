"""Families of embedding models: what stands before their texts, and how token vectors become one.

A further family is a line of `FAMILIES`; a further pooling is a name here and a function of `pooling.POOLINGS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from estudio_core.errors import ConfigurationError, suggest

Pooling = Literal["masked_mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How the vectors of real tokens become one: `pooling.POOLINGS` says which does what."""


@dataclass(frozen=True)
class Family:
    """What models of one kind have in common."""

    query_prefix: str = ""
    item_prefix: str = ""
    pooling: Pooling | None = None
    """None: what the model's own folder says, the masked mean where it says nothing."""


NEUTRAL = "bert"
"""The family that says nothing itself: what a model's folder says holds."""

FAMILIES: dict[str, Family] = {
    NEUTRAL: Family(),  # MiniLM, MPNet, DistilBERT and their kind, as sentence-transformers publishes them
    "bge": Family("Represent this sentence for searching relevant passages: ", pooling="cls"),  # BGE v1.5, English
    "e5": Family("query: ", "passage: ", "masked_mean"),  # arXiv:2212.03533, section 4
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
