"""Into an Airflow that is there already: the wheel, `estudio init`, and a plugin from its first index to a rollback.

The Airflow is a plain one in an environment of its own, with its own dags folder, another team's DAG and a git bundle.
Packages come from PyPI under the versions of requirements.lock. Airflow's own constraints file, which its users have,
is not read: it is on no package index.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest

from estudio_core import embedded_postgres, local
from estudio_core.local.ports import any_free_port
from estudio_core.local.runs import AirflowApi, wait_for_dag
from estudio_core.postgres_url import sqlalchemy_url
from tests.running.runs import PATIENCE_S, until
from tests.small_model import build_small_model

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(8 * PATIENCE_S)]

PROJECT = Path(__file__).parents[2]
KINDS = ("sea", "mountain", "city", "desert", "forest", "river", "island", "winter")
FORMS = ("stories", "poems", "guide", "atlas", "history")

TEAM_DAG = '''"""A DAG of another team in the same Airflow."""

from airflow.sdk import dag, task


@dag(schedule=None)
def team_report():
    @task
    def count():
        return 3

    count()


team_report()
'''
PACKAGE = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "shelf-search"
version = "1.0.0"

[project.entry-points."estudio.plugins"]
shelf = "shelf_search:plugin"

[tool.setuptools]
py-modules = ["shelf_search"]
"""
SHELF = """from estudio_core import PostgresItems, create_text_plugin

items = PostgresItems(table="books", id_column="isbn", text="blurb")
plugin = create_text_plugin("shelf", items=items, model={model!r})
"""


