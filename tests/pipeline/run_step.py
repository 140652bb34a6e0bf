"""One step in a process of its own, which may be killed (SIGKILL) before the step has ended, or halted at a function.

The process is forked from one that has loaded the large packages: importing them takes a fresh process several seconds,
and a kill is to meet the step at work.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        *(
            "estudio_core.experiments.manager",
            "estudio_core.export.triton_repository",
            "estudio_core.models.embedding_model",
        ),
        *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "onnx", "onnxruntime", "pyarrow.parquet"),
    ]
)


@dataclass(frozen=True)
class Halt:
    """Where a step waits to be killed or told to go on: before or after a call of a function.

    Attributes:
        function: `module:name` or `module:Class.name`, looked up there when it is called.
        when: Before the call, or after it has returned.
        call: Which call of it, from 1.
    """

    function: str
    when: Literal["before", "after"] = "before"
    call: int = 1


class StepError(AssertionError):
    """A step has raised; `kinds` are the names of the exception's class and its bases."""

    def __init__(self, text: str, kinds: list[str]) -> None:
        super().__init__(text)
        self.kinds = kinds


class RunningStep:
    """A step of `estudio_core.pipeline` at work, with this process's environment.

    Inside a `with` block; the process is killed at its end, unless it has ended before.
    """

    def __init__(self, step: str, *arguments: Any, halt: Halt | None = None) -> None:
        self._step = step
        self._answer: dict[str, Any] | None = None
        self._answers, other = _FORKED.Pipe()
        self._process = _FORKED.Process(target=_work, args=(other, step, arguments, dict(os.environ), halt))
        self._process.start()
        other.close()

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

    def halts_within(self, seconds: float) -> bool:
        """Wait for the step to halt, or to end without having halted, at most `seconds`; return whether it halted."""
        assert self._answers.poll(seconds), f"{self._step} has neither halted nor ended after {seconds} s"
        answer = self._answers.recv()
        if "halted" in answer:
            return True
        self._answer = answer
        return False

    def go_on(self) -> None:
        """Let a halted step go on."""
        self._answers.send("go on")

    def result(self, timeout_s: float = 300) -> Any:
        """Return the step's manifest, or its list of them, as plain values.

        Raises:
            StepError: it has raised, or it did not end in time.
        """
        answer = self._answer
        if answer is None:
            if not self.ends_within(timeout_s):
                raise StepError(f"{self._step} has not ended after {timeout_s} s", [])
            answer = self._answers.recv()
        if "error" in answer:
            raise StepError(answer["error"], answer["kinds"])
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


def _work(
    answers: Connection, step: str, arguments: tuple[Any, ...], environment: dict[str, str], halt: Halt | None
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        if halt is not None:
            _install(halt, answers)
        made = getattr(importlib.import_module(f"estudio_core.pipeline.{step}"), step)(*arguments)
        answers.send({"result": [part.as_dict() for part in made] if isinstance(made, list) else _plain(made)})
    except BaseException as error:
        answers.send({"error": traceback.format_exc(), "kinds": [kind.__name__ for kind in type(error).__mro__]})


def _install(halt: Halt, answers: Connection) -> None:
    module, _, path = halt.function.partition(":")
    *parents, name = path.split(".")
    owner = functools.reduce(getattr, parents, importlib.import_module(module))
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wait() -> None:
        answers.send({"halted": halt.function})
        answers.recv()

    @functools.wraps(original)
    def halting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        due = calls == halt.call
        if due and halt.when == "before":
            wait()
        made = original(*args, **kwargs)
        if due and halt.when == "after":
            wait()
        return made

    setattr(owner, name, halting)


def _plain(made: Any) -> Any:
    return made.as_dict() if hasattr(made, "as_dict") else made
