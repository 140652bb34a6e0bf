"""DAGs as Airflow sees them, built in a process of its own over a plugins folder of many plugins."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from estudio_core.airflow_check import airflow_check
from estudio_core.local.airflow_home import POOLS
from estudio_core.plugin.registry import PluginManager

PROJECT = Path(__file__).parents[2]

PLUGIN = """
from estudio_core import DagSettings, FineTuneParams, PostgresItems, create_text_plugin

plugin = create_text_plugin(
    "{name}",
    items=PostgresItems(table="t", text="body", url="postgresql://reader:secret@127.0.0.1:1/shop"),
    model="/no/such/model",
    dag=DagSettings(schedule="30 2 * * *", sync_schedule="*/15 * * * *", shards=3, retries=1),
    fine_tune=FineTuneParams(min_sessions=10, margin=0.2),
)
"""
STUB = """'''Airflow DAGs of the search plugin.'''
from estudio_core.dag_factory import build_dags

globals().update(build_dags("{name}"))
"""

INSPECT = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
before = time.process_time()
bag = DagBag(dag_folder=sys.argv[1])
parse_s = time.process_time() - before
heavy = "torch lightning transformers sentence_transformers ray mlflow onnx onnxruntime pandas pyarrow tritonclient"
dags = {}
for dag_id, dag in sorted(bag.dags.items()):
    dags[dag_id] = {
        "tasks": {t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks},
        "timeouts": [t.task_id for t in dag.tasks if t.execution_timeout is None],
        "pools": sorted({t.pool for t in dag.tasks}),
        "retries": {t.task_id: t.retries for t in dag.tasks},
        "retry_delays_s": sorted({t.retry_delay.total_seconds() for t in dag.tasks}),
        "retry_policies": sorted({type(t.retry_policy).__name__ for t in dag.tasks}),
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "tags": sorted(dag.tags),
        "owner": dag.owner,
        "doc": dag.doc_md,
        "links": {t.task_id: sorted(link.name for link in t.operator_extra_links) for t in dag.tasks},
        "told": {w: len(getattr(dag, f"on_{w}_callback") or ()) for w in ("failure", "success")},
        "outlets": sorted({o.uri for t in dag.tasks for o in t.outlets}),
        "inlets": {t.task_id: sorted(i.uri for i in t.inlets) for t in dag.tasks if t.inlets},
        "urgent": sorted(t.task_id for t in dag.tasks if t.weight_rule == "absolute" and t.priority_weight > 500),
        "schedule": str(dag.schedule),
        "params": {name: dag.params.get_param(name).schema | {"default": dag.params[name]} for name in dag.params},
        "serialized": DagSerialization.serialize_dag(dag) if len(bag.dags) < 100 else None,
    }
print("RESULT " + json.dumps({
    "dags": dags,
    "errors": bag.import_errors,
    "heavy": [m for m in heavy.split() if m in sys.modules],
    "connected": "psycopg" in sys.modules,
    "parse_s": parse_s,
}, default=str, sort_keys=True))
"""


KINDS = ["experiment", "fine_tune", "improve", "initialize", "release", "rollback", "sync", "watch"]
DAGS = [f"shop__{kind}" for kind in KINDS]


def folders(tmp_path: Path, names: list[str]) -> dict[str, str]:
    for folder in ("plugins", "dags", "airflow"):
        (tmp_path / folder).mkdir(exist_ok=True)
    for name in names:
        (tmp_path / "plugins" / f"{name}.py").write_text(PLUGIN.format(name=name))
        (tmp_path / "dags" / f"{name}.py").write_text(STUB.format(name=name))
    return {
        **os.environ,
        "ESTUDIO_PLUGINS_PATH": str(tmp_path / "plugins"),
        "ESTUDIO_HOME": str(tmp_path / "home"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL": "error",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow' / 'airflow.db'}",
    }


def parse(tmp_path: Path, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, str(tmp_path / "dags")],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-5000:]
    result: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return result


