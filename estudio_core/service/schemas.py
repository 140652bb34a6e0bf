"""The bodies of requests, checked; what a body says that is not here is refused by its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from estudio_core.comparing.settings import ExperimentSettings, Form
from estudio_core.errors import suggest
from estudio_core.lexical.settings import MOST_WEIGHT
from estudio_core.searching import Mode
from estudio_core.service.refusals import named, refuse
from estudio_core.service.scopes import PLUGIN_NAME

DEEPEST = 10_000
"""Results that pages reach, as in OpenSearch: whoever wants all items reads the table that they come from."""
MOST_SIZE = 1_000

Count = Annotated[int, Field(strict=True, ge=0, le=DEEPEST)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=False, protected_namespaces=())


class UbiExtension(_Body):
    """`ext.ubi` of a search: who asked, as User Behavior Insights names it."""

    query_id: Name | None = None
    user_query: Annotated[str, Field(max_length=10_000)] | None = None
    client_id: Name | None = None
    session_id: Name | None = None
    user_id: Name | None = None
    application: Name | None = None
    object_id_field: Name | None = None
    query_attributes: dict[str, Any] = Field(default_factory=dict)


class EstudioExtension(_Body):
    """`ext.estudio` of a search: what OpenSearch has no word for."""

    mode: Mode = "hybrid"
    """What ranks: words and vectors, or one of them."""
    max_distance: float | None = None
    """Leave out items that are farther."""
    user_id: Name | None = None
    """Whose personal rows are searched."""
    exact: bool = False
    """Compare all items in place of asking the index."""
    log: bool = True
    """Whether the search is kept in the clickstream, where the key may log."""


class Extensions(_Body):
    """`ext` of a search."""

    ubi: UbiExtension | None = None
    estudio: EstudioExtension = EstudioExtension()


class SearchBody(_Body):
    """A search, in OpenSearch's form."""

    query: str | dict[str, Any] | None = None
    """A text, or a query: match, multi_match, match_all, bool, and filters."""
    size: Annotated[int, Field(strict=True, ge=0, le=MOST_SIZE)] = 10
    start: Count = Field(default=0, alias="from")
    filter: dict[str, Any] | None = None
    """Estudio's own filter over the payload."""
    post_filter: dict[str, Any] | None = None
    """Like a filter of `query`, for hits and not for aggregations."""
    sort: str | dict[str, Any] | list[str | dict[str, Any]] | None = None
    aggs: dict[str, dict[str, Any]] | None = Field(default=None, max_length=50)
    aggregations: dict[str, dict[str, Any]] | None = Field(default=None, max_length=50)
    source: bool | str | list[str] | dict[str, Any] = Field(default=True, alias="_source")
    track_total_hits: bool | Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = None
    explain: Annotated[bool, Field(strict=True)] = False
    ext: Extensions = Extensions()


class CountBody(_Body):
    """What is to be counted."""

    query: str | dict[str, Any] | None = None
    filter: dict[str, Any] | None = None


class ItemBody(_Body):
    """An item as Estudio takes it: what it is embedded from, and what is kept beside it."""

    data: Any
    payload: dict[str, Any] | None = None
    user_id: Name | None = None
    original_id: Name | None = None


class RefreshBody(_Body):
    """Items to bring to the state of their table."""

    ids: list[str | int] = Field(max_length=10_000)


class GradeBody(_Body):
    """What a person says of a result."""

    query: Annotated[str, Field(min_length=1, max_length=10_000)]
    object_id: Name
    grade: Annotated[float, Field(ge=0, le=100)] | None
    """None takes the grade back."""
    judge: Annotated[str, Field(min_length=1, max_length=200)]


class Side(_Body):
    """One of two: a release, and what ranks."""

    release: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | Literal["live"] = "live"
    mode: Mode = "hybrid"


class CompareBody(_Body):
    """A query to be answered by two settings side by side."""

    query: Annotated[str, Field(min_length=1, max_length=10_000)]
    size: Annotated[int, Field(strict=True, ge=1, le=100)] = 10
    filter: dict[str, Any] | None = None
    sides: list[Side] = Field(min_length=2, max_length=2)


class ExperimentBody(_Body):
    """Two releases that users are to decide between: the live one and a challenger."""

    plugin: Annotated[str, Field(pattern=f"^{PLUGIN_NAME.pattern}$")]
    release: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | None = None
    """A verified release of it, to begin at once; None: one is built of `version`."""
    version: Annotated[str, Field(pattern=r"^(challenger|champion|base|previous|[1-9][0-9]{0,17})$")] = "challenger"
    words_weight: Annotated[float, Field(ge=0, le=MOST_WEIGHT)] | None = None
    """Of BM25 beside similarity, for the challenger that is built; with the version `champion`, the live one by another
    weight. None: what the version was trained for."""
    form: Form = "interleaving"
    settings: ExperimentSettings = ExperimentSettings()
    """When it ends. `event_weights` are those of the plugin."""


class InitializeBody(_Body):
    """An index to be made."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
    """Names the run: asking again by the same name starts no second one."""
    plugin_name: Annotated[str, Field(pattern=f"^{PLUGIN_NAME.pattern}$")]


Body = TypeVar("Body", bound=BaseModel)


def read(model: type[Body], given: Any, what: str) -> Body:
    """Return a body as its model.

    Raises:
        Refused: it is none; the reason names what of it is not supported, or wrong.
    """
    if not isinstance(given, dict):
        raise refuse(f"{what} is a JSON object.", "parsing_exception")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        told = [_told(model, found) for found in problems]
        raise refuse(f"{what}: {'; '.join(dict.fromkeys(told[:5]))}.", "parsing_exception") from None


def _told(model: type[BaseModel], found: Any) -> str:
    place = ".".join(named(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        *above, unknown = found["loc"]
        legal = _fields(model, above)
        return f"[{place}] is not supported" + (f". {suggest(str(unknown), legal).rstrip('.')}" if legal else "")
    message = str(found["msg"])
    return f"[{place}] {message[:1].lower()}{message[1:200]}"


def _fields(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Return the names that a model has at a place of a body; none where that depends on more than the place."""
    for step in path:
        if isinstance(step, int):
            continue  # an element of a list
        fields = [field for name, field in model.model_fields.items() if (field.alias or name) == step]
        kinds = {kind for field in fields for kind in (field.annotation, *get_args(field.annotation))}
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if len(below) != 1:
            return []
        model = below[0]
    return [field.alias or name for name, field in model.model_fields.items()]
