"""What a model's folder says of its use: modules, pooling, prompts, longest input. Each is heeded, or refused by name.

Folders are those of sentence-transformers (`modules.json`), of transformers (`config.json` alone) and those that
`storage.save_model` writes (`estudio_model.json`). Nothing heavy is imported and no weight is read here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from estudio_core.errors import ConfigurationError, ModelError, suggest
from estudio_core.models.description import DESCRIPTION_FILE, HeadLayer, read_description
from estudio_core.models.families import NEUTRAL, Pooling, family_named
from estudio_core.models.towers import TOWERS_FILE

MODULES_FILE = "modules.json"
USE_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
"""What a Transformer module says of itself; sentence-transformers has had a name for each architecture."""

ITEM_PROMPTS = ("document", "passage", "corpus")
"""Names of the prompt of items, in the order in which sentence-transformers' `encode_document` looks for them."""

_MODES: dict[str, Pooling] = {mode: mode for mode in get_args(Pooling)} | {"mean": "masked_mean"}
_LEGACY_MODES: dict[str, Pooling] = {  # in the order in which several are laid one after another
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "masked_mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SIMILARITIES = {"cosine", "dot", "dot_score", "euclidean"}
_HARMLESS: dict[str, set[str]] = {  # how it is computed, not what
    "model": {"attn_implementation", "add_pooling_layer", "dtype", "torch_dtype", "use_safetensors"},
    "processor": {"padding_side", "use_fast", "clean_up_tokenization_spaces", "model_max_length"},
    "config": set(),
}
_FETCHED = ("*.json", "*.txt", "*.model", "*_*/*")
"""Files of a model on the hub that say how it is used: all but the weights of its encoder, if that is not nested."""

_IMPORTING = threading.Lock()


class Use(NamedTuple):
    """How texts become vectors, everything decided."""

    family: str
    pooling: tuple[Pooling, ...]
    query_prefix: str
    item_prefix: str


@dataclass(frozen=True)
class FolderSays:
    """What a model says of its use; None where it says nothing."""

    name: str = "the model"
    pooling: tuple[Pooling, ...] | None = None
    head: tuple[HeadLayer, ...] = ()
    head_folders: tuple[str, ...] = ()
    """Subfolder of each layer of the head, with its weights."""
    query_prompt: str | None = None
    item_prompt: str | None = None
    unused_prompts: tuple[str, ...] = ()
    """Names of prompts with a text, where none is for queries or items."""
    includes_prompt: bool = True
    max_length: int | None = None
    lower_case: bool = False
    transformer: str = ""
    """Subfolder of encoder and tokenizer."""
    dimensions: int | None = None
    """Length of one vector."""
    family: str | None = None

    def used_as(self, family: str, query_prefix: str | None = None, item_prefix: str | None = None) -> Use:
        """Return how the model is used as one of `family`, with prefixes where they are given apart.

        Raises:
            ConfigurationError: family and folder contradict each other, or it is not clear which prompts are meant.
        """
        if family == NEUTRAL and self.family is not None:
            family = self.family
        known = family_named(family)
        if known.pooling is not None and self.pooling not in (None, (known.pooling,)):
            raise ConfigurationError(
                f"{self.name} pools by {' and '.join(self.pooling or ())}, its family {family!r} by {known.pooling}. "
                f"Leave the family out to use the model as its folder says, or correct the folder."
            )
        query = self._prefix("query", query_prefix, self.query_prompt, family, known.query_prefix)
        item = self._prefix("item", item_prefix, self.item_prompt, family, known.item_prefix)
        if self.unused_prompts and family == NEUTRAL and (query_prefix is None or item_prefix is None):
            raise ConfigurationError(
                f"{self.name} has the prompts {', '.join(self.unused_prompts)}, and none that is named for queries "
                f"(query) or items ({', '.join(ITEM_PROMPTS)}). Say what stands before texts: "
                "TextModel(query_prefix=..., item_prefix=...), each may be empty."
            )
        if not self.includes_prompt and (query or item):
            raise ConfigurationError(
                f"{self.name} leaves the prompt out of pooling (include_prompt is false), which cannot be done here. "
                "Use a model that pools over all tokens, or one without prompts."
            )
        return Use(family, self.pooling or (known.pooling or "masked_mean",), query, item)

    def _prefix(self, whose: str, given: str | None, said: str | None, family: str, of_family: str) -> str:
        if given is not None:
            return given
        if family != NEUTRAL and said is not None and said != of_family:
            raise ConfigurationError(
                f"{self.name} puts {said!r} before {whose} texts, its family {family!r} {of_family!r}. Leave the "
                f"family out to use the model as its folder says, or give {whose}_prefix."
            )
        return of_family if said is None else said


def read_folder(name: str | Path) -> FolderSays:
    """Return what the model in a folder, or with that name on the hub, says of its use.

    Raises:
        ConfigurationError: it says something that cannot be done here; the message names it.
        ModelError: it cannot be read, or fetched.
    """
    folder = local_folder(name)
    if (folder / TOWERS_FILE).is_file():
        raise ConfigurationError(
            f"{name} encodes queries alone: {TOWERS_FILE} names another version for items. Start from that one."
        )
    if (folder / DESCRIPTION_FILE).is_file():
        return _of_description(str(name), folder)
    modules = _modules(folder)
    paths = [path for _, path in modules]
    transformer = paths[0] if modules else ""
    hidden = _hidden_size(name, folder / transformer)
    if (folder / transformer / "adapter_config.json").is_file():
        raise ConfigurationError(
            f"{name} is an adapter (adapter_config.json) of another model. Merge it into that one, and save the result."
        )
    said = _transformer(name, folder / transformer)
    pooling, includes, rest = _pooling(name, folder, modules)
    head = _head(name, folder, rest, hidden * len(pooling or ("masked_mean",)) if hidden else None)
    use = _read_json(folder / USE_FILE)
    if (kind := use.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise ConfigurationError(f"{name} is a {kind}; a SentenceTransformer, which gives one vector, is needed.")
    units = bool(rest) and rest[-1][0] == "Normalize"
    require_similarity(name, use.get("similarity_fn_name"), units=units)
    require_whole(name, use.get("truncate_dim"))
    kept = [place for place, (kind, _) in enumerate(rest) if kind != "Dropout"]
    if units:  # all vectors have length one here
        kept.pop()
        head = head[:-1]
    return FolderSays(
        name=str(name),
        pooling=pooling,
        head=head,
        head_folders=tuple(rest[place][1] for place in kept),
        includes_prompt=includes,
        transformer=transformer,
        dimensions=head[-1].outputs if head else hidden * len(pooling or ("masked_mean",)) if hidden else None,
        **said,
        **prompts_said(str(name), use.get("prompts"), use.get("default_prompt_name")),
    )


def prompts_said(name: str, prompts: Any, default_name: Any) -> dict[str, Any]:
    """Return `query_prompt`, `item_prompt` and `unused_prompts` of a model's prompts by name.

    Queries and items get the prompts of `encode_query` and `encode_document`. A default prompt that these two would
    leave out is for both where nothing else is said.

    Raises:
        ConfigurationError: prompts are no texts by name, or the default one is none of them.
    """
    known = prompts or {}
    if not isinstance(known, Mapping) or not all(isinstance(text, str | None) for text in known.values()):
        raise ConfigurationError(f"The prompts of {name} are no texts by name: {known!r}.")
    if default_name is not None and not (isinstance(default_name, str) and default_name in known):
        raise ConfigurationError(
            f"The default prompt of {name} is {default_name!r}. {suggest(str(default_name), list(known))}"
        )
    given = {key: text for key, text in known.items() if text}  # the library writes empty ones for whoever gives none
    query = given.get("query")
    item = next((known[key] or None for key in ITEM_PROMPTS if known.get(key) is not None), None)
    if query or item:
        return {"query_prompt": query, "item_prompt": item}
    if default_name in given:
        return {"query_prompt": given[default_name], "item_prompt": given[default_name]}
    return {"unused_prompts": tuple(sorted(given))}


def open_tokenizer(name: str | Path) -> Any:
    """Return the fast tokenizer of a model, with the longest input and the lower case that its folder says.

    Raises:
        ConfigurationError: the folder says something that cannot be done here.
        ModelError: there is no tokenizer.
    """
    return tokenizer_of(name, read_folder(name) if _says_anything(name) else FolderSays())


def tokenizer_of(name: str | Path, says: FolderSays) -> Any:
    """Return the tokenizer of a model of which is known what it says. Raises: ModelError, there is none."""
    # transformers fills itself in on first use, and not for two threads at once: one of them gets an ImportError.
    with _IMPORTING:
        from transformers import AutoTokenizer

    place = str(Path(name) / says.transformer) if Path(name).is_dir() else str(name)
    options = {} if Path(name).is_dir() else {"subfolder": says.transformer}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The tokenizer {str(name)!r} is neither on this machine nor can it be fetched: {error}. "
            "Give a folder that holds it, or run this once with network access."
            if not Path(name).is_dir()
            else f"No tokenizer can be loaded from the folder {name}: {error}"
        ) from error
    if says.max_length is not None:
        tokenizer.model_max_length = min(says.max_length, tokenizer.model_max_length)
    if says.lower_case:
        lower_cased(tokenizer)
    return tokenizer


def lower_cased(tokenizer: Any) -> None:
    """Let a fast tokenizer write all letters small before anything else, as its file will say too."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.normalizers import Sequence as InTurn

    backend = tokenizer.backend_tokenizer
    if "lowercase" not in (str(backend.normalizer) if backend.normalizer is not None else "").lower():
        backend.normalizer = Lowercase() if backend.normalizer is None else InTurn([Lowercase(), backend.normalizer])


def local_folder(name: str | Path) -> Path:
    """Return the folder of a model; of a name on the hub, one with the files that say how it is used.

    Raises:
        ConfigurationError: it is neither a folder nor a legal name.
        ModelError: nothing of that name can be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(_FETCHED)))
    except HFValidationError as error:
        raise ConfigurationError(
            f"The model {str(name)!r} cannot be read: there is no such folder, and on the model hub nothing can "
            "have that name."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"No model can be loaded from {str(name)!r}: it is neither on this machine nor can it be fetched "
            f"({error}). "
            "Check the name and the network (HF_HUB_OFFLINE), or give the folder of a copy."
        ) from error


