"""Filters as SQL, with bound values only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core import exact_json
from estudio_core.vectordb import field_indexes
from estudio_core.vectordb.filters import Bool, Exists, Filter, Match, Number, Range, Scalar, Terms, Wildcard
from estudio_core.vectordb.index_info import FieldKind, IndexedField, SearchIndexInfo
from estudio_core.vectordb.times import compared, compared_far, is_far, is_time, moment

INDEXED_VALUES = 50
"""Up to so many values of a condition are looked up in the index of all payloads. More would be read there one by one
for each object that is found; they are compared with the rows, all at once."""
_LAST_CHARACTER = "\U0010ffff"


def filter_sql(
    node: Filter, payload: sql.Composable, binds: dict[str, Any], info: SearchIndexInfo | None = None
) -> sql.Composable:
    """Return the condition on a jsonb expression `payload`: true or false, never null.

    Args:
        node: The filter.
        payload: A jsonb expression; a GIN index on it serves `Terms`.
        binds: Receives the values, under the names that the condition's placeholders have.
        info: Names fields with an index (`field_indexes`), where `payload` is the column that they are on.
    """
    if isinstance(node, Bool):
        conditions = [filter_sql(child, payload, binds, info) for child in node.must]
        if node.should:
            conditions.append(_joined(" OR ", [filter_sql(child, payload, binds, info) for child in node.should]))
        conditions += [_without(child, payload, binds, info) for child in node.must_not]
        return _joined(" AND ", conditions)
    if info is not None:
        whole = None
        if isinstance(node, Range):
            whole = _range_by_key(node, payload, binds, info)
        elif isinstance(node, Terms):
            whole = _terms_by_key(node, payload, binds, info)
        if whole is not None:
            return whole
    exact = _exact(node, payload, binds)
    found = _found(node, payload, binds, info)
    return exact if found is None else sql.SQL("({} AND {})").format(found, exact)


def reads_rows(node: Filter, info: SearchIndexInfo) -> bool:
    """Return whether no index finds what matches, or a part of it: rows are read one by one for that."""
    if isinstance(node, Bool):
        return any(reads_rows(child, info) for child in (*node.must, *node.should, *node.must_not))
    if isinstance(node, Terms):
        return not node.every and len(node.values) > INDEXED_VALUES and info.field_of(node.field.path) is None
    if isinstance(node, Match):
        return not _has_words(node, info)
    payload, binds = sql.SQL("payload"), dict[str, Any]()
    if isinstance(node, Range) and _range_by_key(node, payload, binds, info) is not None:
        return False
    return _found(node, payload, binds, info) is None


def _without(
    node: Filter, payload: sql.Composable, binds: dict[str, Any], info: SearchIndexInfo | None
) -> sql.Composable:
    excluded = sql.SQL("NOT {}").format(filter_sql(node, payload, binds))
    indexed = None if info is None or not isinstance(node, Exists) else info.field_of(node.field.path)
    if indexed is None:
        return excluded
    key = field_indexes.key(indexed[1], payload)
    return sql.SQL("(({key} IS NULL OR {key} > {beyond}) AND {excluded})").format(
        key=key, beyond=field_indexes.BEYOND_SCALARS, excluded=excluded
    )


def _exact(
    node: Terms | Exists | Match | Wildcard | Range, payload: sql.Composable, binds: dict[str, Any]
) -> sql.Composable:
    """Return the condition that decides."""
    if isinstance(node, Terms):
        return _terms_sql(node, payload, binds)
    if isinstance(node, Exists):
        return sql.SQL("COALESCE(jsonb_typeof({} #> {}::text[]) <> 'null', false)").format(
            payload, _bind(binds, list(node.field.path))
        )
    if isinstance(node, Match):
        query = sql.SQL("phraseto_tsquery" if node.phrase else "plainto_tsquery")
        # Two conditions and no COALESCE around them: an index serves the second as it stands.
        return sql.SQL("({} #>> {} IS NOT NULL AND {} @@ {}('simple', {}::text))").format(
            payload,
            field_indexes.path_of(node.field.path),
            field_indexes.words(node.field.path, payload),
            query,
            _bind(binds, node.text),
        )
    if isinstance(node, Wildcard):
        return sql.SQL(
            "EXISTS (SELECT 1 FROM jsonb_path_query({}, {}::jsonpath) AS value"
            " WHERE jsonb_typeof(value) = 'string' AND value #>> '{{}}' LIKE {}::text)"
        ).format(payload, _bind(binds, node.field.jsonpath), _bind(binds, _like(node.pattern)))
    return _range_sql(node, payload, binds)


def _has_words(node: Match, info: SearchIndexInfo) -> bool:
    indexed = info.field_of(node.field.path)
    return indexed is not None and indexed[1].kind == FieldKind.TEXT


def _found(
    node: Terms | Exists | Match | Wildcard | Range,
    payload: sql.Composable,
    binds: dict[str, Any],
    info: SearchIndexInfo | None,
) -> sql.Composable | None:
    """Return a condition that an index serves and every matching row fulfils; None where there is none to add."""
    indexed = None if info is None else info.field_of(node.field.path)
    if indexed is None:
        return None
    field = indexed[1]
    key = field_indexes.key(field, payload)
    lists = sql.SQL("{} > {}").format(key, field_indexes.BEYOND_SCALARS)
    if isinstance(node, Exists):
        return sql.SQL("{} IS NOT NULL").format(key)
    if isinstance(node, Terms):
        if node.every or any(value is None for value in node.values):
            return None
        values = [exact_json.dumps(_kept(value)) for value in node.values]
        return sql.SQL("({} = ANY({}::jsonb[]) OR {})").format(key, _bind(binds, values), lists)
    if isinstance(node, Wildcard):
        begin = re.split(r"[*?]", node.pattern)[0][: field_indexes.KEPT_CHARACTERS]
        if field.kind != FieldKind.TEXT or not begin:
            return None
        text = field_indexes.text(field, payload)
        return sql.SQL("({text} BETWEEN {}::text AND {}::text OR {lists})").format(
            _bind(binds, begin), _bind(binds, begin + _LAST_CHARACTER), text=text, lists=lists
        )
    if isinstance(node, Range):
        return _found_range(node, field, payload, binds, lists)
    return None


def _range_by_key(
    node: Range, payload: sql.Composable, binds: dict[str, Any], info: SearchIndexInfo
) -> sql.Composable | None:
    """Return the whole condition of a range of numbers or times on a field with an index; None for any other.

    What the index holds decides where the field is a number, or a time; of all else, the row does.
    """
    indexed = info.field_of(node.field.path)
    if indexed is None:
        return None
    field = indexed[1]
    moments = [moment(given) if isinstance(given, str) else None for _, given in node.bounds]
    if all(not isinstance(given, str) for _, given in node.bounds):
        key, type_, odd = field_indexes.key(field, payload), sql.SQL("jsonb"), field_indexes.BEYOND_SCALARS
        given = [exact_json.dumps(value) for _, value in node.bounds]
        plain = sql.SQL("{key} < 'false'::jsonb AND jsonb_typeof({key}) = 'number'").format(key=key)
        others = sql.SQL("{} > {}").format(key, odd)
    elif field.kind == FieldKind.TIME and all(
        each is not None and not each.of_day and not each.is_far for each in moments
    ):
        key, type_ = field_indexes.time(field, payload), sql.SQL("timestamptz")
        given = [each.text for each in moments if each is not None]
        plain = sql.SQL("{} < 'infinity'::timestamptz").format(key)
        others = sql.SQL("{} = 'infinity'::timestamptz").format(key)
    else:
        return None
    tests = [
        sql.SQL("{} {} {}::{}").format(key, _SIGNS[operator], _bind(binds, value), type_)
        for (operator, _), value in zip(node.bounds, given, strict=True)
    ]
    return sql.SQL("({} IS NOT NULL AND (({} AND {}) OR ({} AND {})))").format(
        key, sql.SQL(" AND ").join(tests), plain, others, _range_sql(node, payload, binds)
    )


def _terms_by_key(
    node: Terms, payload: sql.Composable, binds: dict[str, Any], info: SearchIndexInfo
) -> sql.Composable | None:
    """Return the whole condition of many values of a field with an index; None where that does not decide."""
    indexed = info.field_of(node.field.path)
    if indexed is None or node.every or len(node.values) == 1:
        return None
    longest = field_indexes.KEPT_CHARACTERS - 1
    if any(value is None or (isinstance(value, str) and len(value) > longest) for value in node.values):
        return None
    return sql.SQL("({key} IS NOT NULL AND ({key} = ANY({values}::jsonb[]) OR ({key} > {beyond} AND {exact})))").format(
        key=field_indexes.key(indexed[1], payload),
        values=_bind(binds, [exact_json.dumps(value) for value in node.values]),
        beyond=field_indexes.BEYOND_SCALARS,
        exact=_terms_sql(node, payload, binds),
    )


def _found_range(
    node: Range, field: IndexedField, payload: sql.Composable, binds: dict[str, Any], lists: sql.Composable
) -> sql.Composable | None:
    texts = [given for _, given in node.bounds if isinstance(given, str) and moment(given) is None]
    if field.kind != FieldKind.TEXT or len(texts) != len(node.bounds):
        return None
    text = field_indexes.text(field, payload)
    tests = [
        # Of what has the same beginning, the row decides.
        sql.SQL("{} {} {}::text").format(text, _WIDER[operator], _bind(binds, given[: field_indexes.KEPT_CHARACTERS]))
        for (operator, _), given in zip(node.bounds, texts, strict=True)
    ]
    return sql.SQL("({} OR {})").format(sql.SQL(" AND ").join(tests), lists)


_SIGNS = {sign: sql.SQL("=" if sign == "==" else sign) for sign in (">", ">=", "<", "<=", "==")}
_WIDER = {**_SIGNS, ">": sql.SQL(">="), "<": sql.SQL("<=")}


def _kept(value: Scalar) -> Scalar:
    return value[: field_indexes.KEPT_CHARACTERS] if isinstance(value, str) else value


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
        if bound is None:
            conditions.append(plain)
            continue
        bind = _bind(binds, bound.text)
        far: sql.Composable = sql.SQL("")
        if not bound.of_day:
            far = sql.SQL("WHEN {} THEN {}").format(is_far(text), compared_far(text, operator, bound, bind))
        conditions.append(
            sql.SQL("CASE WHEN jsonb_typeof(value) <> 'string' THEN {} {} WHEN {} THEN {} ELSE {} END").format(
                plain, far, is_time(text, bound), compared(text, operator, bound, bind), plain
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
        return _contains(documents, payload, binds)
    if len(node.values) == 1:
        return _contains([node.field.document(form) for form in (node.values[0], [node.values[0]])], payload, binds)
    value = sql.SQL("{} #> {}::text[]").format(payload, _bind(binds, list(node.field.path)))
    values = _bind(binds, [exact_json.dumps(each) for each in node.values])
    if len(node.values) > INDEXED_VALUES:
        return sql.SQL(
            "COALESCE({value} = ANY({values}::jsonb[]) OR (jsonb_typeof({value}) = 'array' AND EXISTS (SELECT"
            " FROM jsonb_array_elements(CASE WHEN jsonb_typeof({value}) = 'array' THEN {value} ELSE '[]' END) AS one"
            " WHERE one = ANY({values}::jsonb[]))), false)"
        ).format(value=value, values=values)
    lists = [node.field.document([each]) for each in node.values]
    scalars = [node.field.document(each) for each in node.values]
    # The first is cheap to tell of a row, the second is what the index of payloads finds rows by.
    return sql.SQL(
        "(COALESCE(CASE jsonb_typeof({value}) WHEN 'array' THEN {payload} @> ANY({lists}::jsonb[])"
        " ELSE {value} = ANY({values}::jsonb[]) END, false) AND {payload} @> ANY({all}::jsonb[]))"
    ).format(
        value=value, payload=payload, lists=_bind(binds, lists), values=values, all=_bind(binds, [*lists, *scalars])
    )


def _contains(documents: Sequence[Jsonb], payload: sql.Composable, binds: dict[str, Any]) -> sql.Composable:
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
