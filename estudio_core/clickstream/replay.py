"""Simulated clicks: replay graded judgments through a published click model.

Nothing that comes from here is real behaviour: every row carries `{"simulated": true}` in its attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import ConfigurationError, DataError

Ranking = Sequence[tuple[str, float]]
"""Object ids with their scores, best first."""

_SECONDS_TO_CLICK = 4.0  # mean time between two clicks of a simulated user


@dataclass(frozen=True)
class ClickModel:
    """Position-based click model: P(click) = examination(position) x attraction(grade), independently.

    Examination is `(position + 1) ** -eta` for 0-based positions. Attraction is
    `noise + (1 - noise) * (2**grade - 1) / (2**max_grade - 1)`: noise is the chance that a result
    of grade 0 is clicked once it was looked at.

    Source: Joachims, Swaminathan, Schnabel, "Unbiased Learning-to-Rank with Biased Feedback" (WSDM 2017), for the
    examination curve; Ai et al., "Unbiased Learning to Rank with Unbiased Propensity Estimation" (SIGIR 2018),
    for attraction, with noise 0.1.
    """

    eta: float = 1.0
    noise: float = 0.1
    max_grade: int = 3

    def __post_init__(self) -> None:
        """Refuse parameters that give no probability."""
        if not (self.eta >= 0 and 0 <= self.noise < 1 and self.max_grade >= 1):
            raise ConfigurationError(
                f"{self} is no click model: eta >= 0, 0 <= noise < 1 and max_grade >= 1 are legal."
            )

    def examination(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Return the chance that a 0-based position is looked at.

        >>> ClickModel(eta=1.0).examination([0, 1, 3]).tolist()
        [1.0, 0.5, 0.25]
        """
        examined: NDArray[np.float64] = (np.asarray(positions, dtype=np.float64) + 1.0) ** -self.eta
        return examined

    def attraction(self, grades: ArrayLike) -> NDArray[np.float64]:
        """Return the chance that a result of a grade is clicked once looked at.

        >>> ClickModel(noise=0.0, max_grade=3).attraction([0, 1, 3]).round(3).tolist()
        [0.0, 0.143, 1.0]
        """
        gain = (2.0 ** np.asarray(grades, dtype=np.float64) - 1.0) / (2.0**self.max_grade - 1.0)
        attraction: NDArray[np.float64] = self.noise + (1.0 - self.noise) * gain
        return attraction


@dataclass(frozen=True)
class Replay:
    """Rows for `ClickstreamStore.log_queries` and `log_events`."""

    queries: list[UbiQuery]
    events: list[UbiEvent]

    def training_inputs(self) -> list[FineTuningInput]:
        """Return the sessions as training gets them, without the way through the database."""
        clicked: dict[str, set[str | None]] = {}
        for event in self.events:
            clicked.setdefault(event.query_id, set()).add(event.object_id)
        return [
            FineTuningInput(
                session_id=asked.query_id,
                query=asked.user_query,
                results=asked.query_response_hit_ids,
                positions=tuple(range(len(asked.query_response_hit_ids))),
                ranks=tuple(asked.query_response_scores or ()),
                click_weights=tuple(float(r in clicked.get(asked.query_id, ())) for r in asked.query_response_hit_ids),
                timestamp=int(asked.timestamp.timestamp()),
            )
            for asked in self.queries
        ]


