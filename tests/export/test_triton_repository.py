from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from estudio_core.errors import ExportError, RepositoryError
from estudio_core.export import triton_repository
from estudio_core.export.triton_repository import (
    ExportOptions,
    list_entries,
    model_digest,
    publish_entry,
    read_entry,
    remove_entry,
)
from estudio_core.inference import staging
from estudio_core.inference.manifest import entry_name, read_manifest, read_verified
from estudio_core.inference.onnx_embedder import OnnxEmbedder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "triton_repo"


@pytest.fixture
def published(small_model, repository):
    model = small_model(seed=1)
    return model, publish_entry(repository, "shop_v1", model, {"run_id": "abc"})


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def test_an_entry_has_what_triton_and_clients_need(published, repository):
    model, manifest = published
    entry = repository / "shop_v1"
    assert {"config.pbtxt", "tokenizer.json", "manifest.json", "1", "torch"} == {p.name for p in entry.iterdir()}
    assert (manifest.plugin, manifest.version, manifest.dimensions, manifest.max_length) == ("shop", "1", 32, 48)
    assert manifest.extra == {"run_id": "abc"}
    assert manifest.length_buckets == [16, 32, 48]
    assert set(manifest.files) == {
        p.relative_to(entry).as_posix() for p in entry.rglob("*") if p.is_file() and p.name != "manifest.json"
    }
    assert read_entry(repository, "shop_v1") == manifest
    golden = manifest.golden
    np.testing.assert_allclose(golden.item_vectors, model.encode_items(golden.texts).numpy(), atol=1e-5)


def test_the_config_says_what_triton_has_to_know(published, repository):
    config = (repository / "shop_v1" / "config.pbtxt").read_text()
    for wanted in (
        'name: "shop_v1"',
        'backend: "onnxruntime"',
        "max_batch_size: 64",
        "dims: [ 32 ]",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        "version_policy { specific { versions: [ 1 ] } }",
        "dynamic_batching",
        "model_warmup",
    ):
        assert wanted in config
    assert config.count("{") == config.count("}")


def test_publishing_again_changes_nothing(published, small_model, repository):
    _, manifest = published
    before = snapshot(repository)
    assert publish_entry(repository, "shop_v1", small_model(seed=1), {"run_id": "later"}) == manifest
    assert snapshot(repository) == before


def test_a_name_is_written_once(published, small_model, repository):
    before = snapshot(repository)
    with pytest.raises(RepositoryError, match="already holds another model"):
        publish_entry(repository, "shop_v1", small_model(seed=2))
    assert snapshot(repository) == before


def test_the_digest_depends_on_everything_that_decides_a_vector(small_model):
    base = model_digest(small_model(seed=1))
    assert base == model_digest(small_model(seed=1))
    other = small_model(seed=1)
    other.query_prefix = "query: "
    assert (
        len({base, model_digest(other), model_digest(small_model(seed=2)), model_digest(small_model(1), "int8")}) == 4
    )


def test_the_digest_does_not_depend_on_how_the_tokenizer_was_used_last(small_model):
    model = small_model(seed=1)
    base = model_digest(model)
    model.tokenizer(["some text"], truncation=True, padding="max_length", max_length=9)
    assert model_digest(model) == base


@pytest.mark.parametrize("name", ["shop", "shop_v", "shop_vx", "../shop_v1", "1shop_v1", "shop_v1/x", ""])
def test_names_that_are_no_entry_names_are_refused(name, small_model, repository):
    with pytest.raises(RepositoryError, match="<plugin>_v<version>"):
        publish_entry(repository, name, small_model())
    with pytest.raises(RepositoryError, match="<plugin>_v<version>"):
        remove_entry(repository, name)
    assert not repository.exists()


@pytest.mark.parametrize("file", ["1/model.onnx", "tokenizer.json", "config.pbtxt", "torch/model.safetensors"])
def test_a_damaged_file_is_named_and_a_rerun_mends_the_entry(file, published, repository):
    model, manifest = published
    path = repository / "shop_v1" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(RepositoryError, match=re.escape(f"{path} is corrupt")):
        read_entry(repository, "shop_v1")
    assert publish_entry(repository, "shop_v1", model).digest == manifest.digest
    read_entry(repository, "shop_v1")


