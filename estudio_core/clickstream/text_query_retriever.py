"""Queries that are a text."""

from __future__ import annotations

from estudio_core.clickstream.query_retriever import QueryItem, QueryRetriever


class TextQueryItem(QueryItem):
    """A query in words."""

    text: str


class TextQueryRetriever(QueryRetriever):
    """Reads `"usb charger"`, `{"text": "usb charger"}` and `TextQueryItem(text="usb charger")` alike.

    >>> TextQueryRetriever()({"text": " usb   charger "})
    'usb charger'
    >>> TextQueryRetriever().get_id("usb charger")
    'e774926cd58072d4a372'
    """

    def get_model_class(self) -> type[TextQueryItem]:
        """Return `TextQueryItem`."""
        return TextQueryItem

    def _convert_query(self, query: QueryItem) -> str:
        assert isinstance(query, TextQueryItem)
        return query.text