def replay_clicks(
    judgments: Mapping[str, Mapping[str, float]],
    rankings: Mapping[str, Ranking] | Callable[[str], Ranking],
    *,
    sessions: int,
    application: str,
    end: datetime,
    days: float = 30.0,
    click_model: ClickModel = ClickModel(),
    shown: int = 20,
    zipf_exponent: float = 0.5,
    shuffled_share: float = 0.0,
    release: str | None = None,
    seed: int = 0,
) -> Replay:
    """Simulate `sessions` searches for the queries of `judgments`, and the clicks on what is shown.

    The same arguments give the same rows, ids included. A shown result without a grade counts as grade 0.

    Args:
        judgments: Grades by query and object id.
        rankings: What is shown for a query, best first, as a mapping or a function.
        sessions: Number of searches.
        application: Name under which they are logged.
        end: Time of the last search, with a time zone.
        days: Length of the period over which searches are spread evenly.
        click_model: Examination and attraction.
        shown: Results per search.
        zipf_exponent: Query frequency falls as `1 / rank ** zipf_exponent`; 0 asks all equally often.
        shuffled_share: Share of searches whose results are shown in random order (an exploration policy).
        release: Release said to have answered.
        seed: Of everything random here.

    Raises:
        DataError: there are no queries, or a query has no ranking.
    """
    if not judgments or sessions < 1 or shown < 1:
        raise DataError(f"Nothing to replay: {len(judgments)} queries, {sessions} sessions, {shown} results shown.")
    texts = sorted(judgments)
    lists = [list(rankings(q) if callable(rankings) else rankings.get(q, ()))[:shown] for q in texts]
    without = [q for q, ranking in zip(texts, lists, strict=True) if not ranking]
    if without:
        raise DataError(f"No ranking for the queries {without[:5]} ({len(without)} in all). Give one for each query.")

    rng = np.random.default_rng(seed)
    popularity = (1.0 + rng.permutation(len(texts))) ** -zipf_exponent
    asked = rng.choice(len(texts), size=sessions, p=popularity / popularity.sum())
    width = max(len(ranking) for ranking in lists)
    attraction = np.zeros((len(texts), width))  # 0 beyond the end of a short list: never clicked
    for row, (text, ranking) in enumerate(zip(texts, lists, strict=True)):
        grades = [judgments[text].get(object_id, 0.0) for object_id, _ in ranking]
        attraction[row, : len(ranking)] = click_model.attraction(grades)
    order = _shown_order(rng, asked, [len(ranking) for ranking in lists], width, shuffled_share)
    chance = click_model.examination(np.arange(width)) * np.take_along_axis(attraction[asked], order, axis=1)
    clicked = rng.random((sessions, width)) < chance
    moments = np.sort(rng.random(sessions)) * days * 86_400.0
    delays = np.cumsum(rng.exponential(_SECONDS_TO_CLICK, (sessions, width)) * clicked, axis=1)

    attributes = {"simulated": True} | ({"release": release} if release else {})
    queries: list[UbiQuery] = []
    events: list[UbiEvent] = []
    for number, query in enumerate(asked):
        ranking = [lists[query][place] for place in order[number] if place < len(lists[query])]
        query_id = f"{application}-simulated-{seed}-{number:06d}"
        asked_at = end - timedelta(days=days) + timedelta(seconds=float(moments[number]))
        queries.append(
            UbiQuery(
                query_id=query_id,
                user_query=texts[query],
                timestamp=asked_at,
                application=application,
                query_response_hit_ids=tuple(object_id for object_id, _ in ranking),
                query_response_scores=tuple(float(score) for _, score in ranking),
                query_attributes=attributes,
            )
        )
        events.extend(
            UbiEvent(
                event_id=f"{query_id}/{position}",
                action_name="click",
                query_id=query_id,
                timestamp=asked_at + timedelta(seconds=float(delays[number, position])),
                application=application,
                object_id=ranking[position][0],
                position_ordinal=int(position) + 1,
                user_query=texts[query],
                event_attributes={"simulated": True},
            )
            for position in np.flatnonzero(clicked[number])
        )
    return Replay(queries, events)


def _shown_order(
    rng: np.random.Generator, asked: NDArray[np.int64], lengths: list[int], width: int, shuffled_share: float
) -> NDArray[np.int64]:
    """Return, per session, which place of the ranking stands at each position; places past a list's end stay last."""
    keys = np.tile(np.arange(width, dtype=np.float64), (len(asked), 1))
    shuffled = rng.random(len(asked)) < shuffled_share
    keys[shuffled] = rng.random((int(shuffled.sum()), width))
    keys[np.arange(width) >= np.asarray(lengths)[asked][:, None]] = np.inf
    return np.argsort(keys, axis=1, kind="stable")
