from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.model_registry import folder_digest


@pytest.fixture
def run_id(manager: ExperimentsManager) -> str:
    return manager.start_iteration("run-1").run_id


@pytest.fixture
def three_versions(
    manager: ExperimentsManager, run_id: str, tmp_path: Path, write_model: Callable[[Path, str], Path]
) -> list[int]:
    return [manager.register_model(write_model(tmp_path / name, name), run_id) for name in ("a", "b", "c")]


def test_the_base_model_is_registered_once(manager: ExperimentsManager, model_folder: Path) -> None:
    assert manager.upload_initial_folder(model_folder) == 1
    assert manager.upload_initial_folder(model_folder) == 1
    assert manager.aliases() == {"base": 1}
    assert list(manager.registry.versions()) == [1]


def test_another_base_model_becomes_a_version_of_its_own(
    manager: ExperimentsManager, model_folder: Path, tmp_path: Path, write_model: Callable[[Path, str], Path]
) -> None:
    manager.upload_initial_folder(model_folder)
    assert manager.upload_initial_folder(write_model(tmp_path / "other", "second")) == 2
    assert manager.aliases() == {"base": 2}


def test_registering_makes_a_challenger_and_the_same_content_makes_no_second_version(
    manager: ExperimentsManager,
    run_id: str,
    model_folder: Path,
    tmp_path: Path,
    write_model: Callable[[Path, str], Path],
) -> None:
    first = manager.register_model(model_folder, run_id, tags={"dataset_id": "d1"}, metrics={"test_ndcg@10": 0.7})
    again = manager.register_model(write_model(tmp_path / "copy", "first"), run_id)
    assert (first, again) == (1, 1)
    assert manager.aliases() == {"challenger": 1}
    version = manager.registry.versions()[1]
    assert version.tags["dataset_id"] == "d1"
    assert version.run_id == run_id
    assert manager.registry.audit_trail()[0].numbers == {"test_ndcg@10": 0.7}


def test_nothing_in_the_store_is_a_pickle(
    manager: ExperimentsManager, run_id: str, model_folder: Path, home: Path
) -> None:
    manager.register_model(model_folder, run_id)
    stored = sorted(path.name for path in (home / "mlartifacts").rglob("*") if path.is_file())
    assert stored == ["model.safetensors", "tokenizer.json"]


def test_an_upload_that_was_killed_is_completed_by_the_next(
    manager: ExperimentsManager, run_id: str, model_folder: Path
) -> None:
    client = manager.wrapper.client
    experiment_id = client.get_run(run_id).info.experiment_id
    left = client.create_logged_model(
        experiment_id, "shop", source_run_id=run_id, tags={"estudio.digest": folder_digest(model_folder)}
    )
    assert manager.register_model(model_folder, run_id) == 1
    models = client.search_logged_models([experiment_id])
    assert [(model.model_id, str(model.status)) for model in models] == [(left.model_id, "READY")]
    assert folder_digest(manager.download_model(1)) == folder_digest(model_folder)


