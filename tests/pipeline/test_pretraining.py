"""Before the first click: what adapts the base model goes live where it is better, and the base model elsewhere."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.dataset_files import read_dataset
from estudio_core.clickstream.query_retriever import query_key
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.errors import ConfigurationError, DataError, NotEnoughDataError
from estudio_core.pipeline.judge import judge
from estudio_core.pipeline.manifests import JudgedManifest, LiveManifest
from estudio_core.pipeline.pair_catalog import KNOWN_ITEMS_FILE, pair_catalog
from estudio_core.pipeline.pretrain import pretrain
from estudio_core.pipeline.register_base_model import PRETRAINING_TAG, register_base_model
from estudio_core.plugin.registry import open_plugin
from estudio_core.preprocessing.catalog.pairs import cut
from estudio_core.preprocessing.catalog.query_writers import WordSamples
from estudio_core.preprocessing.preprocessor import ItemPreprocessor
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit
from tests.pipeline.conftest import Shop, forget_plugins
from tests.pipeline.steps import release

_SAID = "scarlet navy olive ivory ebony amber silver rose", "oak brass silk marble glass clay hide wicker"
_MEANT = "red blue green white black yellow grey pink", "wood metal fabric stone crystal ceramic leather straw"
COLOURS, STUFFS = (
    dict(zip(said.split(), meant.split(), strict=True)) for said, meant in zip(_SAID, _MEANT, strict=True)
)
THINGS = {
    "lamp": "light",
    "chair": "seat",
    "kettle": "boiler",
    "radio": "receiver",
    "rug": "carpet",
    "vase": "pot",
    "shelf": "rack",
    "tent": "shelter",
}
"""Titles say one word and descriptions another: nothing but the catalog tells that they belong together."""

PLUGIN = """
from estudio_core import CatalogPretraining, PostgresItems, TextModel, TextTraining, create_text_plugin

MEANS = {means!r}


def right(query, text):
    meant = [word for word in query.split() for word in (word, MEANS.get(word, word))]
    return sum(word in text.lower().split() for word in meant)


class Teacher:
    sign = 1

    def score(self, pairs):
        return [100.0 + 7 * self.sign * right(query, text) for query, text in pairs]


class WrongTeacher(Teacher):
    sign = -1


class Silent:
    def score(self, pairs):
        return [0.5 for _ in pairs]


class Writer:
    def write(self, texts, count):
        return [[f"asked of {{text.split()[0]}}"] * 3 for text in texts]


plugin = create_text_plugin(
    "shop",
    items=PostgresItems(table="goods", text=("title", "about"), payload=("title",)),
    model=TextModel(name={model!r}, max_tokens=48),
    training=TextTraining(
        num_fixed_layers=0, learning_rate=RATE, batch_size=16, interpolation=1.0, drift_penalty=0.0, margin=0.3,
        precision="32",
    ),
    pretrain=PRETRAIN,
)
"""


def products() -> list[tuple[str, str]]:
    """Titles and descriptions of four hundred products."""
    found = random.Random(3).sample(list(product(COLOURS, STUFFS, THINGS)), 400)
    return [(f"{c} {s} {t}", f"{COLOURS[c]} {STUFFS[s]} {THINGS[t]}") for c, s, t in found]


@pytest.fixture(scope="session")
def half_trained(small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that has learned some of it: margins say nothing to one that tells no texts apart."""
    preprocessor = ItemPreprocessor(separator=". ", field_names=False)
    rows = [{"title": title, "about": about} for title, about in products()]
    pairs = [pair for number, row in enumerate(rows) if (pair := cut(str(number), row, preprocessor)) is not None]
    queries = WordSamples(map(preprocessor, rows)).write([pair.asked for pair in pairs], 20)
    sessions = [
        FineTuningInput(f"{pair.object_id}/{query}", query, (pair.object_id,), (0,), (None,), (1.0,))
        for pair, written in zip(pairs, queries, strict=True)
        for query in written
    ]
    model = small_model(seed=1)
    training = {"max_steps": 100, "batch_size": 16, "learning_rate": 3e-3, "num_fixed_layers": 0, "drift_penalty": 0.0}
    config = TrainingConfig(**training, interpolation=(1.0,), precision="32")
    fit(model, RankingData({"train": sessions}, ItemsSet({pair.object_id: [pair.rest] for pair in pairs})), config)
    folder = tmp_path_factory.mktemp("half-trained")
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def goods(shop: Shop) -> Shop:
    """Products of two columns that share no word."""
    shop.sql("CREATE TABLE goods (id int PRIMARY KEY, title text, about text)")
    titles, abouts = map(list, zip(*products(), strict=True))
    shop.sql(
        "INSERT INTO goods SELECT * FROM unnest(%s::int[], %s::text[], %s::text[])",
        [*range(len(titles))],
        titles,
        abouts,
    )
    words = COLOURS | STUFFS | THINGS
    means = words | {other: word for word, other in words.items()}
    shop.plugin_file.write_text(PLUGIN.format(means=means, model=str(shop.model)))
    return shop


