"""One unit: a contender on a corpus under a condition with a seed, from simulated clicks to final figures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.quality.contenders.mined_negatives import on_mined_negatives
from benchmarks.quality.contenders.naive import naive
from benchmarks.quality.contenders.oracle import oracle, oracle_searched
from benchmarks.quality.contenders.ours import ours, ours_queries, ours_uncorrected
from benchmarks.quality.contenders.sentence_transformers_trainer import LossName, on_clicks
from benchmarks.quality.corpora import Corpus
from benchmarks.quality.evaluation import FIGURES, FUSED, encode_catalog, figures, judged, shown_rankings
from benchmarks.quality.logs import Condition, replay
from benchmarks.quality.task import Contender, Outcome, Task, base_model
from benchmarks.quality.words import dataset_words, word_scores_of
from benchmarks.units import UnitStore
from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
from estudio_core.clickstream.splitter import TrainTestSplitter
from estudio_core.evaluation.judgments import Judgments
from estudio_core.evaluation.scores import EncodedCatalog
from estudio_core.lexical.settings import Bm25Settings, Fusion
from estudio_core.models.embedding_model import EmbeddingModel

STORE = UnitStore("quality")
DEV_SHARE = 0.12
"""Share of the training queries on which weights and settings may be chosen."""
TOLERANCE = 0.05
"""Most by which a contender's tokens may differ from those that ours spent, as a share; else it is measured again."""
ORACLE = "oracle (judgments)"
ORACLE_SEARCHED = "oracle (judgments), searched rate"
ORACLES = (ORACLE, ORACLE_SEARCHED)
"""What alone is given grades: of the queries of the log."""
HARD_NEGATIVES = "CachedMultipleNegativesRankingLoss, mined negatives"
QUERIES_ONLY = "ours, queries only"
OWN_BUDGET = ("ours", QUERIES_ONLY, "ours, uncorrected")
"""Trained with Estudio's defaults, until their own steps or dev queries end it."""
TENFOLD = 10


def _sentence_transformers(loss: LossName) -> Contender:
    def train(task: Task) -> Outcome:
        return on_clicks(task, loss)

    return train


CONTENDERS: dict[str, Contender] = {
    "ours": ours,
    QUERIES_ONLY: ours_queries,
    "ours, uncorrected": ours_uncorrected,
    "MultipleNegativesRankingLoss": _sentence_transformers("MultipleNegativesRankingLoss"),
    "CachedMultipleNegativesRankingLoss": _sentence_transformers("CachedMultipleNegativesRankingLoss"),
    "CoSENTLoss": _sentence_transformers("CoSENTLoss"),
    "naive loop": naive,
    HARD_NEGATIVES: on_mined_negatives,
    ORACLE: oracle,
    ORACLE_SEARCHED: oracle_searched,
}
"""By name; the base model, which learns nothing, is measured apart."""

_NO_CLICKS = RankingData({"train": [], "dev": [], "holdout": []}, ItemsSet({}))
_shown: dict[str, dict[str, Any]] = {}
_encoded: dict[tuple[str, int, tuple[tuple[str, str], ...]], EncodedCatalog] = {}


@dataclass(frozen=True)
class Unit:
    """What is measured; `times` is how much longer than by default it trains, in tokens."""

    corpus: Corpus
    condition: Condition
    contender: str
    seed: int
    times: int = 1

    @property
    def key(self) -> str:
        """File name of the result."""
        contender = "".join(c if c.isalnum() else "-" for c in self.contender)
        longer = f"-x{self.times}" if self.times > 1 else ""
        return f"{self.corpus.name}/{self.condition.name}-{self.condition.sessions}{longer}/{contender}-{self.seed}"


def measure_base(corpus: Corpus, model_path: str, *, complete: bool = False) -> dict[str, Any]:
    """Return the figures of the base model, alone and with words at the weight that a search has without any click.

    With `complete` none that was stored before all of them were.
    """

    def run() -> dict[str, Any]:
        model, catalog = _base(corpus, model_path)
        return dict(figures(model, corpus, Fusion(), catalog))

    key = f"{corpus.name}/base"
    return STORE.measured(key, run, fresh=complete and not is_complete(STORE.read(key) or {}))