def test_an_empty_folder_is_no_model(manager: ExperimentsManager, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in"):
        manager.register_model(tmp_path / "missing", run_id)


def test_promotion_moves_champion_and_previous_and_ends_the_challenge(
    manager: ExperimentsManager, three_versions: list[int]
) -> None:
    a, b, c = three_versions
    assert manager.promote(a, "first release", "ana") is None
    assert manager.promote("challenger", "gain 0.02", "gate", {"gain": 0.02}) == a
    assert manager.aliases() == {"champion": c, "previous": a}
    assert manager.promote(c, "once more", "gate") == a
    assert manager.aliases() == {"champion": c, "previous": a}
    assert manager.promote(b, "better", "ben") == c
    assert manager.aliases() == {"champion": b, "previous": c}


def test_every_move_is_in_the_audit_trail(manager: ExperimentsManager, three_versions: list[int]) -> None:
    a, _, c = three_versions
    manager.promote(a, "first release", "ana")
    manager.promote(c, "gain 0.02", "gate", {"gain": 0.02})
    moves = [entry for entry in manager.registry.audit_trail() if entry.alias == "champion"]
    assert [(move.from_version, move.to_version, move.actor, move.reason, move.numbers) for move in moves] == [
        (None, a, "ana", "first release", {}),
        (a, c, "gate", "gain 0.02", {"gain": 0.02}),
    ]
    tags = manager.registry.versions()[c].tags
    assert tags["estudio.champion"] == "promote: gain 0.02"
    assert tags["estudio.champion.by"].startswith("gate, 20")


def test_a_promotion_that_was_killed_before_its_last_step_is_completed_without_a_second_entry(
    manager: ExperimentsManager, three_versions: list[int]
) -> None:
    a, b, _ = three_versions
    manager.promote(a, "first", "ana")
    client = manager.wrapper.client
    client.set_registered_model_alias("shop", "previous", str(a))
    manager.registry.record(
        "promote", alias="champion", from_version=a, to_version=b, actor="gate", reason="gain", numbers={}
    )
    manager.promote(b, "gain", "gate")
    assert {alias: manager.aliases()[alias] for alias in ("champion", "previous")} == {"champion": b, "previous": a}
    assert [entry.to_version for entry in manager.registry.audit_trail() if entry.alias == "champion"] == [a, b]


def test_an_alias_set_in_mlflow_by_a_person_is_seen(manager: ExperimentsManager, three_versions: list[int]) -> None:
    a, _, _ = three_versions
    manager.wrapper.client.set_registered_model_alias("shop", "champion", str(a))
    assert manager.registry.resolve("champion") == a
    assert manager.promote(a, "seen", "release") is None


def test_an_alias_can_be_set_back_with_a_reason_and_taken_away(
    manager: ExperimentsManager, three_versions: list[int]
) -> None:
    a, b, _ = three_versions
    manager.promote(b, "gain", "gate")
    manager.set_alias("champion", a, reason="golden queries failed", actor="release")
    manager.registry.delete_alias("challenger", reason="refused", actor="gate")
    manager.registry.delete_alias("challenger", reason="refused", actor="gate")
    assert manager.aliases() == {"champion": a}
    last = manager.registry.audit_trail()[-2:]
    assert [(entry.action, entry.reason) for entry in last] == [
        ("set", "golden queries failed"),
        ("delete", "refused"),
    ]


@pytest.mark.parametrize("wrong", [7, "7", "champion", "0"])
def test_a_version_that_does_not_exist_is_refused_with_what_there_is(
    manager: ExperimentsManager, run_id: str, model_folder: Path, wrong: int | str
) -> None:
    manager.register_model(model_folder, run_id)
    with pytest.raises(ConfigurationError, match=r"no version or alias .*Versions: \[1\]; aliases: .*challenger"):
        manager.download_model(wrong)


def test_an_unregistered_model_says_how_to_register_it(manager: ExperimentsManager) -> None:
    assert manager.aliases() == {}
    with pytest.raises(ConfigurationError, match="initialize"):
        manager.registry.resolve("base")


def test_a_download_is_checked_kept_and_mended(manager: ExperimentsManager, run_id: str, model_folder: Path) -> None:
    manager.register_model(model_folder, run_id)
    folder = manager.download_model("challenger")
    assert folder_digest(folder) == folder_digest(model_folder)
    assert manager.download_model(1) == folder
    (folder / "model.safetensors").write_bytes(b"broken")
    assert folder_digest(manager.download_model(1)) == folder_digest(model_folder)


def test_a_damaged_store_is_reported_and_leaves_no_download(
    manager: ExperimentsManager, run_id: str, model_folder: Path, home: Path
) -> None:
    manager.register_model(model_folder, run_id)
    next((home / "mlartifacts").rglob("model.safetensors")).write_bytes(b"broken")
    with pytest.raises(ModelError, match="not what was registered"):
        manager.download_model(1)
    assert not list((home / "models").rglob("*.safetensors"))
