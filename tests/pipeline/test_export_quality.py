"""Models in fewer bits: what they lose is measured, written down, and refused above the stated bound."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from estudio_core import database
from estudio_core.errors import ExportError
from estudio_core.inference import opening
from estudio_core.inference.golden import cosines
from estudio_core.inference.host import usable_cores
from estudio_core.inference.manifest import BULK_FILE, entry_name, read_verified
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from estudio_core.pipeline.check_source import check_source
from estudio_core.pipeline.evaluation import export_quality
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import live_release
from estudio_core.vectordb.search import find_by_ids
from tests.pipeline.conftest import KINDS, Shop, forget_plugins
from tests.pipeline.steps import release

GRADED = 10


def base_version() -> str:
    check_source("shop")
    return register_base_model("shop", "first", "ana")


def in_int8(shop: Shop, maximum_ndcg_loss: float, judgments: Path | None) -> str:
    """Let the plugin ask for int8; return the version of its base model."""
    judged = f', judgments=lambda: Judgments.from_csv(Path("{judgments}"))' if judgments else ""
    shop.rewrite_plugin(
        "dag=DagSettings",
        f'export=ExportSettings(precision="int8", maximum_ndcg_loss={maximum_ndcg_loss}){judged},\n    dag=DagSettings',
    )
    shop.rewrite_plugin(
        "from estudio_core import",
        "from pathlib import Path\n\nfrom estudio_core.evaluation.judgments import Judgments\n"
        "from estudio_core import ExportSettings,",
    )
    return base_version()


@pytest.fixture
def own_ranking(shop: Shop, small_model: Callable[..., Any], tmp_path: Path) -> Path:
    """Judgments that are the model's own ranking in 32 bits, so that any other ranking is a worse one."""
    with psycopg.connect(shop.database_url) as connection:
        rows = connection.execute("SELECT id, title FROM products ORDER BY id").fetchall()
    model = small_model(seed=1)
    queries = [f"{colour} {kind}" for colour in ("red", "old", "new") for kind in KINDS]
    similarity = model.encode_queries(queries).numpy() @ model.encode_items([title for _, title in rows]).numpy().T
    path = tmp_path / "judgments.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "object_id", "grade"])
        for query, row in zip(queries, similarity, strict=True):
            best = np.argsort(-row)[:GRADED]
            writer.writerows([query, rows[item][0], GRADED - place] for place, item in enumerate(best))
    return path


def test_what_int8_loses_is_in_the_manifest(shop: Shop, own_ranking: Path) -> None:
    version = in_int8(shop, 0.5, own_ranking)
    name = publish_model("shop", version).name
    manifest = read_verified(get_settings().triton_repository / name)
    assert manifest.precision == "int8"
    assert manifest.ranking is not None
    assert (manifest.ranking.queries, manifest.ranking.items, manifest.ranking.maximum_loss) == (18, 60, 0.5)
    assert manifest.ranking.ndcg_fp32 == pytest.approx(1.0, abs=1e-3)
    assert 0 < manifest.ranking.loss < 0.5
    assert {path.name for path in (get_settings().triton_repository / name / "1").iterdir()} == {"model.onnx"}
    assert publish_model("shop", version).digest == manifest.digest, "publishing again changes nothing"


@pytest.mark.parametrize(("threads", "expected"), [("3", 3), (None, usable_cores())])
def test_triton_computes_with_as_many_threads_as_it_is_given(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, threads: str | None, expected: int
) -> None:
    if threads is not None:
        monkeypatch.setenv("ESTUDIO_TRITON_THREADS", threads)
        get_settings.cache_clear()
    name = publish_model("shop", base_version()).name
    config = (get_settings().triton_repository / name / "config.pbtxt").read_text()
    assert f'key: "intra_op_thread_count" value {{ string_value: "{expected}" }}' in config


def test_a_loss_above_the_bound_is_refused(shop: Shop, own_ranking: Path) -> None:
    version = in_int8(shop, 0.0, own_ranking)
    with pytest.raises(ExportError, match=r"int8 ranks worse than in fp32: nDCG@10 0\.9.* at most 0 is allowed"):
        publish_model("shop", version)
    assert not (get_settings().triton_repository / f"shop_v{version}").exists()


