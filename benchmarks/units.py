"""Results of finished measurements, one file each: what is stored is not measured again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from estudio_core.experiments.iteration import code_tags

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class UnitStore:
    """The units of one benchmark, under `results/<benchmark>/`."""

    benchmark: str

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return RESULTS / self.benchmark

    def read(self, key: str) -> dict[str, Any] | None:
        """Return a stored result; None where it has not been measured."""
        path = self._path(key)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def measured(self, key: str, measure: Callable[[], dict[str, Any]], *, fresh: bool = False) -> dict[str, Any]:
        """Return the stored result of `key`, or measure and store it, with the machine and the code it came from.

        With `fresh` it is measured in any case.
        """
        stored = None if fresh else self.read(key)
        if stored is not None:
            return stored
        code = code_tags().get("mlflow.source.git.commit", "")[:12]
        result = {**measure(), "machine": describe(), "code": code}
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".staged")
        staged.write_text(_lines(result), encoding="utf-8")
        staged.replace(path)
        return result

    def _path(self, key: str) -> Path:
        return self.folder / "units" / f"{key}.json"


def _lines(result: dict[str, Any]) -> str:
    """Return JSON with a line for each key: thousands of values are nothing to be read one below the other."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in sorted(result.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"
