"""Identity of items."""

from __future__ import annotations

import uuid

import pytest
from pydantic import ValidationError

from estudio_core.errors import ItemError
from estudio_core.sources.item_meta import ItemMeta, PgsqlFileMeta


def test_ids_are_strings_whatever_the_key_is() -> None:
    assert PgsqlFileMeta(object_id="1").id == PgsqlFileMeta(object_id=1).id == "1"
    assert PgsqlFileMeta(object_id=uuid.UUID(int=7)).id == "00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize("wrong", [True, 1.0, ["1"]])
def test_other_types_are_no_ids(wrong: object) -> None:
    with pytest.raises(ValidationError):
        PgsqlFileMeta(object_id=wrong)


def test_metas_are_equal_by_id() -> None:
    first = PgsqlFileMeta(object_id="1", payload={"price": 1})
    assert {first, PgsqlFileMeta(object_id=1), ItemMeta(object_id="1"), PgsqlFileMeta(object_id="2")} == {
        first,
        PgsqlFileMeta(object_id="2"),
    }
    assert first != "1"


def test_a_meta_without_an_id_says_so() -> None:
    with pytest.raises(ItemError, match="PgsqlFileMeta has no object_id"):
        _ = PgsqlFileMeta().id