@dataclass(frozen=True)
class Host:
    """A folder with an Airflow in an environment of its own, and the variables of its processes."""

    folder: Path
    variables: dict[str, str]

    def run(self, *command: str, check: bool = True, **more: str) -> str:
        """Run a command as a person on that host does; return what it says."""
        environment = {
            "HOME": str(self.folder),
            "PATH": f"{self.folder / 'venv' / 'bin'}:{os.environ['PATH']}",
            **{name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_", "REQUESTS_"))},
            # Packages that this machine has downloaded before are taken from there.
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
            **self.variables,
            **more,
        }
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        said = done.stdout + done.stderr
        print(f"$ {shlex.join(command)[:300]}  # {time.monotonic() - began:.0f} s, status {done.returncode}")
        assert not check or done.returncode == 0, said[-6000:]
        return said

    def pip(self, *arguments: str) -> str:
        """Install into its environment, under the constraints."""
        options = ("--python", str(self.folder / "venv" / "bin" / "python"), "-c", str(PROJECT / "requirements.lock"))
        uv = shlex.join([sys.executable, "-m", "uv", "pip", "install", *options, *arguments])
        script = f'cd {shlex.quote(str(PROJECT))} && source scripts/python_packages.sh && {uv} "${{torch_options[@]}}"'
        return self.run("bash", "-euc", script, TORCH_BACKEND="cpu")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not in pytest's folder: run by root, PostgreSQL works as another user, who has to reach its files.
    made = Path(tempfile.mkdtemp(prefix="estudio-plain-"))
    made.chmod(0o755)
    yield made
    embedded_postgres.stop(made / "server")
    shutil.rmtree(made, ignore_errors=True)


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy: setuptools leaves files beside what it builds."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in ("estudio_core", "lightning_modules"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--out-dir", str(folder / "dist"), str(source)],
        check=True,
    )
    [wheel] = (folder / "dist").glob("estudio-*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
    return wheel


def git_bundle(folder: Path) -> Path:
    """Make a repository of DAG files with the stub of the plugin that a package brings."""
    from estudio_core.plugin.scaffold import write_stub

    repository = folder / "team.git"
    (repository / "dags").mkdir(parents=True)
    write_stub("shelf", repository / "dags")
    git = ("git", "-C", str(repository), "-c", "user.name=team", "-c", "user.email=team@example.com")
    for arguments in (("init", "--quiet", "--initial-branch=main"), ("add", "."), ("commit", "--quiet", "-m", "shelf")):
        subprocess.run([*git, *arguments], check=True)
    return repository


@contextmanager
def standalone(host: Host, port: int) -> Iterator[Callable[[], AirflowApi]]:
    """Run `airflow standalone` and give what opens its API; all of its processes end with the block."""
    log = host.folder / "standalone.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(host.folder / "venv" / "bin" / "airflow"), "standalone"],
            cwd="/",
            env={"PATH": f"{host.folder / 'venv' / 'bin'}:{os.environ['PATH']}", "HOME": str(host.folder)}
            | host.variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    passwords = Path(host.variables["AIRFLOW_HOME"]) / "simple_auth_manager_passwords.json.generated"
    try:
        until(lambda: (passwords.is_file() and passwords.read_text().strip()) or None, "Airflow's password")
        password = json.loads(passwords.read_text())["admin"]

        def api() -> AirflowApi:
            return AirflowApi(f"http://127.0.0.1:{port}", "admin", password)

        def healthy() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            try:
                with api() as asked:
                    parts = asked.json("GET", "/monitor/health")
            except Exception:
                return False
            return all(parts[part]["status"] == "healthy" for part in ("scheduler", "dag_processor", "triggerer"))

        until(healthy, "Airflow", poll_s=2)
        yield api
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def run_dag(api: Callable[[], AirflowApi], dag_id: str, conf: dict[str, object] | None = None) -> None:
    """Switch a DAG on, run it, and expect it to succeed."""
    switch_on(api, dag_id)
    began = time.monotonic()
    run_id = local.trigger(dag_id, conf, api=api())
    assert local.wait(dag_id, run_id, api=api(), timeout_s=PATIENCE_S).succeeded
    print(f"{dag_id}: success after {time.monotonic() - began:.0f} s", flush=True)


def switch_on(api: Callable[[], AirflowApi], dag_id: str) -> None:
    """Wait until Airflow has read a DAG, and switch it on."""
    with api() as asked:
        wait_for_dag(dag_id, api=asked, timeout_s=PATIENCE_S)
        asked.json("PATCH", f"/dags/{dag_id}", json={"is_paused": False})


def live_version(host: Host, plugin: str) -> str:
    answer = json.loads(host.run("estudio", "search", "sea stories", "--plugin", plugin, "--json").splitlines()[-1])
    assert answer["hits"]
    return str(answer["model_version"])


def log_searches(url: str) -> None:
    """Log 160 searches of two hours ago with a click each, by the statements of docs/plugin.md."""
    [rows] = re.findall(r"```sql\n(.*?)```", (PROJECT / "docs" / "plugin.md").read_text(), re.DOTALL)
    rng = random.Random(3)
    with psycopg.connect(url, autocommit=True) as connection:
        titles = dict(connection.execute("SELECT isbn, title FROM books").fetchall())
        for n in range(160):
            kind = KINDS[n % 8]
            ids = rng.sample(sorted(titles), 6)
            clicked = rng.choice([isbn for isbn in titles if kind in titles[isbn] and isbn not in ids])
            ids.insert(rng.randrange(6), clicked)
            statement = rows.replace("'978-1', '978-7', '978-4'", ", ".join(f"'{isbn}'" for isbn in ids))
            statement = statement.replace("'978-7', 2", f"'{clicked}', {ids.index(clicked) + 1}")
            statement = statement.replace("now()", "now() - interval '2 hours'")
            statement = statement.replace("visitor-12", f"visitor-{n}").replace(
                "sea stories", f"{kind} {FORMS[n % 5]} {n // 20}"
            )
            connection.execute(statement.replace("f3a1", f"q{n}").replace("e907", f"e{n}").encode())


def test_a_plain_airflow_gets_search_that_learns(folder: Path) -> None:
    server = embedded_postgres.start(folder / "server")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE airflow")
        connection.execute("CREATE DATABASE shop")
    url = server.replace("/postgres?", "/shop?")
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE books (isbn text PRIMARY KEY, title text, blurb text)")
        titles = [f"{FORMS[n % 5]} of the {KINDS[n % 8]}, volume {n}" for n in range(200)]
        books = [(f"978-{n}", title, f"About the {KINDS[n % 8]}.") for n, title in enumerate(titles)]
        cursor.executemany("INSERT INTO books VALUES (%s, %s, %s)", books)
    # As many tokens, and more layers than those that stay frozen, as a plugin asks for that says nothing.
    model = build_small_model(seed=1, positions=128, layers=4)
    model.backbone.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")

    # A plain Airflow, with a DAG of another team in its folder and a bundle of its own.
    port = any_free_port()
    bundles = [
        {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
        {
            "name": "team",
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {"repo_url": str(git_bundle(folder)), "tracking_ref": "main", "subdir": "dags"},
        },
    ]
    metadata = sqlalchemy_url(server.replace("/postgres?", "/airflow?"))
    host = Host(
        folder,
        {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "airflow" / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": metadata,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
    )
    (folder / "airflow" / "dags").mkdir(parents=True)
    (folder / "airflow" / "dags" / "team_report.py").write_text(TEAM_DAG)
    host.run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    host.pip(f"apache-airflow=={version('apache-airflow')}", "apache-airflow-providers-git", "psycopg[binary]")
    host.run("airflow", "db", "migrate")

    # Estudio comes into that environment, and nothing of Airflow's changes.
    host.pip(f"estudio[airflow,train] @ {build_wheel(folder).as_uri()}")
    listed = host.run(sys.executable, "-m", "uv", "pip", "list", "--python", str(folder / "venv" / "bin" / "python"))
    print(f"{len(listed.splitlines()) - 2} packages")
    assert re.search(r"^torch +2\.13\.0\+cpu$", listed, re.MULTILINE)
    assert "nvidia" not in listed
    assert re.search(rf"^apache-airflow +{re.escape(version('apache-airflow'))}$", listed, re.MULTILINE)

    installation = Host(
        folder,
        host.variables
        | {"ESTUDIO_DATABASE_URL": url, "ESTUDIO_HOME": str(folder / "state"), "ESTUDIO_PLUGINS_PATH": "search"},
    )
    written = ("--plugin", "books", "--table", "books", "--id-column", "isbn", "--text", "title", "--text", "blurb")
    first = installation.run("estudio", "init", *written, "--model", str(folder / "model"))
    print(first)
    assert sorted(line.split()[0] for line in first.splitlines()[1:8]) == ["made"] * 7
    assert (folder / "airflow" / "dags" / "books.py").is_file()
    assert "made " not in installation.run("estudio", "init")

    # Its processes get the variables that `init` wrote, and start in another folder.
    words = (shlex.split(line)[0] for line in (folder / "state" / "estudio.env").read_text().splitlines())
    running = Host(folder, host.variables | dict(word.split("=", 1) for word in words))
    package = folder / "shelf"
    package.mkdir()
    (package / "pyproject.toml").write_text(PACKAGE)
    (package / "shelf_search.py").write_text(SHELF.format(model=str(folder / "model")))
    running.pip("--no-deps", str(package))
    assert "wrong" not in running.run("estudio", "plugins", "validate", "books")

    with standalone(running, port) as api:
        run_dag(api, "team_report")
        run_dag(api, "books__initialize")
        assert live_version(running, "books") == "1"
        switch_on(api, "books__release")

        log_searches(url)
        run_dag(api, "books__fine_tune", {"min_sessions": 50, "num_epochs": 1})
        if live_version(running, "books") == "1":  # few clicks cannot tell: a person releases the challenger
            run_dag(api, "books__release", {"version": "challenger"})
        until(lambda: live_version(running, "books") == "2", "the learned version serves", poll_s=5)
        run_dag(api, "books__rollback")
        assert live_version(running, "books") == "1"

        # A plugin of a package, whose stub comes by the git bundle.
        run_dag(api, "shelf__initialize")
        assert live_version(running, "shelf") == "1"
        with api() as asked:
            assert asked.json("GET", "/dags/shelf__initialize")["bundle_name"] == "team"
            assert asked.json("GET", "/importErrors")["import_errors"] == []
    print(running.run("estudio", "promotions", "--plugin", "books"))
