"""What a loader accepts as `query_generator`: a class, an instance, or a callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Engine

from estudio_core.errors import ConfigurationError
from estudio_core.sources.query_generator import QueryGenerator

GeneratorArgument = type[QueryGenerator] | QueryGenerator | Callable[[Engine], QueryGenerator]


def generator_factory(
    query_generator: GeneratorArgument, table_name: str | None, id_column: str | None, schema: str | None
) -> Callable[[Engine], QueryGenerator]:
    """Return what makes the query generator of an engine.

    A class whose `__init__` takes `table_name` gets the table; one with `__init__(engine)` knows its own.

    Raises:
        ConfigurationError: no table is known, or the argument is of another kind.
    """
    if isinstance(query_generator, QueryGenerator):
        return partial(_checked, query_generator.bound_to, table_name, id_column)
    if isinstance(query_generator, type):
        if not issubclass(query_generator, QueryGenerator):
            raise _unusable(query_generator)
        return partial(_checked, _constructor(query_generator, table_name, id_column, schema), table_name, id_column)
    if callable(query_generator):
        return partial(_checked, query_generator, table_name, id_column)
    raise _unusable(query_generator)


def _constructor(
    generator: type[QueryGenerator], table_name: str | None, id_column: str | None, schema: str | None
) -> Callable[[Engine], QueryGenerator]:
    parameters = inspect.signature(generator).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "table_name" not in parameters and not takes_any:
        return generator  # its __init__ takes an engine alone
    if table_name is None:
        raise ConfigurationError(
            f"query_generator={generator.__name__} does not know which table to read: "
            "give the loader table_name='your_table' (and schema=, id_column= where they are not the default)."
        )
    given = {"id_column": id_column, "schema": schema}
    known = {name: v for name, v in given.items() if v is not None and (takes_any or name in parameters)}

    def construct(engine: Engine) -> QueryGenerator:
        return generator(table_name=table_name, engine=engine, **known)

    return construct


def _checked(
    make: Callable[[Engine], Any], table_name: str | None, id_column: str | None, engine: Engine
) -> QueryGenerator:
    made = make(engine)
    if not isinstance(made, QueryGenerator):
        raise _unusable(made)
    if table_name is not None and made.table_name != table_name:
        raise ConfigurationError(
            f"table_name={table_name!r} is given, but {type(made).__name__} reads {made.table_name!r}. "
            "Give the same name, or leave table_name out."
        )
    return made if id_column in (None, made.id_column) else made.bound_to(engine, id_column)


def _unusable(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"query_generator={given!r} cannot be used: give a subclass of QueryGenerator, an instance of one, "
        "or a callable that takes a SQLAlchemy engine and returns one."
    )
