"""Secrets of a local installation: made once, kept in files that only their owner reads."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

ADMIN_USER = "admin"
VIEWER_USER = "viewer"
"""May look at everything in Airflow and change nothing."""


def secret(folder: Path, name: str) -> str:
    """Return the secret `name` (256 random bits in URL-safe base64); make it where it is missing."""
    return _once(folder / name, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())


def admin_password_file(folder: Path) -> Path:
    """Return Airflow's password file with a random password for each user; make it where it is missing.

    Airflow itself adds users that an older file lacks.
    """
    path = folder / "airflow_passwords.json"
    _once(path, json.dumps({user: secrets.token_urlsafe(18) for user in (ADMIN_USER, VIEWER_USER)}))
    return path


def admin_password(folder: Path) -> str:
    """Return the password of Airflow's user `admin`."""
    return password(folder, ADMIN_USER)


def password(folder: Path, user: str) -> str:
    """Return the password of one of Airflow's users."""
    return str(json.loads(admin_password_file(folder).read_text())[user])


def _once(path: Path, value: str) -> str:
    """Return what `path` holds; where it does not exist, write `value`. Two writers at once agree on one value."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text().strip()