@pytest.fixture(scope="module")
def one_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one plugin, its DAGs and an Airflow."""
    return tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def parsed(one_plugin: Path) -> dict[str, Any]:
    return parse(one_plugin, folders(one_plugin, ["shop"]) | {"PYTHONHASHSEED": "1"})


def test_a_plugin_becomes_its_dags(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert sorted(parsed["dags"]) == DAGS


def test_tasks_follow_each_other_as_documented(parsed: dict[str, Any]) -> None:
    fine_tune = parsed["dags"]["shop__fine_tune"]["tasks"]
    assert fine_tune["extract"] == ["preprocess"]
    assert fine_tune["preprocess"] == ["train"]
    assert fine_tune["train"] == ["evaluate"]
    assert fine_tune["evaluate"] == ["register"]
    assert "decide" in fine_tune["register"]
    assert fine_tune["decide"] == ["approve", "compare", "keep_champion", "request_release"]
    assert fine_tune["approve"] == ["refuse", "request_release"]
    assert fine_tune["request_release"] == ["release"]
    release = parsed["dags"]["shop__release"]["tasks"]
    steps = ["publish_model", "start_collection", "embed_shard", "build_index", "verify", "switch", "clean_up"]
    for step, following in itertools.pairwise(steps):
        assert following in release[step]
        assert "put_back" in release[step]
    assert "verify" in release["start_collection"]  # over the live collection nothing is embedded or indexed
    assert release["clean_up"] == []  # a leaf, so that a run fails in which put_back did its work
    experiment = parsed["dags"]["shop__experiment"]["tasks"]
    ends = ["start_experiment", "conclude_experiment", "went_live"]
    for step, following in itertools.pairwise(["check_experiment", *steps[:5], *ends]):
        assert following in experiment[step]
    assert "switch" not in experiment
    initialize = parsed["dags"]["shop__initialize"]["tasks"]
    for step, following in itertools.pairwise(["pair_catalog", "pretrain", "judge", "register_base_model", steps[0]]):
        assert following in initialize[step]
    assert initialize["check_source"] == ["pair_catalog", "register_base_model"]  # which goes on where the rest rests


def test_parsing_imports_nothing_heavy_and_opens_no_connection(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []
    assert parsed["connected"] is False


def test_every_dag_is_bounded_tagged_documented_and_uses_existing_pools(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        assert dag["max_active_runs"] == 1
        assert dag["catchup"] is False
        assert {"estudio", "shop"} <= set(dag["tags"])
        assert dag["owner"] == "estudio"
        assert dag["doc"]
        assert set(dag["pools"]) <= {*POOLS, "default_pool"}
        assert dag["timeouts"] == []


def test_every_task_is_tried_again_also_those_that_carry_a_decision_on(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        assert set(dag["retries"].values()) == {1}
        assert dag["retry_delays_s"] == [10]
        assert dag["retry_policies"] == ["ExceptionRetryPolicy"]
    assert {"approve", "release"} <= set(parsed["dags"]["shop__fine_tune"]["retries"])
    assert "start_training" in parsed["dags"]["shop__watch"]["retries"]


def test_what_decides_what_is_served_goes_before_what_takes_long(parsed: dict[str, Any]) -> None:
    urgent = {kind: parsed["dags"][f"shop__{kind}"]["urgent"] for kind in KINDS}
    assert urgent.pop("rollback") == ["rollback"]
    assert urgent.pop("release") == ["put_back", "take_up"]
    assert urgent.pop("initialize") == ["put_back"]
    assert not any(urgent.values())


def test_schedules_are_the_plugin_s_and_a_release_starts_when_an_alias_is_moved(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["shop__fine_tune"]["schedule"] == "30 2 * * *"
    assert parsed["dags"]["shop__sync"]["schedule"] == "*/15 * * * *"
    assert "x-estudio://shop/alias" in parsed["dags"]["shop__release"]["schedule"]
    assert parsed["dags"]["shop__rollback"]["schedule"] == "None"


def test_the_form_comes_from_the_typed_parameters_of_the_plugin(parsed: dict[str, Any]) -> None:
    form = parsed["dags"]["shop__fine_tune"]["params"]
    assert form["min_sessions"]["default"] == 10
    # Shown empty, so that what a person writes there goes before a preset; the plugin's value is told.
    assert form["margin"]["default"] is None
    assert "Empty: 0.2." in form["margin"]["description_md"]
    assert "Empty: 1, where no preset and no plugin says otherwise." in form["trials"]["description_md"]
    assert form["margin"]["maximum"] == 2
    assert form["num_epochs"]["default"] is None
    assert "null" in form["num_epochs"]["type"]
    assert form["promotion"]["enum"] == ["auto", "manual", "approval", "experiment"]
    assert (form["train"]["default"], form["train"]["enum"]) == (None, ["both", "query", None])
    assert all(field["title"] for field in form.values())
    assert form["preset"]["enum"] == ["plugin", "quick", "thorough"]
    assert {field.get("section") for field in form.values()} == {None, "Sessions", "Training", "Decision"}
    pretraining = parsed["dags"]["shop__initialize"]["params"]["pretrain"]
    assert (pretraining["default"], pretraining["enum"]) == ("off", ["off", "catalog"])
    for kind in ("initialize", "release"):
        kept = parsed["dags"][f"shop__{kind}"]["params"]["keep_releases"]
        assert (kept["minimum"], kept["default"]) == (2, None)
    assert parsed["dags"]["shop__rollback"]["params"]["target"]["default"] == "previous"
    assert parsed["dags"]["shop__sync"]["params"]["most_deleted_share"]["maximum"] == 1


def test_tasks_link_to_what_they_made(parsed: dict[str, Any]) -> None:
    fine_tune = parsed["dags"]["shop__fine_tune"]["links"]
    assert fine_tune["train"] == ["MLflow run"]
    assert fine_tune["evaluate"] == ["MLflow run", "Report"]
    assert fine_tune["register"] == ["Report"]
    assert parsed["dags"]["shop__improve"]["links"]["adjust"] == ["Report"]
    asked = json.dumps(parsed["dags"]["shop__fine_tune"]["serialized"])
    assert "[Report](/estudio/plugins/shop/report?run_id={{ run_id | urlencode }})" in asked
    for kind in ("initialize", "release"):
        assert parsed["dags"][f"shop__{kind}"]["links"]["publish_model"] == ["Triton model"]
        assert parsed["dags"][f"shop__{kind}"]["links"]["switch"] == ["Estudio"]
    assert parsed["dags"]["shop__watch"]["links"]["measure"] == ["Estudio"]
    tasks = parsed["dags"]["shop__fine_tune"]["serialized"]["tasks"]
    [train] = [task["__var"] for task in tasks if task["__var"]["task_id"] == "train"]
    assert list(train["_operator_extra_links"]) == ["MLflow run"]  # what the API server reads


def test_watching_is_scheduled_and_its_form_has_the_plugin_s_thresholds(parsed: dict[str, Any]) -> None:
    watch = parsed["dags"]["shop__watch"]
    assert watch["schedule"] == "@daily"
    assert watch["tasks"]["react"] == ["notify", "rest", "start_training"]
    assert watch["params"]["on_drift"]["default"] == "notify"
    assert watch["params"]["new_queries"]["maximum"] == 1
    assert {field.get("section") for field in watch["params"].values()} == {None, "Sessions", "Drift"}


def test_assets_join_the_dags_and_the_text_above_a_graph_comes_from_the_plugin(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["shop__fine_tune"]["outlets"] == ["x-estudio://shop/dataset", "x-estudio://shop/model"]
    for kind in ("experiment", "initialize", "release", "rollback"):
        assert parsed["dags"][f"shop__{kind}"]["outlets"] == ["x-estudio://shop/release"]
    assert {kind: parsed["dags"][f"shop__{kind}"]["inlets"] for kind in KINDS} == {
        "experiment": {"publish_model": ["x-estudio://shop/model"]},
        "fine_tune": {"train": ["x-estudio://shop/dataset"]},
        "improve": {"adjust": ["x-estudio://shop/release"]},
        "initialize": {"publish_model": ["x-estudio://shop/model"]},
        "release": {"publish_model": ["x-estudio://shop/model"]},
        "rollback": {},
        "sync": {"sync": ["x-estudio://shop/release"]},
        "watch": {"measure": ["x-estudio://shop/release"]},
    }
    doc = parsed["dags"]["shop__fine_tune"]["doc"]
    for told in (
        "| Fine-tuning | 30 2 * * * |",
        "| Shards of an index | 3 or more, of 250,000 items at most |",
        "`shop.py`",
        "(/plugin/estudio)",
    ):
        assert told in doc


TOLD = """
    watch_schedule="@hourly",
    watch={"on_drift": "train", "query_shift": 0.5},
    on_failure=(
        {"call": "airflow.providers.smtp.notifications.smtp.SmtpNotifier", "arguments": {"to": "a@example.org"}},
    ),
    on_drift=({"call": "estudio_core.dag_factory.notices.log_late"},),
    deadline_minutes={"fine_tune": 480},