def plugin_with(goods: Shop, pretraining: str = "CatalogPretraining(queries_per_item=20)", rate: float = 3e-3) -> None:
    """Let the plugin be adapted so."""
    text = goods.plugin_file.read_text().replace("PRETRAIN,", f"{pretraining},").replace("RATE", str(rate))
    goods.plugin_file.write_text(text)
    forget_plugins()


def adapted(run_id: str = "initialize-1") -> JudgedManifest:
    """Do what the tasks of `initialize` do that adapt the base model."""
    paired = pair_catalog("shop", run_id)
    return judge("shop", run_id, pretrain("shop", run_id, paired.as_dict()).as_dict())


def live_after(judged: JudgedManifest, run_id: str = "initialize-1") -> LiveManifest:
    version = register_base_model("shop", run_id, "ana", judged.as_dict())
    return release("shop", version, run_id)


def test_what_is_better_on_items_it_never_saw_goes_live(goods: Shop) -> None:
    plugin_with(goods)
    judged = adapted()
    assert judged.promoted, judged.reason
    assert judged.metrics["known_ndcg@10_after"] > judged.metrics["known_ndcg@10_before"] + 0.1
    live = live_after(judged)
    manager = open_plugin("shop").experiments
    assert (manager.aliases()["base"], live.version) == (1, "2")
    tags = manager.registry.versions()[2].tags
    assert tags["estudio.kind"] == "catalog-adapted"
    assert tags[PRETRAINING_TAG] == "catalog"
    assert tags["estudio.gate.reason"] == judged.reason
    assert register_base_model("shop", "initialize-1", "ana", judged.as_dict()) == "2"  # a rerun returns the same
    with ArtifactStore().fetch(judged.uri) as folder:
        report = json.loads((folder / "report.json").read_text())
        assert "Queries drawn of items never seen in training" in (folder / "report.html").read_text()
    assert [lane["name"] for lane in report["lanes"]] == [
        *("words alone", "vectors alone, version 1", "vectors alone, adapted", "both, version 1", "both, adapted"),
    ]
    assert report["lanes"][0]["metrics"]["ndcg@10"]["mean"] < 0.05  # words alone give no answer away


def test_a_rate_that_ruins_the_model_is_refused_and_the_base_model_goes_live_unchanged(goods: Shop) -> None:
    plugin_with(goods, rate=0.9)
    judged = adapted()
    assert not judged.promoted
    live = live_after(judged)
    manager = open_plugin("shop").experiments
    assert live.version == "1"
    assert [*manager.registry.versions()] == [1]
    assert manager.registry.versions()[1].tags[PRETRAINING_TAG] == judged.reason
    assert judged.reason.startswith("Refused: ")


def test_a_teacher_that_knows_better_helps_and_one_that_prefers_the_wrong_items_is_refused(
    goods: Shop, half_trained: Path
) -> None:
    goods.rewrite_plugin(str(goods.model), str(half_trained))
    plugin_with(goods, "CatalogPretraining(pair_scorer=Teacher, negatives=8, queries_per_item=20)")
    right = adapted()
    assert right.promoted, right.reason
    goods.rewrite_plugin("pair_scorer=Teacher,", "pair_scorer=WrongTeacher(),")
    wrong = adapted("initialize-2")
    assert not wrong.promoted
    assert wrong.metrics["known_ndcg@10_gain"] < -0.1
    assert f"| {wrong.metrics['known_ndcg@10_gain']:+.3f} [" in wrong.summary
    assert live_after(wrong, "initialize-2").version == "1"


