"""How words are counted, and what they weigh beside vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from estudio_core.strict_model import StrictModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counts = Mapping[str, float]
"""How often each word occurs in a text."""


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


FUSION_FILE = "fusion.json"
SPREAD = 0.128
"""Standard deviation of the cosine similarity of random pairs of items, with the model that the default weight was
measured with: 0.127 on the demo's catalog, 0.131 on NFCorpus, 0.127 on catalogs of attributes."""
MOST_WEIGHT = 100.0
_LEAST_PAIRS, _NO_SPREAD = 300, 1e-4


class Fusion(StrictModel):
    """How the two lanes of a search are put together: score = similarity + weight x BM25. Part of a release."""

    weight: float = Field(default=0.12, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    """Of BM25, in units of the idf of a word found once (`bm25.unit`), beside cosine similarity; 0: vectors alone.

    nDCG@10 of MiniLM alone, words alone and both: 0.319, 0.330 and 0.364 on NFCorpus' test queries, 0.303, 0.301 and
    0.339 on its development queries; on the demo's catalog, full and judged, 0.575/0.927, 0.764/0.842 and 0.730/0.938
    for queries that are searched, 0.633/0.885, 0.674/0.777 and 0.737/0.873 for those that never are. On NFCorpus
    weights from 0.1 to 0.25 do about as well; on the demo's catalog more raises the full figure and lowers the judged
    one.
    """

    @classmethod
    def for_similarities(cls, of_pairs: NDArray[Any]) -> Self:
        """Return the default for a model by the similarities that it gives to random pairs of a catalog's items.

        The weight grows with their standard deviation: where all texts are much alike to a model, the differences that
        tell good from bad are small as well, and words would outweigh them. It is rounded to two digits, so that one
        model has the same on like catalogs; below 300 pairs, and where all are the same, nothing can be told.

        >>> import numpy as np
        >>> Fusion.for_similarities(np.tile([0.75, 0.85], 500)).weight
        0.047
        """
        spread = float(of_pairs.std()) if len(of_pairs) >= _LEAST_PAIRS else 0.0
        default = cls().weight
        if not math.isfinite(spread) or spread < _NO_SPREAD:
            return cls()
        return cls(weight=float(f"{min(default * spread / SPREAD, MOST_WEIGHT):.2g}"))

    def save(self, folder: Path) -> None:
        """Write the fusion into a model's folder, with which it is registered."""
        (folder / FUSION_FILE).write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def of_model(cls, folder: Path) -> Self:
        """Return what `save` wrote beside a model; the default where it wrote nothing."""
        file = Path(folder) / FUSION_FILE
        return cls.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else cls()
