"""What importing loads: light packages stay light, whatever module is imported first."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import estudio_core

HEAVY = (
    *("torch", "lightning", "transformers", "sentence_transformers", "ray", "mlflow", "onnx", "onnxruntime"),
    *("pandas", "pyarrow", "tritonclient"),
)
"""Parsing a DAG imports none of these."""

ABOUT_HEAVY_PACKAGES = ("estudio_core.models", "estudio_core.experiments.ray_callback")
"""These subclass what the heavy packages give; others import them inside functions only."""

AIRFLOW_SIDE = ("estudio_core.airflow_ui", "estudio_core.dag_factory", "estudio_core.local.airflow_setup")
"""Only these may import Airflow."""

COUNT_IMPORTS = """
import importlib, json, sys
found = {}
for name in sys.argv[2:]:
    before = set(sys.modules)
    importlib.import_module(name)
    loaded = sorted((set(sys.modules) - before) & set(sys.argv[1].split(",")))
    if loaded:
        found[name] = loaded
print(json.dumps(found))
"""


def modules() -> list[str]:
    return sorted(module.name for module in pkgutil.walk_packages(estudio_core.__path__, "estudio_core."))


def loaded_by(names: list[str], unwanted: tuple[str, ...]) -> dict[str, list[str]]:
    """Import `names` one after the other in a new process; return which of `unwanted` each brought along."""
    command = [sys.executable, "-c", COUNT_IMPORTS, ",".join(unwanted), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_light_module_loads_a_heavy_package_and_airflow_is_loaded_by_its_own_side_only() -> None:
    light = [name for name in modules() if not name.startswith(ABOUT_HEAVY_PACKAGES)]
    assert "estudio_core.plugin.factory" in light
    without_airflow = [name for name in light if not name.startswith(AIRFLOW_SIDE)]
    with_airflow = [name for name in light if name.startswith(AIRFLOW_SIDE)]
    assert loaded_by(["estudio_core", *without_airflow], (*HEAVY, "airflow", "alembic")) == {}
    assert loaded_by(with_airflow, HEAVY) == {}


def test_a_heavy_import_would_be_seen() -> None:
    assert "pyarrow" in loaded_by(["json", "pyarrow"], HEAVY)["pyarrow"]


def test_importing_the_library_is_quick_and_quiet() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import estudio_core"], capture_output=True, text=True, check=True
    )
    total = next(line for line in reversed(done.stderr.splitlines()) if line.endswith("| estudio_core"))
    microseconds = int(total.split("|")[1])
    assert done.stdout == ""
    assert microseconds < 2_000_000


def test_search_plugins_shadow_no_module() -> None:
    root = Path(estudio_core.__file__).parents[1]
    assert not (root / "plugins" / "__init__.py").exists()
    assert not (root / "dags" / "__init__.py").exists()