def test_without_anything_to_measure_on_the_model_stays_in_32_bits(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    version = in_int8(shop, 0.5, None)
    with caplog.at_level(logging.WARNING):
        name = publish_model("shop", version).name
    assert read_verified(get_settings().triton_repository / name).precision == "fp32"
    assert "neither judgments nor held-out sessions" in caplog.text


@pytest.fixture
def large_on_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that multiplies no bfloat16, with a catalog that is large enough for a measurement."""
    monkeypatch.setattr(opening, "_torch_is_fast", lambda: False)
    monkeypatch.setattr(export_quality, "BULK_FROM", 60)


def judged(shop: Shop, judgments: Path, maximum_ndcg_loss: float) -> str:
    """Have the plugin served in 32 bits, with these judgments; return the version of its base model."""
    version = in_int8(shop, maximum_ndcg_loss, judgments)
    shop.rewrite_plugin('precision="int8", ', "")
    forget_plugins()
    return version


@pytest.mark.usefixtures("large_on_avx2")
def test_items_in_bulk_are_encoded_in_int8_where_they_lose_little_by_it(shop: Shop, own_ranking: Path) -> None:
    version = judged(shop, own_ranking, 0.5)
    release("shop", version, "first")
    name = entry_name("shop", version)
    entry = get_settings().triton_repository / name
    manifest = read_verified(entry)
    assert (manifest.precision, manifest.ranking) == ("fp32", None)
    assert manifest.bulk is not None
    assert (manifest.bulk.queries, manifest.bulk.items, manifest.bulk.maximum_loss) == (18, 60, 0.5)
    assert manifest.bulk.ndcg_fp32 == pytest.approx(1.0, abs=1e-3)
    assert 0 < manifest.bulk.loss < 0.5
    texts = ["red lamp", "an old chair"]
    exact, int8 = OnnxEmbedder(entry), OnnxEmbedder(entry, graph=BULK_FILE)
    bulk = opening.open_bulk_embedder(name)
    assert np.array_equal(bulk.embed_queries(texts), exact.embed_queries(texts))
    assert np.array_equal(bulk.embed_items(texts), int8.embed_items(texts))
    assert not np.array_equal(bulk.embed_items(texts), exact.embed_items(texts))
    with database.connect() as connection:
        live = live_release(connection, "shop")
        assert live is not None
        stored = find_by_ids(connection, live.collection, ["7"], with_vectors=True)[0]
    assert stored.vectors is not None
    alike = cosines(stored.vectors, int8.embed_items([stored.payload["title"]]))
    assert alike.min() > cosines(stored.vectors, exact.embed_items([stored.payload["title"]])).max()


@pytest.mark.usefixtures("large_on_avx2")
def test_items_that_lose_more_in_int8_are_encoded_in_32_bits(
    shop: Shop, own_ranking: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        name = publish_model("shop", judged(shop, own_ranking, 0.0)).name
    entry = get_settings().triton_repository / name
    assert read_verified(entry).bulk is None
    assert not (entry / "bulk").exists()
    assert f"Items of {name} are encoded in 32 bits, not in int8: nDCG@10 of 18 held-out queries" in caplog.text
    assert opening.open_bulk_embedder(name) is opening.open_query_embedder(name)


@pytest.mark.usefixtures("large_on_avx2")
def test_a_measurement_that_fails_keeps_no_model_in_32_bits_from_being_published(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "judgments.csv"
    path.write_text("query,object_id,grade\nred lamp,sold long ago,3\n")
    with caplog.at_level(logging.INFO):
        name = publish_model("shop", judged(shop, path, 0.5)).name
    manifest = read_verified(get_settings().triton_repository / name)
    assert (manifest.precision, manifest.bulk) == ("fp32", None)
    assert not any(file.startswith("bulk") for file in manifest.files)
    assert "None of the 1 held-out queries has a relevant item" in caplog.text


@pytest.mark.parametrize("instead", ["a small catalog", "nothing to measure on", "a CPU that is fast at bfloat16"])
def test_int8_in_bulk_is_not_measured_for(
    instead: str, shop: Shop, own_ranking: Path, large_on_avx2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if instead == "a small catalog":
        monkeypatch.setattr(export_quality, "BULK_FROM", 61)
    if instead == "a CPU that is fast at bfloat16":
        monkeypatch.setattr(opening, "_torch_is_fast", lambda: True)
    version = base_version() if instead == "nothing to measure on" else judged(shop, own_ranking, 0.5)
    assert read_verified(get_settings().triton_repository / publish_model("shop", version).name).bulk is None


def test_held_out_clicks_measure_where_there_are_no_judgments(shop: Shop) -> None:
    shop.search_sessions(60)
    version = in_int8(shop, 1.0, None)
    ranking = read_verified(get_settings().triton_repository / publish_model("shop", version).name).ranking
    assert ranking is not None
    assert 0 < ranking.queries < 24, "training's own queries are left out"
