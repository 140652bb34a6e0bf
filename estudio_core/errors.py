"""Every exception that Estudio raises on purpose, as one tree.

    EstudioError
    ├── ConfigurationError        a setting, plugin or parameter is wrong: fix it, a retry will not help
    │   ├── SettingError          a setting of the installation cannot be used: its users cannot mend it
    │   ├── PluginError           a search plugin cannot be loaded, found or validated
    │   ├── SchemaVersionError    the tables are not those of this version: migrate them
    │   └── MissingDependencyError
    ├── DataError                 the data is wrong: fix it, a retry will not help
    │   ├── SourceSchemaError     a table or column of the item source does not exist
    │   ├── SourceTimeoutError    a query of the item source takes longer than it may
    │   ├── ItemError             single items cannot be used (missing row, empty text, odd id)
    │   ├── NotEnoughDataError    too few sessions to learn from: skip, do not fail
    │   └── DimensionError        a vector does not have the dimension of its index
    ├── ModelError                a model file or repository entry cannot be used
    │   ├── ExportError           the exported graph differs from the trained model
    │   └── RepositoryError       an entry is missing, corrupt, or cannot be written
    ├── ReleaseError              a release is in a state that does not allow what was asked
    │   ├── NothingLiveError      the plugin has no live release yet
    │   ├── ReleaseMovedError     another release went live since the pointer was read: read it again
    │   ├── VerificationError     a new index did not pass its checks; the live release keeps serving
    │   ├── SupersededError       a later promotion has taken the place of this one: skip, do not fail
    │   ├── ExperimentEndedError  the experiment of this run is over: skip, do not fail
    │   └── ConcurrentReleaseError
    └── UnavailableError          a server does not answer now: a retry may help
        ├── SearchTimeoutError    a search was not answered by its deadline
        ├── OverloadedError       more is asked of this process than it can answer in time: come back later
        ├── DatabaseUnavailableError
        │   └── ConnectionLostError
        ├── InferenceUnavailableError
        │   └── ModelNotLoadedError
        └── TrackingUnavailableError

Messages say what was given, what is legal, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EstudioError(Exception):
    """Base of all errors raised on purpose."""


class ConfigurationError(EstudioError):
    """A setting, plugin or parameter is wrong; a retry will not help."""


class SettingError(ConfigurationError):
    """A setting of the installation cannot be used. The message may name its servers: it is not for their users."""


class PluginError(ConfigurationError):
    """A search plugin cannot be loaded, found or validated."""


class SchemaVersionError(ConfigurationError):
    """Estudio's tables are older than this code needs, or too new for it."""


class MissingDependencyError(ConfigurationError):
    """An optional package is needed and not installed."""


class DataError(EstudioError):
    """The data is wrong; a retry will not help."""


class SourceSchemaError(DataError):
    """A table or column of the item source does not exist."""


class SourceTimeoutError(DataError):
    """A query of the item source takes longer than `ESTUDIO_SOURCE_TIMEOUT_S` allows."""


class ItemError(DataError):
    """Single items cannot be used.

    Attributes:
        item_ids: The ids of the items concerned.
    """

    def __init__(self, message: str, item_ids: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.item_ids = list(item_ids)


class NotEnoughDataError(DataError):
    """There are too few sessions to learn from."""


class DimensionError(DataError):
    """A vector does not have the dimension of its index."""


class ModelError(EstudioError):
    """A model file or repository entry cannot be used."""


class ExportError(ModelError):
    """The exported graph does not compute what the trained model computes."""


class RepositoryError(ModelError):
    """A model repository entry is missing, corrupt, or cannot be written."""


class ReleaseError(EstudioError):
    """A release is in a state that does not allow what was asked."""


class NothingLiveError(ReleaseError):
    """The plugin has no live release yet."""


class ReleaseMovedError(ReleaseError):
    """Another release went live since the pointer was read."""


class VerificationError(ReleaseError):
    """A new index did not pass its checks; the live release keeps serving."""


class SupersededError(ReleaseError):
    """A later promotion has taken the place of this one."""


class ExperimentEndedError(ReleaseError):
    """The experiment that is to be started has ended already."""


class ConcurrentReleaseError(ReleaseError):
    """Another build, switch or sync of the same plugin is under way."""


class UnavailableError(EstudioError):
    """A server does not answer now; a retry may help."""


class SearchTimeoutError(UnavailableError):
    """A search was not answered by its deadline."""


class OverloadedError(UnavailableError):
    """More is asked of this process than it can answer in time.

    Attributes:
        retry_after_s: When to come back, seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DatabaseUnavailableError(UnavailableError):
    """PostgreSQL does not answer."""


class ConnectionLostError(DatabaseUnavailableError):
    """PostgreSQL closed a connection that was in use."""


class InferenceUnavailableError(UnavailableError):
    """The inference server does not answer, or not in time."""


class ModelNotLoadedError(InferenceUnavailableError):
    """The inference server runs, and has not loaded the model."""


class TrackingUnavailableError(UnavailableError):
    """The MLflow tracking server does not answer."""


def suggest(given: str, legal: Iterable[str]) -> str:
    """Return a sentence that names the legal values nearest to `given`.

    >>> suggest("batch_sise", ["batch_size", "num_epochs"])
    "Did you mean 'batch_size'? Legal names: 'batch_size', 'num_epochs'."
    """
    names = sorted(set(legal))
    listed = ", ".join(repr(name) for name in names) or "none"
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Legal names: {listed}."


def shown(given: object, most: int = 200) -> str:
    """Return what was given as a message shows it, however long, deep or odd it is.

    >>> shown("red lamp"), shown("x" * 1000, most=5), shown(10**5000)
    ("'red lamp'", "'xxxx…", 'int')
    """
    try:
        text = repr(given)
    except Exception:  # a number too long, a list too deep, or somebody's own class
        text = type(given).__name__
    return text if len(text) <= most else f"{text[:most]}…"
