"""What a collection holds: an object with the vectors of its parts, checked before it reaches SQL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estudio_core import exact_json
from estudio_core.errors import DimensionError, ItemError
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo, VectorStorage

HALF_MAX = 65504.0
"""Largest finite half-precision number."""
ID_LIMIT = 1_200
"""Bytes of the id of an object or a user: an entry of PostgreSQL's B-tree, which may hold both, has 2,704."""
PAYLOAD_LIMIT = 16_000_000
"""Characters of an object's payload: every search that finds it fetches all of them."""
TEXT_LIMIT = 200_000
"""Bytes of an object's text, or of a text in a payload, whose words are read: PostgreSQL keeps 1 MB of words and places
of one text, which are up to four times as long (part numbers are kept whole, in parts and by their exact form)."""
TITLE_LIMIT = 20_000
"""Bytes of a title whose words count more."""

# Made once: json.dumps builds an encoder for each call with options, and a sync hashes every row.
_IN_ORDER = json.JSONEncoder(ensure_ascii=False, default=lambda value: _hashed(value))
_SORTED = json.JSONEncoder(sort_keys=True, default=lambda value: _hashed(value))
_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_BETWEEN = ', "\\u0000", '


@dataclass(frozen=True, eq=False)
class IndexedObject:
    """One object of a collection.

    Attributes:
        object_id: Its id in the collection.
        payload: JSON object to filter and sort by. None is for personal rows: they take the original's payload.
        content_hash: Hash of what the vectors were computed from (text, splitter, model).
        vectors: Part vectors, shape [parts, dimensions].
        user_id: The user who alone sees this row in place of `original_id`; None for everybody's rows.
        original_id: The object that a personal row replaces.
        text: What full-text search sees; its first `TEXT_LIMIT` bytes.
        source_hash: `source_hash` of the row that the object comes from; None where that has none.
    """

    object_id: str
    payload: dict[str, Any] | None
    content_hash: str
    vectors: NDArray[np.floating[Any]]
    user_id: str | None = None
    original_id: str | None = None
    text: str = ""
    source_hash: str | None = None


@dataclass(frozen=True)
class KeptObject:
    """An object of everybody's whose stored vectors stay, because they come from the content with this hash."""

    object_id: str
    payload: dict[str, Any]
    content_hash: str
    source_hash: str | None = None


def _hashed(value: Any) -> str:
    """Return what stands for a number that is no float in a hash: no other value gives it."""
    if isinstance(value, Decimal):
        return f"\x00{value}"
    raise TypeError(type(value).__name__)


def source_hash(data: Any, payload: dict[str, Any] | None) -> str | None:
    """Return the hash of a row of the item source: of all that its object is made from, before anything is made.

    Two rows with equal hashes give the same object, so that unchanged rows need not be split, let alone embedded.
    None where `data` is nothing that JSON has.

    The order of fields counts in `data`, whose text depends on it, and not in `payload`.

    >>> source_hash({"a": "x", "b": 1}, {"n": 1, "m": 2}) == source_hash({"a": "x", "b": 1}, {"m": 2, "n": 1})
    True
    >>> source_hash({"a": "x", "b": 1}, {}) == source_hash({"b": 1, "a": "x"}, {})
    False
    """
    try:
        content = _IN_ORDER.encode(data) + "\x1e" + _SORTED.encode(payload or {})
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return None


def payload_jsons(objects: Sequence[IndexedObject]) -> list[str | None]:
    """Return `payload_json` of each object, all encoded at once: a call of the encoder costs as much as a payload.

    Raises:
        ItemError: as `payload_json`, for the first object concerned.
    """
    if all(isinstance(obj.payload, dict) or obj.payload is None for obj in objects):
        # Behind each payload stands a text that none of them may hold.
        parted = [part for obj in objects for part in (obj.payload, "\x00")]
        try:
            together = _STRICT.encode(parted)[1:-1] + ", "
        except (TypeError, ValueError, RecursionError):
            together = ""
        *texts, _ = together.split(_BETWEEN)
        if len(texts) == len(objects) and together.count("\\u0000") == len(objects) and encodable(together):
            return [None if text == "null" else text for text in texts]
    return [payload_json(obj) for obj in objects]