def test_a_missing_file_and_a_missing_entry_are_named(published, repository):
    (repository / "shop_v1" / "tokenizer.json").unlink()
    with pytest.raises(RepositoryError, match=r"tokenizer\.json cannot be read"):
        read_entry(repository, "shop_v1")
    with pytest.raises(RepositoryError, match="has no entry 'shop_v7'"):
        read_entry(repository, "shop_v7")


def test_a_cut_manifest_is_an_error_and_hides_no_other_entry(published, small_model, repository):
    publish_entry(repository, "shop_v2", small_model(seed=2))
    path = repository / "shop_v2" / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(RepositoryError, match=r"manifest\.json is missing or unreadable"):
        read_entry(repository, "shop_v2")
    assert [entry.name for entry in list_entries(repository)] == ["shop_v1"]
    publish_entry(repository, "shop_v2", small_model(seed=2))
    assert [entry.name for entry in list_entries(repository)] == ["shop_v1", "shop_v2"]


def test_a_renamed_entry_is_refused(published, repository):
    (repository / "shop_v1").rename(repository / "shop_v9")
    with pytest.raises(RepositoryError, match="belongs to 'shop_v1'"):
        read_manifest(repository / "shop_v9")


def test_entries_are_listed_by_plugin_and_number(small_model, repository):
    for number in (10, 9):
        publish_entry(repository, entry_name("shop", number), small_model(), options=ExportOptions(include_torch=False))
    (repository / "README.md").write_text("not an entry")
    (repository / "other_vx").mkdir()
    assert [entry.name for entry in list_entries(repository)] == ["shop_v9", "shop_v10"]
    assert list_entries(repository / "nowhere") == []


def test_a_repository_that_nothing_can_be_renamed_into_has_its_work_folder_inside(tmp_path, monkeypatch):
    def two_mounts_of_one_disk(self, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    (tmp_path / "apart").mkdir()
    (tmp_path / "together").mkdir()
    assert staging.work_folder(tmp_path / "together") == tmp_path / ".together.work"
    monkeypatch.setattr(Path, "rename", two_mounts_of_one_disk)
    assert staging.work_folder(tmp_path / "apart") == tmp_path / "apart" / ".work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apart", "together"]


def test_removing_takes_the_whole_entry_and_nothing_else(published, small_model, repository):
    publish_entry(repository, "shop_v10", small_model())
    assert remove_entry(repository, "shop_v1")
    assert not remove_entry(repository, "shop_v1")
    assert [p.name for p in repository.iterdir()] == ["shop_v10"]
    assert [p for p in staging.work_folder(repository).iterdir() if p.is_dir()] == []


def test_a_failed_parity_check_publishes_nothing(small_model, repository, monkeypatch):
    from estudio_core.export import parity

    impossible = {"fp32": parity.Tolerance(max_abs_difference=0.0, min_cosine=1.5)}
    monkeypatch.setattr(parity, "TOLERANCES", impossible)
    with pytest.raises(ExportError, match="Nothing was published"):
        publish_entry(repository, "shop_v1", small_model())
    assert list(repository.iterdir()) == []
    assert [p for p in staging.work_folder(repository).iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_other_precisions_are_in_the_manifest_with_their_parity(precision, small_model, repository):
    manifest = publish_entry(repository, "shop_v1", small_model(), options=ExportOptions(precision=precision))
    assert manifest.precision == precision
    assert 0.9 < manifest.parity.min_cosine < 1.0
    assert {name for name in manifest.files if name.startswith("1/")} == {"1/model.onnx"}


def _forked(target: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
    """Start `target` in a copy of this process, which has torch and the model in memory already."""
    process = multiprocessing.get_context("fork").Process(target=_single_threaded, args=(target, *args))
    process.start()
    return process


def _single_threaded(target: Callable[..., None], *args: Any) -> None:
    torch.set_num_threads(1)  # the parent's OpenMP threads do not exist in a forked process
    target(*args)


def _publish_and_die(repository: Path, model: Any) -> None:
    # With the entry half written: after the graph, before the manifest.
    triton_repository.check_parity = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    publish_entry(repository, "shop_v1", model)


def test_a_killed_publication_leaves_nothing_that_a_rerun_does_not_clean(small_model, repository):
    process = _forked(_publish_and_die, repository, small_model(seed=1))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list(repository.iterdir()) == [], "nothing half written where Triton looks"
    left = [p for p in staging.work_folder(repository).iterdir() if p.is_dir()]
    assert len(left) == 1
    assert (left[0] / "1" / "model.onnx").exists()
    publish_entry(repository, "shop_v1", small_model(seed=1))
    read_entry(repository, "shop_v1")
    assert [p for p in staging.work_folder(repository).iterdir() if p.is_dir()] == []


def _publish_with_file_size_limit(repository: Path, model: Any, said: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        publish_entry(repository, "shop_v1", model)
    except RepositoryError as error:
        said.write_text(str(error))


def test_a_write_that_fails_in_the_middle_is_named_and_leaves_nothing(small_model, repository, tmp_path):
    said = tmp_path / "said"
    _forked(_publish_with_file_size_limit, repository, small_model(seed=1), said).join(60)
    assert "Cannot write to" in said.read_text()
    assert str(repository.parent) in said.read_text()
    assert "ESTUDIO_TRITON_REPOSITORY" in said.read_text()
    assert list(repository.iterdir()) == []
    assert [p for p in staging.work_folder(repository).iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "may not write"), (errno.EROFS, "read-only")],
)
def test_errors_of_the_file_system_say_what_to_do(number, reason, tmp_path):
    with (
        pytest.raises(RepositoryError, match=rf"Cannot write to {tmp_path}/x: .*{reason}.*ESTUDIO_TRITON_REPOSITORY"),
        staging.repository_errors(tmp_path),
    ):
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))