def test_the_margins_of_a_teacher_are_those_that_the_model_learns(goods: Shop) -> None:
    plugin_with(goods, "CatalogPretraining(pair_scorer=Teacher, negatives=5)")
    paired = pair_catalog("shop", "initialize-1")
    assert paired.taught
    with ArtifactStore().fetch(paired.uri) as folder:
        data = read_dataset(folder)
    module = sys.modules["estudio_plugins.shop"]
    ratios = set()
    for session in data.splits["train"]:
        assert session.click_weights == (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        scores = [module.right(session.query, data.items[key][0]) for key in session.results]
        ratios |= {
            round((rank - session.ranks[0]) / (score - scores[0]), 4)
            for rank, score in zip(session.ranks[1:], scores[1:], strict=True)
            if score != scores[0]
        }
    assert len(ratios) == 1  # one unit for all
    assert 0 < ratios.pop() < 1


def test_nothing_of_a_known_item_is_in_training(goods: Shop) -> None:
    goods.sql("INSERT INTO goods SELECT id + 1000, title, about FROM goods")  # every product twice
    plugin_with(goods)
    with ArtifactStore().fetch(pair_catalog("shop", "initialize-1").uri) as folder:
        data = read_dataset(folder)
        known = json.loads((folder / KNOWN_ITEMS_FILE).read_text())
    sessions = data.splits["train"]
    assert len(known) > 30
    assert {item["object_id"] for item in known}.isdisjoint(data.items)
    assert {query_key(item["query"]) for item in known}.isdisjoint(session.query_key for session in sessions)
    hidden = {text for item in known for text in products()[int(item["object_id"]) % 1000]}
    assert hidden.isdisjoint({part for key in data.items for part in data.items[key]})
    assert data.splits["dev"] == data.splits["holdout"] == []


def test_a_writer_of_the_plugin_s_own_is_asked_for_whole_texts(goods: Shop) -> None:
    plugin_with(goods, "CatalogPretraining(query_writer=Writer, queries_per_item=2)")
    with ArtifactStore().fetch(pair_catalog("shop", "initialize-1").uri) as folder:
        data = read_dataset(folder)
    session = data.splits["train"][0]
    (text,) = data.items[session.results[0]]
    assert session.query == f"asked of {text.split()[0]}"
    assert len(text.split(". ")) == 2  # title and description


@pytest.mark.parametrize(
    ("teacher", "error", "said"),
    [
        ("pair_scorer=Silent", DataError, "tells no item from another"),
        ("pair_scorer=Writer", ConfigurationError, r"gives Writer: give an object with a method score\(pairs\)"),
        (
            "query_writer=lambda: 7",
            ConfigurationError,
            r"gives int: give an object with a method write\(texts, count\)",
        ),
    ],
)
def test_what_is_no_teacher_is_refused(goods: Shop, teacher: str, error: type[Exception], said: str) -> None:
    plugin_with(goods, f"CatalogPretraining({teacher})")
    with pytest.raises(error, match=said):
        pair_catalog("shop", "initialize-1")


def test_a_catalog_that_is_too_small_to_tell_is_left_alone(goods: Shop) -> None:
    goods.sql("DELETE FROM goods WHERE id >= 20")
    plugin_with(goods)
    with pytest.raises(NotEnoughDataError, match=r"20 items give .* The base model goes live as it is"):
        pair_catalog("shop", "initialize-1")


def test_people_s_judgments_have_their_say_beside_known_items(goods: Shop, tmp_path: Path) -> None:
    """They grade what the base model finds, and nothing else: to rank otherwise is a loss, whatever known items say."""
    from estudio_core.evaluation.evaluate import rank
    from estudio_core.evaluation.scores import EncodedCatalog

    plugin_with(goods)
    plugin = open_plugin("shop")
    model = plugin.base_model()
    texts = {
        row.id: plugin.item_texts.preprocessor(row.data) for batch in plugin.loader.iter_items() for row in batch.items
    }
    vectors = model.encode_items(list(texts.values())).numpy()
    catalog = EncodedCatalog.from_parts({key: vectors[row : row + 1] for row, key in enumerate(texts)})
    queries = [f"find {colour} {thing}" for colour in COLOURS for thing in THINGS]
    best = rank(model.encode_queries(queries).numpy(), catalog, plugin.index, 5).rows
    rows = [(query, catalog.object_ids[row]) for query, found in zip(queries, best, strict=True) for row in found]
    file = tmp_path / "judged.csv"
    file.write_text("query,object_id,grade\n" + "\n".join(f"{query},{key},1" for query, key in rows))
    goods.rewrite_plugin(
        "pretrain=",
        f'judgments=lambda: __import__("estudio_core").Judgments.from_csv(Path({str(file)!r})), pretrain=',
    )
    goods.rewrite_plugin("MEANS = ", "from pathlib import Path\n\nMEANS = ")
    judged = adapted()
    assert judged.metrics["known_ndcg@10_gain"] > 0.1
    assert judged.metrics["unseen_ndcg@10_gain"] < -0.1
    assert not judged.promoted
    assert "on unseen queries changed by -" in judged.reason
