from __future__ import annotations

import subprocess
import sys

import pytest

from estudio_core.clickstream.query_retriever import QueryItem, QueryRetriever, query_key
from estudio_core.clickstream.text_query_retriever import TextQueryItem, TextQueryRetriever
from estudio_core.errors import DataError


class TitleQuery(QueryItem):
    title: str
    brand: str = ""


class TitleRetriever(QueryRetriever):
    def get_model_class(self) -> type[TitleQuery]:
        return TitleQuery

    def _convert_query(self, query: QueryItem) -> str:
        assert isinstance(query, TitleQuery)
        return f"{query.brand} {query.title}"


@pytest.mark.parametrize(
    "query",
    [
        " usb \n charger ",
        {"text": "usb charger"},
        TextQueryItem(text="usb  charger"),
        {"text": "usb charger", "page": 2},
    ],
)
def test_texts_dicts_and_items_of_the_same_query_are_the_same(query: object) -> None:
    retriever = TextQueryRetriever()
    assert retriever(query) == "usb charger"
    assert retriever.get_id(query) == retriever.get_id("usb charger")


def test_an_item_of_another_class_is_read_by_its_fields() -> None:
    assert TextQueryRetriever()(QueryItem.model_validate({"text": "lamp"})) == "lamp"


@pytest.mark.parametrize("query", ["", " \t\n", {"text": "  "}])
def test_an_empty_query_is_refused(query: object) -> None:
    with pytest.raises(DataError, match="empty"):
        TextQueryRetriever()(query)
    with pytest.raises(DataError, match="empty"):
        TextQueryRetriever().get_id(query)


@pytest.mark.parametrize("query", [None, 7, ["usb"]])
def test_what_is_no_query_is_refused_by_type(query: object) -> None:
    with pytest.raises(DataError, match=f"got {type(query).__name__}"):
        TextQueryRetriever()(query)


def test_a_dict_with_a_wrong_field_is_refused_and_the_right_one_named() -> None:
    with pytest.raises(DataError, match=r"text: Field required.*Its fields: text"):
        TextQueryRetriever()({"txt": "usb"})


def test_ids_are_short_and_equal_in_every_process() -> None:
    code = (
        "from estudio_core.clickstream.text_query_retriever import *; print(TextQueryRetriever().get_id('größe ' * 90))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert TextQueryRetriever().get_id("größe " * 90) == other
    assert len(other) == 20


def test_different_queries_have_different_ids() -> None:
    ids = {TextQueryRetriever().get_id(f"query {i}") for i in range(1000)}
    assert len(ids) == 1000


def test_a_retriever_of_ones_own_reads_its_own_fields() -> None:
    assert TitleRetriever()({"title": "lamp", "brand": "Acme"}) == "Acme lamp"
    with pytest.raises(DataError, match="title: Field required"):
        TitleRetriever()("lamp")


def test_query_retriever_cannot_be_built_without_its_methods() -> None:
    with pytest.raises(TypeError, match="abstract"):
        QueryRetriever()  # type: ignore[abstract]  # that it is abstract is what the test is about


def test_case_and_whitespace_make_no_other_query() -> None:
    assert query_key("USB  Charger ") == query_key("usb charger") != query_key("usb chargers")
    assert query_key("\u00dcber  usb") == query_key("u\u0308ber\u00a0USB") != query_key("uber usb")
