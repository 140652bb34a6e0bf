"""From sessions to one batch: distinct texts to encode, and who showed, clicked and skipped what."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from estudio_core.clickstream.query_retriever import query_key
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.errors import DataError
from estudio_core.models.aggregation import PartTable
from lightning_modules.config import TrainingConfig
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.pairs import in_batch_negatives
from lightning_modules.text_bank import TextBank

Weights = Mapping[str, Sequence[float]]
"""For a session id, one number per result, in shown order."""


@dataclass(frozen=True)
class SessionBatch:
    """Sessions [s] over the distinct objects [o] of a batch.

    Attributes:
        query_rows: Rows of the distinct query texts, in the text bank.
        part_rows: Rows of the distinct part texts.
        table: Which parts belong to which object; indices into `part_rows`.
        session_query: int64 [s], index into `query_rows`.
        clicked: bool [s, o]; what the session drew, or others of its clicks that another session of the batch drew.
        negatives: bool [s, o], shown and not clicked (drawn likewise), or of a click-less session of the query.
        batch_negatives: bool [s, o], objects that other sessions of the batch brought.
        rejected: bool [s, o], what click-less sessions of the query showed, where they are trained on; not what was
            clicked for it.
        click_weight: float [s, o], importance of the click times its propensity weight.
        confidence: float [s, o], confidence of a click or skip; for what other sessions of the query showed, the mean
            of theirs; 1 where nothing is known.
        lexical: float [s, o], what words add to the similarity; 0 where the dataset has none.
        shown_score: float [s, o], the score with which the session showed the object; NaN where it did not, or without.
    """

    query_rows: list[int]
    part_rows: list[int]
    table: PartTable
    session_query: Tensor
    clicked: Tensor
    negatives: Tensor
    batch_negatives: Tensor
    rejected: Tensor
    click_weight: Tensor
    confidence: Tensor
    lexical: Tensor
    shown_score: Tensor

    def to(self, device: torch.device) -> SessionBatch:
        """Return the batch with its tensors on `device`."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device) if isinstance(value, Tensor) else value
        return SessionBatch(**moved)


