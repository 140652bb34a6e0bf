"""Several hosts: a database, an object store, two that run tasks, two that search; cut off and back in the middle.

Each has an address and files of its own: the two that run tasks share nothing but the servers, and those that search
have neither plugins nor models to begin with. `make proof-hosts` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.network import FILES, Host, Network, missing
from tests.pipeline.conftest import PLUGIN
from tests.running.runs import until
from tests.test_backup import programs

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
STORE = shutil.which("moto_server")
ITEMS = 20_000
NOTICED_S = 150
"""A host that is gone without a word is noticed after a minute; the rest is for a machine that has much else to do."""

SETUP = """
import httpx, os, psycopg
from estudio_core import database
from estudio_core.inference.model_store import push_entry
httpx.put(os.environ["AWS_ENDPOINT_URL_S3"] + "/shop-models").raise_for_status()
with psycopg.connect(os.environ["ESTUDIO_DATABASE_URL"].replace("/shop", "/postgres"), autocommit=True) as connection:
    connection.execute("CREATE DATABASE shop")
database.migrate()
with database.connect() as connection:
    connection.execute("CREATE TABLE products (id int PRIMARY KEY, title text, kind text)")
    connection.execute(
        "INSERT INTO products SELECT i, kind || ' number ' || i, kind FROM generate_series(0, %s - 1) AS i,"
        " LATERAL (SELECT (ARRAY['lamp', 'chair', 'kettle', 'radio'])[1 + i %% 4] AS kind) AS k",
        (int(os.environ["ITEMS"]),),
    )
assert push_entry("shop_v1")
"""
STEP = """
import json, sys
from estudio_core import database
from estudio_core.inference.model_store import entry_of
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.manifests import PublishedManifest
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.verify import verify
from estudio_core.vectordb import releases, switching

step, given = sys.argv[1], json.loads(sys.argv[2])
if step == "start":
    entry = entry_of("shop_v1")
    published = PublishedManifest(name=entry.name, version="1", digest=entry.digest, dimensions=entry.dimensions)
    said = [shard.as_dict() for shard in start_collection("shop", published.as_dict(), 1, given)]
elif step == "embed":
    said = embed_shard("shop", given).as_dict()
elif step == "finish":
    verified = verify("shop", build_index("shop", given).as_dict())
    with database.connect(autocommit=True) as connection:
        release = releases.get_release(connection, verified.release_id)
        live = switching.switch(connection, release, embed_writes("shop"))
        said = [live.release_id, live.collection.stats(connection).objects]
print(json.dumps(said))
"""
SEARCHER = """
import json, sys, time
from estudio_core import search
from estudio_core.errors import EstudioError
for line in sys.stdin:
    began = time.monotonic()
    try:
        said = [hit.object_id for hit in search("shop", line.strip(), limit=5).hits]
    except EstudioError as error:
        said = type(error).__name__
    print(json.dumps([said, time.monotonic() - began]), flush=True)
"""

HOLDER = """
import os, psycopg, sys
from estudio_core import database
with {connect}(os.environ["ESTUDIO_DATABASE_URL"], autocommit=True) as connection:
    connection.execute("SELECT pg_advisory_lock({lock})")
    print("held", flush=True)
    sys.stdin.read()