def check_text(value: str, what: str, object_id: str) -> None:
    """Refuse text that PostgreSQL cannot store: the character NUL and lone surrogates.

    Raises:
        ItemError: `value` holds one.
    """
    if "\x00" in value or not encodable(value):
        raise ItemError(f"{what} {value!r} of object {object_id!r} cannot be stored as UTF-8 text.", [object_id])


def check_id(value: str, what: str, object_id: str) -> None:
    """Refuse an id that is empty, or that PostgreSQL cannot store or index.

    Raises:
        ItemError: it is empty, holds what `check_text` refuses, or is longer than `ID_LIMIT`.
    """
    if not value:
        raise ItemError(
            f"{what} of object {object_id!r} is empty." if object_id else "An object has an empty id.", [object_id]
        )
    check_text(value, what, object_id)
    if len(value.encode()) > ID_LIMIT:
        of = "" if value == object_id else f" of object {object_id!r}"
        raise ItemError(
            f"{what} {value[:40]!r}…{of} has {len(value.encode()):,} bytes; at most {ID_LIMIT:,} can be indexed.",
            [object_id],
        )


def encodable(value: str) -> bool:
    """Return whether `value` can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_payload(payload: Any, object_id: str) -> None:
    """Refuse a payload that would not come back as it is, before anything is made of its item.

    Raises:
        ItemError: as `payload_json`, and where a key is no text, a number has thousands of digits, or lists and objects
            are nested deeper than they can be read.
    """
    try:
        if not isinstance(payload, dict | None):
            raise ValueError(f"is {type(payload).__name__}, no JSON object")
        exact_json.check(payload)
    except ValueError as error:
        raise ItemError(f"The payload of object {object_id!r} {error}.", [object_id]) from error
    text = payload_json(KeptObject(object_id, payload or {}, ""))
    if text is not None and len(text) > PAYLOAD_LIMIT:
        raise ItemError(
            f"The payload of object {object_id!r} has {len(text):,} characters; at most {PAYLOAD_LIMIT:,} are stored.",
            [object_id],
        )


def payload_json(obj: IndexedObject | KeptObject) -> str | None:
    """Return the payload as JSON text.

    Raises:
        ItemError: it is not a JSON object, holds NaN or infinity, or a character that PostgreSQL cannot store.
    """
    if obj.payload is None:
        return None
    try:
        text = exact_json.dumps(obj.payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise ItemError(f"The payload of object {obj.object_id!r} is no JSON: {error}.", [obj.object_id]) from error
    if (
        not isinstance(obj.payload, dict)
        or ("\\u0000" in text and "\\u0000" in text.replace("\\\\", ""))
        or not encodable(text)
    ):
        raise ItemError(
            f"The payload of object {obj.object_id!r} has to be a JSON object of storable text.", [obj.object_id]
        )
    return text


def words_of(text: str) -> str:
    """Return the beginning of an object's text whose words are read, at most `TEXT_LIMIT` bytes.

    >>> len(words_of("ж" * 200_000))
    100000
    """
    if len(text) * 4 <= TEXT_LIMIT:
        return text
    return text[:TEXT_LIMIT].encode()[:TEXT_LIMIT].decode(errors="ignore")


def check_object(obj: IndexedObject, info: SearchIndexInfo) -> None:
    """Refuse an object that cannot be stored, by itself: found by a whole batch it would take that along.

    Raises:
        DimensionError, ItemError: as `checked_vectors`, `average_vector` and `check_title`.
    """
    vectors = checked_vectors(obj, info)
    if info.metric_aggregation_type == MetricAggregationType.AVG:
        average_vector(vectors, obj.object_id, info)
    check_title(obj, info)


def check_title(obj: IndexedObject | KeptObject, info: SearchIndexInfo) -> None:
    """Refuse an object whose title is too long for its words to be read.

    Raises:
        ItemError: it is.
    """
    title = (obj.payload or {}).get(info.lexical.title) if info.lexical and info.lexical.title else None
    length = 0 if title is None else len((title if isinstance(title, str) else exact_json.dumps(title)).encode())
    if length > TITLE_LIMIT:
        raise ItemError(
            f"The title of object {obj.object_id!r} has {length:,} bytes; words of {TITLE_LIMIT:,} can be read.",
            [obj.object_id],
        )


def checked_vectors(obj: IndexedObject, info: SearchIndexInfo) -> NDArray[np.float32]:
    """Return the part vectors as float32 [parts, dimensions], fit for the index.

    Raises:
        DimensionError: the shape is not [parts, dimensions].
        ItemError: there is no part, or a vector is zero or not finite (an index would drop it silently).
    """
    vectors = np.asarray(obj.vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != info.dimensions:
        raise DimensionError(
            f"Object {obj.object_id!r} has vectors of shape {vectors.shape}; "
            f"expected [parts, {info.dimensions}]. Embed it with the model of this collection."
        )
    if len(vectors) == 0:
        raise ItemError(f"Object {obj.object_id!r} has no part.", [obj.object_id])
    _check_values(vectors, obj.object_id, info)
    return vectors


def values_fit(vectors: NDArray[np.float32], info: SearchIndexInfo) -> bool:
    """Return whether all rows of `vectors` [rows, dimensions] are finite and not zero in the index's precision."""
    if info.vector_type == VectorStorage.VECTOR:
        squares = np.einsum("ij,ij->i", vectors, vectors)  # in one pass; beyond these bounds it says nothing
        if np.all((squares > np.finfo(np.float32).tiny) & (squares <= np.finfo(np.float32).max)):
            return True
    largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
    smallest, limit = _bounds(info)
    return bool(np.all((largest > smallest) & (largest <= limit)))  # NaN compares false