class BatchBuilder:
    """Builds training batches; sampling depends on seed, epoch and session only.

    Args:
        bank: Texts of the fit.
        sessions: All training sessions; those without clicks give extra negatives where the configuration says so.
        config: Sampling, caps and negatives.
        click_propensity: Weight of each click of a session, e.g. clipped inverse propensity; absent: 1.
        confidences: Confidence of each click or skip; absent: 1.
        lexical: What words add to similarities; None: nothing.

    Raises:
        DataError: weights of a session are not as many as its results, below 0, or not finite.
    """

    def __init__(
        self,
        bank: TextBank,
        sessions: Sequence[FineTuningInput],
        config: TrainingConfig,
        click_propensity: Weights | None = None,
        confidences: Weights | None = None,
        lexical: LexicalScores | None = None,
    ) -> None:
        self._bank = bank
        self._lexical = lexical
        self._config = config
        self._propensity = click_propensity or {}
        self._confidences = confidences or {}
        self.mined: Mapping[str, Sequence[str]] = {}
        """For a query, objects to add to its batches as negatives that other sessions might have brought."""
        self.shown_for_query: dict[str, set[str]] = {}
        """For each spelling of a query, objects that a session of any spelling showed, and those of a clicked text."""
        self._clicked: dict[str, set[str]] = {}
        self._rejected: dict[str, dict[str, None]] = {}
        shown: dict[str, set[str]] = {}
        for session in sessions:
            self._clicked.setdefault(session.query_key, set()).update(session.events)
            self.shown_for_query[session.query] = shown.setdefault(session.query_key, set())
            shown[session.query_key].update(session.results)
            if session.is_clickless and session.by_relevance:
                self._rejected.setdefault(session.query_key, {}).update(dict.fromkeys(session.results))
            for name, given in (("click_propensity", self._propensity), ("confidences", self._confidences)):
                if session.session_id in given:
                    _check_weights(name, session, given[session.session_id])
        self._same_text = _of_same_text(bank)
        for key, clicked in self._clicked.items():
            clicked.update([twin for object_id in clicked for twin in self._same_text.get(object_id, ())])
            shown[key].update(clicked)
        self._doubt = _mean_confidences(sessions, self._confidences)

    def build(self, sessions: Sequence[FineTuningInput], epoch: int) -> SessionBatch:
        """Return the batch of `sessions`, sampled for `epoch`."""
        draws = [self._sample(session, epoch) for session in sessions]
        columns: dict[str, int] = {}
        for session, chosen in zip(sessions, draws, strict=True):
            for object_id in (*chosen.positives, *chosen.negatives, *self.mined.get(session.query, ())):
                columns.setdefault(object_id, len(columns))
        queries: dict[int, int] = {}
        shape = (len(sessions), len(columns))
        clicked, negatives, shown, clicked_for_query, rejected = (np.zeros(shape, dtype=bool) for _ in range(5))
        click_weight, confidence = (np.ones(shape, dtype=np.float32) for _ in range(2))
        shown_score = np.full(shape, np.nan, dtype=np.float32)
        session_query = np.empty(len(sessions), dtype=np.int64)
        for row, (session, chosen) in enumerate(zip(sessions, draws, strict=True)):
            session_query[row] = queries.setdefault(self._bank.query(chosen.text), len(queries))
            # Not only what was drawn for the session: other sessions may have brought more of what it showed.
            clicked[row, _columns(columns, session.events)] = True
            negatives[row, _columns(columns, (*chosen.skipped, *chosen.negatives))] = True
            shown[row, _columns(columns, session.results)] = True
            for key in {session.query_key, query_key(chosen.text)}:  # a variant may be another query of the log
                clicked_for_query[row, _columns(columns, self._clicked.get(key, ()))] = True
            rejected[row, _columns(columns, chosen.rejected)] = True
            for object_id, mean in self._doubt.get(session.query_key, {}).items():
                if object_id in columns:
                    confidence[row, columns[object_id]] = mean
            here = [(i, columns[r]) for i, r in enumerate(session.results) if r in columns]
            propensity = self._propensity.get(session.session_id)
            known = self._confidences.get(session.session_id)
            for i, column in here:
                if session.click_weights[i] > 0:
                    click_weight[row, column] = session.click_weights[i] * (propensity[i] if propensity else 1.0)
                if known is not None:
                    confidence[row, column] = known[i]
                if (score := session.ranks[i]) is not None:
                    shown_score[row, column] = score
        allowed = (
            in_batch_negatives(torch.from_numpy(shown | negatives), torch.from_numpy(clicked_for_query))
            if self._config.in_batch_negatives
            else torch.zeros(shape, dtype=torch.bool)
        )
        part_rows, table = self._parts(columns, np.random.default_rng((self._config.seed, epoch, len(columns))))
        return SessionBatch(
            query_rows=list(queries),
            part_rows=part_rows,
            table=table,
            session_query=torch.from_numpy(session_query),
            clicked=torch.from_numpy(clicked),
            negatives=torch.from_numpy(negatives),
            batch_negatives=allowed,
            rejected=torch.from_numpy(rejected),
            click_weight=torch.from_numpy(click_weight),
            confidence=torch.from_numpy(confidence),
            lexical=self._lexical_of([chosen.text for chosen in draws], list(columns)),
            shown_score=torch.from_numpy(shown_score),
        )

    def _lexical_of(self, texts: list[str], objects: list[str]) -> Tensor:
        return torch.zeros(len(texts), len(objects)) if self._lexical is None else self._lexical(texts, objects)

    def _sample(self, session: FineTuningInput, epoch: int) -> _Draw:
        config = self._config
        rng = np.random.default_rng((config.seed, epoch, zlib.crc32(session.session_id.encode())))
        skipped, rejected = self._skipped(session), self._rejected_for(session)
        thinned = self._thinned(session, skipped)
        negatives = _choose(thinned, config.max_negatives or len(thinned), rng)
        extra = [r for r in rejected if r not in negatives]
        negatives += _choose(extra, config.max_negatives or len(extra), rng)
        positives = _choose(list(session.events), config.max_positives or len(session.events), rng)
        texts = (session.query, *session.query_variants)
        return _Draw(texts[int(rng.integers(len(texts)))], positives, negatives, skipped, rejected)

    def _thinned(self, session: FineTuningInput, skipped: list[str]) -> list[str]:
        """Return the skipped results of which every epoch draws its own: a share of them, the same in all epochs."""
        rng = np.random.default_rng((self._config.seed, zlib.crc32(session.session_id.encode())))
        return _choose(skipped, max(1, round(len(skipped) * self._config.negative_downsampling)), rng)

    def _skipped(self, session: FineTuningInput) -> list[str]:
        """Return what the session showed and nobody clicked in it, whatever id the text has.

        Nothing of a list that was not by relevance: it was not passed over for being worse.
        """
        if not session.by_relevance:
            return []
        twins = {twin for object_id in session.events for twin in self._same_text.get(object_id, ())}
        return [object_id for object_id in session.not_events if object_id not in twins]

    def _rejected_for(self, session: FineTuningInput) -> list[str]:
        """Return what click-less sessions of the query showed and no session clicked; none where they are left out."""
        if self._config.not_irrelevant_only:
            return []
        clicked = self._clicked.get(session.query_key, set())
        return [object_id for object_id in self._rejected.get(session.query_key, ()) if object_id not in clicked]

    def _parts(self, columns: Mapping[str, int], rng: np.random.Generator) -> tuple[list[int], PartTable]:
        """Return the distinct part rows of the objects, one variant of each, and the table over them."""
        rows: dict[int, int] = {}
        table: list[list[int]] = []
        for object_id in columns:
            variants = self._bank.objects[object_id]
            variant = variants[int(rng.integers(len(variants)))] if len(variants) > 1 else variants[0]
            table.append([rows.setdefault(row, len(rows)) for row in variant])
        return list(rows), PartTable.of(table)


