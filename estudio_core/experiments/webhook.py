"""What MLflow is told to send: a signed message to the service whenever an alias is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from estudio_core.errors import ConfigurationError, TrackingUnavailableError
from estudio_core.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook

    from estudio_core.experiments.mlflow_client import MLflowClientWrapper

T = TypeVar("T")

NAME = "estudio-aliases"
EVENT: Literal["model_version_alias.created"] = "model_version_alias.created"
PATH = "/_webhooks/mlflow"
"""Where the service listens."""
_KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"


def register(wrapper: MLflowClientWrapper, service: str, secret: str) -> str:
    """Have MLflow tell the service at this address of aliases; one that it tells already is replaced.

    Returns:
        The full address that MLflow sends to; it has answered a test message rightly.

    Raises:
        ConfigurationError: MLflow has no server that could send, refuses the address, or was not answered rightly.
        TrackingUnavailableError: it does not answer.
    """
    parts = urlsplit(service)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"{service!r} is no address of a service; one is https://search.example.org")
    _require_server(wrapper)
    url = service.rstrip("/").removesuffix(PATH) + PATH

    def put(client: MlflowClient) -> str:
        known = _registered(client)
        for extra in known[1:]:
            client.delete_webhook(extra.webhook_id)
        if known:
            client.update_webhook(known[0].webhook_id, url=url, events=[EVENT], secret=secret, status="ACTIVE")
            return known[0].webhook_id
        return client.create_webhook(
            NAME, url, [EVENT], description="Estudio: releases start at once", secret=secret, status="ACTIVE"
        ).webhook_id

    webhook_id = _said(wrapper, put)
    result = _said(wrapper, lambda client: client.test_webhook(webhook_id))
    if not result.success:
        said = result.error_message or f"it answered {result.response_status}: {(result.response_body or '')[:300]}"
        raise ConfigurationError(
            f"MLflow's message did not arrive at {url}: {said}. The webhook is registered; put that right, then run "
            "this again. A 401 is another secret, a 404 none: ESTUDIO_SERVICE_WEBHOOK_SECRET of the running service. "
            f"MLflow's server needs {_KEY} (all its processes the same), MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https for "
            "an address without TLS, and MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true for one inside a network."
        )
    return url


def remove(wrapper: MLflowClientWrapper) -> int:
    """Have MLflow tell no service any more; return how many it told. Raises: as `register`."""
    _require_server(wrapper)

    def take(client: MlflowClient) -> int:
        known = _registered(client)
        for each in known:
            client.delete_webhook(each.webhook_id)
        return len(known)

    return _said(wrapper, take)


def _require_server(wrapper: MLflowClientWrapper) -> None:
    if not wrapper.tracking_uri.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"Webhooks are sent by MLflow's server, and the tracking URI is {redact(wrapper.tracking_uri)}: let "
            "ESTUDIO_MLFLOW_TRACKING_URI name the server. Without one, moved aliases are found within ten seconds."
        )


def _registered(client: MlflowClient) -> list[Webhook]:
    found: list[Webhook] = []
    token = None
    while True:
        page = client.list_webhooks(max_results=100, page_token=token)
        found.extend(each for each in page if each.name == NAME)
        token = page.token
        if not token:
            return found


def _said(wrapper: MLflowClientWrapper, operation: Callable[[MlflowClient], T]) -> T:
    try:
        return wrapper.call(operation)
    except TrackingUnavailableError as error:
        raise TrackingUnavailableError(
            f"{error} Where its log names InvalidToken, its secrets were written with another {_KEY}."
        ) from error
