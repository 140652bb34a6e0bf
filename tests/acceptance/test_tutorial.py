"""The tutorial's own steps 9.1, 9.2 and 9.3, with its plugin as written, on a real database.

The model it names is not downloaded: a small random XLM-R of the same kind and dimension takes its place in the model
cache, so that `AutoTokenizer.from_pretrained("intfloat/multilingual-e5-base")` runs as written.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from estudio_core.clickstream.ubi import UbiEvent, UbiQuery

MODEL = "intfloat/multilingual-e5-base"
TOPICS = {
    "gardening": ["tomato", "soil", "compost", "seed", "greenhouse"],
    "astronomy": ["planet", "telescope", "orbit", "comet", "galaxy"],
    "cooking": ["oven", "butter", "recipe", "flour", "spice"],
}
ARTICLES = 36


def _corpus() -> list[str]:
    rng = random.Random(7)
    texts = []
    for number in range(ARTICLES):
        words = TOPICS[list(TOPICS)[number % len(TOPICS)]]
        sentences = [f"A good note on {rng.choice(words)} and {rng.choice(words)}." for _ in range(3)]
        texts.append(" ".join(sentences))
    return texts


@pytest.fixture(scope="session")
def e5_in_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put a small XLM-R with 768 dimensions where the hub's cache would have the tutorial's model."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        [*_corpus(), "query: passage: Title: Author: Category: Content:"],
        trainers.BpeTrainer(vocab_size=400, special_tokens=special),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=512,
    )
    config = XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
    )
    cache = tmp_path_factory.mktemp("hub")
    commit = "0" * 40
    folder = cache / f"models--{MODEL.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    XLMRobertaModel(config).save_pretrained(snapshot)
    fast.save_pretrained(snapshot)
    return cache


@pytest.fixture
def tutorial(
    estudio_home: Path, database_url: str, e5_in_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The tutorial's tables, and an installation whose plugins folder holds its plugin."""
    import huggingface_hub.constants

    from estudio_core.context import context
    from estudio_core.settings import get_settings

    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE authors (id serial PRIMARY KEY, name text NOT NULL)")
        connection.execute("CREATE TABLE categories (id serial PRIMARY KEY, name text NOT NULL)")
        connection.execute(
            "CREATE TABLE articles (id serial PRIMARY KEY, title text NOT NULL, content text NOT NULL, "
            "author_id int REFERENCES authors, category_id int REFERENCES categories)"
        )
        connection.execute("INSERT INTO authors (name) VALUES ('A. Writer'), ('B. Writer')")
        for topic in TOPICS:
            connection.execute("INSERT INTO categories (name) VALUES (%s)", (topic,))
        for number, text in enumerate(_corpus()):
            connection.execute(
                "INSERT INTO articles (title, content, author_id, category_id) VALUES (%s, %s, %s, %s)",
                (f"Article {number + 1}", text, number % 2 + 1, number % 3 + 1),
            )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(e5_in_cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(e5_in_cache))
    monkeypatch.setenv("POSTGRES_CONNECTION_STRING", database_url)
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(Path(__file__).parent / "plugins"))
    monkeypatch.setenv("ESTUDIO_INFERENCE_USED_PLUGINS", '["CustomTextPlugin", "CustomArticlesPlugin"]')
    get_settings.cache_clear()
    context.reset()
    yield
    context.reset()
    get_settings.cache_clear()