@dataclass(frozen=True)
class _Draw:
    """What of a session is used in an epoch, and all that it skipped or click-less sessions of its query showed."""

    text: str
    positives: list[str]
    negatives: list[str]
    skipped: list[str]
    rejected: list[str]


def _check_weights(name: str, session: FineTuningInput, weights: Sequence[float]) -> None:
    if len(weights) != len(session.results):
        raise DataError(
            f"{name} of session {session.session_id!r}: {len(weights)} numbers for {len(session.results)} results; "
            "give one per result, in shown order."
        )
    if not all(0 <= weight < math.inf for weight in weights):
        raise DataError(f"{name} of session {session.session_id!r} are {list(weights)}; legal are finite numbers >= 0.")


def _of_same_text(bank: TextBank) -> dict[str, list[str]]:
    """Return, for objects whose text others have too, all objects of that text: to the model they are one."""
    objects: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for object_id, variants in bank.objects.items():
        objects.setdefault(tuple(map(tuple, variants)), []).append(object_id)
    return {object_id: twins for twins in objects.values() if len(twins) > 1 for object_id in twins}


def _mean_confidences(sessions: Sequence[FineTuningInput], given: Weights) -> dict[str, dict[str, float]]:
    """Return, by query and object, the mean confidence of the skips: an object that nobody looked at is no negative."""
    found: dict[str, dict[str, list[float]]] = {}
    for session in sessions:
        of_query = found.setdefault(session.query_key, {})
        for object_id, weight, value in zip(
            session.results, session.click_weights, given.get(session.session_id, ()), strict=False
        ):
            if weight <= 0:
                of_query.setdefault(object_id, []).append(value)
    return {key: {o: sum(v) / len(v) for o, v in of_query.items()} for key, of_query in found.items()}


def _choose(values: list[str], count: int, rng: np.random.Generator) -> list[str]:
    if len(values) <= count:
        return list(values)
    return [values[i] for i in sorted(rng.choice(len(values), size=count, replace=False).tolist())]


def _columns(columns: Mapping[str, int], ids: Iterable[str]) -> list[int]:
    return [columns[i] for i in ids if i in columns]
