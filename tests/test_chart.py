"""deploy/helm/estudio: rendered by Helm's own engine, checked against Kubernetes' schemas and the compose file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

helm = pytest.importorskip("helm_python", reason="needs the packages of the extra chart")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the packages of the extra chart")

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm" / "estudio"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
NAME = "search-estudio"

EVERYTHING: dict[str, Any] = {
    "triton": {"enabled": True},
    "ray": {"enabled": True},
    "code": {"claim": "our-plugins"},
    "workers": {"nodeSelector": {"gpu": "yes"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": {"storageClass": "nfs"},
    "postgres": {"storageClass": "fast"},
    "storage": {"storageClass": "fast"},
}
OWN_SERVERS: dict[str, Any] = {
    "postgres": {"enabled": False, "host": "db.example", "port": 5433},
    "storage": {"enabled": False},
    "backup": {"enabled": False},
    "existingSecret": "ours",
    "init": {"demo": True},
}
PARTS = {
    **{
        f"airflow-{part}": f"airflow-{part}"
        for part in ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
    },
    **{part: part for part in ("broker", "mlflow", "service", "ray-head", "ray-worker", "triton")},
    "init": "init-1",
}
"""Part of the compose file, and how it is called in the chart."""
LOGINS = ("DATABASE_PASSWORD", "SERVICE_DATABASE_PASSWORD", "AIRFLOW_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD")
PUT_TOGETHER = {*LOGINS, "BROKER_PASSWORD", "POSTGRES_PASSWORD"}
"""Variables that a pod has because Kubernetes puts them into the values of others; compose does that itself."""


class NoDuplicates(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)


def render(values: dict[str, Any] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the chart makes of values, by kind and name."""
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render(values or {}, name="search", namespace="prod")
    made: dict[tuple[str, str], dict[str, Any]] = {}
    for file, text in files.items():
        if file.endswith(".yaml"):
            for document in yaml.load_all(text, NoDuplicates):
                if document:
                    key = document["kind"], document["metadata"]["name"].removeprefix(f"{NAME}-")
                    assert key not in made
                    made[key] = document
    return made


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], dict[str, Any]]:
    return render(EVERYTHING)


