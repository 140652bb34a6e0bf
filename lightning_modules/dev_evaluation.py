"""Metrics on the dev split: every distinct text encoded once, all shown results ranked, nothing sampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estudio_core.clickstream.evidence import DEV_WEIGHT_CLIP
from estudio_core.clickstream.examination_curve import PowerLaw
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.clickstream.table_builder import table_of
from estudio_core.models.aggregation import PartTable, object_similarities
from lightning_modules.base_vectors import BaseVectors
from lightning_modules.batches import Weights
from lightning_modules.click_evidence import ClickEvidence, click_evidence
from lightning_modules.conditional_logit import ShownList
from lightning_modules.config import TrainingConfig
from lightning_modules.fusion_weight import LearnedWeight, learned_weight
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.losses.pair_loss import PairLossCall
from lightning_modules.pairs import build_pairs
from lightning_modules.text_bank import TextBank
from lightning_modules.training_metrics import training_metrics

Floats = NDArray[np.float64]

_POOL_OBJECTS = 500
"""Most objects that are ranked for the pool metric, unless the dev split itself has more: enough to see a space that
falls apart, and a bound of cost (with 1,300 objects, validations took a third of the time of a short training)."""


ASSUMED_EXPONENT = 0.7
"""Dev clicks count (position + 1)**this where neither weights nor an exponent are given. Raw clicks stand where the old
model put its results, and call every other order worse."""


@dataclass(frozen=True)
class _Query:
    """A dev query: its text and row, the objects shown for it (columns of the pool), and its sessions over them."""

    text: str
    row: int
    columns: Tensor
    clicked: Tensor
    shown: Tensor
    position: Tensor
    weight: Tensor


LEAST_QUERIES = 300
"""Dev queries that are asked whatever it takes: with fewer, a validation tells little."""
_SCORES_AT_ONCE = 4_000_000
"""Similarities of dev queries and parts of the pool that are in memory together: 16 MB."""


class DevEvaluation:
    """Evaluates vectors of a bank on dev sessions.

    Metrics, all prefixed `test_`: `loss`; `not_irrelevant_dist_shift`, `irrelevant_dist_shift`, `pairwise_accuracy`
    as in training, mean over queries; `ndcg@10` of the objects shown for a query, gain = weighted clicks per
    impression; `pool_ndcg@10`, the same with every object of the dev split and further training objects as
    candidates, to see damage outside of what was shown; `quality`, the mean of the two.

    Clicks stand near the top because the results stood there, so that raw clicks find every change of the order
    wrong. Clicks are therefore weighted by inverse propensity: as given, or 1/examination with an examination of
    1/(position + 1)**exponent, the curve of Joachims et al. 2017 (arXiv:1608.04468), `DEV_WEIGHT_CLIP` at most.
    Lists that are not by relevance say nothing here.

    Args:
        bank: Texts, those of `sessions` among them.
        sessions: Dev sessions.
        base_vectors: Vectors of the texts before training, by row of the bank.
        config: Aggregation, metric, and exponent of the examination.
        click_propensity: For a session id, the weight of a click on each of its results; absent: from its position.
        lexical: What words add to similarities; None: nothing. What is served is judged, the sum.
        most_texts: Texts that a validation may encode, queries and the pool of objects, one text each; of a dev split
            with more, so many queries are drawn by lot, the same ones each time, and `LEAST_QUERIES` at least.
            None: all.
    """

    def __init__(
        self,
        bank: TextBank,
        sessions: Sequence[FineTuningInput],
        base_vectors: BaseVectors | Tensor,
        config: TrainingConfig,
        click_propensity: Weights | None = None,
        lexical: LexicalScores | None = None,
        most_texts: int | None = None,
    ) -> None:
        self._config = config
        exponent = ASSUMED_EXPONENT if config.examination_exponent is None else config.examination_exponent
        table = table_of(sessions)
        sessions = _drawn(table.where(table.of_session("by_relevance")), most_texts, len(bank.objects))
        names = sessions.columns.items
        shown = {names[code]: column for column, code in enumerate(sessions.shown_items().tolist())}
        self._queries = _by_query(bank, sessions, click_propensity or {}, exponent, shown)
        # Without a query nothing is compared, and no object has to be encoded.
        others = [object_id for object_id in bank.objects if object_id not in shown] if self._queries else []
        room = max(0, _POOL_OBJECTS - len(shown))
        if len(others) > room:
            rng = np.random.default_rng(config.seed)
            others = [others[i] for i in sorted(rng.choice(len(others), size=room, replace=False).tolist())]
        pool = [*shown, *others] if self._queries else []
        rows: dict[int, int] = {}
        parts = [[rows.setdefault(r, len(rows)) for r in bank.objects[o][0]] for o in pool]
        self._table = PartTable.of(parts) if parts else None
        self._words = lexical.over(pool) if lexical is not None else None
        self.rows = [*(query.row for query in self._queries), *rows]
        self._base = base_vectors[self.rows] if self.rows else torch.empty(0)
        self._before: list[Tensor] = []

    def __call__(self, vectors: Tensor, loss: PairLossCall) -> dict[str, float]:
        """Return the metrics of `vectors` of the texts `self.rows`, in that order; empty without sessions."""
        return means(self.by_query(vectors, loss))

    def by_query(self, vectors: Tensor, loss: PairLossCall) -> dict[str, Floats]:
        """Return each metric's values, one per dev query, [queries]; NaN for a query that does not have the metric."""
        if self._table is None:
            return {}
        values: dict[str, Floats] = {}
        self._before = self._before or [base[query.columns] for query, base in self._each(self._base)]
        for row, (query, candidates) in enumerate(self._each(vectors)):
            now, before = (
                scores.expand(len(query.clicked), -1) for scores in (candidates[query.columns], self._before[row])
            )
            for name, value in self._query_metrics(query, now, before, candidates, loss).items():
                values.setdefault(f"test_{name}", np.full(len(self._queries), np.nan))[row] = value
        if "test_ndcg@10" in values:
            values["test_quality"] = (values["test_ndcg@10"] + values["test_pool_ndcg@10"]) / 2
        return values

    def evidence(self, vectors: Tensor) -> ClickEvidence:
        """Return what the clicks of dev sessions say of the change from the vectors before training to `vectors`."""
        before, after = ([s[q.columns] for q, s in self._each(scored)] for scored in (self._base, vectors))
        changes = [now - then for now, then in zip(after, before, strict=True)]
        return click_evidence(self._lists(before, changes))

    def fusion_weight(self, vectors: Tensor) -> LearnedWeight:
        """Return what dev clicks make of the weight of words beside the similarities of `vectors`."""
        weight = self._config.lexical_weight
        words = self._words
        if words is None:
            return LearnedWeight(weight, len(self._queries))
        similar = [scores[query.columns] for query, scores in self._each(vectors, with_words=False)]
        bm25 = [words([query.text])[0][query.columns] / weight for query in self._queries]
        return learned_weight(self._lists(similar, bm25), weight)

    def _lists(self, *features: Sequence[Tensor]) -> list[ShownList]:
        """Return the dev sessions with log(1 + position) and `features`, each a query's values over its objects."""
        lists = []
        for row, query in enumerate(self._queries):
            values = torch.stack([feature[row] for feature in features], dim=1).double()
            for shown, clicked, position in zip(query.shown, query.clicked, query.position, strict=True):
                told = torch.cat([position[shown].double().log1p()[:, None], values[shown]], dim=1)
                lists.append(ShownList(row, clicked[shown].numpy(), told.numpy()))
        return lists

    def _each(self, vectors: Tensor, *, with_words: bool = True) -> Iterator[tuple[_Query, Tensor]]:
        """Yield each query with the score of every object of the pool: its similarity, and what words add.

        Some queries together are one product of matrices, and the pool is normalised once for them.
        """
        assert self._table is not None
        together = max(1, _SCORES_AT_ONCE // max(len(self._table.rows), 1))
        for start in range(0, len(self._queries), together):
            some = self._queries[start : start + together]
            scores = object_similarities(
                vectors[start : start + len(some)],
                vectors[len(self._queries) :],
                self._table,
                self._config.aggregation,
                self._config.metric,
            )
            if with_words and self._words is not None:
                scores = scores + self._words([query.text for query in some])
            yield from zip(some, scores, strict=True)

    def _query_metrics(
        self,
        query: _Query,
        now: Tensor,
        before: Tensor,
        candidates: Tensor,
        loss: PairLossCall,
    ) -> dict[str, float]:
        skipped = query.shown & ~query.clicked
        rejected = skipped & ~query.clicked.any(dim=1, keepdim=True)
        metrics = {k: float(v) for k, v in training_metrics(now, before, query.clicked, skipped, rejected).items()}
        pairs = build_pairs(query.clicked, skipped)
        if len(pairs):
            metrics["loss"] = float(
                loss(
                    now[pairs.session, pairs.positive],
                    now[pairs.session, pairs.negative],
                    {
                        "confidences": query.weight[pairs.session, pairs.positive],
                        "click_weights": query.weight[pairs.session, pairs.positive],
                        "skip_confidences": torch.ones(len(pairs)),
                        "positive_index": pairs.positive_index,
                        "session_index": pairs.session,
                        "shown_margins": torch.full((len(pairs),), torch.nan),  # sessions are judged by their clicks
                        "done": 1.0,  # one yardstick for all validations
                    },
                )
            )
        # Over the sessions of a query, so that one of a few clicks far down counts for what it stands for: within
        # a single session a weight would cancel out.
        gains = (query.weight * query.clicked).sum(dim=0) / query.shown.sum(dim=0)
        if gains.any():
            metrics["ndcg@10"] = float(ndcg(now[:1], gains[None])[0])
            metrics["pool_ndcg@10"] = ndcg_among(candidates, query.columns, gains)
        return metrics


def means(values: Mapping[str, Floats]) -> dict[str, float]:
    """Return the mean of each metric over the queries that have it.

    >>> means({"test_loss": np.array([1.0, np.nan, 3.0])})
    {'test_loss': 2.0}
    """
    return {name: float(np.nanmean(of_queries)) for name, of_queries in values.items()}


def ndcg(scores: Tensor, gains: Tensor, k: int = 10) -> Tensor:
    """Return nDCG@k by row; discount 1/log2(rank + 1), equal scores in column order (Jarvelin & Kekalainen 2002).

    >>> ndcg(torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[1.0, 0.0, 0.0]])).tolist()
    [1.0]

    Args:
        scores: Larger is ranked higher, [rows, candidates].
        gains: Of each candidate, >= 0, [rows, candidates].
        k: Depth.
    """
    depth = min(k, scores.shape[1])
    discount = 1 / torch.log2(torch.arange(2, depth + 2, dtype=torch.float32))
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :depth]
    best = gains.sort(dim=1, descending=True).values[:, :depth]
    reached = (gains.gather(1, order) * discount).sum(dim=1)
    return reached / (best * discount).sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)


