"""First container of docker-compose.yaml: what the others need to find. Safe to run at every start."""

from __future__ import annotations

import json
import os
from pathlib import Path

from estudio_core.database import migrate
from estudio_core.local.airflow_home import pools_definition
from estudio_core.local.airflow_setup import main as set_up_airflow
from estudio_core.local.generated_secrets import ADMIN_USER

BUCKETS = ("estudio-artifacts", "mlflow")


def make_buckets() -> None:
    """Create the buckets of artifacts and of MLflow where they are missing."""
    import s3fs

    storage = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
    for bucket in BUCKETS:
        if not storage.exists(bucket):
            storage.mkdir(bucket)


def write_password_file(path: Path, password: str) -> None:
    """Write the administrator's password where Airflow looks for it, readable by its user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({ADMIN_USER: password}))


def main() -> None:
    """Prepare Estudio's schema, the buckets, Airflow's database, pools and password."""
    migrate()
    make_buckets()
    password_file = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    write_password_file(password_file, os.environ["AIRFLOW_ADMIN_PASSWORD"])
    pools_file = password_file.with_name("pools.json")
    pools_file.write_text(json.dumps(pools_definition()))
    set_up_airflow(str(pools_file))


if __name__ == "__main__":
    main()
