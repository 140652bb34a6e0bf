"""Which queries a candidate is asked, and who judges its answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from estudio_core.errors import DataError

if TYPE_CHECKING:
    from estudio_core.clickstream.click_log import ClickLog
    from estudio_core.clickstream.ranking_data import RankingData
    from estudio_core.evaluation.comparison import Group
    from estudio_core.evaluation.judgments import Judgments


def questions(human: Judgments | None, data: RankingData) -> tuple[Judgments, dict[Group, tuple[str, ...]]]:
    """Return judgments and the queries of each group.

    seen: asked in training sessions, or a variant that augmentation made of such a query. unseen: neither there nor on
    the dev split, whose queries chose the weights and stand in no group. Without human judgments, the held-out
    sessions' clicks judge and all their queries are unseen. All spellings of a query are one.

    Raises:
        DataError: there is no query to evaluate on.
    """
    from estudio_core.clickstream.query_retriever import query_key
    from estudio_core.clickstream.ranking_data import with_one_spelling
    from estudio_core.evaluation.evaluate import judgments_from_sessions

    trained = {query_key(q) for session in data.splits["train"] for q in (session.query, *session.query_variants)}
    chosen_on = {query_key(query) for query in data.queries("dev")}
    groups: dict[Group, tuple[str, ...]] = {}
    if human is not None:
        judgments = human.with_one_spelling().answerable()
        groups["seen"] = tuple(q for q in judgments if query_key(q) in trained)
        groups["unseen"] = tuple(q for q in judgments if query_key(q) not in trained | chosen_on)
    else:
        judgments = judgments_from_sessions(with_one_spelling(data.splits["holdout"])).answerable()
        groups["unseen"] = tuple(judgments)
    groups = {name: queries for name, queries in groups.items() if queries}
    if not groups:
        raise DataError(
            "There is no query to evaluate on: the plugin has no judgments, and no held-out session has a click. "
            "Collect more sessions, raise test_size_ratio, or give the plugin judgments."
        )
    return judgments, groups


def held_out_clicks(data: RankingData, known: Collection[str]) -> ClickLog | None:
    """Return the held-out sessions as a click log; None where none was clicked.

    Args:
        data: The dataset.
        known: Ids of the items that are ranked; others are left out of the sessions.
    """
    from estudio_core.clickstream.click_log import ClickLog
    from estudio_core.clickstream.ranking_data import with_one_spelling

    sessions = with_one_spelling(data.splits["holdout"])
    sessions = sessions.without_items(
        np.array([name not in known for name in sessions.columns.items.texts], dtype=bool)
    )
    log = ClickLog.of(sessions.where(sessions.lengths > 0))
    return log if log.clicked_queries else None
