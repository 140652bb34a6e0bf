"""From what a user asked to what a model encodes."""

from __future__ import annotations

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from estudio_core.errors import DataError

_ID_BYTES = 10
"""80 bits: a collision among a billion distinct queries has a probability below one in a million."""


def normalize_whitespace(text: str) -> str:
    """Return `text` with runs of whitespace made one space, and none at the ends.

    >>> normalize_whitespace("  usb c   charger ")
    'usb c charger'
    """
    return " ".join(text.split())


def query_key(text: str) -> str:
    """Return what two spellings of a query have in common: no difference in case, whitespace, or Unicode's form (NFKC).

    >>> query_key("  USB-C   Straße ")
    'usb-c strasse'
    """
    return unicodedata.normalize("NFKC", normalize_whitespace(unicodedata.normalize("NFKC", text)).casefold())


def fraction_of(key: str, seed: int) -> float:
    """Return the fixed number of a query in [0, 1), uniform over queries and independent between seeds.

    >>> round(fraction_of("usb charger", 42), 4)
    0.928
    """
    digest = hashlib.blake2b(f"{seed}\x1f{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: a float below 1 exactly


class QueryItem(BaseModel):
    """A query as it comes from a session or a search request. Fields that are not declared are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class QueryRetriever(ABC):
    """Turns a query (a text, a dict or a `QueryItem`) into the model's input and an id.

    Subclasses say what a query consists of (`get_model_class`) and how it becomes text (`_convert_query`).
    """

    @abstractmethod
    def get_model_class(self) -> type[QueryItem]:
        """Return the class that describes a query. A bare text becomes its field `text`."""

    @abstractmethod
    def _convert_query(self, query: QueryItem) -> str:
        """Return the text to encode."""

    def _get_id(self, query: QueryItem) -> str:
        """Return a stable id of the query; by default a hash of the text that is encoded."""
        return hashlib.blake2b(self(query).encode(), digest_size=_ID_BYTES).hexdigest()

    def __call__(self, query: object) -> str:
        """Return the text to encode, whitespace normalised.

        Raises:
            DataError: the query is empty, or is not what `get_model_class` describes.
        """
        text = normalize_whitespace(self._convert_query(self.parse(query)))
        if not text:
            raise DataError(f"The query {query!r} is empty. A query needs at least one character that is not a space.")
        return text

    def parse(self, query: object) -> QueryItem:
        """Return `query` as an instance of `get_model_class()`.

        Raises:
            DataError: it is neither a text, nor a dict or item with the fields of that class.
        """
        model_class = self.get_model_class()
        if isinstance(query, model_class):
            return query
        if isinstance(query, str):
            query = {"text": query}
        elif isinstance(query, BaseModel):
            query = query.model_dump()
        if not isinstance(query, Mapping):
            raise DataError(
                f"A query is a text, a dict or a {model_class.__name__}; got {type(query).__name__}: {query!r}."
            )
        try:
            return model_class.model_validate(dict(query))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise DataError(
                f"The query {query!r} does not make a {model_class.__name__}: {problems}. "
                f"Its fields: {', '.join(model_class.model_fields)}."
            ) from error

    def get_id(self, query: object) -> str:
        """Return a short id, the same for the same query in every process."""
        return self._get_id(self.parse(query))
