"""Questions to the Airflow of an environment, each answered by a module that runs in a process of its own.

Importing Airflow takes seconds, and its configuration is read from the environment once: commands and servers ask.
"""

from __future__ import annotations

import subprocess
import sys

from estudio_core.errors import UnavailableError

_TIMEOUT_S = 180
_MARK = "\x1e"
"""Stands before and after an answer: whatever Airflow prints beside it is left out."""


def ask(module: str, question: str, environment: dict[str, str], advice: str) -> str:
    """Return what a module answers with the variables `environment`, and no others.

    Args:
        module: Its name; run with `question` as its argument, it calls `answer`.
        question: What it is asked.
        environment: All variables of the process.
        advice: What to do where nothing is answered.

    Raises:
        UnavailableError: Airflow cannot be asked.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, question],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        return done.stdout.split(_MARK)[1]
    except (subprocess.SubprocessError, IndexError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise UnavailableError(f"Airflow cannot be asked: {said[-1] if said else error}. {advice}") from error


def answer(text: str) -> None:
    """Give the answer, in the process that was asked."""
    sys.stdout.write(_MARK + text + _MARK)