def ndcg_among(scores: Tensor, columns: Tensor, gains: Tensor, k: int = 10) -> float:
    """Return `ndcg` of one row of which but a few candidates have a gain, without sorting it.

    >>> round(ndcg_among(torch.tensor([0.5, 0.9, 0.1]), torch.tensor([0, 2]), torch.tensor([1.0, 0.0])), 4)
    0.6309

    Args:
        scores: Larger is ranked higher, [candidates].
        columns: Those that may have a gain, [columns].
        gains: >= 0, of those, [columns].
        k: Depth.
    """
    columns, gains = columns[gains > 0], gains[gains > 0].double()
    own = scores[columns, None]
    above = (scores[None] > own).sum(dim=1)
    above += ((scores[None] == own) & (torch.arange(len(scores))[None] < columns[:, None])).sum(dim=1)
    discount = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    reached = (gains * torch.where(above < k, discount[above.clamp(max=k - 1)], 0.0)).sum()
    best = gains.sort(descending=True).values[:k]
    return float(reached / (best * discount[: len(best)]).sum())


def _drawn(table: SessionTable, most_texts: int | None, objects: int) -> SessionTable:
    """Return all sessions of so many queries, drawn by lot, that they and the pool, of `objects`, are `most_texts`."""
    lots = table.lots
    queries = int(lots.max(initial=-1)) + 1
    if most_texts is None or queries <= LEAST_QUERIES:
        return table
    first = np.full(len(table.columns.items), queries, dtype=np.int64)
    np.minimum.at(first, table.of_result("item"), np.repeat(lots, table.lengths))
    shown = np.cumsum(np.bincount(first[first < queries], minlength=queries))
    texts = np.maximum(shown, min(_POOL_OBJECTS, objects)) + np.arange(1, queries + 1)
    taken = max(int(np.searchsorted(texts, most_texts, side="right")), LEAST_QUERIES)
    return table.where(lots < taken)


