"""docker-compose.yaml, .env.example and the Dockerfile agree with each other, with Settings and with Airflow."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from estudio_core.local.ports import any_free_port
from estudio_core.settings import Settings
from lightning_modules.config import TrainingConfig

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yaml").read_text()
GPU_TEXT = (ROOT / "docker-compose.gpu.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text()

INTERPOLATION = re.compile(r"\$\{([A-Z_0-9]+)(?:(:?[-?])([^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|_KEY$|TOKEN")
REQUIRED_PARTS = {
    *(
        "postgres",
        "broker",
        "storage",
        "storage-server",
        "backup",
        "init",
        "mlflow",
        "service",
        "triton",
        "triton-gpu",
        "ray-head",
        "ray-worker",
    ),
    *("airflow-api-server", "airflow-scheduler", "airflow-worker", "airflow-dag-processor", "airflow-triggerer"),
}


def environments() -> dict[str, dict[str, str]]:
    return {name: service.get("environment", {}) for name, service in SERVICES.items()}


def test_every_part_of_an_installation_is_there() -> None:
    assert set(SERVICES) == REQUIRED_PARTS


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_to_a_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert tag not in {"latest", "stable", "main"}
    assert re.search(r"\d", tag)


def test_the_base_image_is_pinned_and_fits_the_project() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-bookworm", base)
    assert re.search(r"^USER estudio$", dockerfile, re.MULTILINE)
    for source in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists(), path
            assert f"!{path}" in (ROOT / ".dockerignore").read_text().splitlines(), path


def test_the_pinned_extension_is_new_enough() -> None:
    from estudio_core.migrations.check import MINIMUM_PGVECTOR

    version = re.match(r"(\d+)\.(\d+)\.(\d+)-pg\d+", SERVICES["postgres"]["image"].partition(":")[2])
    assert version is not None
    assert tuple(map(int, version.groups())) >= MINIMUM_PGVECTOR


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"init"}))
def test_servers_restart_report_their_health_and_have_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    variables = INTERPOLATION.findall(TEXT)
    assert {name for name, _, _ in variables if SECRET.search(name)} == {
        *("POSTGRES_PASSWORD", "STORAGE_ADMIN_PASSWORD", "STORAGE_PASSWORD", "MLFLOW_STORAGE_PASSWORD"),
        *("DATABASE_PASSWORD", "SERVICE_DATABASE_PASSWORD", "AIRFLOW_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD"),
        "AIRFLOW_ADMIN_PASSWORD",
        *("AIRFLOW_JWT_SECRET", "AIRFLOW_API_SECRET_KEY", "AIRFLOW_FERNET_KEY", "BROKER_PASSWORD", "RAY_AUTH_TOKEN"),
    }
    for name, operator, message in variables:
        if SECRET.search(name):
            assert operator == ":?", name
            assert name in message
    for service, environment in environments().items():
        for name, value in environment.items():
            if SECRET.search(name) and not name.endswith("_FILE"):
                assert INTERPOLATION.fullmatch(str(value)), f"{service}: {name} is written out"


def test_no_command_line_holds_a_secret() -> None:
    for name, service in SERVICES.items():
        written = " ".join([*service.get("entrypoint", []), *service.get("command", [])])
        assert not [variable for variable, _, _ in INTERPOLATION.findall(written) if SECRET.search(variable)], name


BROKER = shutil.which("valkey-server") or shutil.which("redis-server")


@pytest.mark.skipif(BROKER is None, reason="needs redis-server or valkey-server (Debian) on PATH")
def test_the_broker_asks_for_a_password_that_no_command_line_shows(tmp_path: Path) -> None:
    port, password = any_free_port(), "two words, an apostrophe's # and $x"
    shell, option, script = SERVICES["broker"]["command"]
    script = script.replace("$$", "$").replace("valkey-server -", f"{BROKER} - --bind 127.0.0.1 --port {port}")
    environment = {"PATH": os.environ["PATH"], "REDISCLI_AUTH": password}
    process = subprocess.Popen([shell, option, script], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)

    def asked(*commands: str) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()

    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                said = asked("PING")
                break
            except OSError:
                time.sleep(0.1)
        assert said.startswith("-NOAUTH")
        assert asked(f'AUTH "{password}"', "PING", "CONFIG GET maxmemory-policy").split() == [
            *("+OK", "+PONG", "*2", "$16", "maxmemory-policy", "$10", "noeviction", "+OK"),
        ]
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert Path(shown.split()[0]).name == Path(BROKER or "").name, "the shell has become it: signals reach it"
        assert password not in shown
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()


def test_the_example_lists_what_compose_asks_for_and_fills_in_no_secret() -> None:
    asked = {name: operator for name, operator, _ in INTERPOLATION.findall(GPU_TEXT + TEXT)}
    listed = dict(re.findall(r"^#?([A-Z_0-9]+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert set(listed) == set(asked)
    required = set(re.findall(r"^([A-Z_0-9]+)=$", EXAMPLE, re.MULTILINE))
    assert required == {name for name, operator in asked.items() if operator == ":?"}


def test_every_estudio_variable_is_a_setting() -> None:
    of_training = {f"ESTUDIO_TRAINING_{name.upper()}" for name in TrainingConfig.settable("installation")}
    settings = {f"ESTUDIO_{field.upper()}" for field in Settings.model_fields} | of_training
    used = set(re.findall(r"\bESTUDIO_[A-Z_]+\b", TEXT + EXAMPLE + (ROOT / "Dockerfile").read_text()))
    assert used
    assert used <= settings, used - settings


def test_settings_accept_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environments()["airflow-scheduler"].items():
        if name.startswith("ESTUDIO_"):
            monkeypatch.setenv(name, INTERPOLATION.sub(lambda match: match[3] if match[2] == ":-" else "x", str(value)))
    settings = Settings(_env_file=None)  # type: ignore[call-arg] (argument of pydantic-settings)
    assert settings.inference == "embedded"
    assert settings.inference_host == "triton"
    assert settings.artifacts_root == "s3://estudio-artifacts"
    assert settings.tracking_uri == "http://mlflow:5000"
    assert settings.mlflow_page == "http://localhost:5000"
    assert settings.ray_address is None


def test_every_airflow_option_exists() -> None:
    from airflow.providers.celery.get_provider_info import get_provider_info

    spec = importlib.util.find_spec("airflow")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    template = Path(spec.submodule_search_locations[0]) / "config_templates" / "config.yml"
    known = yaml.safe_load(template.read_text()) | get_provider_info()["config"]
    for name in environments()["airflow-scheduler"]:
        if name.startswith("AIRFLOW__"):
            _, section, option = name.lower().split("__", 2)
            assert option in known.get(section, {}).get("options", {}), name


def test_airflow_never_imports_search_plugins_as_its_own() -> None:
    for name, environment in environments().items():
        if name.startswith("airflow-"):
            assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] != environment["ESTUDIO_PLUGINS_PATH"]
            mounts = [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]
            assert not [path for path in mounts if path.startswith(environment["AIRFLOW__CORE__PLUGINS_FOLDER"])]


def test_ports_are_published_on_the_loopback_interface_by_default() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:")
    assert not SERVICES["postgres"].get("ports")
    assert not SERVICES["storage"].get("ports")
    assert not SERVICES["storage-server"].get("ports")


def test_dependencies_volumes_and_networks_are_declared() -> None:
    for name, service in SERVICES.items():
        for dependency, condition in service.get("depends_on", {}).items():
            assert dependency in SERVICES, f"{name} depends on {dependency}"
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[dependency]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), f"{name}: {source}"
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]


def test_triton_reads_the_repository_that_tasks_write() -> None:
    folder = environments()["airflow-scheduler"]["ESTUDIO_TRITON_REPOSITORY"]
    assert f"triton-models:{folder}" in SERVICES["airflow-scheduler"]["volumes"]
    for name, profile in (("triton", "triton"), ("triton-gpu", "gpu")):
        assert SERVICES[name]["volumes"] == ["triton-models:/models:ro"]
        assert SERVICES[name]["profiles"] == [profile]
        assert "--model-control-mode=explicit" in SERVICES[name]["command"]
    devices = SERVICES["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_tasks_run_on_celery_workers_that_share_what_a_task_needs() -> None:
    scheduler, worker = environments()["airflow-scheduler"], environments()["airflow-worker"]
    assert scheduler["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert worker == scheduler
    assert re.fullmatch(r"redis://:\$\{BROKER_PASSWORD:\?.*\}@broker:6379/0", worker["AIRFLOW__CELERY__BROKER_URL"])
    assert "broker" in SERVICES["airflow-worker"]["depends_on"]
    assert SERVICES["airflow-worker"]["volumes"] == SERVICES["airflow-scheduler"]["volumes"]
    assert "celery" in re.findall(r"ARG EXTRAS=(\S+)", (ROOT / "Dockerfile").read_text())[0].split(",")
    # The application that the health check asks, under the name it has in the installed provider.
    [path] = re.findall(r"--app (\S+)", SERVICES["airflow-worker"]["healthcheck"]["test"][1])
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_a_ray_cluster_is_optional_and_asks_for_a_token() -> None:
    for name in ("ray-head", "ray-worker"):
        service = SERVICES[name]
        assert service["profiles"] == ["ray"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["image"] == SERVICES["airflow-worker"]["image"]  # the same code runs in driver and trials
        assert not service.get("ports")
        assert set(service["volumes"]) < set(SERVICES["airflow-worker"]["volumes"])  # trials leave models in files
    assert "--address=ray-head:6379" in SERVICES["ray-worker"]["command"]
    assert "ray-head:6379" in EXAMPLE


def test_options_of_ray_s_commands_exist() -> None:
    from ray.scripts.scripts import cli

    for name in ("ray-head", "ray-worker"):
        program, command, *words = SERVICES[name]["command"]
        assert program == "ray"
        known = {option for parameter in cli.commands[command].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words} <= known
        assert SERVICES[name]["healthcheck"]["test"][1].split()[:3] == ["ray", "health-check", "--address"]
    assert "--address" in {option for parameter in cli.commands["health-check"].params for option in parameter.opts}


def violations(file: Path) -> str:
    """What the Compose specification's own schema finds in a file; empty where it is valid."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_it_keeps_to_the_compose_specification() -> None:
    assert violations(ROOT / "docker-compose.yaml") == ""
    assert violations(ROOT / "docker-compose.gpu.yaml") == ""
    for name, service in SERVICES.items():
        for value in service.get("environment", {}).values():
            assert isinstance(value, str), name  # YAML would turn an unquoted True into a boolean