def pods(made: dict[tuple[str, str], dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for (kind, name), document in made.items():
        if kind in {"Deployment", "StatefulSet", "Job"}:
            yield name, document["spec"]["template"]["spec"]
        elif kind == "CronJob":
            yield name, document["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def container(made: dict[tuple[str, str], dict[str, Any]], part: str) -> dict[str, Any]:
    [found] = dict(pods(made))[part]["containers"]
    return dict(found)


def variables(of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    names = [each["name"] for each in of.get("env", [])]
    assert len(names) == len(set(names)), names
    return {each["name"]: each for each in of.get("env", [])}


@pytest.mark.parametrize("values", [{}, EVERYTHING, OWN_SERVERS], ids=["defaults", "everything", "own servers"])
@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_what_it_renders_is_what_kubernetes_takes(values: dict[str, Any], version: str) -> None:
    made = render(values)
    assert len(made) > 15
    for document in made.values():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_are_really_asked(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    wrong = everything["Deployment", "mlflow"] | {"speck": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_helm_s_own_linter_finds_nothing_wrong() -> None:
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    assert [message for message in found["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize(
    "values",
    [
        {"sevice": {"replicas": 2}},
        {"service": {"replicas": "two"}},
        {"keepReleases": 1},
        {"volumes": {"models": "lots"}},
    ],
)
def test_values_that_mean_nothing_are_refused(values: dict[str, Any]) -> None:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(chart.merge_values({}))
        with pytest.raises(helm.HelmError):
            chart.validate_schema(chart.merge_values(values))


def test_a_server_of_one_s_own_has_to_be_named() -> None:
    with pytest.raises(helm.HelmError, match=r"postgres\.host: name your server"):
        render({"postgres": {"enabled": False}})


def test_keys_are_generated_or_given_and_never_written_out() -> None:
    first, second = (render()["Secret", "secrets"]["data"] for _ in range(2))
    required = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert set(first) == set(required)
    assert not set(first.values()) & set(second.values())
    assert len(set(first.values())) == len(first)
    own = render(OWN_SERVERS)
    assert not [kind for kind, _ in own if kind == "Secret"]
    for made, secret in ((render(EVERYTHING), f"{NAME}-secrets"), (own, "ours")):
        for name, pod in pods(made):
            for each in (*pod["containers"], *pod.get("initContainers", [])):
                for variable in variables(each).values():
                    if re.search(r"PASSWORD$|SECRET|_KEY$|TOKEN|^PGPASS|CLI_AUTH", variable["name"]):
                        reference = variable["valueFrom"]["secretKeyRef"]
                        assert (reference["name"], reference["key"] in required) == (secret, True), (name, variable)


def test_references_lead_somewhere(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    services = {name for kind, name in everything if kind == "Service"}
    claims = {f"{NAME}-{name}" for kind, name in everything if kind == "PersistentVolumeClaim"} | {"our-plugins"}
    for name, pod in pods(everything):
        volumes = {each["name"]: each for each in pod.get("volumes", [])}
        templates = everything.get(("StatefulSet", name), {"spec": {}})["spec"].get("volumeClaimTemplates", [])
        own = {each["metadata"]["name"] for each in templates}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims
        for each in (*pod["containers"], *pod.get("initContainers", [])):
            assert {mount["name"] for mount in each.get("volumeMounts", [])} <= set(volumes) | own, name
            known = set()
            for variable in each.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= known, "defined before it is used"
                known.add(variable["name"])
                for host in re.findall(rf"{NAME}-([a-z-]+)", variable.get("value", "")):
                    assert host in services, (name, variable)
    for (kind, name), document in everything.items():
        if kind == "Service":
            selector = document["spec"]["selector"]
            [labels] = [
                each["spec"]["template"]["metadata"]["labels"]
                for (_, other), each in everything.items()
                if other == name and "template" in each.get("spec", {})
            ]
            assert selector.items() <= labels.items()


@pytest.mark.parametrize("part", sorted(PARTS))
def test_each_part_is_that_of_the_compose_file(part: str, everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    ours, theirs = container(everything, PARTS[part]), COMPOSE[part]
    if part != "triton":
        assert set(variables(ours)) - PUT_TOGETHER == set(theirs["environment"]) - PUT_TOGETHER
    literal = re.compile(r"\$\{\w+:?-?([^}]*)\}")
    command = [literal.sub(r"\1", word).replace("$$", "$") for word in theirs["command"]]
    if part == "mlflow":  # addresses are those of the cluster
        command, made = (sorted(word.partition("=")[0] for word in words) for words in (command, ours["command"]))
        assert made == command
    else:
        assert [word.replace(f"{NAME}-", "") for word in ours["command"]] == command


def test_no_command_line_holds_a_secret(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Kubernetes puts `$(NAME)` of commands in place itself: `ps` shows it then."""
    for name, pod in pods(everything):
        for each in (*pod["containers"], *pod.get("initContainers", [])):
            written = " ".join([*each.get("command", []), *each.get("args", [])])
            assert "$(" not in written or name.startswith("airflow"), (name, written)
            assert not re.search(r"\$\(\w*(PASSWORD|SECRET|TOKEN|KEY|AUTH|CONN)", written), (name, written)


def test_nothing_runs_as_root_or_may_ask_the_cluster(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    for name, pod in pods(everything):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for each in (*pod["containers"], *pod.get("initContainers", [])):
            assert each["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert each["resources"]["limits"]["memory"] if each["name"] != "keys" else True
            assert not each["image"].endswith((":latest", ":"))


def test_images_are_those_of_the_compose_file() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for part, service in (("postgres", "postgres"), ("broker", "broker"), ("storage", "storage"), ("triton", "triton")):
        assert values[part]["image"] == COMPOSE[service]["image"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f"{values['image']['repository']}:{chart['appVersion']}" == COMPOSE["init"]["image"]


def test_the_backup_runs_the_script_that_is_tested(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    script = (ROOT / "deploy/helm/estudio/files/backup.sh").read_text()
    assert everything["ConfigMap", "backup"]["data"]["backup.sh"] == script


def test_keys_of_the_object_store_are_those_of_the_compose_file(
    everything: dict[tuple[str, str], dict[str, Any]],
) -> None:
    [keys] = dict(pods(everything))["storage"]["initContainers"]
    there = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["configs"]["storage-keys"]["content"]
    here = re.search(r"<<EOF\n(.*)EOF", keys["args"][0], re.DOTALL)
    assert here is not None
    plain = (re.sub(r"\$\{?(\w+)[^}\"]*\}?\"", r'\1"', text) for text in (there, here[1]))
    first, second = (yaml.safe_load(text) for text in plain)
    assert first == second
    assert len(first["identities"]) == 3