def _bounds(info: SearchIndexInfo) -> tuple[float, float]:
    if info.vector_type == VectorStorage.HALFVEC:
        return float(np.finfo(np.float16).tiny), HALF_MAX
    return 0.0, float(np.finfo(np.float32).max)


def _check_values(vectors: NDArray[np.float32], object_id: str, info: SearchIndexInfo) -> None:
    if values_fit(vectors, info):
        return
    largest = np.abs(vectors).max(axis=1)
    if not np.all(largest <= _bounds(info)[1]):  # NaN compares false
        raise ItemError(f"Object {object_id!r} has a vector that is not finite in the index's precision.", [object_id])
    raise ItemError(f"Object {object_id!r} has a zero vector, which no index finds.", [object_id])


def average_vector(vectors: NDArray[np.float32], object_id: str, info: SearchIndexInfo) -> NDArray[np.float32]:
    """Return the mean of the part vectors [parts, dim] as [dim], normalised again for COSINE.

    Raises:
        ItemError: the parts cancel each other out.

    >>> info = SearchIndexInfo(dimensions=2)
    >>> average_vector(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), "a", info)
    array([0.70710677, 0.70710677], dtype=float32)
    """
    rows = vectors.astype(np.float64)
    mean = rows.mean(axis=0)
    if info.metric_type == MetricType.COSINE:
        norm = float(np.linalg.norm(mean))
        if norm < 1e-6 * float(np.abs(rows).max()):
            raise ItemError(f"The parts of object {object_id!r} cancel each other out: no average.", [object_id])
        mean = mean / norm
    result: NDArray[np.float32] = mean.astype(np.float32)
    _check_values(result[None, :], object_id, info)
    return result


def check_ids(objects: Iterable[IndexedObject], seen: set[str]) -> None:
    """Refuse ids that are empty, not storable, or already in `seen`; add them to it.

    Raises:
        ItemError: with the ids concerned.
    """
    for obj in objects:
        for name in ("object_id", "user_id", "original_id"):
            value = getattr(obj, name)
            if value is not None:
                check_id(value, name, obj.object_id)
        for name in ("content_hash", "text"):
            check_text(getattr(obj, name), name, obj.object_id)
        if obj.object_id in seen:
            raise ItemError(f"Object {obj.object_id!r} comes twice in one batch.", [obj.object_id])
        personal = obj.user_id is not None
        if personal != (obj.original_id is not None) or (personal and obj.original_id == obj.object_id):
            raise ItemError(
                f"Object {obj.object_id!r}: a personal row needs user_id and the original_id of another object.",
                [obj.object_id],
            )
        if obj.payload is None and not personal:
            raise ItemError(f"Object {obj.object_id!r} has no payload; give {{}} for an empty one.", [obj.object_id])
        seen.add(obj.object_id)
