"""`estudio plugins validate`: build everything, load and embed two items, and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError, DataError, EstudioError
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.discovery import read_card
from estudio_core.plugin.plugin import Plugin
from estudio_core.plugin.registry import PluginManager

if TYPE_CHECKING:
    from torch import nn

    from estudio_core.models.embedding_model import EmbeddingModel

_SAMPLE = 2
_LOOKED_AT = 20
"""Rows among which so many usable ones are looked for."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried, and what came of it, in one line."""

    what: str
    passed: bool
    detail: str
    warns: bool = False
    """Whether it works, and is probably not what was meant."""


def validate_plugin(manager: PluginManager, name: str) -> Iterator[Check]:
    """Yield one check after another; what depends on something that failed is left out."""
    check, plugin = _try("loads", lambda: manager.open_plugin(name), lambda p: f"version {p.meta.version}")
    yield check
    if plugin is None:
        return
    check, card = _try("DAGs", lambda: read_card(name, manager.path), lambda card: f"from {card.source}")
    yield check
    if card is not None:
        yield _schedules(card.dag_settings)
    check, texts = _try("items", lambda: _sample_texts(plugin), lambda found: f"{len(found)} loaded and split")
    yield check
    check, model = _try("model", plugin.base_model, _described)
    yield check
    if model is None:
        return
    yield _attempt("dimensions", lambda: _dimensions(plugin, model))
    yield _attempt("trained layers", lambda: _trained_layers(plugin, model))
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


def _schedules(settings: DagSettings) -> Check:
    if settings.never:
        told = ", ".join(f"{name} = {value!r}" for name, value in settings.never.items())
        return Check("schedules", True, f"{told} names a date that never comes: that DAG runs by hand only", warns=True)
    given = [settings.schedule, settings.sync_schedule, settings.improve_schedule, settings.watch_schedule]
    return Check("schedules", True, f"{sum(value is not None for value in given)} of 4 are set")


def _sample_texts(plugin: Plugin) -> list[str]:
    plugin.loader.check()
    preprocess, split = plugin.item_texts.preprocessor, plugin.item_texts.item_splitter
    items = plugin.loader.first_items(_LOOKED_AT).items[:_SAMPLE]
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


def _described(model: EmbeddingModel) -> str:
    after = f", then {', '.join(layer.kind for layer in model.head_layers)}" if model.head_layers else ""
    pooled = f"pooled by {' and '.join(model.pooling)}{after}"
    return f"{model.dimensions} dimensions, {model.max_length} tokens, {pooled}"


def _loss(plugin: Plugin) -> nn.Module:
    from lightning_modules.losses.pair_loss import configured

    return configured(plugin.make_loss(), plugin.training)


def _trained_layers(plugin: Plugin, model: EmbeddingModel) -> str:
    from lightning_modules.fit import trained_layers

    return f"{trained_layers(model, plugin.training)} of {model.num_layers}"


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