def measure_words(
    corpus: Corpus, tuned: Callable[[], tuple[Bm25Settings, dict[str, float]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of words alone: BM25 as it comes, and with the k1 and b of `tuned`, called where needed."""
    rows = {key: row for row, key in enumerate(corpus.items)}

    def by(settings: Bm25Settings) -> dict[str, Any]:
        return judged(corpus, rows, word_scores_of(corpus, settings)) | settings.model_dump(include={"k1", "b"})

    def chosen() -> dict[str, Any]:
        settings, reached = tuned()
        return by(settings) | {"development": reached}

    plain = STORE.measured(f"{corpus.name}/bm25", lambda: by(Bm25Settings()))
    return plain, STORE.measured(f"{corpus.name}/bm25-tuned", chosen)


def is_complete(result: Mapping[str, Any]) -> bool:
    """Tell whether a result has all figures, in both lanes."""
    return {lane + name for lane in ("", FUSED) for name in FIGURES} <= result.keys()


def stored(unit: Unit) -> dict[str, Any] | None:
    """Return the figures of a unit measured before; None where there are none, or were on another budget than ours."""
    result = STORE.read(unit.key)
    if result is None or unit.contender in OWN_BUDGET:
        return result
    ours = STORE.read(replace(unit, contender="ours").key)
    return result if ours and abs(result["tokens"] / ours["tokens"] - 1) <= TOLERANCE else None


def measure(unit: Unit, model_path: str) -> dict[str, Any]:
    """Return the figures of a unit, measured now or before. Others spend the tokens that ours spent on the same log."""
    budget = None
    if unit.contender not in OWN_BUDGET:
        budget = measure(replace(unit, contender="ours"), model_path)["tokens"]

    def run() -> dict[str, Any]:
        data = _clicks(unit, model_path)
        corpus = sealed(unit.corpus, judgments=unit.corpus.judgments if unit.contender in ORACLES else None)
        outcome = CONTENDERS[unit.contender](Task(corpus, model_path, data, unit.seed, budget, unit.times))
        fusion = Fusion() if outcome.weight is None else Fusion(weight=outcome.weight)
        kept = _base(unit.corpus, model_path)[1] if outcome.keeps_items else None
        result = {
            **figures(outcome.model, unit.corpus, fusion, kept),
            **outcome.stated,
            "weight": fusion.weight,
            "tokens": outcome.tokens,
            "sessions": outcome.sessions,
            "queries": len(set(data.queries("train"))),
            "seconds": round(outcome.seconds, 1),
        }
        gc.collect()
        return result

    return STORE.measured(unit.key, run, fresh=stored(unit) is None)


def sealed(corpus: Corpus, judgments: Judgments | None = None) -> Corpus:
    """Return the corpus as a contender gets it: no unseen queries, and no grades but those given."""
    return replace(corpus, unseen=(), groups={}, held_out=Judgments({}), judgments=judgments or Judgments({}))


def _clicks(unit: Unit, model_path: str) -> RankingData:
    """Return the log as ranking data, split by query; its seed is that of the unit."""
    sessions = replay(unit.corpus, _rankings(unit.corpus, model_path), unit.condition, unit.seed)
    sides = TrainTestSplitter(test_size_ratio=DEV_SHARE, holdout_share=0).split(sessions)
    shown = dict.fromkeys(result for session in sessions for result in session.results)
    words = dataset_words(unit.corpus, shown, (session.query for session in sessions))
    return RankingData(sides, ItemsSet({key: (unit.corpus.items[key],) for key in shown}), words=words)


def _rankings(corpus: Corpus, model_path: str) -> dict[str, Any]:
    """Return what the base model shows, computed once per corpus and process."""
    if corpus.name not in _shown:
        model, catalog = _base(corpus, model_path)
        _shown[corpus.name] = shown_rankings(model, corpus, catalog)
    return _shown[corpus.name]


def _base(corpus: Corpus, model_path: str) -> tuple[EmbeddingModel, EncodedCatalog]:
    """Return the base model and its vectors of the items, which several divisions of the queries share."""
    model = base_model(Task(sealed(corpus), model_path, _NO_CLICKS, seed=0, budget_tokens=None)).eval()
    items = model_path, corpus.max_tokens, tuple(corpus.items.items())
    if items not in _encoded:
        _encoded.clear()  # those of one corpus are enough to hold
        _encoded[items] = encode_catalog(model, corpus)
    return model, _encoded[items]
