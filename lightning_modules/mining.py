"""Hard negatives from the model's own ranking: what it would show wrongly now, whether users saw it or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from estudio_core.models.aggregation import PartTable, object_similarities
from lightning_modules.config import TrainingConfig
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.text_bank import TextBank

_SIMILARITIES_AT_ONCE = 25_000_000  # 100 MB: 250 queries over 100,000 objects of one part


def mine_negatives(
    vectors: Tensor,
    bank: TextBank,
    excluded: Mapping[str, AbstractSet[str]],
    count: int,
    config: TrainingConfig,
    lexical: LexicalScores | None = None,
) -> dict[str, list[str]]:
    """Return for each query the `count` nearest objects that are not excluded for it, nearest first.

    Args:
        vectors: Of every text of the bank, by the current model, [texts, dim].
        bank: Texts and objects.
        excluded: For each query to mine for, objects that are no new negatives: shown or clicked for it.
        count: Objects per query.
        config: Aggregation and metric.
        lexical: What words add to similarities; None: nothing.
    """
    names = list(bank.objects)
    column = {object_id: i for i, object_id in enumerate(names)}
    table = PartTable.of([bank.objects[object_id][0] for object_id in names])
    queries: Sequence[str] = list(excluded)
    pool = lexical.over(names) if lexical is not None else None
    mined: dict[str, list[str]] = {}
    at_once = max(1, _SIMILARITIES_AT_ONCE // max(1, len(table.rows)))
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once]
        rows = vectors[[bank.query(query) for query in some]]
        similarity = object_similarities(rows, vectors, table, config.aggregation, config.metric)
        if pool is not None:
            similarity += pool(some)
        for row, query in enumerate(some):
            similarity[row, [column[o] for o in excluded[query] if o in column]] = -torch.inf
        best = similarity.topk(min(count, len(names)), dim=1)
        for query, values, indices in zip(some, best.values.tolist(), best.indices.tolist(), strict=True):
            mined[query] = [names[i] for value, i in zip(values, indices, strict=True) if value > -torch.inf]
    return mined