def _says_anything(name: str | Path) -> bool:
    """Whether more than a tokenizer may be there: a folder may hold that alone."""
    folder = Path(name)
    return not folder.is_dir() or any((folder / f).is_file() for f in (MODULES_FILE, "config.json", *TRANSFORMER_FILES))


def _of_description(name: str, folder: Path) -> FolderSays:
    said = read_description(folder)
    return FolderSays(
        name=name,
        pooling=(said.pooling,) if isinstance(said.pooling, str) else said.pooling,
        head=said.head,
        query_prompt=said.query_prefix,
        item_prompt=said.item_prefix,
        max_length=said.max_length,
        dimensions=said.dimensions,
        family=said.family,
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return class name and subfolder of each module in turn; none for a folder that lists none."""
    file = folder / MODULES_FILE
    if not file.is_file():
        stray = sorted(found.parent.name for found in folder.glob("*_Pooling/config.json"))
        if stray:
            raise ConfigurationError(
                f"{folder} has {', '.join(stray)}, and no {MODULES_FILE} that lists it. Save the model as a whole, or "
                "remove that folder if token vectors are to be averaged."
            )
        return []
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        found = [(module["type"], module.get("path") or "") for module in listed]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read as a list of modules: {error}") from error
    if not found or not all(isinstance(said, str) for module in found for said in module):
        raise ModelError(f"{file} cannot be read as a list of modules with a type and a path: {listed!r:.200}")
    for kind, path in found:
        if not kind.startswith("sentence_transformers."):
            raise ConfigurationError(
                f"{folder} has a module of a class of its own, {kind}. Its code is not run here; legal are "
                "sentence-transformers' Transformer, Pooling, Dense, LayerNorm, Dropout and Normalize."
            )
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ModelError(f"{file} names the folder {path!r}, which is not inside of it.")
    return [(kind.rpartition(".")[2], path) for kind, path in found]


def _transformer(name: str | Path, folder: Path) -> dict[str, Any]:
    """Return longest input and lower case; refuse what else the Transformer module wants."""
    config = next((_read_json(folder / file) for file in TRANSFORMER_FILES if (folder / file).is_file()), {})
    said = {"max_length": config.pop("max_seq_length", None), "lower_case": bool(config.pop("do_lower_case", False))}
    for old, kind in (("model_args", "model"), ("tokenizer_args", "processor"), ("config_args", "config")):
        given = [config.pop(key, None) or {} for key in (old, f"{kind}_kwargs")]
        if not all(isinstance(each, Mapping) for each in given):
            raise ConfigurationError(f"{name} wants its {kind} loaded with {given!r:.200}, which names no options.")
        arguments = {**given[0], **given[1]}
        arguments.pop("trust_remote_code", None)
        if said["max_length"] is None:
            said["max_length"] = arguments.get("model_max_length")
        unknown = {key for key, value in arguments.items() if value not in (None, {})} - _HARMLESS[kind]
        if unknown:
            raise ConfigurationError(
                f"{name} wants its {kind} loaded with {', '.join(sorted(unknown))}, which is not heeded here. Load it "
                "that way and save it, so that its own files say so."
            )
    usual: dict[str, Callable[[Any], bool]] = {
        "transformer_task": lambda value: value == "feature-extraction",
        "module_output_name": lambda value: value == "token_embeddings",
        "modality_config": lambda value: (
            value == {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
        ),
        "unpad_inputs": lambda value: True,  # how it is computed
    }
    for key, value in config.items():
        if value not in (None, {}) and not usual.get(key, lambda _: False)(value):
            raise ConfigurationError(
                f"{name} sets {key} = {value!r} for its transformer, which is not heeded here. Use a text encoder "
                "whose last hidden state is pooled."
            )
    longest = said["max_length"]
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 2):
        raise ConfigurationError(f"{name} has max_seq_length = {longest!r}: a number of tokens of 2 or more is needed.")
    return said


def _pooling(
    name: str | Path, folder: Path, modules: Sequence[tuple[str, str]]
) -> tuple[tuple[Pooling, ...] | None, bool, list[tuple[str, str]]]:
    """Return the modes, whether the prompt is pooled too, and the modules after pooling."""
    if not modules:
        return None, True, []
    kinds = [kind for kind, _ in modules]
    if kinds[0] != "Transformer":
        raise ConfigurationError(f"The first module of {name} is {kinds[0]}; a Transformer is needed.")
    if len(kinds) < 2 or kinds[1] != "Pooling":
        second = kinds[1] if len(kinds) > 1 else "none"
        raise ConfigurationError(
            f"The second module of {name} is {second}; Pooling over the transformer's tokens is needed."
        )
    config = folder / modules[1][1] / "config.json"
    if not config.is_file():
        raise ModelError(f"{config} is missing, and with it how {name} pools. Save the model as a whole.")
    return (*pooling_said(str(name), _read_json(config)), list(modules[2:]))


def pooling_said(name: str, config: Mapping[str, Any]) -> tuple[tuple[Pooling, ...], bool]:
    """Return the modes of a Pooling module's configuration, and whether the prompt is pooled too.

    >>> pooling_said("it", {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True})
    (('cls', 'max'), True)
    >>> pooling_said("it", {"pooling_mode": "lasttoken", "include_prompt": False})
    (('lasttoken',), False)

    Raises:
        ConfigurationError: a mode or key is unknown.
    """
    known = {
        "word_embedding_dimension",
        "embedding_dimension",
        "pooling_mode",
        "include_prompt",
        *_LEGACY_MODES,
    }
    unknown = sorted(key for key in config if key not in known)
    if unknown:
        raise ConfigurationError(f"The pooling of {name} sets {unknown[0]!r}. {suggest(unknown[0], sorted(known))}")
    if "pooling_mode" not in config:
        modes = [mode for key, mode in _LEGACY_MODES.items() if config.get(key)] or ["masked_mean"]
    else:
        given = config["pooling_mode"]
        modes = [_mode(name, mode) for mode in (given if isinstance(given, list | tuple) and given else [given])]
    return tuple(modes), bool(config.get("include_prompt", True))


def _mode(name: str, mode: Any) -> Pooling:
    if not isinstance(mode, str) or mode not in _MODES:
        raise ConfigurationError(f"{name} pools by {mode!r}. {suggest(str(mode), sorted(_MODES))}")
    return _MODES[mode]


def _head(
    name: str | Path, folder: Path, modules: Sequence[tuple[str, str]], width: int | None
) -> tuple[HeadLayer, ...]:
    layers: list[HeadLayer] = []
    for kind, path in modules:
        layer = head_layer(str(name), kind, _read_json(folder / path / "config.json"), width)
        if layer is not None:
            layers.append(layer)
            width = layer.outputs
    return tuple(layers)


def head_layer(name: str, kind: str, config: Mapping[str, Any], width: int | None) -> HeadLayer | None:
    """Return a module after pooling from its class and configuration; None for dropout, which inference has not.

    Raises:
        ConfigurationError: there is no such module here, or its input is another one's output.
    """
    given = dict(config)
    for key in ("module_input_name", "module_output_name"):
        if (used := given.pop(key, None)) not in (None, "sentence_embedding"):
            raise ConfigurationError(
                f"A {kind} module of {name} has {key} = {used!r}; here modules after pooling work on the pooled vector."
            )
    if kind == "Dropout":
        return None
    if kind == "Normalize":
        return HeadLayer(kind="normalize", inputs=width or 0, outputs=width or 0)
    try:
        if kind == "Dense":
            layer = HeadLayer(
                kind="dense",
                inputs=given.pop("in_features"),
                outputs=given.pop("out_features"),
                bias=given.pop("bias", True),
                activation=given.pop("activation_function", "torch.nn.modules.activation.Tanh"),
                residual=given.pop("use_residual", False),
            )
        elif kind == "LayerNorm":
            size = given.pop("dimension")
            layer = HeadLayer(kind="layer_norm", inputs=size, outputs=size)
        else:
            raise ConfigurationError(
                f"{name} has a module {kind} after pooling. Legal are Dense, LayerNorm, Dropout and Normalize."
            )
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"The module {kind} of {name} says too little, or something else: {error}") from error
    if given:
        raise ConfigurationError(f"The module {kind} of {name} sets {', '.join(sorted(given))}, which is unknown here.")
    if width is not None and layer.inputs != width:
        raise ConfigurationError(
            f"The module {kind} of {name} takes vectors of {layer.inputs}; the module before it gives {width}."
        )
    return layer


def require_similarity(name: str | Path, similarity: Any, *, units: bool) -> None:
    """Refuse a similarity that ranks otherwise than that of vectors of length one, which is what is served.

    Args:
        name: Of the model, for the message.
        similarity: What the model says; None: nothing.
        units: Whether the model itself ends with a normalisation.

    Raises:
        ConfigurationError: it is such a one.
    """
    known = isinstance(similarity, str) and similarity in _SIMILARITIES
    if similarity is None or similarity == "cosine" or (units and known):
        return
    why = (
        "its vectors are not normalised, and here all vectors have length one"
        if known
        else f"legal are {', '.join(sorted(_SIMILARITIES))}"
    )
    raise ConfigurationError(
        f"{name} is to be compared by {similarity!r} (similarity_fn_name in {USE_FILE}): {why}. Use a model that was "
        "trained for cosine similarity, or one that ends with Normalize."
    )


def require_whole(name: str | Path, truncate_dim: Any) -> None:
    """Refuse a model of whose vectors only the beginning counts.

    Raises:
        ConfigurationError: it is one.
    """
    if truncate_dim is not None:
        raise ConfigurationError(
            f"{name} cuts its vectors (truncate_dim = {truncate_dim!r} in {USE_FILE}), which is not done here. Remove "
            "that line to use them as a whole, or add a Dense module that makes them shorter."
        )


def _hidden_size(name: str | Path, folder: Path) -> int | None:
    config = _read_json(folder / "config.json")
    found = next((config[key] for key in ("hidden_size", "dim", "d_model") if key in config), None)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < 1):
        raise ModelError(f"{folder / 'config.json'} says that {name} has vectors of {found!r}; a number is needed.")
    return found


def _read_json(file: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds {type(found).__name__}; an object is needed.")
    return found
