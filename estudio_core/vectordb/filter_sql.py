"""Filters as SQL, with bound values only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core import exact_json
from estudio_core.vectordb.filters import Bool, Exists, Filter, Match, Number, Range, Scalar, Terms, Wildcard
from estudio_core.vectordb.times import compared, is_time, moment

INDEXED_VALUES = 50
"""Up to so many values of a condition are looked up in the index. More would be read there one by one for each object
that is found; they are compared with the rows, all at once."""
WORDS_READ = 50_000
"""Characters of a text in a payload whose words `match` and `phrase` see: PostgreSQL cannot read the words of texts
that are much longer, and one such item would be the error of everybody's search."""


def filter_sql(node: Filter, payload: sql.Composable, binds: dict[str, Any]) -> sql.Composable:
    """Return the condition on a jsonb expression `payload`: true or false, never null.

    Args:
        node: The filter.
        payload: A jsonb expression; a GIN index on it serves `Terms`.
        binds: Receives the values, under the names that the condition's placeholders have.
    """
    if isinstance(node, Bool):
        conditions = [filter_sql(child, payload, binds) for child in node.must]
        if node.should:
            conditions.append(_joined(" OR ", [filter_sql(child, payload, binds) for child in node.should]))
        conditions += [sql.SQL("NOT {}").format(filter_sql(child, payload, binds)) for child in node.must_not]
        return _joined(" AND ", conditions)
    if isinstance(node, Terms):
        return _terms_sql(node, payload, binds)
    if isinstance(node, Exists):
        return sql.SQL("COALESCE(jsonb_typeof({} #> {}::text[]) <> 'null', false)").format(
            payload, _bind(binds, list(node.field.path))
        )
    if isinstance(node, Match):
        query = sql.SQL("phraseto_tsquery" if node.phrase else "plainto_tsquery")
        return sql.SQL(
            "COALESCE(to_tsvector('simple', left({} #>> {}::text[], {})) @@ {}('simple', {}::text), false)"
        ).format(payload, _bind(binds, list(node.field.path)), sql.Literal(WORDS_READ), query, _bind(binds, node.text))
    if isinstance(node, Wildcard):
        return sql.SQL(
            "EXISTS (SELECT 1 FROM jsonb_path_query({}, {}::jsonpath) AS value"
            " WHERE jsonb_typeof(value) = 'string' AND value #>> '{{}}' LIKE {}::text)"
        ).format(payload, _bind(binds, node.field.jsonpath), _bind(binds, _like(node.pattern)))
    return _range_sql(node, payload, binds)


def _range_sql(node: Range, payload: sql.Composable, binds: dict[str, Any]) -> sql.Composable:
    moments = [moment(value) if isinstance(value, str) else None for _, value in node.bounds]
    if not any(moments):
        return sql.SQL("jsonb_path_exists({}, {}, true)").format(
            payload, _within(node.field.jsonpath, node.bounds, binds)
        )
    text = sql.SQL("(value #>> '{{}}')").format()
    conditions = []
    for bound, (operator, given) in zip(moments, node.bounds, strict=True):
        plain = sql.SQL("jsonb_path_exists(value, {}, true)").format(_within("$", [(operator, given)], binds))
        conditions.append(
            plain
            if bound is None
            else sql.SQL("CASE WHEN jsonb_typeof(value) = 'string' AND {} THEN {} ELSE {} END").format(
                is_time(text, bound), compared(text, operator, bound, _bind(binds, bound.text)), plain
            )
        )
    return sql.SQL("EXISTS (SELECT 1 FROM jsonb_path_query({}, {}::jsonpath) AS value WHERE {})").format(
        payload, _bind(binds, node.field.jsonpath), sql.SQL(" AND ").join(conditions)
    )


def _within(path: str, bounds: Sequence[tuple[str, str | Number]], binds: dict[str, Any]) -> sql.Composable:
    """Return a jsonpath, and its values, of what at `path` lies within all bounds."""
    test = " && ".join(f"@ {operator} $b{i}" for i, (operator, _) in enumerate(bounds))
    values = {f"b{i}": value for i, (_, value) in enumerate(bounds)}
    return sql.SQL("{}::jsonpath, {}").format(
        _bind(binds, f"{path} ? ({test})"), _bind(binds, Jsonb(values, exact_json.dumps))
    )


def _bind(binds: dict[str, Any], value: Any) -> sql.Placeholder:
    name = f"filter{len(binds)}"
    binds[name] = value
    return sql.Placeholder(name)


def _terms_sql(node: Terms, payload: sql.Composable, binds: dict[str, Any]) -> sql.Composable:
    if node.every:
        documents = [node.field.document(list(node.values))]
        if len(set(map(_identity, node.values))) == 1:
            documents.append(node.field.document(node.values[0]))
    elif len(node.values) <= INDEXED_VALUES:
        documents = [node.field.document(form) for value in node.values for form in (value, [value])]
    else:
        return sql.SQL(
            "EXISTS (SELECT 1 FROM jsonb_path_query({}, {}::jsonpath, '{{}}', true) AS found,"
            " jsonb_path_query(found, '$[*]') AS value WHERE value = ANY({}::jsonb[]))"
        ).format(
            payload,
            _bind(binds, node.field.strict_jsonpath),
            _bind(binds, [exact_json.dumps(value) for value in node.values]),
        )
    return _joined(" OR ", [sql.SQL("{} @> {}").format(payload, _bind(binds, document)) for document in documents])


def _identity(value: Scalar) -> tuple[bool, Scalar]:
    """Return what tells 1 from true and not from 1.0."""
    return isinstance(value, bool), value


def _joined(operator: LiteralString, conditions: Sequence[sql.Composable]) -> sql.Composable:
    if not conditions:
        return sql.SQL("true")
    return sql.SQL("({})").format(sql.SQL(operator).join(conditions))


def _like(pattern: str) -> str:
    r"""Turn `*` and `?` into LIKE's signs, everything else into itself.

    >>> _like("50%_a*?")
    '50\\%\\_a%_'
    """
    pattern = re.sub(r"\*+", "*", pattern)
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")
