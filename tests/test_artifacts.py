"""Steps' data in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from estudio_core.artifacts import ArtifactStore
from estudio_core.errors import DataError


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    yield ArtifactStore("memory://test-artifacts")
    fsspec.filesystem("memory").store.clear()


def publish(store: ArtifactStore, text: str) -> str:
    with store.publish("shop", "r", "dataset") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "sessions").write_text(text)
    return store.uri("shop", "r", "dataset")


def test_what_is_fetched_to_be_kept_is_found_by_the_next_attempt(store: ArtifactStore, tmp_path: Path) -> None:
    uri = publish(store, "first")
    keep = tmp_path / "trials" / "dataset-1"
    with store.fetch(uri, keep=keep) as folder:
        assert folder == keep
        assert (folder / "sub" / "sessions").read_text() == "first"
    publish(store, "second")  # of another id, and so of another folder
    with store.fetch(uri, keep=keep) as folder:
        assert (folder / "sub" / "sessions").read_text() == "first"


def test_a_download_that_was_cut_off_begins_anew(store: ArtifactStore, tmp_path: Path) -> None:
    uri = publish(store, "whole")
    keep = tmp_path / "dataset-1"
    half = tmp_path / ".dataset-1.staging" / "sub"
    half.mkdir(parents=True)
    (half / "left-over").write_text("ha")
    with store.fetch(uri, keep=keep) as folder:
        assert [file.name for file in folder.rglob("*") if file.name != ".complete"] == ["sub", "sessions"]
    assert [path.name for path in tmp_path.iterdir()] == ["dataset-1"]


def test_what_is_not_kept_is_gone_afterwards(store: ArtifactStore) -> None:
    uri = publish(store, "once")
    with store.fetch(uri) as folder:
        assert (folder / "sub" / "sessions").read_text() == "once"
    assert not folder.exists()


def test_nothing_published_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="Nothing complete is published"),
        store.fetch(store.uri("shop", "r", "dataset"), keep=tmp_path / "kept"),
    ):
        pass
