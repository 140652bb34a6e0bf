"""What fresh sessions say of the live release: nDCG@10 of its answers, clicks being the grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from estudio_core.clickstream.evidence import weigh_clicks
from estudio_core.clickstream.examination_curve import Examination
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.evaluation.bootstrap import Estimate, bootstrap_mean
from estudio_core.evaluation.ranking_metrics import ndcg_at_k

K = 10
Grades = Mapping[str, Mapping[str, float]]


def examined_grades(sessions: Sequence[FineTuningInput], examination: Examination) -> dict[str, dict[str, float]]:
    """Return clicks as grades in [0, 1], by query and object, corrected for position.

    Of the sessions of a query that showed an object, the mean of 1 / examination over those in which it was clicked:
    the chance that it is clicked when it is looked at, under the position-based model; clipped as in training, 1 at
    most. An object that was never shown has no grade. Queries without a
    click, and lists that are not by relevance, are left out.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> first = FineTuningInput("1", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))
    >>> second = FineTuningInput("2", "lamp", ("a", "b"), (0, 3), (None, None), (1.0, 0.0))
    >>> examined_grades([first, second], PowerLaw.given(0.5))
    {'lamp': {'a': 0.5, 'b': 0.7071067811865476}}

    Source: Joachims, Swaminathan, Schnabel, "Unbiased Learning-to-Rank with Biased Feedback" (WSDM 2017).
    """
    shown: dict[str, dict[str, int]] = {}
    clicked: dict[str, dict[str, float]] = {}
    sessions = [session for session in sessions if session.by_relevance]
    weights_of = weigh_clicks(sessions, examination)
    for session in sessions:
        shows, clicks = shown.setdefault(session.query, {}), clicked.setdefault(session.query, {})
        weights = weights_of[session.session_id]
        for object_id, weight, click in zip(session.results, weights, session.click_weights, strict=True):
            shows[object_id] = shows.get(object_id, 0) + 1
            clicks[object_id] = clicks.get(object_id, 0.0) + (weight if click > 0 else 0.0)
    return {
        query: {object_id: min(1.0, clicked[query][object_id] / count) for object_id, count in shows.items()}
        for query, shows in shown.items()
        if any(clicked[query].values())
    }


def live_ndcg(answers: Mapping[str, Sequence[str]], grades: Grades) -> Estimate | None:
    """Return the mean nDCG@10 of `answers` over their queries, with its bootstrap interval; None without a query.

    An answer that no session showed counts as grade 0, so the figure leans towards what was shown and is no absolute
    measure of quality: watch how it moves.

    >>> live_ndcg({"lamp": ["b", "a"]}, {"lamp": {"a": 1.0, "b": 0.0}}).mean.__round__(4)
    0.6309

    Args:
        answers: Object ids as found, best first, by query.
        grades: As `examined_grades` gives them; queries without grades are left out.
    """
    asked = [query for query in answers if query in grades]
    if not asked:
        return None
    longest = max(len(grades[query]) for query in asked)
    ranked, judged = np.zeros((len(asked), K)), np.zeros((len(asked), max(longest, 1)))
    for row, query in enumerate(asked):
        found = [grades[query].get(object_id, 0.0) for object_id in answers[query][:K]]
        ranked[row, : len(found)] = found
        known = list(grades[query].values())
        judged[row, : len(known)] = known
    values = ndcg_at_k(np.log2(1 + ranked), np.log2(1 + judged), K)  # chances are gains: 2^grade - 1
    return bootstrap_mean(values[np.isfinite(values)])