def test_the_specification_is_really_asked(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yaml"
    wrong.write_text(TEXT.replace("    healthcheck:", "    healthchek:", 1))
    assert "healthchek" in violations(wrong)


def prepare_servers() -> Any:
    """Import the script of the first container."""
    spec = importlib.util.spec_from_file_location("prepare_servers", ROOT / "scripts" / "prepare_servers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_container_makes_what_others_use() -> None:
    script = prepare_servers()
    assert SERVICES["init"]["command"] == ["python", "scripts/prepare_servers.py"]
    logins = set(re.findall(r"://(\w+):\$\{(\w+):\?[^}]*\}@postgres:5432/(\w+)", TEXT))
    for login, variable, name in logins - {("postgres", "POSTGRES_PASSWORD", "postgres")}:
        assert script.LOGINS[login] == variable
        assert login in script.DATABASES[name]
        assert variable in SERVICES["init"]["environment"]
    assert {login for login, _, _ in logins} == {*script.LOGINS, "postgres"}
    assert {f"s3://{bucket}" for bucket in script.BUCKETS} == set(re.findall(r"s3://[\w-]+", TEXT))
    backed_up = re.search(r"BACKUP_DATABASES:-([\w ]+)\}", (ROOT / "deploy/helm/estudio/files/backup.sh").read_text())
    assert backed_up is not None
    assert set(backed_up[1].split()) == set(script.DATABASES)


def test_each_part_has_the_keys_that_it_needs_and_no_others() -> None:
    variables = {
        name: set(re.findall(r"\$\{(\w+):\?", yaml.safe_dump([service.get("environment"), service.get("command")])))
        for name, service in SERVICES.items()
    }
    tasks = {"DATABASE_PASSWORD", "STORAGE_PASSWORD", "RAY_AUTH_TOKEN"}
    assert variables["ray-head"] == variables["ray-worker"] == tasks, "trials know nothing of Airflow"
    assert variables["service"] == {"SERVICE_DATABASE_PASSWORD"}
    assert variables["mlflow"] == {"MLFLOW_DATABASE_PASSWORD", "MLFLOW_STORAGE_PASSWORD"}
    assert variables["postgres"] == variables["backup"] == {"POSTGRES_PASSWORD"}
    for secret in ("POSTGRES_PASSWORD", "STORAGE_ADMIN_PASSWORD", "AIRFLOW_ADMIN_PASSWORD"):
        assert {name for name in variables if secret in variables[name]} <= {"init", "postgres", "backup"}
    for name in ("ray-head", "ray-worker", "service"):
        assert not [variable for variable in SERVICES[name]["environment"] if variable.startswith("AIRFLOW")]
        assert not [volume for volume in SERVICES[name]["volumes"] if "airflow" in volume]


def test_keys_of_the_object_store_open_their_own_bucket_alone() -> None:
    script = prepare_servers()
    written = INTERPOLATION.sub(lambda found: found[1], COMPOSE["configs"]["storage-keys"]["content"])
    identities = {each["name"]: each for each in json.loads(written)["identities"]}
    used = {
        (
            service["environment"]["AWS_ACCESS_KEY_ID"],
            INTERPOLATION.sub(r"\1", service["environment"]["AWS_SECRET_ACCESS_KEY"]),
        )
        for service in SERVICES.values()
        if "AWS_ACCESS_KEY_ID" in service.get("environment", {})
    }
    assert used == {("estudio", "STORAGE_PASSWORD"), ("mlflow", "MLFLOW_STORAGE_PASSWORD")}
    for key, secret in used:
        assert identities[key]["credentials"] == [{"accessKey": key, "secretKey": secret}]
    for key, bucket in zip(("estudio", "mlflow"), script.BUCKETS, strict=True):
        assert {action.partition(":")[2] for action in identities[key]["actions"]} == {bucket}
    # What asks for no key is reached by the gateway alone.
    assert COMPOSE["networks"]["storage"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "storage" in service["networks"]} == {
        "storage",
        "storage-server",
    }
    assert SERVICES["storage-server"]["networks"] == ["storage"]


def test_a_server_that_sets_itself_up_is_not_taken_for_ready() -> None:
    """The image's first, temporary server listens on its socket alone: only TCP tells the two apart."""
    check = SERVICES["postgres"]["healthcheck"]["test"]
    assert check[check.index("--host") + 1] == "127.0.0.1"


def test_every_image_is_built_with_the_extras_that_its_commands_need() -> None:
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [default] = re.findall(r"ARG EXTRAS=(\S+)", (ROOT / "Dockerfile").read_text())
    gpu = yaml.safe_load(GPU_TEXT)
    asked = {
        INTERPOLATION.sub(r"\3", file["services"][name]["build"]["args"]["EXTRAS"])
        for file in (COMPOSE, gpu)
        for name in ("init", "airflow-worker")
    }
    assert default in asked
    for extras in asked:
        assert set(extras.split(",")) - {"gpu"} == set(default.split(","))
        assert set(extras.split(",")) <= set(known)
    # All that run the image are built alike, and the two that compute reserve GPUs.
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("estudio:")}
    assert set(gpu["services"]) == ours
    for name in ("airflow-worker", "ray-worker"):
        [device] = gpu["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_airflow_s_users_are_one_person_s_or_those_of_fab() -> None:
    manager = environments()["airflow-api-server"]["AIRFLOW__CORE__AUTH_MANAGER"]
    module, _, name = INTERPOLATION.sub(r"\3", manager).rpartition(".")
    assert hasattr(importlib.import_module(module), name)
    assert "#AIRFLOW_AUTH_MANAGER=airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager" in EXAMPLE


def test_mlflow_answers_under_the_name_of_a_proxy() -> None:
    command = " ".join(SERVICES["mlflow"]["command"])
    assert re.search(r"--allowed-hosts=mlflow,mlflow:5000,\S*,\$\{MLFLOW_HOST:-localhost\}", command)
    assert "--cors-allowed-origins=${ESTUDIO_MLFLOW_URL:-http://localhost:5000}" in command
