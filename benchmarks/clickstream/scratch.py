"""The benchmark's own installation, kept under `.estudio/`, so that a long benchmark goes on where it was stopped."""

from __future__ import annotations

import os
from pathlib import Path

from estudio_core.settings import get_settings

FOLDER = Path(".estudio") / "bench-clickstream"


def use_scratch_installation() -> None:
    """Point this process at the benchmark's installation; a database that the environment names is kept."""
    os.environ["ESTUDIO_HOME"] = str(FOLDER.resolve())
    os.environ["ESTUDIO_TRITON_REPOSITORY"] = str((FOLDER / "triton_repo").resolve())
    os.environ["ESTUDIO_PLUGINS_PATH"] = str(Path(__file__).parent / "plugins")
    os.environ.pop("ESTUDIO_MLFLOW_TRACKING_URI", None)
    (FOLDER / "triton_repo").mkdir(parents=True, exist_ok=True)
    get_settings.cache_clear()
