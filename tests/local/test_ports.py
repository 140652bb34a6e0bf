"""Ports are free, remembered, and different for different services."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from estudio_core.local import ports


def occupied_port() -> socket.socket:
    return socket.create_server((ports.LOOPBACK, 0))


def test_the_choice_is_remembered(tmp_path: Path) -> None:
    assert ports.remembered_port(tmp_path, "airflow") is None
    chosen = ports.choose_port(tmp_path, "airflow")
    assert ports.remembered_port(tmp_path, "airflow") == chosen
    assert ports.choose_port(tmp_path, "airflow") == chosen


def test_another_port_is_taken_where_the_usual_one_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with occupied_port() as server:
        taken = server.getsockname()[1]
        monkeypatch.setitem(ports.PREFERRED_PORTS, "airflow", taken)
        chosen = ports.choose_port(tmp_path, "airflow")
    assert chosen != taken
    assert ports.is_free(chosen)


def test_a_remembered_port_that_is_in_use_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with occupied_port() as server:
        taken = server.getsockname()[1]
    monkeypatch.setitem(ports.PREFERRED_PORTS, "airflow", taken)
    assert ports.choose_port(tmp_path, "airflow") == taken
    with socket.create_server((ports.LOOPBACK, taken)):
        replacement = ports.choose_port(tmp_path, "airflow")
    assert replacement != taken
    assert ports.remembered_port(tmp_path, "airflow") == replacement


def test_two_services_never_get_the_same_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with occupied_port() as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(ports, "PREFERRED_PORTS", {"airflow": port, "mlflow": port})
    assert ports.choose_port(tmp_path, "airflow") == port
    assert ports.choose_port(tmp_path, "mlflow") != port


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "local.json").write_text('{"ports": [')
    chosen = ports.choose_port(tmp_path, "mlflow")
    assert ports.remembered_port(tmp_path, "mlflow") == chosen
