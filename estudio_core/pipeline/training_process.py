"""The process that trains: `python -m estudio_core.pipeline.training_process PARENT_PID`, a request on stdin.

It answers on stdout with lines that begin with the record separator: progress, then one result or failure.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Train as the request says; return the exit status."""
    _die_with(int(sys.argv[1]))
    request = json.load(sys.stdin)
    from estudio_core.errors import DataError
    from estudio_core.progress import Progress, progress_to

    def show(progress: Progress) -> None:
        _say({"kind": "progress", "progress": vars(progress)})

    try:
        with progress_to(show):
            result = run_training(request)
    except Exception as error:
        traceback.print_exc()
        kind = "DataError" if isinstance(error, DataError) else type(error).__name__
        _say({"kind": "failure", "error": kind, "message": f"{type(error).__name__}: {error}"})
        return 1
    _say({"kind": "result", "result": result})
    return 0


def run_training(request: dict[str, Any]) -> dict[str, Any]:
    """Run the trials of a request, and leave the best model and its history in the output folder."""
    from estudio_core.experiments.iteration import Iteration
    from estudio_core.pipeline.plugin_access import open_plugin
    from estudio_core.pipeline.trials import run_trials
    from estudio_core.plugin.contract import FineTuneParams
    from estudio_core.preprocessing.prepare_data import prepared
    from estudio_core.preprocessing.ranking_data import RankingData

    data = RankingData.load(Path(request["dataset"]))
    plugin = open_plugin(request["plugin"])
    with prepared(data):
        builder = plugin.get_fine_tuning_builder([])
    params = FineTuneParams.model_validate(request["params"])
    iteration = Iteration(**request["iteration"])
    index = plugin.get_search_index_info()
    output = Path(request["output"])
    return run_trials(builder, index, data, Path(request["model"]), params, iteration, output)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, whatever ended the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the request to the kernel
            sys.exit(1)


def _say(message: dict[str, Any]) -> None:
    print("\x1e" + json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
