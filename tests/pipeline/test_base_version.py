"""What words weigh beside a base model follows how far apart the model's similarities are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from estudio_core.lexical.settings import SPREAD, Fusion
from estudio_core.pipeline.items.base_version import registered_base
from estudio_core.plugin.registry import open_plugin
from tests.pipeline.conftest import Shop


def test_the_weight_grows_with_the_spread_of_similarities() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(0.2, SPREAD, 20_000)
    assert Fusion.for_similarities(pairs) == Fusion()
    assert Fusion.for_similarities(0.8 + (pairs - 0.2) / 4).weight == pytest.approx(Fusion().weight / 4, rel=0.02)
    assert Fusion.for_similarities(3 * pairs).weight == pytest.approx(Fusion().weight * 3, rel=0.02)


@pytest.mark.parametrize("pairs", [np.zeros(0), np.full(5_000, 0.9), np.arange(299.0), np.full(5_000, np.nan)])
def test_where_nothing_can_be_told_the_default_stays(pairs: np.ndarray) -> None:
    assert Fusion.for_similarities(pairs) == Fusion()


def weight_of_base(version: int) -> float:
    return Fusion.of_model(open_plugin("shop").experiments.download_model(version)).weight


def test_a_model_that_finds_all_texts_alike_is_registered_with_a_small_weight(
    shop: Shop, small_model: Callable[..., Any], tmp_path: Path
) -> None:
    shop.sql(
        "INSERT INTO products SELECT i, 'a thing called ' || md5(i::text), 'thing' FROM generate_series(100, 400) i"
    )
    wide = registered_base(open_plugin("shop"))
    assert registered_base(open_plugin("shop")) == wide  # the same again
    model = small_model(seed=1)
    norm = [module for module in model.backbone.modules() if isinstance(module, torch.nn.LayerNorm)][-1]
    with torch.no_grad():
        norm.bias += 3.0  # a component that all vectors share
    folder = tmp_path / "alike"
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    shop.rewrite_plugin(str(shop.model), str(folder))
    alike = registered_base(open_plugin("shop"))
    assert alike != wide
    assert weight_of_base(alike) < weight_of_base(wide) / 4


def test_without_words_in_the_index_the_catalog_is_not_read(shop: Shop) -> None:
    shop.rewrite_plugin("import DagSettings", "import TextIndex, DagSettings")
    shop.rewrite_plugin("    dag=Dag", "    index=TextIndex(lexical=None),\n    dag=Dag")
    shop.sql("DROP TABLE products")
    assert registered_base(open_plugin("shop")) == 1
