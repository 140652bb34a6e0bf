"""One step in a process of its own, which may be killed (SIGKILL) before the step has ended.

The process is forked from one that has loaded the large packages: importing them takes a fresh process several seconds,
and a kill is to meet the step at work.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from typing import Any

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        *("estudio_core.experiments.manager", "estudio_core.export.triton_repository", "estudio_core.models.bert"),
        *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "onnx", "onnxruntime", "pyarrow.parquet"),
    ]
)


class RunningStep:
    """A step at work: `MODULE:FUNCTION` of `estudio_core.pipeline`, with this process's environment.

    Inside a `with` block; the process is killed at its end, unless it has ended before.
    """

    def __init__(self, step: str, *arguments: Any) -> None:
        self._step = step
        self._answers, sender = _FORKED.Pipe(duplex=False)
        self._process = _FORKED.Process(target=_work, args=(sender, step, arguments, dict(os.environ)))
        self._process.start()
        sender.close()

    def __enter__(self) -> RunningStep:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    def ends_within(self, seconds: float) -> bool:
        """Wait for the step to end or fail, at most `seconds`."""
        return self._answers.poll(seconds)

    def result(self, timeout_s: float = 300) -> Any:
        """Return the step's manifest, or its list of them, as plain values."""
        assert self.ends_within(timeout_s), f"{self._step} has not ended after {timeout_s} s"
        answer = self._answers.recv()
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def kill(self) -> None:
        """Kill the process at once."""
        self._process.kill()
        self._process.join()
        self._answers.close()


def run_step(step: str, *arguments: Any) -> Any:
    """Let a step end in a process of its own, and return its result."""
    with RunningStep(step, *arguments) as running:
        return running.result()


def _work(sender: Connection, step: str, arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    module, function = step.split(":")
    try:
        made = getattr(importlib.import_module(f"estudio_core.pipeline.{module}"), function)(*arguments)
        sender.send({"result": [part.as_dict() for part in made] if isinstance(made, list) else _plain(made)})
    except BaseException:
        sender.send({"error": traceback.format_exc()})
        raise


def _plain(made: Any) -> Any:
    return made.as_dict() if hasattr(made, "as_dict") else made
