"""From sessions to moved vectors, and what they are worth on sessions that moved nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.improvement.bounds import bounded
from estudio_core.improvement.improvement_input import ImprovementElement, ImprovementInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from estudio_core.evaluation.evaluate import QueryMetrics
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.vectordb.index_info import SearchIndexInfo

    Vectors = NDArray[np.float32]

Key = tuple[str, str | None]
"""Object id, and the user whose vectors are meant; None for everybody's."""


def keys_of(session: FineTuningInput, personal: bool) -> list[Key]:
    """Return whose vectors of which objects a session is about."""
    return [(object_id, session.user_id if personal else None) for object_id in session.results]


def move(
    adjuster: VectorsAdjuster,
    sessions: Iterable[FineTuningInput],
    queries: Mapping[str, Vectors],
    vectors: Mapping[Key, Vectors],
    base: Mapping[Key, Vectors],
    max_angle_degrees: float,
    personal: bool,
) -> dict[Key, Vectors]:
    """Return the vectors that the plugin's adjuster moves, none further than the angle from what the model gave.

    Clicked results are clicked, results above the last click skipped; what stands below it was perhaps never seen.

    Args:
        adjuster: Of the plugin.
        sessions: With at least one click.
        queries: Query vectors [dim] by text.
        vectors: Vectors as stored now, [parts, dim].
        base: Vectors as the model gave them.
        max_angle_degrees: Bound of each part vector's whole turn, over all runs.
        personal: Whether each user has vectors of their own.
    """
    import torch

    elements = {
        key: ImprovementElement(key[0], torch.from_numpy(rows.copy()), user_id=key[1]) for key, rows in vectors.items()
    }
    inputs = []
    for session in sessions:
        known = [
            (key, weight > 0)
            for key, weight in zip(keys_of(session, personal), session.click_weights, strict=True)
            if key in elements
        ]
        last = max((i for i, (_, clicked) in enumerate(known) if clicked), default=-1)
        if last < 0:
            continue
        query = ImprovementElement(session.query, torch.from_numpy(queries[session.query].copy())[None, :])
        clicked = [elements[key] for key, click in known if click]
        skipped = [elements[key] for key, click in known[:last] if not click]
        inputs.append(ImprovementInput(session.session_id, query, clicked, skipped))
    adjuster.adjust_vectors(inputs)
    moved = {}
    for key, element in elements.items():
        rows = bounded(torch.from_numpy(base[key].copy()), element.vector.detach().float(), max_angle_degrees).numpy()
        if abs(rows - vectors[key]).max() > 1e-7:
            moved[key] = rows
    return moved


def ranked(
    sessions: Sequence[FineTuningInput],
    queries: Mapping[str, Vectors],
    vectors: Mapping[Key, Vectors],
    index: SearchIndexInfo,
    personal: bool,
) -> QueryMetrics:
    """Rank again what held-out sessions showed, with these vectors (see `evaluate_shown`)."""
    import numpy as np

    from estudio_core.evaluation.held_out import evaluate_shown
    from estudio_core.evaluation.scores import EncodedCatalog

    names = {key: f"{key[0]}\x1f{key[1] or ''}" for key in vectors}
    catalog = EncodedCatalog.from_parts({names[key]: rows for key, rows in vectors.items()})
    renamed = [
        replace(session, results=tuple(f"{key[0]}\x1f{key[1] or ''}" for key in keys_of(session, personal)))
        for session in sessions
    ]
    asked = list(dict.fromkeys(session.query for session in sessions))
    return evaluate_shown(renamed, asked, np.stack([queries[query] for query in asked]), catalog, index)