def _clickstream(application: str) -> tuple[list[UbiQuery], list[UbiEvent]]:
    """Every search shows up to six articles, two of each topic; those of the topic asked for are clicked.

    So many that more than ten queries are held out: with fewer nothing is trained.
    """
    rng = random.Random(3)
    topics = list(TOPICS)
    queries, events = [], []
    for number in range(120):
        topic = number % len(topics)
        drawn = [3 * rng.randrange(ARTICLES // 3) + t + 1 for t in (0, 1, 2) for _ in range(2)]
        shown = [str(object_id) for object_id in dict.fromkeys(drawn)]
        rng.shuffle(shown)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        queries.append(
            UbiQuery(
                query_id=f"s{number}",
                user_query=f"{rng.choice(TOPICS[topics[topic]])} {rng.choice(TOPICS[topics[topic]])} {number % 40}",
                query_response_hit_ids=tuple(shown),
                timestamp=at,
                application=application,
            )
        )
        events += [
            UbiEvent(
                event_id=f"e{number}-{object_id}",
                action_name="click",
                query_id=f"s{number}",
                object_id=object_id,
                timestamp=at,
                application=application,
            )
            for object_id in shown
            if (int(object_id) - 1) % 3 == topic
        ]
    return queries, events


@pytest.mark.usefixtures("tutorial")
def test_step_9_1_the_plugin_is_registered() -> None:
    from estudio_core.context import context

    plugin_names = context.plugin_manager.plugin_names
    assert plugin_names == ["CustomArticlesPlugin", "CustomTextPlugin"]
    plugin = context.plugin_manager.get_plugin("CustomTextPlugin")
    assert plugin is not None
    assert f"{plugin.meta.name} v{plugin.meta.version}" == "CustomTextPlugin v0.1.0"
    assert plugin.meta.description == "Custom text embedding plugin using PostgreSQL data sources"
    assert context.plugin_manager.get_plugin("NotAPlugin") is None


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize(
    ("name", "beginning"),
    [("CustomTextPlugin", "A good note on"), ("CustomArticlesPlugin", "Title: Article 1\nAuthor: A.")],
)
def test_step_9_2_items_are_loaded(name: str, beginning: str) -> None:
    from estudio_core.context import context
    from estudio_core.sources.item_meta import PgsqlFileMeta

    plugin = context.plugin_manager.get_plugin(name)
    loader = plugin.get_data_loader()
    loaded_items = loader.load_items([PgsqlFileMeta(object_id="1"), PgsqlFileMeta(object_id="2")])
    assert [item.id for item in loaded_items] == ["1", "2"]
    assert loaded_items[0].data[:100].startswith(beginning)


@pytest.mark.usefixtures("tutorial")
def test_the_tutorials_adjuster_works_on_the_plugins_vectors() -> None:
    import torch

    from estudio_core.context import context
    from estudio_core.improvement.improvement_input import ImprovementElement, ImprovementInput

    adjuster = context.plugin_manager.get_plugin("CustomArticlesPlugin").get_vectors_adjuster()
    query, near, far = (torch.nn.functional.normalize(torch.randn(n, 768), dim=-1) for n in (1, 2, 3))
    before = (near @ query.T).mean(), (far @ query.T).mean()
    [adjusted] = adjuster.adjust_vectors(
        [
            ImprovementInput(
                session_id="s",
                query=ImprovementElement(id="q", vector=query, is_average=[False]),
                clicked_elements=[ImprovementElement(id="a", vector=near, is_average=[False] * 2)],
                non_clicked_elements=[ImprovementElement(id="b", vector=far, is_average=[False] * 3)],
            )
        ]
    )
    assert (adjusted.clicked_elements[0].vector @ query.T).mean() > before[0]
    assert (adjusted.non_clicked_elements[0].vector @ query.T).mean() < before[1]


@pytest.mark.e2e
@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize(("name", "trials"), [("CustomTextPlugin", None), ("CustomArticlesPlugin", 1)])
def test_step_9_3_index_clickstream_fine_tuning_and_metrics_in_mlflow(name: str, trials: int | None) -> None:
    """Create an index, upload clickstream, fine-tune, and look at the metrics; with several trials as with one.

    Where nothing is said, there are as many as the builder's `initial_max_evals`, which is 2.
    """
    from estudio_core import database
    from estudio_core.artifacts import ArtifactStore
    from estudio_core.clickstream.store import ClickstreamStore
    from estudio_core.context import context
    from estudio_core.searching import search
    from tests.pipeline.steps import fine_tune, initialize

    live = initialize(name)
    assert live.version == "1"
    found = search(name, "a good tomato", limit=5)
    assert len({hit.object_id for hit in found.hits}) == 5

    with database.connect() as connection:
        queries, events = _clickstream(name)
        store = ClickstreamStore(connection)
        assert store.log_queries(queries).inserted == len(queries)
        assert store.log_events(events).inserted == len(events)
        connection.commit()
    result = fine_tune(name, {"num_epochs": 1, "window_days": 3650, "trials": trials, "num_fixed_layers": 1})
    with ArtifactStore().fetch(result.training.uri) as folder:
        assert len(json.loads((folder / "history.json").read_text())["trials"]) == (trials or 2)
    manager = context.plugin_manager.get_plugin(name).get_manager()
    curve = manager.curves(result.training.mlflow_run_id, ["train_loss", "test_not_irrelevant_dist_shift"])
    assert len(curve["train_loss"]) >= 1
    assert all(np.isfinite(value) for points in curve.values() for _, value in points)
    assert manager.aliases()["challenger"] == int(result.version)
