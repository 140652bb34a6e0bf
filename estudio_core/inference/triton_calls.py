"""One call to Triton: deadline, retries where a retry can help, errors that say model, server and cause."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from estudio_core.errors import InferenceUnavailableError, ModelError, ModelNotLoadedError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0
"""Back-off between attempts: exponential with jitter, so that clients do not return in step; about 2 s in all."""

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # By default a channel waits up to two minutes before it tries a server again that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

_TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED")

logger = logging.getLogger(__name__)


def connect(url: str) -> Any:
    """Return a `tritonclient.grpc.InferenceServerClient`; nothing is sent yet.

    Raises:
        ModelError: `url` has a scheme.
    """
    from tritonclient import grpc

    if "://" in url:
        raise ModelError(f"A Triton address is host:port, got {url!r}. Leave the scheme out.")
    return grpc.InferenceServerClient(url, channel_args=_CHANNEL)


def call(action: Callable[[], T], *, model: str, url: str, doing: str, attempts: int = ATTEMPTS) -> T:
    """Return what `action` returns; a server that is away or late is asked again, with back-off.

    Args:
        action: One request, with a deadline of its own.
        model: Name of the model, for messages.
        url: Address of the server, for messages.
        doing: What is being done, for messages, such as "infer".
        attempts: How often to try at most.

    Raises:
        InferenceUnavailableError: the server did not answer in any attempt.
        ModelNotLoadedError: the server runs, and has not loaded the model.
        ModelError: the server answered that it cannot do this.
    """
    from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential
    from tritonclient.utils import InferenceServerException

    retrying = Retrying(
        retry=retry_if_exception(_is_transient),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
    )
    try:
        return retrying(action)
    except RetryError as failed:
        error = failed.last_attempt.exception()
        raise InferenceUnavailableError(
            f"Triton at {url} did not answer ({doing}, model {model}, {attempts} attempts): {error}. Start it, "
            "or correct ESTUDIO_INFERENCE_HOST and ESTUDIO_INFERENCE_GRPC_PORT; a request may take "
            "ESTUDIO_INFERENCE_TIMEOUT_S seconds."
        ) from error
    except InferenceServerException as error:
        refused = f"Triton at {url} refused ({doing}, model {model}): {error}."
        if _is_unknown_model(error):
            # A server that was restarted has no model until it is told to load one: a step that is tried again does.
            raise ModelNotLoadedError(f"{refused} Load it first: a release does.") from error
        raise ModelError(refused) from error


def _is_transient(error: BaseException) -> bool:
    from tritonclient.utils import InferenceServerException

    if not isinstance(error, InferenceServerException) or _is_unknown_model(error):
        return False
    return any(status in str(error.status()) for status in _TRANSIENT)


def _is_unknown_model(error: Exception) -> bool:
    """Return whether the server runs but not this model: it reports that as UNAVAILABLE, like a server that is away."""
    return "unknown model" in str(error).lower() or "not found" in str(error).lower()
