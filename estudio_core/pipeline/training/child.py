"""Starts the process that trains, hands its progress on, and ends it with everything that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from estudio_core.errors import DataError, ModelError
from estudio_core.progress import report

_STOP_GRACE_S = 10


def run_process(request: dict[str, Any], threads: int | None) -> dict[str, Any]:
    """Run `process` on `request`, pass its progress on, and return its result.

    A fresh interpreter does the work, because a forked one cannot use CUDA; it ends when this process ends.

    Raises:
        ModelError: training failed; the message is that of the process.
        DataError: what it was to train on cannot be used.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    environment["TOKENIZERS_PARALLELISM"] = "false"
    process = subprocess.Popen(
        [sys.executable, "-m", "estudio_core.pipeline.training.process", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr if _is_file(sys.stderr) else None,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    result: dict[str, Any] | None = None
    failure: dict[str, str] | None = None
    try:
        json.dump(request, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            message = _message(line)
            if message is None:
                print(line, end="", flush=True)
            elif message["kind"] == "progress":
                report(**message["progress"])
            elif message["kind"] == "result":
                result = message["result"]
            else:
                failure = message
        process.wait()
    finally:
        _stop(process)
    if failure is not None:
        kind = DataError if failure["error"] == "DataError" else ModelError
        raise kind(f"Training failed: {failure['message']}")
    if result is None:
        raise ModelError(
            f"The training process ended with status {process.returncode} and no result. "
            + ("It was killed, often for want of memory: lower the batch size. " if process.returncode < 0 else "")
            + "Its output is in this task's log."
        )
    return result


def _message(line: str) -> dict[str, Any] | None:
    """Return the message in a line of the process, None for other output."""
    if not line.startswith("\x1e"):
        return None
    message: dict[str, Any] = json.loads(line[1:])
    return message


def _stop(process: subprocess.Popen[str]) -> None:
    """End the process and everything it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_file(stream: Any) -> bool:
    """Airflow replaces stderr in tasks by an object without a file descriptor."""
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
