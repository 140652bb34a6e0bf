"""First container of an installation on servers: what the others need to find. Safe to run at every start.

The logins of Estudio, its service, Airflow and MLflow, each with a password of its own, and their databases; tables and
rights in Estudio's; buckets; Airflow's tables, pools and administrator; the demo's catalog. Passwords that have changed
are set anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import psycopg
from psycopg import sql

from estudio_core import database
from estudio_core.local.airflow_facts import ask_airflow
from estudio_core.local.airflow_home import POOLS
from estudio_core.local.airflow_setup import run_commands
from estudio_core.local.generated_secrets import ADMIN_USER
from estudio_core.vectordb.roles import OWNER, ROLES, WRITER, set_up_roles

LOGINS = {
    "estudio_tasks": "DATABASE_PASSWORD",
    "estudio_service": "SERVICE_DATABASE_PASSWORD",
    "airflow": "AIRFLOW_DATABASE_PASSWORD",
    "mlflow": "MLFLOW_DATABASE_PASSWORD",
}
"""Login and the variable of its password. None is called like the schema `estudio`, where its own tables would go."""
DATABASES = {"estudio": ("estudio_tasks", "estudio_service"), "airflow": ("airflow",), "mlflow": ("mlflow",)}
"""Who may connect to each; the first one owns it."""
MEMBERS = {OWNER: "estudio_tasks", WRITER: "estudio_service"}
BUCKETS = ("estudio-artifacts", "mlflow")


def make_logins(connection: psycopg.Connection) -> None:
    """Make the logins and databases that are missing, and set the passwords; `connection` commits by itself."""
    for login, variable in LOGINS.items():
        name = sql.Identifier(login)
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        # Only a verifier is sent: the password itself stands in no log of the server.
        verifier = connection.pgconn.encrypt_password(os.environ[variable].encode(), login.encode()).decode()
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(verifier)))
    for name, logins in DATABASES.items():
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            made = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(logins[0]))
            connection.execute(made)
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
        allowed = sql.SQL(", ").join(map(sql.Identifier, logins))
        connection.execute(
            sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(name), allowed)
        )
    for role in ROLES:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
    for role, login in MEMBERS.items():
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(login)))


def make_tables() -> None:
    """Bring Estudio's tables up to date, as their owner; load the demo's catalog where it is asked for and missing."""
    database.migrate()
    with database.connect() as connection:
        set_up_roles(connection)
        missing = connection.execute("SELECT to_regclass('products') IS NULL").fetchone() == (True,)
        if missing and os.environ.get("DEMO", "true") == "true":
            from estudio_core.demo.catalog import load_catalog

            print(f"The demo's catalog: {load_catalog(connection).total} products")


def make_buckets() -> None:
    """Create the buckets of artifacts and of MLflow where they are missing, with the administrator's key."""
    import s3fs

    storage = s3fs.S3FileSystem(
        endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], key="admin", secret=os.environ["STORAGE_ADMIN_PASSWORD"]
    )
    for bucket in BUCKETS:
        if not storage.exists(bucket):
            storage.mkdir(bucket)


def make_airflow() -> None:
    """Bring Airflow's database up to date; make its pools and the administrator where they are missing."""
    password = os.environ["AIRFLOW_ADMIN_PASSWORD"]
    if os.environ["AIRFLOW__CORE__AUTH_MANAGER"].endswith(".SimpleAuthManager"):
        run_commands(["db", "migrate"])
        write_password_file(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]), password)
    else:
        who = ["--role", "Admin", "--firstname", "Airflow", "--lastname", "Administrator"]
        mail = os.environ.get("AIRFLOW_ADMIN_EMAIL", "admin@example.com")
        run_commands(
            ["db", "migrate"],
            ["users", "create", "--username", ADMIN_USER, "--email", mail, "--password", password, *who],
            ["users", "reset-password", "--username", ADMIN_USER, "--password", password],
        )
    facts = ask_airflow(POOLS, dict(os.environ))
    if facts is None or facts.problem:
        raise SystemExit(f"Airflow's pools cannot be made: {facts and facts.problem}")


def write_password_file(path: Path, password: str) -> None:
    """Write the administrator's password where Airflow looks for it, readable by its user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({ADMIN_USER: password}))


def main() -> None:
    """Do all of it, in order."""
    with psycopg.connect(os.environ["POSTGRES_ADMIN_URL"], autocommit=True) as connection:
        make_logins(connection)
    with psycopg.connect(os.environ["POSTGRES_ADMIN_URL"], autocommit=True, dbname="estudio") as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    make_tables()
    make_buckets()
    make_airflow()


if __name__ == "__main__":
    main()