def test_too_little_space_is_noticed_before_work_begins(small_model, repository, tmp_path):
    with pytest.raises(RepositoryError, match=r"MB left, publishing needs"):
        staging.require_space(tmp_path, 10**18)


def test_a_repository_that_cannot_be_written_is_named(small_model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RepositoryError, match=r"Cannot write to .*file.*ESTUDIO_TRITON_REPOSITORY"):
        publish_entry(tmp_path / "file" / "repo", "shop_v1", small_model())


def _publish(repository: Path, model: Any, said: Path) -> None:
    said.write_text(publish_entry(repository, "shop_v1", model).created_at.isoformat())


def test_two_processes_that_publish_the_same_model_end_with_one_sound_entry(small_model, repository, tmp_path):
    said = [tmp_path / "first", tmp_path / "second"]
    processes = [_forked(_publish, repository, small_model(seed=1), path) for path in said]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert said[0].read_text() == said[1].read_text(), "the second found what the first had published"
    read_entry(repository, "shop_v1")


def _hold(work: Path, ready: Any) -> None:
    with staging.only_writer(work, "shop_v1"):
        ready.set()
        signal.pause()


def test_a_writer_waits_for_the_lock_only_so_long_and_a_killed_holder_frees_it(tmp_path):
    work = staging.prepare(tmp_path / "repo")
    ready = multiprocessing.get_context("fork").Event()
    holder = _forked(_hold, work, ready)
    assert ready.wait(20)
    with (
        pytest.raises(RepositoryError, match="Another process has been writing"),
        staging.only_writer(work, "shop_v1", timeout_s=0.1),
    ):
        pass
    with staging.only_writer(work, "shop_v2", timeout_s=0.1):
        pass  # other names do not wait
    holder.kill()
    holder.join()
    with staging.only_writer(work, "shop_v1", timeout_s=5):
        pass


def test_e5_prefixes_reach_the_entry(small_model, repository):
    model = small_model(family="e5")
    manifest = publish_entry(repository, "shop_v1", model)
    assert (manifest.family, manifest.query_prefix, manifest.item_prefix) == ("e5", "query: ", "passage: ")
    embedder = OnnxEmbedder(repository / "shop_v1")
    texts = ["usb c charger", "x" * 900, ""]
    np.testing.assert_allclose(embedder.embed_queries(texts), model.encode_queries(texts).numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_items(texts), model.encode_items(texts).numpy(), atol=1e-5)
    assert np.abs(embedder.embed_items(texts) - embedder.embed_queries(texts)).max() > 1e-3


def test_the_manifest_is_plain_json(published, repository):
    content = json.loads((repository / "shop_v1" / "manifest.json").read_text())
    assert content["golden"]["min_cosine"] == 0.999
    assert read_verified(repository / "shop_v1").model_dump(mode="json", exclude_none=True) == content
