"""`estudio plugins validate`: build everything, load and embed two items, and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError, DataError, EstudioError
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.plugin.plugin import Plugin
from estudio_core.plugin.registry import PluginManager

if TYPE_CHECKING:
    from torch import nn

    from estudio_core.models.embedding_model import EmbeddingModel

_SAMPLE = 2


@dataclass(frozen=True)
class Check:
    """One thing that was tried, and what came of it, in one line."""

    what: str
    passed: bool
    detail: str


def validate_plugin(manager: PluginManager, name: str) -> Iterator[Check]:
    """Yield one check after another; what depends on something that failed is left out."""
    check, plugin = _try("loads", lambda: manager.open_plugin(name), lambda p: f"version {p.meta.version}")
    yield check
    if plugin is None:
        return
    check, texts = _try("items", lambda: _sample_texts(plugin), lambda found: f"{len(found)} loaded and split")
    yield check
    check, model = _try("model", plugin.base_model, lambda m: f"{m.dimensions} dimensions, {m.max_length} tokens")
    yield check
    if model is None:
        return
    yield _attempt("dimensions", lambda: _dimensions(plugin, model))
    yield _attempt("prefixes", lambda: _prefixes(plugin, model))
    if texts:
        yield _attempt("part length", lambda: _part_length(texts, model))
        yield _attempt("embeds", lambda: _embeds(texts, model))
    for what, part in (
        ("vector adjuster", lambda: plugin.vectors_adjuster),
        ("optimizations", lambda: plugin.optimizations),
        ("experiments", lambda: plugin.experiments),
        ("loss", lambda: _loss(plugin)),
        ("search space", lambda: SearchSpace(plugin.search_space)),
    ):
        yield _attempt(what, lambda part=part: type(part()).__name__)  # type: ignore[misc]


def _try(what: str, action: Callable[[], Any], detail: Callable[[Any], str]) -> tuple[Check, Any]:
    """Run `action`; return the check and the result, None where it failed."""
    try:
        result = action()
    except EstudioError as error:
        return Check(what, False, str(error)), None
    except Exception as error:  # a plugin is somebody else's code: whatever it raises is its check's result
        return Check(what, False, f"{type(error).__name__}: {error}"), None
    return Check(what, True, detail(result)), result


def _attempt(what: str, action: Callable[[], str]) -> Check:
    return _try(what, action, str)[0]


def _sample_texts(plugin: Plugin) -> list[str]:
    plugin.loader.check()
    preprocess, split = plugin.item_texts.preprocessor, plugin.item_texts.item_splitter
    items = [item for batch in islice(plugin.loader.iter_items(batch_size=_SAMPLE), 1) for item in batch.items][
        :_SAMPLE
    ]
    if not items:
        raise DataError("The source has no usable item among its first rows. Fill the table, or check the text column.")
    return [part for item in items for part in split(preprocess(item.data))]


def _dimensions(plugin: Plugin, model: EmbeddingModel) -> str:
    wanted = plugin.index.dimensions
    if wanted != model.dimensions:
        raise ConfigurationError(
            f"The index has {wanted} dimensions, the model gives {model.dimensions}. Correct the former."
        )
    return f"{wanted} in index and model"


def _loss(plugin: Plugin) -> nn.Module:
    from lightning_modules.losses.pair_loss import configured

    return configured(plugin.make_loss(), plugin.training)


def _prefixes(plugin: Plugin, model: EmbeddingModel) -> str:
    """The splitter counts the prefix that the model adds, so that nothing is cut."""
    counted = getattr(plugin.item_texts.item_splitter, "prefix", None)
    shown = f"queries {model.query_prefix!r}, items {model.item_prefix!r}"
    if counted is not None and counted != model.item_prefix:
        return f"{shown}; the splitter counts {counted!r}, which part length allows for"
    return shown


def _part_length(texts: list[str], model: EmbeddingModel) -> str:
    longest = max(len(model.tokenizer(model.item_prefix + text, truncation=False)["input_ids"]) for text in texts)
    if longest > model.max_length:
        raise ConfigurationError(
            f"A part has {longest} tokens, prefix and special tokens included; the model takes {model.max_length} and "
            "would cut it. Lower max_tokens of the splitter, or give it the model's prefix."
        )
    return f"{longest} tokens at most, of {model.max_length}"


def _embeds(texts: list[str], model: EmbeddingModel) -> str:
    import torch

    with torch.inference_mode():
        vectors = model.eval().encode_items(texts)
    if not bool(torch.isfinite(vectors).all()):
        raise ConfigurationError("The model gives vectors that are not finite. Use another model file.")
    return f"{len(texts)} parts to vectors of {vectors.shape[1]}"
