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

from estudio_core.errors import ExportError
from estudio_core.inference.host import usable_cores
from estudio_core.inference.manifest import read_verified
from estudio_core.pipeline.check_source import check_source
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.settings import get_settings
from tests.pipeline.conftest import KINDS, Shop

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


def test_held_out_clicks_measure_where_there_are_no_judgments(shop: Shop) -> None:
    shop.search_sessions(60)
    version = in_int8(shop, 1.0, None)
    ranking = read_verified(get_settings().triton_repository / publish_model("shop", version).name).ranking
    assert ranking is not None
    assert 0 < ranking.queries < 24, "training's own queries are left out"
