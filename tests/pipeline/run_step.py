"""Run one step in a process of its own, and kill it after some seconds if it has not ended.

Usage: `python -m tests.pipeline.run_step MODULE:FUNCTION '[arguments]' SECONDS`; SECONDS 0 lets it end.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time


def main() -> None:
    name, arguments, seconds = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    module, function = name.split(":")
    step = getattr(importlib.import_module(module), function)
    if seconds:
        threading.Thread(target=_kill_after, args=(seconds,), daemon=True).start()
    began = time.monotonic()
    result = step(*arguments)
    plain = [part.as_dict() for part in result] if isinstance(result, list) else result
    if hasattr(plain, "as_dict"):
        plain = plain.as_dict()
    print("RESULT " + json.dumps({"result": plain, "seconds": time.monotonic() - began}), flush=True)
    os._exit(0)


def _kill_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
