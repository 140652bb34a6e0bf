"""How words are counted, and what they weigh beside vectors."""

from __future__ import annotations

from pydantic import Field

from estudio_core.strict_model import StrictModel


class Bm25Settings(StrictModel):
    """Parameters of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009)."""

    k1: float = Field(default=1.2, ge=0, le=10, allow_inf_nan=False)
    """How soon further occurrences of a word in a text count for less; 0: they count for nothing."""
    b: float = Field(default=0.75, ge=0, le=1, allow_inf_nan=False)
    """How far long texts are discounted: 0 not at all, 1 by their whole length."""
    title: str | None = Field(default=None, min_length=1)
    """Field of the payload whose words count more than the text's; None: none does."""
    title_weight: float = Field(default=1.0, gt=0, le=20, allow_inf_nan=False)
    """How often a word of the title counts, in occurrences and in length alike, beside those of the text, in which a
    title mostly stands as well."""
