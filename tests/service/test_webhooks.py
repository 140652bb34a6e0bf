"""MLflow's messages about moved aliases: from its own server, signed by it, to the event that starts a release."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from estudio_core.cli import app
from estudio_core.errors import UnavailableError
from estudio_core.experiments.shared import mlflow_client
from estudio_core.experiments.webhook import PATH
from estudio_core.local.ports import choose_port
from estudio_core.local.runs import ring
from estudio_core.service import installing
from estudio_core.service.webhooks import DELIVERY, SIGNATURE, TIMESTAMP, TOLERANCE_S
from estudio_core.settings import get_settings
from tests.service.conftest import Service, running

SECRET = "a secret of two dozen signs"


class Airflow(ThreadingHTTPServer):
    """What the service asks of Airflow's API, and the events that it was told of."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _AirflowApi)
        self.told: list[dict[str, Any]] = []
        self.away = False
        self.uris = ["x-estudio://workshop/alias", "x-estudio://shop/alias"]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _AirflowApi(BaseHTTPRequestHandler):
    server: Airflow

    def do_GET(self) -> None:
        self._answer(200, {"assets": [{"id": number, "uri": uri} for number, uri in enumerate(self.server.uris)]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.away:
            self._answer(503, {})
        elif self.path == "/auth/token":
            self._answer(201, {"access_token": "t"})
        else:
            assert self.path == "/api/v2/assets/events"
            self.server.told.append(body)
            self._answer(200, {})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def airflow_api() -> Iterator[Airflow]:
    server = Airflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def listening(service: Service, airflow_api: Airflow) -> Iterator[str]:
    """Address of a service that knows the secret, and an Airflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESTUDIO_SERVICE_WEBHOOK_SECRET", SECRET)
        patch.setenv("ESTUDIO_SERVICE_AIRFLOW_URL", airflow_api.address)
        patch.setenv("ESTUDIO_SERVICE_AIRFLOW_PASSWORD", "p")
        get_settings.cache_clear()
        with running() as address:
            yield address
    get_settings.cache_clear()


@pytest.fixture
def airflow(airflow_api: Airflow) -> Airflow:
    airflow_api.told.clear()
    airflow_api.away = False
    return airflow_api


def signed(event: dict[str, Any] | bytes, *, secret: str = SECRET, at: float | None = None, delivery: str = "") -> Any:
    """Return body and headers of a message as MLflow's own code signs it."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    delivery, timestamp = delivery or f"d-{time.monotonic_ns()}", str(int(at or time.time()))
    signature = _generate_hmac_signature(secret, delivery, timestamp, body.decode())
    return {"content": body, "headers": {DELIVERY: delivery, TIMESTAMP: timestamp, SIGNATURE: signature}}


def set_to(version: str, name: str = "shop", alias: str = "champion", action: str = "created") -> dict[str, Any]:
    data = {"name": name, "alias": alias, "version": version}
    return {"entity": "model_version_alias", "action": action, "timestamp": "2026-01-01T00:00:00+00:00", "data": data}


def test_a_champion_that_does_not_serve_yet_rings_once(listening: str, airflow: Airflow) -> None:
    message = signed(set_to("7"), delivery="one-delivery")
    answers = [httpx.post(listening + PATH, **message) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert [answer.json() for answer in answers] == [{"status": "rung", "plugin": "shop"}] * 3
    assert airflow.told == [{"asset_id": 1, "extra": {"mlflow_delivery": "one-delivery", "version": "7"}}]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (set_to("1"), "serves already"),
        (set_to("7", alias="challenger"), "Only the alias champion"),
        (set_to("7", action="deleted"), "Only the alias champion"),
        ({**set_to("7", action="deleted"), "data": {"name": "shop", "alias": "champion"}}, "Only the alias champion"),
        (set_to("1", name="example_model"), "No plugin of this name"),
    ],
)
def test_what_asks_for_no_release_is_heard_and_left(
    listening: str, airflow: Airflow, event: dict[str, Any], why: str
) -> None:
    answer = httpx.post(listening + PATH, **signed(event))
    assert answer.status_code == 200
    assert answer.json()["status"] == "ignored"
    assert why in answer.json()["why"]
    assert airflow.told == []


def changed(message: Any, **headers: str) -> Any:
    return {**message, "headers": {**message["headers"], **headers}}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (lambda: signed(set_to("7"), secret="another secret of two dozen"), "not signed"),
        (lambda: {"content": json.dumps(set_to("7")).encode(), "headers": {}}, "not signed"),
        (lambda: {**signed(set_to("7")), "content": json.dumps(set_to("8")).encode()}, "not signed"),
        (lambda: changed(signed(set_to("7")), **{DELIVERY: "another"}), "not signed"),
        (lambda: changed(signed(set_to("7")), **{TIMESTAMP: str(int(time.time()) + 1)}), "not signed"),
        (lambda: changed(signed(set_to("7")), **{SIGNATURE: "v1,"}), "not signed"),
        (lambda: changed(signed(set_to("7")), **{SIGNATURE: "v1,é%"}), "not signed"),
        (lambda: signed(set_to("7"), at=time.time() - TOLERANCE_S - 5), "older than 300 s"),
        (lambda: signed(set_to("7"), at=time.time() + TOLERANCE_S + 5), "older than 300 s"),
    ],
)
def test_what_mlflow_did_not_sign_just_now_is_refused(
    listening: str, airflow: Airflow, message: Callable[[], Any], why: str
) -> None:
    given = message()
    given["headers"] = {name: value.encode() for name, value in given["headers"].items()}
    answer = httpx.post(listening + PATH, **given)
    assert answer.status_code == 401
    assert why in answer.json()["error"]["reason"]
    assert airflow.told == []


