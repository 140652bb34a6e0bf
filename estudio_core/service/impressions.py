"""Searches that were served, as rows of the clickstream: what was asked, and what was shown in which place."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from estudio_core.clickstream.pages import EXPERIMENT
from estudio_core.clickstream.ubi import UbiQuery
from estudio_core.errors import EstudioError
from estudio_core.service.caller import Caller
from estudio_core.service.finding import Found, Wanted
from estudio_core.service.schemas import UbiExtension
from estudio_core.service.state import State

logger = logging.getLogger(__name__)

LONGEST_ID_BYTES = 1024


def new_query_id() -> str:
    """Return an id for a search that its client gave none."""
    return str(uuid.uuid4())


async def keep(
    state: State,
    caller: Caller,
    wanted: Wanted,
    found: Found,
    ubi: UbiExtension,
    query_id: str,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Keep a search and the hits of its page, where the caller's key may log.

    What a stranger without a key searches for is not kept: nobody writes here anonymously.
    """
    text = ubi.user_query or wanted.text
    if not text or not caller.holds("events") or not found.hits:
        return
    if any(len(each.encode("utf-8", "replace")) > LONGEST_ID_BYTES for each in (query_id, ubi.client_id or "")):
        return
    # Of two models, scores say nothing of the order.
    mixed = found.part is not None and found.part.form == "interleaving"
    scores = None if mixed else tuple(float(hit.score) for hit in found.hits)
    row = UbiQuery(
        query_id=query_id,
        user_query=text,
        timestamp=datetime.now(UTC),
        application=wanted.plugin,
        query_response_hit_ids=tuple(hit.object_id for hit in found.hits),
        query_response_scores=scores,
        client_id=ubi.client_id,
        session_id=ubi.session_id,
        user_id=ubi.user_id or wanted.user_id,
        query_attributes={
            **{name: value for name, value in ubi.query_attributes.items() if name != EXPERIMENT},
            **_how(wanted, found, ubi),
            **(attributes or {}),
        },
    )
    try:
        left_out = await state.collector.store([row], durable=False)
    except Exception as error:  # the search was answered: its answer does not go with it
        unforeseen = not isinstance(error, EstudioError)
        logger.warning("A search that was served is not in the clickstream: %s", error, exc_info=unforeseen)
        return
    if left_out:
        logger.info("A search that was served is not in the clickstream: %s", left_out[0])


def _how(wanted: Wanted, found: Found, ubi: UbiExtension) -> dict[str, Any]:
    how: dict[str, Any] = {"release": str(found.release_id), "from": wanted.start, "mode": wanted.mode}
    if found.part is not None:
        how[EXPERIMENT] = found.part.logged()
        if found.part.form == "interleaving":
            del how["release"]  # it is of two
    if wanted.of_hits is not None:
        how["filter"] = wanted.of_hits
    if wanted.sort is not None:
        how["sort"] = ("-" if wanted.sort.descending else "") + wanted.sort.field
    if ubi.application is not None and ubi.application != wanted.plugin:
        how["client_application"] = ubi.application
    if ubi.object_id_field is not None:
        how["object_id_field"] = ubi.object_id_field
    return how