def _by_query(
    bank: TextBank,
    sessions: Iterable[FineTuningInput],
    given: Weights,
    exponent: float,
    pool: Mapping[str, int],
) -> list[_Query]:
    grouped: dict[str, list[FineTuningInput]] = {}
    for session in sessions:
        if session.results:
            grouped.setdefault(session.query_key, []).append(session)
    queries = []
    for group in grouped.values():
        objects = list(dict.fromkeys(object_id for session in group for object_id in session.results))
        columns = {object_id: column for column, object_id in enumerate(objects)}
        shown = torch.zeros(len(group), len(objects), dtype=torch.bool)
        importance, inverse, place = (torch.zeros(len(group), len(objects)) for _ in range(3))
        for row, session in enumerate(group):
            at = [columns[object_id] for object_id in session.results]
            shown[row, at] = True
            importance[row, at] = torch.tensor(session.click_weights)
            place[row, at] = torch.tensor([float(position) for position in session.positions])
            weights = given.get(session.session_id)
            if weights is None:
                positions = np.array(session.positions, dtype=np.int64)
                weights = np.minimum(PowerLaw.given(exponent).inverse_at(positions), DEV_WEIGHT_CLIP).tolist()
            inverse[row, at] = torch.tensor([float(weight) for weight in weights])
        text = group[0].query
        where = torch.tensor([pool[object_id] for object_id in objects])
        queries.append(_Query(text, bank.query(text), where, importance > 0, shown, place, importance * inverse))
    return _scaled(queries)


def _scaled(queries: list[_Query]) -> list[_Query]:
    """Divide the weights by their mean over all clicks, so that the loss stays comparable to that of training."""
    clicks = sum(int(query.clicked.sum()) for query in queries)
    total = sum(float((query.weight * query.clicked).sum()) for query in queries)
    return [replace(query, weight=query.weight * (clicks / total)) for query in queries] if total else queries