@pytest.mark.parametrize(
    ("event", "status", "why"),
    [
        ({**set_to("7"), "entity": "registered_model"}, 400, "[registered_model.created] is not listened to"),
        ({**set_to("7"), "data": {"name": "shop"}}, 400, "[data.alias] field required"),
        ([], 400, "is not listened to"),
        (set_to("7", name="no\x00thing"), 400, "The database cannot work with"),
        (b"no json", 400, "not JSON"),
        (b'"' + b"x" * 70_000 + b'"', 413, "longer than 65,536 bytes"),
    ],
)
def test_what_is_no_message_about_an_alias_is_refused(
    listening: str, airflow: Airflow, event: Any, status: int, why: str
) -> None:
    answer = httpx.post(listening + PATH, **signed(event))
    assert answer.status_code == status
    assert why in answer.json()["error"]["reason"]
    assert airflow.told == []


def test_an_airflow_that_is_away_is_rung_at_when_mlflow_tries_again(listening: str, airflow: Airflow) -> None:
    airflow.away = True
    message = signed(set_to("7"))
    refused = httpx.post(listening + PATH, **message)
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    airflow.away = False
    assert httpx.post(listening + PATH, **message).status_code == 202
    assert len(airflow.told) == 1


def test_an_airflow_without_the_dag_is_told_to_the_log(
    listening: str, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow, "uris", [])
    assert httpx.post(listening + PATH, **signed(set_to("7"))).status_code == 409


def test_without_a_secret_nothing_is_listened_to(service: Service) -> None:
    answer = httpx.post(service.address + PATH, **signed(set_to("7")))
    assert answer.status_code == 404
    assert "ESTUDIO_SERVICE_WEBHOOK_SECRET" in answer.json()["error"]["reason"]


@pytest.fixture(scope="module")
def mlflow_server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server, in a thread, allowed to send to this machine."""
    store = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_store, store / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", Fernet.generate_key().decode())
        patch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
        patch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
        patch.setenv("MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.server import app as flask_app
        from mlflow.server import handlers
        from werkzeug.serving import make_server

        patch.setattr(handlers, "_tracking_store", None)
        patch.setattr(handlers, "_model_registry_store", None)
        handlers.initialize_backend_stores(f"sqlite:///{store / 'mlflow.db'}", default_artifact_root=str(store))
        server = make_server("127.0.0.1", 0, flask_app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_mlflow_tells_the_service_when_somebody_moves_an_alias(
    listening: str, mlflow_server: str, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_MLFLOW_TRACKING_URI", mlflow_server)
    get_settings.cache_clear()
    run = CliRunner()
    first = run.invoke(app, ["webhook", "register", listening])
    assert first.exit_code == 0, first.output
    assert f"MLflow tells {listening}{PATH}" in first.output.replace("\n", "")
    again = run.invoke(app, ["webhook", "register", listening + "/"])
    assert again.exit_code == 0, again.output
    client = mlflow_client().client
    assert [(each.url, [str(event) for event in each.events]) for each in client.list_webhooks()] == [
        (listening + PATH, ["model_version_alias.created"])
    ]
    assert airflow.told == []  # the test message asked for nothing
    client.create_registered_model("shop")
    for _ in range(2):
        client.create_model_version("shop", source="s3://nowhere/model")
    client.set_registered_model_alias("shop", "champion", "1")
    client.set_registered_model_alias("shop", "champion", "2")
    until = time.monotonic() + 10
    while not airflow.told and time.monotonic() < until:
        time.sleep(0.02)
    [told] = airflow.told
    assert (told["asset_id"], told["extra"]["version"]) == (1, "2")
    assert run.invoke(app, ["webhook", "remove"]).exit_code == 0
    assert list(client.list_webhooks()) == []


def test_a_service_that_does_not_know_the_secret_is_found_out(
    service: Service, listening: str, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_MLFLOW_TRACKING_URI", mlflow_server)
    get_settings.cache_clear()
    done = CliRunner().invoke(app, ["webhook", "register", service.address])
    assert done.exit_code == 1
    assert "did not arrive" in done.output
    assert "404" in done.output
    assert CliRunner().invoke(app, ["webhook", "remove"]).exit_code == 0


def test_webhooks_need_a_server_and_a_secret(service: Service, listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    done = CliRunner().invoke(app, ["webhook", "register", "https://search.example.org"])
    assert done.exit_code == 1
    assert "sent by MLflow's server" in done.output.replace("\n", " ")
    wrong = CliRunner().invoke(app, ["webhook", "register", "search.example.org"])
    assert "is no address of a service" in wrong.output.replace("\n", " ")
    monkeypatch.delenv("ESTUDIO_SERVICE_WEBHOOK_SECRET")
    get_settings.cache_clear()
    assert "is not set" in CliRunner().invoke(app, ["webhook", "register", listening]).output


def test_the_airflow_of_this_machine_is_waited_for_no_longer_than_another(tmp_path: Path) -> None:
    port = choose_port(tmp_path, "airflow")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", port)):  # answers nobody
        patch.setenv("ESTUDIO_HOME", str(tmp_path))
        patch.delenv("ESTUDIO_SERVICE_AIRFLOW_URL", raising=False)
        get_settings.cache_clear()
        began = time.monotonic()
        with installing.airflow(0.2) as api, pytest.raises(UnavailableError, match="timed out"):
            ring("x-estudio://shop/alias", {}, api=api)
        assert time.monotonic() - began < 10
    get_settings.cache_clear()
