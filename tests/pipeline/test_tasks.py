"""`ls estudio_core/pipeline/*.py` is the list of the DAGs' tasks."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

from estudio_core import dag_factory, pipeline

MANIFESTS = "manifests"
"""What tasks hand to each other: the one module of the package that is no task."""
TASKS = sorted(
    module.name for module in pkgutil.iter_modules(pipeline.__path__) if not module.ispkg and module.name != MANIFESTS
)


def calls_of_dags() -> set[tuple[str, str, str]]:
    """Return the functions of the DAG factory that call the pipeline, with the module and the name that each calls."""
    return {
        (function.name, imported.module.removeprefix("estudio_core.pipeline."), called.name)
        for file in Path(dag_factory.__path__[0]).glob("*.py")
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for imported in ast.walk(function)
        if isinstance(imported, ast.ImportFrom) and (imported.module or "").startswith("estudio_core.pipeline.")
        for called in imported.names
    }


def test_each_module_is_called_by_the_task_of_its_name_and_no_task_calls_anything_else() -> None:
    assert calls_of_dags() == {(task, task, task) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_a_module_defines_one_public_function_and_no_public_class(task: str) -> None:
    module = importlib.import_module(f"estudio_core.pipeline.{task}")
    own = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == module.__name__]
    assert [thing.__name__ for thing in own if not thing.__name__.startswith("_")] == [task]
    assert inspect.isfunction(getattr(module, task))
