"""Secrets are random, stable, and readable by their owner only."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.fernet import Fernet

from estudio_core.local.generated_secrets import admin_password, admin_password_file, secret


def test_a_secret_stays_the_same_and_differs_from_others(tmp_path: Path) -> None:
    first = secret(tmp_path / "a", "key")
    assert secret(tmp_path / "a", "key") == first
    assert secret(tmp_path / "a", "other") != first
    assert secret(tmp_path / "b", "key") != first


def test_only_the_owner_can_read_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secret(folder, "key")
    admin_password_file(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 2  # nothing temporary stays


def test_a_secret_is_a_valid_fernet_key(tmp_path: Path) -> None:
    cipher = Fernet(secret(tmp_path, "fernet_key"))
    assert cipher.decrypt(cipher.encrypt(b"connection")) == b"connection"


def test_the_password_is_generated(tmp_path: Path) -> None:
    one, other = admin_password(tmp_path / "one"), admin_password(tmp_path / "other")
    assert one != other
    assert len(one) >= 20
    assert admin_password(tmp_path / "one") == one


def test_writers_at_the_same_time_agree_on_one_value(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        values = set(pool.map(lambda _: secret(tmp_path, "key"), range(64)))
    assert len(values) == 1
