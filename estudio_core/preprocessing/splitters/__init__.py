"""From an item's text to the parts that are embedded."""

from estudio_core.preprocessing.splitters.dummy_sentence_splitter import DummySentenceSplitter
from estudio_core.preprocessing.splitters.item_splitter import ItemSplitter
from estudio_core.preprocessing.splitters.items_set_splitter import ItemsSetSplitter, SplitTexts
from estudio_core.preprocessing.splitters.no_splitter import NoSplitter
from estudio_core.preprocessing.splitters.token_group_splitter import TokenGroupTextSplitter

__all__ = [
    "DummySentenceSplitter",
    "ItemSplitter",
    "ItemsSetSplitter",
    "NoSplitter",
    "SplitTexts",
    "TokenGroupTextSplitter",
]