"""


def test_fine_tuning_may_wait_for_new_sessions_and_improvement_for_a_clock(tmp_path: Path) -> None:
    environment = folders(tmp_path, ["shop"])
    plugin = tmp_path / "plugins" / "shop.py"
    plugin.write_text(plugin.read_text().replace("model=", 'pretrain="catalog", model='))
    schedules = f'schedule="every 500 new sessions", improve_schedule="@daily", {TOLD.strip().rstrip(",")}'
    plugin.write_text(plugin.read_text().replace('schedule="30 2 * * *"', schedules))
    result = parse(tmp_path, environment)
    assert result["errors"] == {}
    serialized = json.dumps(result["dags"]["shop__fine_tune"]["serialized"])
    assert "x-estudio://shop/sessions" in serialized
    assert "SessionsTrigger" in serialized
    tasks = [task["__var"] for task in result["dags"]["shop__fine_tune"]["serialized"]["tasks"]]
    [extract] = [task for task in tasks if task["task_id"] == "extract"]
    assert extract["op_args"] == ["shop", 500]
    assert result["dags"]["shop__improve"]["schedule"] == "@daily"
    assert result["dags"]["shop__initialize"]["params"]["pretrain"]["default"] == "catalog"
    assert "connected" in result
    assert result["connected"] is False
    assert result["dags"]["shop__watch"]["schedule"] == "@hourly"
    assert result["dags"]["shop__watch"]["params"]["query_shift"]["default"] == 0.5
    for dag in result["dags"].values():
        assert dag["told"] == {"failure": 1, "success": 0}
    assert "DagRunQueuedAtDeadline" in serialized
    assert "estudio_core.dag_factory.notices.log_late" in serialized  # whom nobody is named is not told, but logged
    assert "DagRunQueuedAtDeadline" not in json.dumps(result["dags"]["shop__release"]["serialized"])

    text = plugin.read_text()
    plugin.write_text(text.replace("notices.log_late", "notices.log_lat"))
    [message] = parse(tmp_path, environment)["errors"].values()
    assert "nobody to tell at 'estudio_core.dag_factory.notices.log_lat'" in message

    plugin.write_text(text.replace("every 500 new sessions", "every full moon"))
    [message] = parse(tmp_path, environment)["errors"].values()
    assert "'every full moon' is no schedule" in message


def test_serialising_twice_in_two_processes_gives_the_same(one_plugin: Path, parsed: dict[str, Any]) -> None:
    second = parse(one_plugin, folders(one_plugin, ["shop"]) | {"PYTHONHASHSEED": "2"})
    for dag_id, dag in parsed["dags"].items():
        assert dag["serialized"] == second["dags"][dag_id]["serialized"]


def test_one_broken_plugin_is_one_import_error_and_no_more(tmp_path: Path) -> None:
    environment = folders(tmp_path, ["books", "shop"])
    (tmp_path / "plugins" / "books.py").write_text("def broken(:\n")
    result = parse(tmp_path, environment)
    assert sorted(result["dags"]) == DAGS
    assert len(result["errors"]) == 1
    [(file, message)] = result["errors"].items()
    assert file.endswith("books.py")
    assert "books.py, line 1" in message


@pytest.mark.usefixtures("parsed")  # modules are compiled
def test_a_hundred_plugins_are_parsed_quickly(tmp_path: Path) -> None:
    result = parse(tmp_path, folders(tmp_path, [f"shop_{number}" for number in range(100)]))
    assert len(result["dags"]) == 800
    assert result["heavy"] == []
    # Processor time: others on the machine do not count. Airflow gives one file 30 s; this is 0.3 s for each.
    assert result["parse_s"] < 30, result["parse_s"]


def test_what_keeps_dags_out_of_airflow_is_told_when_the_plugin_is_validated(tmp_path: Path) -> None:
    folders(tmp_path, ["shop"])
    manager = PluginManager(tmp_path / "plugins", used=[])
    [check] = airflow_check(manager, "shop")
    assert (check.what, check.passed, check.detail) == ("Airflow", True, "8 DAGs")
    plugin = tmp_path / "plugins" / "shop.py"
    plugin.write_text(plugin.read_text().replace("retries=1", "retries=1, on_drift=({'call': 'no.such'},)"))
    [check] = airflow_check(manager, "shop")
    assert not check.passed
    assert "There is nobody to tell at 'no.such': No module named 'no'" in check.detail
    assert list(airflow_check(manager, "shopp")) == []
