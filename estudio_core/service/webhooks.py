"""`POST /_webhooks/mlflow`: MLflow says that somebody moved an alias, and the release asked for by that starts at once.

The message is a doorbell, like that of Airflow's own watcher, which looks every ten seconds and finds what no message
told. Both ring at the same asset, and the run that starts reads in MLflow itself what is to be done: a message that
comes twice, or too late, starts nothing twice.

Only the alias `champion` rings here. Estudio moves `challenger` itself at the end of each training, and only MLflow can
tell that from a person's doing: the watcher finds those.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.alias_audit import PROMOTES, doorbell
from estudio_core.experiments.webhook import EVENT, PATH
from estudio_core.service.access import charge
from estudio_core.service.endpoints import KIBI, Call, Endpoint, as_document
from estudio_core.service.installing import airflow
from estudio_core.service.refusals import Refused, json_response, named, refuse
from estudio_core.service.schemas import read

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
VERSION = "v1"
TOLERANCE_S = 300
"""How far the time of a message may be from this clock: MLflow tries again for some seconds, clocks differ."""
AIRFLOW_S = 5.0
"""For each of three requests to Airflow; MLflow waits 30 s for an answer."""
_DELIVERY = re.compile(r"[A-Za-z0-9_-]{1,100}")

logger = logging.getLogger(__name__)

Text = Annotated[str, Field(max_length=1000)]


class Alias(BaseModel):
    """`data` of a message about an alias."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    name: Text
    """Of the registered model."""
    alias: Text
    version: Text = ""
    """Which it names now; not there where it was taken away."""


class Message(BaseModel):
    """What MLflow sends."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    entity: Text
    action: Text
    data: Alias


async def alias_moved(call: Call) -> Response:
    """Start the release that a moved alias asks for."""
    _ = call.parameters
    charge(call.request, call.caller, call.state)
    secret = call.state.settings.service_webhook_secret
    if secret is None:
        raise Refused(404, "MLflow is not listened to here: ESTUDIO_SERVICE_WEBHOOK_SECRET sets the secret of both.")
    body = await call.body()
    delivery = require_signed(call.request.headers, body, secret.get_secret_value(), time.time())
    document = as_document(body)
    entity, action = (document.get(name) for name in ("entity", "action")) if isinstance(document, dict) else ("", "")
    if f"{entity}.{action}" not in (EVENT, "model_version_alias.deleted"):
        raise refuse(f"The event [{named(entity)}.{named(action)}] is not listened to: only {EVENT} is.")
    message = read(Message, document, "A message of MLflow")

    async def act() -> dict[str, str]:
        return await anyio.to_thread.run_sync(partial(_ring, message, delivery), limiter=call.state.small_reads)

    done = await call.state.deliveries.get(delivery, act)
    call.tell_log(plugin=done.get("plugin"))
    return json_response(done, 202 if done["status"] == "rung" else 200)


def require_signed(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str:
    """Make sure that a message is MLflow's and new; return the id of its delivery.

    What is signed is `<delivery id>.<timestamp>.<body>`, by HMAC-SHA256.

    Raises:
        Refused: it is not.
    """
    delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
    content = b".".join([delivery.encode("utf-8", "replace"), timestamp.encode("utf-8", "replace"), body])
    expected = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    signed = any([hmac.compare_digest(expected, given) for given in _signatures(headers.get(SIGNATURE, ""))])  # noqa: C419 (all are compared)
    if not signed or not _DELIVERY.fullmatch(delivery):
        raise Refused(401, "This message is not signed with the secret of ESTUDIO_SERVICE_WEBHOOK_SECRET.")
    if not (timestamp.isascii() and timestamp.isdigit() and abs(now - int(timestamp[:15])) <= TOLERANCE_S):
        raise Refused(401, f"This message is older than {TOLERANCE_S} s, or one of the two clocks is wrong.")
    return delivery


def _signatures(given: str) -> list[bytes]:
    """Return the signatures of a header, `v1,<base64>`, of which there may be a few while a secret is changed."""
    found = []
    for each in given.split(" ")[:4]:
        version, _, text = each.partition(",")
        if version == VERSION:
            try:
                found.append(base64.b64decode(text.encode("ascii", "replace"), validate=True))
            except binascii.Error:
                continue
    return found


def _ring(message: Message, delivery: str) -> dict[str, str]:
    """Ring where a release may have to be done; say what was done."""
    from estudio_core import database
    from estudio_core.vectordb.releases import live_release

    moved = message.data
    if message.action == "deleted" or moved.alias != PROMOTES:
        return {"status": "ignored", "why": f"Only the alias {PROMOTES}, set to a version, starts a release at once."}
    with database.errors_named(), database.connection() as connection:
        live = live_release(connection, moved.name)
    if live is None:
        return {"status": "ignored", "why": "No plugin of this name has a live release."}
    if live.model_version == moved.version:
        return {"status": "ignored", "why": "This version serves already.", "plugin": live.plugin}
    try:
        from estudio_core.local.runs import ring

        ring(doorbell(live.plugin), {"mlflow_delivery": delivery, "version": moved.version}, api=airflow(AIRFLOW_S))
    except ConfigurationError as error:
        logger.warning("The release of %s was not started: %s", live.plugin, error)
        raise Refused(409, "Airflow does not take the event; the log of this service says why.") from error
    logger.info("%s: the alias %s was set to version %s; its release starts.", live.plugin, PROMOTES, moved.version)
    return {"status": "rung", "plugin": live.plugin}


ENDPOINTS = (
    Endpoint(
        PATH, ("POST",), alias_moved, "MLflow says that an alias was moved: start the release that it asks for",
        body=Message, most_bytes=64 * KIBI, statuses=(202, 409),
    ),
)  # fmt: skip
