from __future__ import annotations

import subprocess
import sys

from estudio_core.context import Context


def test_parts_are_made_once_and_again_after_a_reset() -> None:
    context = Context()
    assert context.mlflow_client is context.mlflow_client
    assert context.model_downloader is context.model_downloader
    assert context.plugin_manager is context.plugin_manager
    before = context.mlflow_client
    context.reset()
    assert context.mlflow_client is not before


def test_making_the_light_parts_loads_nothing_heavy() -> None:
    code = (
        "import sys; from estudio_core.context import context; "
        "context.mlflow_client, context.model_downloader, context.plugin_manager; "
        "print(sorted({'torch', 'mlflow', 'ray', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
