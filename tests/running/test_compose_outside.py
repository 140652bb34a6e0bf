"""docker-compose.yaml without an engine: each container's own command, environment and health check, in its own order.

PostgreSQL, the broker and the object store are programs of this machine in place of their images (the store is moto's
server, which asks for no key); all containers of Estudio's image run, as the user of the tests. Names of hosts and
folders are replaced by loopback ports and a temporary folder, and nothing else. Needs `moto_server`, and
`valkey-server` or `redis-server`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import yaml

from estudio_core import local
from estudio_core.local.ports import any_free_port
from estudio_core.local.runs import AirflowApi, wait_for_dag
from tests.running.runs import PATIENCE_S, until
from tests.small_model import build_small_model
from tests.test_backup import programs

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(6 * PATIENCE_S)]

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
REQUIRED = re.findall(r"^([A-Z_0-9]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
"""Keys and passwords."""
REPLACED = ("postgres", "broker", "storage", "storage-server")
BROKER = shutil.which("valkey-server") or shutil.which("redis-server")
STORE = shutil.which("moto_server")
PLUGIN = """
from estudio_core import DagSettings, PostgresItems, TextModel, create_text_plugin

plugin = create_text_plugin(
    "books",
    items=PostgresItems(table="books", id_column="isbn", text="title", payload=("title",)),
    model=TextModel(name={model!r}, max_tokens=48),
    dag=DagSettings(shards=2),
)
"""


class Outside:
    """The containers of the compose file as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {name: secrets.token_hex(12) for name in REQUIRED}
        self.env["AIRFLOW_FERNET_KEY"] = urlsafe_b64encode(os.urandom(32)).decode()
        self.env |= {"DEMO": "false", "SERVICE_WORKERS": "1"}
        names = (
            "postgres:5432",
            "broker:6379",
            "storage:8333",
            "mlflow:5000",
            "airflow-api-server:8080",
            "service:8100",
        )
        self.ports = {name: any_free_port() for name in (*names, "scheduler:8974", "triggerer:8794")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, text: str) -> str:
        """Return a value of the file as it is on this machine."""
        text = re.sub(
            r"\$\{(\w+)(?::([-?])([^}]*))?\}",
            lambda found: self.env.get(found[1], found[3] if found[2] == "-" else ""),
            text,
        ).replace("$$", "$")
        for name, port in self.ports.items():
            text = text.replace(f"@{name}", f"@127.0.0.1:{port}").replace(f"//{name}", f"//127.0.0.1:{port}")
            text = re.sub(rf"(127\.0\.0\.1|localhost):{name.partition(':')[2]}\b", rf"\1:{port}", text)
        return re.sub(r"(?<![\w/])/opt/", f"{self.folder}/opt/", text)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a container: its own, and what the image sets."""
        own = {key: self.here(str(value)) for key, value in SERVICES[name].get("environment", {}).items()}
        if "AIRFLOW__API__PORT" in own:
            own["AIRFLOW__API__PORT"] = str(self.ports["airflow-api-server:8080"])
            own["AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT"] = str(self.ports["scheduler:8974"])
            own["AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT"] = str(self.ports["triggerer:8794"])
        image = {"AIRFLOW_HOME": f"{self.folder}/opt/airflow", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        machine = {"HOME": str(self.folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return {**machine, **image, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **own}

    def command(self, name: str) -> list[str]:
        """Return the command of a container."""
        words = [self.here(word) for word in SERVICES[name]["command"]]
        port = {"mlflow": "mlflow:5000", "service": "service:8100"}.get(name)
        if port is not None:
            words = [re.sub(r"^--port=\d+$", f"--port={self.ports[port]}", word) for word in words]
        return [word.replace("--host=0.0.0.0", "--host=127.0.0.1") for word in words]

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, as `docker compose exec` does."""
        return subprocess.run(
            command, cwd=ROOT, env=self.environment(name), capture_output=True, text=True, check=False, timeout=600
        )

    def start(self, name: str) -> None:
        """Start a container once what it depends on is as it says, and wait for its own health check."""
        if name in REPLACED or name in self.processes:
            return
        for other, wanted in SERVICES[name].get("depends_on", {}).items():
            self.start(other)
            if wanted["condition"] == "service_completed_successfully":
                assert self.processes[other].wait(PATIENCE_S) == 0, self.log(other)
        began = time.monotonic()
        with (self.folder / f"{name}.log").open("wb") as output:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                cwd=ROOT,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        check = SERVICES[name].get("healthcheck")
        if check is None:
            return
        kind, *words = [self.here(word) for word in check["test"]]
        words = ["sh", "-c", *words] if kind == "CMD-SHELL" else words

        def healthy() -> bool:
            assert self.processes[name].poll() is None, self.log(name)
            return self.run(name, words).returncode == 0

        until(healthy, f"{name} healthy", poll_s=2)
        print(f"{name}: healthy after {time.monotonic() - began:.0f} s, by its own check")

    def log(self, name: str) -> str:
        """Return the end of what a container said."""
        return f"{name}: " + (self.folder / f"{name}.log").read_text(errors="replace")[-5000:]

    def stop(self) -> None:
        """End all processes, those started last first."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def replace_servers(outside: Outside) -> None:
    """Start what stands in for images: PostgreSQL with passwords over TCP, a broker, an object store."""
    data, port = outside.folder / "pg", outside.ports["postgres:5432"]
    data.mkdir()
    password = outside.folder / "password"
    password.write_text(outside.env["POSTGRES_PASSWORD"])
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        as_user = {"user": 65534, "group": 65534}
        os.chown(data, 65534, 65534)
        password.chmod(0o644)
    options = ("-U", "postgres", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8")
    subprocess.run([programs() / "initdb", "-D", data, *options], check=True, capture_output=True, **as_user)
    *shell, script = (outside.here(word) for word in SERVICES["broker"]["command"])
    listening = f"{BROKER} - --bind 127.0.0.1 --port {outside.ports['broker:6379']}"
    broker: list[str | Path] = [*shell, script.replace("valkey-server -", listening)]
    commands: dict[str, tuple[list[str | Path], dict[str, Any]]] = {
        "postgres": ([programs() / "postgres", "-D", data, "-p", str(port), "-k", data, "-h", "127.0.0.1"], as_user),
        "broker": (broker, {"env": {"PATH": os.environ["PATH"], "REDISCLI_AUTH": outside.env["BROKER_PASSWORD"]}}),
        "storage": ([str(STORE), "-H", "127.0.0.1", "-p", str(outside.ports["storage:8333"])], {}),
    }
    for name, (command, more) in commands.items():
        with (outside.folder / f"{name}.log").open("wb") as output:
            outside.processes[name] = subprocess.Popen(
                command, cwd="/", stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **more
            )
    check = [outside.here(word) for word in SERVICES["postgres"]["healthcheck"]["test"][1:]]
    ready = [str(programs() / check[0]), *check[1:], "--port", str(port)]
    until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, "PostgreSQL")

    def store_answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{outside.ports['storage:8333']}/").is_success
        except httpx.TransportError:
            return False

    until(store_answers, "the object store")


def command_lines(outside: Outside) -> Iterator[tuple[str, str]]:
    """Yield what `ps` shows of all processes, with the container that each is of."""
    for name, process in outside.processes.items():
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for each in family:
            with suppress(psutil.NoSuchProcess):
                yield name, " ".join(each.cmdline())


@pytest.fixture
def outside() -> Iterator[Outside]:
    if BROKER is None or STORE is None:
        pytest.skip("needs redis-server or valkey-server (Debian), and moto_server (PyPI: moto[server]) on PATH")
    # Not in pytest's folder: run by root, PostgreSQL works as another user, who has to reach its files.
    folder = Path(tempfile.mkdtemp(prefix="estudio-compose-"))
    folder.chmod(0o755)
    for name in ("estudio/dags", "estudio/plugins", "estudio/state", "estudio/triton_repo", "airflow/ui_plugins"):
        (folder / "opt" / name).mkdir(parents=True)
    for name in ("airflow/logs", "airflow/state"):
        (folder / "opt" / name).mkdir()
    made = Outside(folder)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_all_containers_come_up_and_a_plugin_is_served(outside: Outside) -> None:
    from estudio_core.plugin.scaffold import write_stub

    model = build_small_model(seed=1)
    model.backbone.save_pretrained(outside.folder / "model")
    model.tokenizer.save_pretrained(outside.folder / "model")
    opt = outside.folder / "opt" / "estudio"
    (opt / "plugins" / "books.py").write_text(PLUGIN.format(model=str(outside.folder / "model")))
    write_stub("books", opt / "dags")
    replace_servers(outside)
    outside.start("init")
    assert outside.processes["init"].wait(PATIENCE_S) == 0, outside.log("init")
    address = f"host=127.0.0.1 port={outside.ports['postgres:5432']} dbname=estudio"
    tasks = f"{address} user=estudio_tasks password={outside.env['DATABASE_PASSWORD']}"
    with psycopg.connect(tasks, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE books (isbn text PRIMARY KEY, title text)")
        titles = [(f"978-{n}", f"stories of the {'sea' if n % 2 else 'forest'} {n}") for n in range(60)]
        cursor.executemany("INSERT INTO books VALUES (%s, %s)", titles)
    ours = [name for name, service in SERVICES.items() if service["image"].startswith("estudio:")]
    for name in ours:
        if not SERVICES[name].get("profiles"):
            outside.start(name)

    for name, line in command_lines(outside):
        assert not [secret for secret in REQUIRED if outside.env[secret] in line], f"{name} shows a secret: {line}"

    port = outside.ports["airflow-api-server:8080"]
    with AirflowApi(f"http://127.0.0.1:{port}", "admin", outside.env["AIRFLOW_ADMIN_PASSWORD"]) as api:
        pools = {pool["name"]: pool["slots"] for pool in api.json("GET", "/pools")["pools"]}
        assert (pools["estudio_training"], pools["estudio_index"]) == (1, 1)
        wait_for_dag("books__initialize", api=api, timeout_s=PATIENCE_S)
        run_id = local.trigger("books__initialize", api=api)
        assert local.wait("books__initialize", run_id, api=api, timeout_s=PATIENCE_S).succeeded
    objects = httpx.get(f"http://127.0.0.1:{outside.ports['storage:8333']}/mlflow?list-type=2").text
    assert "<Key>" in objects, "the base model went through MLflow into its bucket"

    # The service, whose login owns nothing, answers with a key that the owner's side made.
    made = outside.run(
        "airflow-scheduler", ["estudio", "keys", "create", "shop", "-s", "search", "-s", "items", "-p", "books"]
    )
    assert made.returncode == 0, made.stderr
    service = f"http://127.0.0.1:{outside.ports['service:8100']}"
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    query = {"query": {"match": {"text": "sea"}}}
    answer = httpx.post(f"{service}/books/_search", json=query, headers=headers, timeout=60)
    assert answer.is_success, answer.text
    assert answer.json()["hits"]["hits"], json.dumps(answer.json())[:500]
    login = f"{address} user=estudio_service password={outside.env['SERVICE_DATABASE_PASSWORD']}"
    with psycopg.connect(login) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DROP TABLE estudio.deployments")

    # A server under the name of a proxy: MLflow refuses what it was not told of.
    mlflow = f"http://127.0.0.1:{outside.ports['mlflow:5000']}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(mlflow, headers={"Host": "mlflow"}).is_success
    assert httpx.get(mlflow, headers={"Host": "elsewhere.example"}).status_code == 403

    # At the next start everything is there, and a password that changed is the new one.
    outside.env["SERVICE_DATABASE_PASSWORD"] = "changed"
    again = outside.run("init", outside.command("init"))
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    with psycopg.connect(f"{address} user=estudio_service password=changed"):
        pass
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(login)