"""


def start_postgres(host: Host, other: Host) -> None:
    """Start a PostgreSQL on a host, open to all, and wait until another one reaches it."""
    data = host.folder / "pg"
    os.chown(host.folder, 65534, 65534)
    user: dict[str, Any] = {"user": 65534, "group": 65534}
    made = [programs() / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd="/", **user)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 trust\n")
    as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    server = [*as_user, programs() / "postgres", "-D", FILES / "pg", "-k", FILES, "-h", host.address]
    host.start(server, os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: other.start([programs() / "pg_isready", "-h", host.address, "-q"]).wait() == 0, "PostgreSQL")


class Installation:
    """The hosts and what runs on them."""

    def __init__(self, network: Network, entry: Path, model: Path) -> None:
        self.database, self.store = network.host("database"), network.host("store")
        self.tasks = [network.host("tasks1"), network.host("tasks2")]
        self.web = [network.host("web1"), network.host("web2")]
        self.environment = {
            **{name: value for name, value in os.environ.items() if name.startswith("PYTHON")},
            "PATH": os.environ["PATH"],
            "HOME": str(FILES),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "ITEMS": str(ITEMS),
            "ESTUDIO_HOME": str(FILES / "state"),
            "ESTUDIO_TRITON_REPOSITORY": str(FILES / "triton_repo"),
            "ESTUDIO_PLUGINS_PATH": str(FILES / "plugins"),
            "ESTUDIO_DATABASE_URL": f"postgresql://postgres@{self.database.address}/shop",
            "ESTUDIO_MODEL_STORE": "s3://shop-models/published",
            "AWS_ENDPOINT_URL_S3": f"http://{self.store.address}:9000",
            "AWS_ACCESS_KEY_ID": "estudio",
            "AWS_SECRET_ACCESS_KEY": "estudio",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for host in self.tasks:
            shutil.copytree(model, host.folder / "model")
            (host.folder / "plugins").mkdir()
            (host.folder / "plugins" / "shop.py").write_text(PLUGIN.format(model=str(FILES / "model")))
        shutil.copytree(entry, self.tasks[0].folder / "triton_repo" / entry.name)
        self._start_servers()

    def _start_servers(self) -> None:
        start_postgres(self.database, self.tasks[0])
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.store.start([str(STORE), "-H", self.store.address, "-p", "9000"], os.environ, **quiet)
        look = ["curl", "--silent", "--fail", "--output", "/dev/null", self.environment["AWS_ENDPOINT_URL_S3"]]
        until(lambda: self.tasks[0].start(look).wait() == 0, "the object store")
        assert self.run(self.tasks[0], SETUP).wait(300) == 0

    def run(self, host: Host, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Start Python on a host."""
        return host.start(
            [sys.executable, "-c", code, *arguments],
            self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def step(self, host: Host, step: str, given: object) -> Any:
        """Run a step there; return what it says, None where it fails."""
        process = self.run(host, STEP, step, json.dumps(given))
        said, _ = process.communicate(timeout=600)
        return json.loads(said.splitlines()[-1]) if process.returncode == 0 else None

    def loads(self) -> bool:
        """Return whether items of the second release are committed."""
        query = "SELECT sum(items) > 0 FROM estudio.c_shop_2_loading"
        asked = [programs() / "psql", "-h", self.database.address, "-U", "postgres", "-tAc", query, "shop"]
        said, _ = self.database.start(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).communicate()
        return str(said).strip() == "t"


def ask(process: subprocess.Popen[str], text: str) -> tuple[Any, float]:
    """Return what a searching process finds, or the name of its error, and after how many seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    said, seconds = json.loads(process.stdout.readline())
    return said, seconds


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := missing():
        pytest.skip(reason)
    # Not in pytest's folder: PostgreSQL works as another user, who has to reach its files.
    folder = Path(tempfile.mkdtemp(prefix="estudio-hosts-"))
    folder.chmod(0o755)
    made = Network(folder)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def installation(network: Network, small_entry: Path, small_model_folder: Path) -> Installation:
    if STORE is None:
        pytest.skip("needs moto_server (PyPI: moto[server]) on PATH")
    return Installation(network, small_entry, small_model_folder)


def test_locks_of_a_lost_host_go_to_others_within_a_minute_or_two(network: Network) -> None:
    database, lost, other = network.host("database"), network.host("lost"), network.host("other")
    start_postgres(database, other)
    url = f"postgresql://postgres@{database.address}/postgres"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ESTUDIO_DATABASE_URL": url}
    holders = [
        lost.start([sys.executable, "-c", code], environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for code in (
            HOLDER.format(lock=1, connect="database.connect"),
            HOLDER.format(lock=2, connect="psycopg.connect"),
        )
    ]
    for holder in holders:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
    lost.cut()
    began = time.monotonic()

    def free(lock: int) -> bool:
        query = f"SELECT pg_try_advisory_lock({lock})"
        asked = [programs() / "psql", "-tAc", query, url]
        return str(other.start(asked, stdout=subprocess.PIPE).communicate()[0]).strip() == "t"

    assert not free(1), "nobody has noticed anything yet"
    until(lambda: free(1), "the lock of the lost host", poll_s=1, timeout_s=NOTICED_S)
    print(f"free {time.monotonic() - began:.0f} s after the host was lost")
    assert not free(2), "by the defaults of the system it is held for hours"


def test_hosts_that_are_cut_off_and_come_back_change_nothing(installation: Installation) -> None:
    one, two = installation.tasks
    shards = installation.step(one, "start", "first")
    first = [installation.step(one, "embed", shard) for shard in shards]
    assert installation.step(one, "finish", first) == [1, ITEMS]

    # Those that search fetch the model from the store, and find the same.
    web = [installation.run(host, SEARCHER) for host in installation.web]
    wanted, _ = ask(web[0], "red lamp number 7")
    assert len(wanted) == 5
    assert ask(web[1], "red lamp number 7")[0] == wanted
    assert all((host.folder / "triton_repo" / "shop_v1" / "manifest.json").is_file() for host in installation.web)

    # Cut off, a search ends with its deadline; back again, it finds what it found.
    installation.web[0].cut()
    for text in ("red lamp number 7", "a kettle"):
        said, seconds = ask(web[0], text)
        print(f"cut off: {said} after {seconds:.1f} s")
        assert said in {"SearchTimeoutError", "DatabaseUnavailableError", "ConnectionLostError", "OverloadedError"}
        assert seconds < 5
    assert ask(web[1], "red lamp number 7")[0] == wanted
    installation.web[0].join()
    began = time.monotonic()
    until(lambda: ask(web[0], "red lamp number 7")[0] == wanted, "the host that is back finds again", timeout_s=60)
    print(f"back: found again after {time.monotonic() - began:.1f} s")

    # A host is lost in the middle of a build: another goes on where it was, and the release is whole.
    [shard] = installation.step(one, "start", "second")
    lost = installation.run(one, STEP, "embed", json.dumps(shard))
    until(installation.loads, "a first chunk", poll_s=0.05)
    one.cut()
    began = time.monotonic()
    assert lost.poll() is None, "it was in the middle"
    loaded = installation.step(two, "embed", shard)
    assert loaded["items"] == ITEMS
    print(f"the other host loaded the rest within {time.monotonic() - began:.0f} s")
    finished = until(
        lambda: installation.step(two, "finish", [loaded]), "the lock of the lost host", poll_s=5, timeout_s=NOTICED_S
    )
    print(f"live {time.monotonic() - began:.0f} s after the host was lost")
    assert finished == [2, ITEMS]
    one.join()
    assert lost.wait(NOTICED_S) != 0, "whoever comes back late has lost its session, and writes nothing"
    assert [ask(process, "red lamp number 7")[0] for process in web] == [wanted, wanted]
